"""The drill of a namespace as a text for people: what it does, what it checks, and why each check is there. Pure."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from clusterguard.documents.writing import flow_text
from clusterguard.drills.authoring.defaults import pod_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterguard.drills.authoring.looking import Seen
    from clusterguard.drills.authoring.stand_in import Manifest, StandIn

__all__ = ["Engine", "drill_text", "on_one_line"]

Engine: TypeAlias = Literal["etcd", "velero"]

_WIDTH: Final = 116
_FLOW_WIDTH: Final = 100
_MOST_ASSERTED: Final = 10
"""Objects of a kind that are looked at one by one; `restored` looks at all of them anyway."""

_WORKLOADS: Final = ("Deployment.apps", "StatefulSet.apps", "DaemonSet.apps")
_READY: Final = (*_WORKLOADS, "ReplicaSet.apps", "ReplicationController", "Pod", "PersistentVolumeClaim")
_SCALED: Final = ("Deployment.apps", "StatefulSet.apps")
_HTTP_PORTS: Final = frozenset({80, 3000, 5000, 8000, 8080, 8081, 8888, 9090})
_HTTP_NAMES: Final = ("http", "web", "ui", "api", "metrics")
_DEFAULT: Final = "default"  # the one namespace of a user's that cannot be deleted


def drill_text(
    seen: Seen, stand_in: StandIn, *, engine: Engine, origin: str, files: Sequence[str], pods: Sequence[str]
) -> str:
    """Return a drill file.

    Args:
        seen: The namespace.
        stand_in: What is applied in its place.
        engine: What backs it up and restores it.
        origin: The reference of the cluster that was looked at.
        files: The manifests, relative to the drill.
        pods: Those of Pods without a controller.
    """
    lines = [
        "# yaml-language-server: $schema=https://clusterguard.dev/schemas/drill-v1alpha1.json",
        *_header(seen, stand_in, origin),
        "apiVersion: clusterguard.dev/v1alpha1",
        "kind: Drill",
        "metadata:",
        f"  name: {flow_text(seen.namespace)}",
        f"  labels: {{backup: {engine}}}",
        "spec:",
        *_body(seen, stand_in, engine, (files, pods)),
    ]
    return "\n".join(lines) + "\n"


# ---- the head -----------------------------------------------------------------------------------------------


def _header(seen: Seen, stand_in: StandIn, origin: str) -> Iterator[str]:
    name = f"{seen.namespace}.drill.yaml"
    yield from _comment(
        f"A drill of namespace {seen.namespace}, written by `clusterguard drill init` from what {origin} had in it. "
        "It is yours now: read it, change it, keep it beside what it is about."
    )
    yield "#"
    yield from _comment(
        "It never touches that cluster. It starts an empty one, applies a stand-in of the namespace, backs it up, "
        "deletes it, restores it, and compares every object with what was there before. Pods are simulated there. So "
        "it proves the way back and the checks; to prove a backup that exists, let it begin with `storedBackup`."
    )
    yield f"#   clusterguard drill run {name}       # or: pytest ."
    yield f"#   clusterguard drill mutate {name}    # how good its checks are: defects must make them red"
    if stand_in.left_out:
        yield "#"
        yield "# Not in the stand-in:"
        for (kind, reason), count in stand_in.left_out.items():
            yield from _comment(f"{count:,} {kind}: {reason}", indent="  ")
    if seen.unread:
        yield "#"
        yield "# Could not be read, so nothing of it is in the stand-in:"
        for kind, reason in seen.unread.items():
            yield from _comment(f"{kind}: {next(iter(reason.splitlines()), 'no reason given')}", indent="  ")


def _said(text: str) -> list[str]:
    """Return why something is as it is, as lines above it."""
    return [f"  {line}" for line in _comment(text)]


def on_one_line(text: str) -> str:
    """Return a text that ends no comment and moves no cursor, whatever somebody called a key in a custom resource."""
    text = " ".join(text.split())
    return text if text.isprintable() else json.dumps(text)


def _comment(text: str, *, indent: str = "") -> list[str]:
    """Return a text as lines of comments."""
    return textwrap.wrap(
        on_one_line(text),
        width=_WIDTH,
        initial_indent=f"# {indent}",
        subsequent_indent=f"# {indent}{indent}",
        break_long_words=False,
        break_on_hyphens=False,
    )


# ---- the body -----------------------------------------------------------------------------------------------


def _body(seen: Seen, stand_in: StandIn, engine: Engine, files: tuple[Sequence[str], Sequence[str]]) -> Iterator[str]:
    namespace = flow_text(seen.namespace)
    by = {"etcd": "an etcd snapshot brings", "velero": "Velero brings"}[engine]
    what = "All that is in namespace" if seen.namespace == _DEFAULT else "Namespace"
    yield f"  description: {what} {seen.namespace} is deleted; {by} everything in it back."
    if engine == "velero":
        yield from _said("A throwaway bucket of this run; for a real one, write its endpoint here.")
        yield "  storage:"
        yield "    backups: {s3: {bucket: drill-backups, endpoint: local}}"
    yield from _said("Everything in the namespace must come back, kinds that are added later included.")
    yield "  scope:"
    yield f"    namespaces: [{namespace}]"
    yield from _said("Yours to decide: a recovery that takes longer fails the drill.")
    yield "  objectives: {rto: 10m}"
    yield "  setup:"
    if files[0]:
        yield _apply(files[0])
    if files[1]:
        yield from _said("A Pod without a controller is refused until its namespace has an account for it.")
        yield from _step(
            "ready", {"kind": "ServiceAccount", "namespace": seen.namespace, "name": "default"}, timeout="1m"
        )
        yield _apply(files[1])
    ready = list(_ready(seen.namespace, stand_in))
    if ready:
        yield from _said(
            "What was not ready before the backup would tell nothing when it is not ready after the restore."
        )
    for each in ready:
        yield from _step("ready", each, timeout="3m")
    yield from _BACKUP[engine](namespace)
    yield "  fault:"
    yield from _fault(seen, stand_in)
    yield from _RESTORE[engine](namespace)
    yield "  verify:"
    yield from _verify(stand_in, engine, ready)


def _apply(files: Sequence[str]) -> str:
    return f"  - apply: {flow_text({'file': files[0]} if len(files) == 1 else {'files': list(files)})}"


def _backup_by_etcd(_namespace: str) -> Iterator[str]:
    yield "  backup:"
    yield "  - etcdSnapshot: {name: before}"
    yield from _said("Read back from where it is stored: a damaged snapshot is found before anything is broken.")
    yield "  - verifyBackup: {backup: before}"


def _backup_by_velero(namespace: str) -> Iterator[str]:
    yield "  backup:"
    yield f"  - veleroBackup: {{name: before, namespaces: [{namespace}], storage: backups}}"
    yield "    timeout: 5m"
    yield from _said("Read back from the bucket, without asking the server: every object of the scope must be in it.")
    yield "  - verifyBackup: {backup: before, contains: scope}"


def _restore_by_etcd(_namespace: str) -> Iterator[str]:
    yield "  restore:"
    yield "  - etcdRestore: {from: before}"


def _restore_by_velero(_namespace: str) -> Iterator[str]:
    yield "  restore:"
    yield "  - veleroRestore: {from: before}"
    yield "    timeout: 5m"


_BACKUP: Final = {"etcd": _backup_by_etcd, "velero": _backup_by_velero}
_RESTORE: Final = {"etcd": _restore_by_etcd, "velero": _restore_by_velero}


def _fault(seen: Seen, stand_in: StandIn) -> Iterator[str]:
    if seen.namespace == _DEFAULT:
        yield from _said("No cluster lets its namespace `default` go, so everything in it goes, kind by kind.")
        by_kind: dict[str, list[str]] = {}
        for each in reversed(stand_in.manifests):  # a claim that a Pod mounts goes after the Pod
            if each.ref.namespace:
                by_kind.setdefault(each.ref.full_kind, []).append(each.ref.name)
        for kind, names in by_kind.items():
            yield from _step("delete", {"kind": kind, "namespace": _DEFAULT, "names": names}, timeout="3m")
    else:
        yield from _said("The whole namespace goes, with everything in it.")
        yield from _step("delete", {"kind": "Namespace", "name": seen.namespace}, timeout="3m")
    if volumes := [each.ref.name for each in stand_in.of_kind("PersistentVolume")]:
        yield from _said("Its volumes too: one that stays is bound to a claim that is gone.")
        yield from _step("delete", {"kind": "PersistentVolume", "names": volumes}, timeout="3m")


def _verify(stand_in: StandIn, engine: Engine, ready: Sequence[dict[str, Any]]) -> Iterator[str]:
    if engine == "etcd":
        yield from _said(
            "Every object, field by field, and the very same one (by UID): finds whatever is missing or changed."
        )
        yield from _step("restored", {"identity": "uid"}, timeout="2m")
    else:
        yield from _said(
            "Every object, field by field, beside what Velero always changes: it finds what is missing or changed."
        )
        yield from _step("restored", {}, timeout="2m")
    if ready:
        yield from _said(
            "Objects alone serve nobody. Ready counts only by a status that is newer than the restore, and for a while."
        )
    for each in ready:
        yield from _step("ready", {**each, "stableFor": "2s"}, timeout="3m")
    asserted = list(_asserted(stand_in))
    if asserted:
        yield from _said(
            "`restored` compares with what was backed up. These say what must be there whatever was backed up: how "
            "many run of which image, and what others reach them by. Keep those that matter, and add your own."
        )
    for each in asserted:
        yield from _assert(each)
    if definitions := stand_in.definitions:
        yield from _said(
            "An older definition drops fields that it does not know, without a word, from whatever is written after "
            "the restore. So each field of a definition must be there."
        )
        for definition in definitions:
            yield from _assert(_fields_of(definition))
    yield from _on_real_nodes(stand_in, engine)


def _step(verb: str, fields: dict[str, Any], *, timeout: str, comment: str = "") -> Iterator[str]:
    yield f"  {comment}- {verb}: {_escaped(flow_text(fields))}"
    yield f"  {comment}  timeout: {timeout}"


def _assert(resource: dict[str, Any]) -> Iterator[str]:
    yield "  - assert:"
    yield "      resource:"
    for key, value in resource.items():
        lines = _escaped(flow_text(value, width=_FLOW_WIDTH)).splitlines()
        yield f"        {key}: " + "\n          ".join(line.strip() for line in lines)


def _escaped(text: str) -> str:
    return text.replace("${", "$${")


def _ready(namespace: str, stand_in: StandIn) -> Iterator[dict[str, Any]]:
    for full_kind in _READY:
        if found := stand_in.of_kind(full_kind):
            yield {"kind": found[0].ref.kind, "namespace": namespace, **_count(full_kind, found)}


def _count(full_kind: str, found: Sequence[Manifest]) -> dict[str, Any]:
    """Return how many there must be; of Pods and ReplicaSets controllers make more."""
    if full_kind in {"Pod", "ReplicaSet.apps"}:
        return {"count": f">={len(found)}"}
    return {"count": len(found)}


# ---- what must be there -------------------------------------------------------------------------------------


def _asserted(stand_in: StandIn) -> Iterator[dict[str, Any]]:
    for full_kind in _WORKLOADS:
        for each in stand_in.of_kind(full_kind)[:_MOST_ASSERTED]:
            yield {**_named(each), "spec": _of_workload(full_kind, each)}
    services = [each for each in stand_in.of_kind("Service") if each.item["spec"].get("ports")]
    for each in services[:_MOST_ASSERTED]:
        spec = each.item["spec"]
        chosen = {"selector": spec["selector"]} if spec.get("selector") else {}
        yield {**_named(each), "spec": {"ports": [{"port": port["port"]} for port in spec["ports"]], **chosen}}


def _named(manifest: Manifest) -> dict[str, Any]:
    ref = manifest.ref
    place = {"namespace": ref.namespace} if ref.namespace else {}
    return {
        "apiVersion": manifest.item["apiVersion"],
        "kind": ref.kind,
        "metadata": {"name": ref.name, **place},
    }


def _of_workload(full_kind: str, manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if full_kind in _SCALED and "replicas" in manifest.item["spec"]:
        spec["replicas"] = manifest.item["spec"]["replicas"]
    template = pod_template(full_kind, manifest.item) or {}
    containers = (template.get("spec") or {}).get("containers") or ()
    images = [{"name": each["name"], "image": each["image"]} for each in containers if "image" in each]
    return {**spec, "template": {"spec": {"containers": images}}}


def _fields_of(definition: Manifest) -> dict[str, Any]:
    """Return what a definition must at least have: in each version the fields of the first two levels."""
    versions = []
    for version in definition.item["spec"]["versions"]:
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        outer = {
            name: {"properties": {field: _type(each) for field, each in inner["properties"].items()}}
            for name, inner in (schema.get("properties") or {}).items()
            if name not in {"metadata", "status"} and inner.get("properties")
        }
        known = {"schema": {"openAPIV3Schema": {"properties": outer}}} if outer else {}
        versions.append({"name": version["name"], "served": version["served"], **known})
    return {**_named(definition), "spec": {"versions": versions}}


def _type(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": schema["type"]} if "type" in schema else {}


# ---- what only real nodes show ------------------------------------------------------------------------------


def _on_real_nodes(stand_in: StandIn, engine: Engine) -> Iterator[str]:
    http = list(_http(stand_in))
    files = list(_same_files(stand_in))
    if not http and not files:
        return
    yield from _said(
        "Where containers run, these show more. Pods of embedded clusters are simulated, and there one of these "
        "would skip the whole drill. To use them take the `#` away, and run it by `clusterguard drill run "
        "--cluster kind`, with images that it can pull."
    )
    if http:
        yield from _said("Ready is not served: what answers? Say which path, and what the answer must contain.")
    for each in http:
        yield from _step("http", each, timeout="2m", comment="# ")
    if not files:
        return
    if engine == "etcd":
        yield from _said(
            "What is in volumes is in no etcd snapshot: `drill init --backup velero` writes a drill that can have it."
        )
        return
    yield from _said(
        "What is in volumes: take the PersistentVolumes out of the manifests (kind makes real ones) and out of "
        "`fault`, give `veleroBackup` the key `volumes: fileSystem`, and let setup end with a file in each:"
    )
    for each in files:
        path = f"{each['path'].rstrip('/')}/proof.bin"
        yield f"  # - writeFile: {_escaped(flow_text({'in': each['in'], 'path': path, 'size': '1Mi'}))}"
    for each in files:
        yield from _step("sameFiles", each, timeout="4m", comment="# ")


def _http(stand_in: StandIn) -> Iterator[dict[str, Any]]:
    for each in stand_in.of_kind("Service")[:_MOST_ASSERTED]:
        spec = each.item["spec"]
        port = next((port for port in spec.get("ports") or () if _is_http(port)), None)
        if port and spec.get("selector"):
            yield {"service": each.ref.name, "namespace": each.ref.namespace, "port": port["port"]}


def _is_http(port: dict[str, Any]) -> bool:
    if port.get("protocol", "TCP") != "TCP":
        return False
    name = str(port.get("appProtocol") or port.get("name") or "").lower()
    if name:
        return name.startswith(_HTTP_NAMES) and not name.startswith("https")
    return port["port"] in _HTTP_PORTS


def _same_files(stand_in: StandIn) -> Iterator[dict[str, Any]]:
    """Yield where the files of claims are, by the workload that mounts them."""
    for full_kind in _WORKLOADS:
        for each in stand_in.of_kind(full_kind)[:_MOST_ASSERTED]:
            labels = (each.item["spec"].get("selector") or {}).get("matchLabels")
            selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
            for container, path in _claims_mounted(full_kind, each) if selector else ():
                where = {"namespace": each.ref.namespace, "selector": selector, "container": container}
                yield {"in": where, "path": path}


def _claims_mounted(full_kind: str, manifest: Manifest) -> Iterator[tuple[str, str]]:
    spec = (pod_template(full_kind, manifest.item) or {}).get("spec") or {}
    claims = {each["name"] for each in spec.get("volumes") or () if "persistentVolumeClaim" in each}
    claims |= {each["metadata"]["name"] for each in manifest.item["spec"].get("volumeClaimTemplates") or ()}
    for container in spec.get("containers") or ():
        for mount in container.get("volumeMounts") or ():
            if mount["name"] in claims:
                claims.discard(mount["name"])
                yield container["name"], mount["mountPath"]
