"""What has changed since a backup is told beside its verdict: against a live cluster, and against an inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.rehearsal.rehearsal import Rehearsal
from clusterguard.retrying import poll_until
from clusterguard.stores import open_store
from clusterguard.validate import RestoreValidator, save_inventory
from clusterguard.validate.validator import Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusterguard.rehearsal.changes import Changes

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": data}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    """Give a cluster, with a snapshot ``s.db`` and an ``inventory`` of what is in it."""
    with EmbeddedCluster(home=tmp_path / "home") as running:
        running.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        for name in ("a", "b"):
            running.api.create(config(name, key="before"))
        poll_until(lambda: unsettled(running), what="the namespaces are furnished", seconds=60)
        poll_until(lambda: changing(running), what="the controllers are done", seconds=120)
        EtcdSnapshotter(store=open_store(tmp_path), access=running.etcd).save("s")
        save_inventory(RestoreValidator(api=running.api).capture(), tmp_path / "inventory")
        yield running


def unsettled(cluster: EmbeddedCluster) -> str | None:
    """Return what the controllers have still to make in each namespace: it would look like a change."""
    wanted = {"ServiceAccount": "default", "ConfigMap": "kube-root-ca.crt"}
    namespaces = {each["metadata"]["name"] for each in cluster.api.list(cluster.api.resource("Namespace"))}
    for kind, name in wanted.items():
        found = cluster.api.list(cluster.api.resource(kind))
        there = {each["metadata"]["namespace"] for each in found if each["metadata"]["name"] == name}
        if namespaces - there:
            return f"{kind} {name} in {', '.join(namespaces - there)}"
    return None


def changing(cluster: EmbeddedCluster) -> str | None:
    """Return what changed within two seconds although nobody did anything."""
    validator = RestoreValidator(api=cluster.api)
    before = validator.capture()
    time.sleep(2)
    report = validator.validate(before, profile="same-cluster", tolerate=Tolerance(extra=0))
    return None if report.ok else report.to_text()


def change(cluster: EmbeddedCluster) -> None:
    configs = cluster.api.resource("ConfigMap")
    cluster.api.delete(configs, "a", "shop")
    cluster.api.patch(configs, "b", "shop", patch={"data": {"key": "after"}})
    cluster.api.create(config("c"))


def found(changes: Changes) -> dict[str, str]:
    assert changes.report is not None
    return {str(finding.ref): str(finding.kind) for finding in changes.report.findings}


def test_what_has_changed_since_has_a_section_and_no_say(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    held = RestoreValidator(api=cluster.api).capture()
    others = {"live": cluster.api, "inventory": held}
    same = Rehearsal(location=tmp_path / "s.db", compare=others).run()
    assert (same.ok, same.unchanged) == (True, True), same.to_text()
    change(cluster)
    later = RestoreValidator(api=cluster.api).capture()
    report = Rehearsal(location=tmp_path / "s.db", compare={"live": cluster.api, "inventory": later}).run()
    assert (report.ok, report.unchanged) == (True, False)
    live, inventory = report.changes
    assert (live.before, live.after) == ("the backup", "live")
    assert found(live) == {"ConfigMap shop/a": "missing", "ConfigMap shop/b": "changed", "ConfigMap shop/c": "extra"}
    assert (inventory.before, inventory.after) == ("inventory", "the backup")
    assert Counter(found(inventory).values()) == Counter(found(live).values())
    assert found(inventory)["ConfigMap shop/c"] == "missing"


def test_where_nobody_can_tell_is_not_unchanged(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"no snapshot" * 1000)
    refused = Rehearsal(location=tmp_path / "broken.db", compare={"live": cluster.api}).run()
    assert (refused.ok, refused.unchanged, refused.changes[0].report) == (False, False, None)
    api = cluster.api
    cluster.close()
    silent = Rehearsal(location=tmp_path / "s.db", compare={"live": api}).run()
    assert (silent.ok, silent.unchanged, silent.changes[0].report) == (True, False, None)
    assert silent.changes[0].error


def test_the_exit_code_tells_of_changes_where_that_is_asked_for(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clusterguard", "rehearse", str(tmp_path / "s.db"), "--json"]
    against = [f"--cluster=kubeconfig:{cluster.kubeconfig}", f"--compare={tmp_path / 'inventory'}"]

    def run(*options: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run([*command, *options], check=False, capture_output=True, env=os.environ)
        return done.returncode, json.loads(done.stdout or b"{}")

    code, report = run(*against, "--require-unchanged")
    assert code == 0, json.dumps(report["changes"])
    change(cluster)
    code, report = run(*against)
    assert (code, report["ok"]) == (0, True)
    assert {each["after"]: each["report"]["ok"] for each in report["changes"]} == {
        f"kubeconfig:{cluster.kubeconfig}": False,
        "the backup": True,
    }
    assert run(*against, "--require-unchanged")[0] == 1
    assert run("--require-unchanged")[0] == 2
