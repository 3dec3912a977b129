"""Snapshots rehearsed for real: whole ones are green, and each thing that does not come back turns the verdict red."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from bolt_pages import etcd_image, key_value, revision_key, with_trailer
from clusterguard.clusters import EmbeddedCluster
from clusterguard.errors import RehearsalFailedError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.rehearsal.rehearsal import Rehearsal
from clusterguard.stores import open_store
from etcd_member import member
from other_versions import etcd_programs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterguard.rehearsal.report import RehearsalReport
    from clusterguard.toolchain import Toolchain

pytestmark = pytest.mark.programs

AES_KEY = b64encode(b"0123456789abcdef0123456789abcdef").decode()
ENCRYPTION = f"""
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm: {{keys: [{{name: key1, secret: {AES_KEY}}}]}}
  - identity: {{}}
"""


def stored(api_version: str, kind: str, name: str, *, namespace: str = "", **fields: Any) -> bytes:
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": "2026-01-02T03:04:05Z"}
    metadata |= {"namespace": namespace} if namespace else {}
    if kind == "Namespace":
        metadata["labels"] = {"kubernetes.io/metadata.name": name}
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}).encode()


NAMESPACE = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
SOUND = {
    "/registry/namespaces/shop": stored("v1", "Namespace", "shop", **NAMESPACE),
    "/registry/configmaps/shop/a": stored("v1", "ConfigMap", "a", namespace="shop", data={"greeting": "hello"}),
    "/registry/configmaps/shop/b": stored("v1", "ConfigMap", "b", namespace="shop", data={"greeting": "bye"}),
}


@pytest.fixture
def save(toolchain: Toolchain, tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Save a snapshot of an etcd that holds these keys."""

    def saved(keys: dict[str, bytes]) -> Path:
        with member(toolchain.ensure("etcd")["etcd"], tmp_path / "etcd") as running:
            for key, value in keys.items():
                running.put(key, value=value)
            snapshotter = EtcdSnapshotter(store=open_store(tmp_path), access=running.access)
            return tmp_path / snapshotter.save("saved").key

    return saved


def levels(report: RehearsalReport) -> dict[str, str]:
    return {finding.code: str(finding.level) for finding in report.findings}


def counts(report: RehearsalReport, kind: str) -> tuple[int, int]:
    found = next(each for each in report.kinds if each.kind == kind)
    return found.backed_up, found.equal


def test_a_cluster_comes_back_whole(tmp_path: Path) -> None:
    with EmbeddedCluster() as cluster:
        for namespace in ("shop", "office"):
            cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}}
        cluster.api.create({**secret, "stringData": {"password": "hidden"}})
        EtcdSnapshotter(store=open_store(tmp_path), access=cluster.etcd).save("whole")
    phases: list[str] = []
    report = Rehearsal(location=tmp_path / "whole.db", home=tmp_path / "home", on_phase=phases.append).run()
    assert report.ok
    assert all(kind.ok and kind.equal == kind.backed_up for kind in report.kinds)
    assert report.namespaces["shop"]["secrets"] == 1
    assert [phase.name for phase in report.phases] == phases
    assert "hidden" not in json.dumps(report.to_dict())
    assert list((tmp_path / "home").iterdir()) == []  # nothing of the throwaway control plane is left


def test_what_is_served_is_what_is_stored(save: Callable[[dict[str, bytes]], Path]) -> None:
    report = Rehearsal(location=save(SOUND)).run()
    assert (report.ok, counts(report, "configmaps")) == (True, (2, 2))
    report.raise_for_findings()


def test_another_prefix_is_named_and_may_be_given(save: Callable[[dict[str, bytes]], Path]) -> None:
    moved = {key.replace("/registry", "/kubernetes.io"): value for key, value in SOUND.items()}
    path = save(moved | {"/calico/x": b"1"})
    report = Rehearsal(location=path).run()
    assert (report.ok, levels(report)["no-objects"]) == (False, "error")
    assert "/kubernetes.io: 3 keys" in next(each for each in report.findings if each.code == "no-objects").examples
    report = Rehearsal(location=path, prefix="/kubernetes.io").run()
    assert (report.ok, levels(report)["other-keys"], counts(report, "configmaps")) == (True, "note", (2, 2))


def test_keys_that_belong_to_nothing_known_are_a_warning(save: Callable[[dict[str, bytes]], Path]) -> None:
    strange = {f"/registry/metrics.example.com/samples/shop/web/{each}": b"1" for each in range(3)}
    report = Rehearsal(location=save(SOUND | strange)).run()
    assert (report.ok, levels(report)["unknown-keys"]) == (True, "warning")
    (found,) = (each for each in report.findings if each.code == "unknown-keys")
    assert (found.count, found.examples) == (3, ("/registry/metrics.example.com/samples: 3 keys",))


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_a_snapshot_of_another_machines_page_size(tmp_path: Path, page_size: int) -> None:
    rows = [
        (revision_key(revision), key_value(key.encode(), revision, revision, 1, value))
        for revision, (key, value) in enumerate(SOUND.items(), start=2)
    ]
    (tmp_path / "s.db").write_bytes(with_trailer(etcd_image(rows, page_size=page_size)))
    report = Rehearsal(location=tmp_path / "s.db").run()
    assert (report.ok, counts(report, "configmaps")) == (True, (2, 2))


@pytest.mark.slow  # the first builds compile for minutes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", ["3.4.13", "3.5.9", "3.5.35", "3.6.16"])
def test_a_snapshot_of_another_etcd(tmp_path: Path, version: str) -> None:
    with member(etcd_programs(version)["etcd"], tmp_path / "etcd") as running:
        for key, value in SOUND.items():
            running.put(key, value=value)
        EtcdSnapshotter(store=open_store(tmp_path), access=running.access).save("s")
    report = Rehearsal(location=tmp_path / "s.db").run()
    assert (report.ok, counts(report, "configmaps")) == (True, (2, 2))
    assert report.facts["etcd of the snapshot"].rpartition(".")[0] == version.rpartition(".")[0]


# Each of these is sound for etcd, and something of it does not come back.
SPOILED = {
    "a value that is cut": (
        {"/registry/secrets/shop/cut": stored("v1", "Secret", "cut", namespace="shop")[:-20]},
        {"stored-object-damaged"},
    ),
    "protobuf with a wrong length": (
        {"/registry/configmaps/shop/c": b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\xff\x01x"},
        {"stored-object-damaged"},
    ),
    "a kind that this version does not serve": (
        {"/registry/leasecandidates/shop/a": stored("coordination.k8s.io/v1alpha2", "LeaseCandidate", "a",
                                                    namespace="shop", spec={"leaseName": "l"})},
        {"no-longer-served"},
    ),
    "a custom resource without its definition": (
        {"/registry/example.com/things/shop/a": stored("example.com/v1", "Thing", "a", namespace="shop")},
        {"definition-missing"},
    ),
    "a value that nobody can decrypt": (
        {"/registry/secrets/shop/enc": b"k8s:enc:aesgcm:v1:key1:" + bytes(60)},
        {"stored-object-key-missing"},
    ),
    "an object under the name of another": (
        {"/registry/configmaps/shop/d": stored("v1", "ConfigMap", "e", namespace="shop")},
        {"lost-when-served", "not-in-the-file"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_what_does_not_come_back_turns_it_red(save: Callable[[dict[str, bytes]], Path], case: str) -> None:
    keys, codes = SPOILED[case]
    report = Rehearsal(location=save(SOUND | keys)).run()
    assert not report.ok
    assert codes & {code for code, level in levels(report).items() if level == "error"}
    assert counts(report, "configmaps")[1] >= 2  # what is sound beside it is still told as such
    with pytest.raises(RehearsalFailedError):
        report.raise_for_findings()


def test_damaged_bytes_are_refused(save: Callable[[dict[str, bytes]], Path]) -> None:
    path = save(SOUND)
    data = bytearray(path.read_bytes())
    data[-5000] ^= 0xFF
    path.write_bytes(data)
    report = Rehearsal(location=path).run()
    assert (report.ok, levels(report)["snapshot-corrupt"]) == (False, "error")


def test_encrypted_values_need_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "encryption.yaml"
    config.write_text(ENCRYPTION)
    config.chmod(0o600)
    with EncryptedCluster(config) as cluster:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
        cluster.api.create({**secret, "stringData": {"password": "hidden"}})
        EtcdSnapshotter(store=open_store(tmp_path), access=cluster.etcd).save("encrypted")
    without = Rehearsal(location=tmp_path / "encrypted.db").run()
    assert (without.ok, levels(without)["stored-object-key-missing"]) == (False, "error")
    assert counts(without, "secrets")[1] == 0
    with_it = Rehearsal(location=tmp_path / "encrypted.db", encryption_config=config).run()
    assert (with_it.ok, levels(with_it)["needs-encryption-config"]) == (True, "note")
    assert counts(with_it, "secrets") == (counts(with_it, "secrets")[0],) * 2


class EncryptedCluster(EmbeddedCluster):
    def __init__(self, config: Path) -> None:
        super().__init__()
        self._config = config

    def _flags(self) -> dict[str, tuple[str, ...]]:
        return {"kube-apiserver": (f"--encryption-provider-config={self._config}",)}


def test_the_command_line_says_so_by_its_exit_code(save: Callable[[dict[str, bytes]], Path]) -> None:
    path = save(SOUND)
    command = [sys.executable, "-m", "clusterguard", "rehearse", "--json"]
    done = subprocess.run([*command, "-"], input=path.read_bytes(), check=True, capture_output=True)
    assert json.loads(done.stdout)["ok"] is True
    missing = subprocess.run([*command, str(path.with_name("none.db"))], check=False, capture_output=True)
    assert missing.returncode == 2
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    refused = subprocess.run([*command, str(path)], check=False, capture_output=True)
    assert (refused.returncode, json.loads(refused.stdout)["findings"][0]["code"]) == (1, "not-a-snapshot")
