"""Write docs/reference/what-comes-back.md: what restores bring back of every kind, as seen with the real programs.

For maintainers, with the programs of the toolchain; a machine has one Velero server at a time::

    python tools/what_comes_back.py            # observe in two embedded clusters, keep what was seen, write the page
    python tools/what_comes_back.py --page     # only write the page, from what was seen last

The objects are those of tests/corpus/every-kind/objects.yaml. What they were before and after lies beside it.
"""

from __future__ import annotations

import argparse
import base64
import copy
import os
import re
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterguard.clusters import EmbeddedCluster
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import ClusterError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.model.inventory import Inventory, ObjectRef, Scope
from clusterguard.stores import open_store
from clusterguard.toolchain import from_environment
from clusterguard.validate import Profile, RestoreValidator, Tolerance, load_inventory, save_inventory
from clusterguard.validate.difference import GENERATED
from clusterguard.validate.system import kind_rule
from clusterguard.validate.validator import judge
from clusterguard.velero import BackupOptions, InstallOptions, LocationSpec, RestoreOptions, VeleroClient
from clusterguard.velero.install import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.report import ValidationReport
    from clusterguard.toolchain import Toolchain
    from clusterguard.velero.resources import Restore

_Object: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "tests" / "corpus" / "every-kind"
PAGE = ROOT / "docs" / "reference" / "what-comes-back.md"
NAMESPACE = "every-kind"
LABEL = {"part-of": "every-kind"}
WAYS = ("velero-in-place", "velero-new-cluster", "etcd")
BEFORE, DEFECTS = "before", "defects"
"""Further inventories: what was there, and what after a restore in place with a defect in each object."""

_WHOLE = BackupOptions(included_namespaces=(f"{NAMESPACE}*",), include_cluster_resources=True, snapshot_volumes=False)
_SETTLE_SECONDS = 60.0
_QUIET_SECONDS = 5.0


def main() -> None:
    """Observe unless told not to, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only write the page")
    if not parser.parse_args().page:
        with tempfile.TemporaryDirectory() as folder:
            observe(from_environment(os.environ), Path(folder)).save(CORPUS)
    PAGE.write_text(page(Observations.load(CORPUS)), encoding="utf-8")


# ---- what was seen ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What was there before, and after each way back.

    Attributes:
        inventories: By the name of the way, and `BEFORE` and `DEFECTS`.
        facts: Versions, kinds that are stored or not, what Velero said, and the field of each object that became a
            defect.
    """

    inventories: Mapping[str, Inventory]
    facts: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Observations:
        """Read what `save` wrote."""
        names = (BEFORE, *WAYS, DEFECTS)
        return cls(
            inventories={name: load_inventory(folder / f"{name}.inventory") for name in names},
            facts=orjson.loads((folder / "facts.json").read_bytes()),
        )

    def save(self, folder: Path) -> None:
        """Write everything, tokens replaced."""
        tokens: dict[str, str] = {}
        for name, inventory in self.inventories.items():
            save_inventory(_without_tokens(inventory, tokens), folder / f"{name}.inventory")
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        (folder / "facts.json").write_bytes(orjson.dumps(self.facts, option=options))


def _without_tokens(inventory: Inventory, tokens: dict[str, str]) -> Inventory:
    """Return an inventory in which equal tokens and certificates are equal still, but no longer themselves."""

    def cleaned(ref: ObjectRef, data: bytes) -> bytes:
        item = orjson.loads(data)
        if ref.kind != "Secret" or item.get("type") != "kubernetes.io/service-account-token":
            return data
        for key in {"token", "ca.crt"} & (item.get("data") or {}).keys():
            stand_in = tokens.setdefault(item["data"][key], f"{key} {len(tokens)}")
            item["data"][key] = base64.b64encode(stand_in.encode()).decode()
        return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)

    return replace(inventory, objects={ref: cleaned(ref, data) for ref, data in inventory.objects.items()})


def observe(toolchain: Toolchain, folder: Path) -> Observations:
    """Fill a cluster, lose everything three times, and bring it back in three ways."""
    programs = toolchain.ensure("velero", "velero-plugin-for-aws", "versitygw")
    seen: dict[str, Inventory] = {}
    s3 = LocalS3Server(program=programs["versitygw"], folder=folder / "s3")
    s3.create_bucket("backups")
    with s3, EmbeddedCluster(toolchain=toolchain, home=folder / "one") as cluster:
        api = cluster.api
        fill(api)
        seen[BEFORE] = capture(api)
        snapshotter = EtcdSnapshotter(store=open_store(str(folder / "snapshots")), access=cluster.etcd)
        snapshot = snapshotter.save()
        with _velero(cluster, s3) as velero:
            velero.back_up(NAMESPACE, _WHOLE)
            lose(api)
            in_place = _restore(velero)
        settle(api)
        seen["velero-in-place"] = capture(api)
        defects = dict(put_defects(api))
        seen[DEFECTS] = capture(api)
        lose(api)
        snapshotter.restore(snapshot.name, cluster)
        settle(api)
        seen["etcd"] = capture(api)
        facts = {
            "kubernetes": api.server_version(),
            "stored": sorted(str(each) for each in api.resources() if {"create", "list"} <= each.verbs),
            "notStored": sorted(_not_stored(api)),
        }
    with s3, EmbeddedCluster(toolchain=toolchain, home=folder / "two") as cluster:
        with _velero(cluster, s3) as velero:
            velero_version = velero.status().version
            in_new_cluster = _restore(velero)
        settle(cluster.api)
        seen["velero-new-cluster"] = capture(cluster.api)
    return Observations(
        inventories=seen,
        facts={
            **facts,
            "velero": velero_version,
            "defects": defects,
            "outcomes": {"velero-in-place": in_place, "velero-new-cluster": in_new_cluster},
        },
    )


@contextmanager
def _velero(cluster: EmbeddedCluster, s3: LocalS3Server) -> Iterator[VeleroClient]:
    """Run a Velero server with the bucket as its location, no longer than needed."""
    server = cluster.velero_server
    install(InstallOptions(replicas=0), api=cluster.api, velero=server.program("velero"), wait_seconds=None)
    server.start()
    try:
        velero = VeleroClient(api=cluster.api)
        config = {"region": s3.region, "s3ForcePathStyle": "true", "s3Url": s3.endpoint}
        spec = LocationSpec(bucket="backups", config=config, credentials=s3.credentials_file(), default=True)
        velero.locations.create("default", spec)
        yield velero
    finally:
        server.stop()


def _restore(velero: VeleroClient) -> Mapping[str, Any]:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while NAMESPACE not in {backup.name for backup in velero.backups()} and time.monotonic() < deadline:
        time.sleep(0.5)  # noqa: TID251 - a new cluster's server finds the backup in the bucket
    asked = velero.restore(NAMESPACE, RestoreOptions(include_cluster_resources=True), wait=False)
    done: Restore = velero.wait(asked, timeout_seconds=300)
    errors = velero.results(done).get("errors") or {}
    told = [line for lines in (errors.get("namespaces") or {}).values() for line in lines]
    return {"phase": str(done.phase), "errors": sorted(_ENDING.sub("-…", line) for line in told)}


def _not_stored(api: KubeClient) -> Iterator[str]:
    """Yield the kinds that are created but never stored: questions, and orders for other objects."""
    for resource in api.resources():
        if "create" in resource.verbs and "list" not in resource.verbs:
            yield str(resource)
        versions = f"/apis/{resource.api_version}" if resource.group else "/api/v1"
        for each in api.request("GET", versions).json()["resources"]:
            if each["name"].startswith(f"{resource.plural}/") and "create" in each["verbs"]:
                yield f"{each['kind']} ({each['name']})"


# ---- filling, losing -------------------------------------------------------------------------------------


def manifests() -> list[_Object]:
    """Return the objects, with what cannot be written down beforehand."""
    found = copy.deepcopy(_written("objects.yaml"))
    request, authority = _signed()
    for item in found:
        item["metadata"]["labels"] = {**(item["metadata"].get("labels") or {}), **LABEL}
        for template in _pod_templates(item):
            template["metadata"]["labels"] |= LABEL
        if item["kind"] == "CertificateSigningRequest":
            item["spec"]["request"] = request
        for hook in item.get("webhooks") or ():
            hook["clientConfig"] = {**hook["clientConfig"], "caBundle": authority}
    return found


def _pod_templates(item: _Object) -> Iterator[_Object]:
    spec = item.get("spec") or {}
    if item["kind"] in {"DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"}:
        yield spec["template"]


def _signed() -> tuple[str, str]:
    """Return a certificate request and a certificate, both as base64 of PEM; their keys are forgotten."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    since = datetime(2026, 1, 1, tzinfo=UTC)
    authority = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, since, since + timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return tuple(base64.b64encode(each.public_bytes(pem)).decode() for each in (request, authority))  # type: ignore[return-value]


def fill(api: KubeClient) -> None:
    """Create all objects, and write their status."""
    uids: dict[str, str] = {}
    for manifest in manifests():
        for owner in manifest["metadata"].get("ownerReferences") or ():
            owner["uid"] = uids[f"{owner['kind']} {owner['name']}"]
        if manifest["kind"] in {"Widget", "Gauge"}:
            api.await_kind(manifest)
        resource = api.resource_of(manifest)
        made = _create(api, manifest, namespace=NAMESPACE if resource.namespaced else None)
        uids[f"{manifest['kind']} {manifest['metadata']['name']}"] = made["metadata"]["uid"]
        if "status" in manifest and "status" in resource.subresources:
            where = NAMESPACE if resource.namespaced else None
            patch = {"status": manifest["status"]}
            api.patch(resource, manifest["metadata"]["name"], where, patch=patch, subresource="status")
    approved = {"type": "Approved", "status": "True", "reason": "ByTests", "message": "approved"}
    request = api.resource("CertificateSigningRequest")
    api.patch(request, NAMESPACE, patch={"status": {"conditions": [approved]}}, subresource="approval")
    settle(api, everything=True)
    pod = api.resource("Pod")
    [of_deployment] = api.list(pod, NAMESPACE, label_selector="app=web")
    for name in ("debugged", of_deployment["metadata"]["name"]):
        added = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox:1.37"}]}}
        api.patch(pod, name, NAMESPACE, patch=added, kind="strategic", subresource="ephemeralcontainers")


def _create(api: KubeClient, manifest: _Object, *, namespace: str | None) -> _Object:
    if manifest["metadata"]["name"] != "default":
        return api.create(manifest, namespace=namespace)
    account = api.resource("ServiceAccount")
    api.wait_for(
        account,
        "default",
        namespace,
        until=lambda seen: seen is not None,
        what="the account that a controller makes",
        timeout_seconds=_SETTLE_SECONDS,
    )
    return api.apply(manifest, namespace=namespace)


def settle(api: KubeClient, *, everything: bool = False) -> None:
    """Wait until controllers have done what they do with new objects.

    Args:
        api: The cluster.
        everything: Whether everything must get there; after a restore some of it may never.
    """
    for kind, name, done in (
        ("Deployment", "web", lambda seen: seen["status"].get("availableReplicas") == 1),
        ("Job", "finished", lambda seen: "completionTime" in seen["status"]),
        ("PersistentVolumeClaim", "bound", lambda seen: seen["status"].get("phase") == "Bound"),
        ("Secret", "token-of-robot", lambda seen: "token" in (seen.get("data") or {})),
        ("Pod", "running", lambda seen: seen["status"].get("phase") == "Running"),
        ("ClusterRole", "every-kind-aggregated", lambda seen: bool(seen["rules"])),
    ):
        try:
            _wait(api, kind, name, done)
        except WaitTimeoutError:
            if everything:
                raise
    time.sleep(_QUIET_SECONDS)  # noqa: TID251 - for what nobody can wait for: that nothing more happens


def _wait(api: KubeClient, kind: str, name: str, done: Callable[[_Object], bool]) -> None:
    resource = api.resource(kind)
    api.wait_for(
        resource,
        name,
        NAMESPACE if resource.namespaced else None,
        until=lambda seen: seen is not None and done({"status": {}, **seen}),
        what=f"{kind} {name}",
        timeout_seconds=_SETTLE_SECONDS if name != "finished" else 15,
    )


def lose(api: KubeClient) -> None:
    """Delete every one of the objects, and wait until they are gone."""
    found = [manifest for manifest in reversed(manifests()) if _is_served(api, manifest)]
    for manifest in found:
        resource, name = api.resource_of(manifest), manifest["metadata"]["name"]
        where = NAMESPACE if resource.namespaced else None
        with suppress(ResourceNotFoundError):
            api.patch(resource, name, where, patch={"metadata": {"finalizers": None}})
            api.delete(resource, name, where, grace_seconds=0)
    for manifest in found:
        resource, name = api.resource_of(manifest), manifest["metadata"]["name"]
        where = NAMESPACE if resource.namespaced else None
        with suppress(ResourceNotFoundError):  # its definition is gone, too
            api.wait_for(
                resource, name, where, until=lambda seen: seen is None, what=f"{name} to go", timeout_seconds=120
            )


def _is_served(api: KubeClient, manifest: _Object) -> bool:
    try:
        api.resource_of(manifest)
    except ResourceNotFoundError:
        return False
    return True


def capture(api: KubeClient) -> Inventory:
    """Return all that belongs to the objects, kinds that are left out by default included."""
    kinds = dict.fromkeys(ObjectRef.of(item).full_kind for item in manifests())
    selector = ",".join(f"{key}={value}" for key, value in LABEL.items())
    served = {str(resource) for resource in api.resources(refresh=True)}
    scope = Scope(kinds=tuple(kind for kind in kinds if kind in served), selector=selector)
    return RestoreValidator(api=api).capture(scope)


# ---- defects ---------------------------------------------------------------------------------------------


# What names an entry of a list, what an autoscaler may change, and what would start pods.
_LAST = frozenset({"name", "replicas", "suspend"})


def put_defects(api: KubeClient) -> Iterator[tuple[str, str]]:
    """Change one field of each object, the first one that the API server lets be changed; yield object and field."""
    for manifest in manifests():
        resource, name = api.resource_of(manifest), manifest["metadata"]["name"]
        where = NAMESPACE if resource.namespaced else None
        with suppress(ResourceNotFoundError):
            ref = ObjectRef.of(api.get(resource, name, where))
            yield str(ref), _put_defect(api, manifest, where)


def _put_defect(api: KubeClient, manifest: _Object, where: str | None) -> str:
    resource, name = api.resource_of(manifest), manifest["metadata"]["name"]
    body = {key: value for key, value in manifest.items() if key not in {"apiVersion", "kind", "metadata", "status"}}
    fields = sorted((leaf for leaf in leaves(body) if leaf[0]), key=lambda leaf: (leaf[0][-1] in _LAST, str(leaf[0])))
    for path, value in (*fields, (("metadata", "annotations", "example.com/defect"), "")):
        before = api.get(resource, name, where)
        with suppress(ClusterError):
            api.replace(changed(before, path, another(value)), namespace=where)
            if api.get(resource, name, where)["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
                return ".".join(map(str, path))
    raise AssertionError(f"{resource} {name} cannot be changed")


GONE: Any = object()
"""In place of a value: the field is taken away."""


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:  # noqa: ANN401 - any JSON
    """Yield the way to each field that holds no others, and its value; a list of words is one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if key != "managedFields":
                yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


def another(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, dict):
        return {**value, "x": "x"}
    return [*value, "x"] if isinstance(value, list) else f"{value}x"


def changed(item: _Object, path: tuple[str | int, ...], value: Any) -> _Object:  # noqa: ANN401 - any JSON
    """Return an object with one field changed."""
    copied: _Object = orjson.loads(orjson.dumps(item))
    holder: Any = copied
    for step in path[:-1]:
        holder = holder.setdefault(step, {}) if isinstance(holder, dict) else holder[step]
    if value is GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copied


# ---- the page --------------------------------------------------------------------------------------------


_NO_RULES = Profile(name="no rules", identity="uid", rules=(), replaceable=True)
# A new object has new ones of these, whatever its kind, and Velero marks it; the page says so once.
_OF_EVERY_KIND = frozenset(
    {"metadata.uid", "metadata.creationTimestamp", "metadata.resourceVersion", "metadata.generation"}
    | {f'metadata.labels["velero.io/{name}-name"]' for name in ("backup", "restore")}
)
_ENDING = re.compile(f"-{GENERATED}\\b")
_IN_BRACKETS = re.compile(r"=[^,\]]*")
_TITLES = {
    ("velero-in-place",): "in place",
    ("velero-new-cluster",): "new cluster",
    ("velero-in-place", "velero-new-cluster"): "Velero",
    ("etcd",): "etcd",
    WAYS: "all",
}
_INTRODUCTION = """\
# What comes back

What a restore brings back of every built-in kind of Kubernetes, and what differs afterwards. This was observed, not
written down: {objects} objects of {kinds} kinds, filled in, were backed up, deleted, and restored: in place and into a
new cluster by Velero {velero}, and from an etcd snapshot, with Kubernetes {kubernetes}. The clusters were embedded
ones, so pods are simulated and volumes hold no bytes.

`python tools/what_comes_back.py` repeats all of it and writes this page. The objects are in
[tests/corpus/every-kind](../../tests/corpus/every-kind/objects.yaml), with what was there before and after. `Widget`
and `Gauge` stand for custom resources with and without a status subresource.

- **back**: an object of that name is there again, the same but for what is listed under *what changes*.
- Not in the table because it holds for every kind: after a Velero restore `uid`, `creationTimestamp` and
  `resourceVersion` are new, `generation` starts again, and all but Namespaces bear the labels
  `velero.io/backup-name` and `velero.io/restore-name`. An etcd restore brings back the very same object.
- Of `status`, only what is lost is listed. Controllers wrote the rest again.
- `RestoreValidator` explains what changes by [a named rule](validation.md#rules-for-volatile-fields). What is **in
  bold** is a finding, and so is an object that is not back, except for finished work.
- *compared*: whether an inventory holds the kind by default. A scope can name the others.

The backup was made with `includeClusterResources: true`; [without it most cluster-scoped objects are not in
it](velero.md).

"""
_EXCEPTIONS = """
## What is lost

"""
_NOT_STORED = """
## Not stored

These can be created, but they are questions or orders that the API server answers and does not keep: {kinds}.
"""


def page(seen: Observations) -> str:
    """Return the page."""
    kinds = sorted({ObjectRef.of(item).full_kind for item in _written("objects.yaml")})
    differences = {way: compared(seen, way, profile=_NO_RULES) for way in WAYS}
    rows = "".join(f"| {' | '.join(_row(seen, differences, kind))} |\n" for kind in kinds)
    head = ("kind", "Velero, in place", "Velero, new cluster", "etcd", "what changes", "compared")
    return (
        _INTRODUCTION.format(objects=len(_written("objects.yaml")), kinds=len(kinds), **_versions(seen))
        + f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
        + rows
        + _EXCEPTIONS
        + "".join(f"- **{each['what']}**: {each['why']}.\n" for each in losses())
        + _NOT_STORED.format(kinds=", ".join(f"`{kind}`" for kind in seen.facts["notStored"]))
    )


def _versions(seen: Observations) -> dict[str, str]:
    return {name: str(seen.facts[name]).removeprefix("v") for name in ("kubernetes", "velero")}


def losses() -> list[_Object]:
    """Return what is lost, as decided by hand: fields, or whole objects, in which ways back, and why."""
    return _written("losses.yaml")


@cache
def _written(name: str) -> list[_Object]:
    found: list[_Object] = yaml.safe_load((CORPUS / name).read_text(encoding="utf-8"))
    return found


def filled_in(seen: Observations) -> list[ObjectRef]:
    """Return what the objects are called, without what controllers made of them."""
    names = {(ref.full_kind, ref.name) for ref in (ObjectRef.of(item) for item in _written("objects.yaml"))}
    return [ref for ref in seen.inventories[BEFORE].objects if (ref.full_kind, ref.name) in names]


def _row(seen: Observations, differences: Mapping[str, ValidationReport], kind: str) -> tuple[str, ...]:
    found = [ref for ref in filled_in(seen) if ref.full_kind == kind]
    left_out = kind_rule(kind, frozenset({"create"}))
    cells = [_cell(seen.inventories[way], found) for way in WAYS]
    return f"`{kind}`", *cells, _changes(differences, found), f"no: {left_out.name}" if left_out else "yes"


def _cell(after: Inventory, found: Sequence[ObjectRef]) -> str:
    away = [ref.name for ref in found if ref not in after.objects]
    if not away:
        return "back"
    return "not back" if len(away) == len(found) else f"back, but not `{'`, `'.join(away)}`"


def _changes(differences: Mapping[str, ValidationReport], found: Sequence[ObjectRef]) -> str:
    """Return what changes, ways with the same changes in one."""
    ways: dict[str, tuple[str, ...]] = {}
    for way, report in differences.items():
        if text := ", ".join(dict.fromkeys(_changed_fields(report, way, found))):
            ways[text] = (*ways.get(text, ()), way)
    return "; ".join(f"{_TITLES[same]}: {text}" for text, same in ways.items())


def _changed_fields(report: ValidationReport, way: str, found: Sequence[ObjectRef]) -> Iterator[str]:
    red = {
        (name, field)
        for each in losses()
        if way in each["ways"]
        for name in each["objects"]
        for field in each.get("fields", ())
    }
    for finding in report.findings:
        if finding.ref not in found:
            continue
        for change in finding.changes:
            if change.path in _OF_EVERY_KIND or (change.path.startswith("status") and change.after is not None):
                continue
            lost = " lost" if change.after is None else ""
            text = f"`{_IN_BRACKETS.sub('=…', change.path)}`{lost}"
            yield f"**{text}**" if (str(finding.ref), change.path) in red else text


def compared(seen: Observations, way: str, *, profile: Profile) -> ValidationReport:
    """Return what a comparison says after one way back."""
    before, after = seen.inventories[BEFORE], seen.inventories[way]
    return judge(before, after, profile=profile, tolerate=Tolerance(extra=0), digest_key=b"known")


if __name__ == "__main__":
    main()
