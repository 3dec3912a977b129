"""Custom resources that a backup lacks because the server did not know their kind yet.

Velero asks the API server which kinds there are when it starts, and every five minutes from then on. Objects of a kind
that was defined in between are not in a backup, not even one that names the kind: Completed, without a warning. Source
of the facts: Velero 1.18.3, run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from clusterguard.clusters.kube import ApiResource
from clusterguard.errors import ForbiddenError, ResourceNotFoundError
from clusterguard.velero.findings import OutcomeFinding, Rule
from clusterguard.velero.objects import DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.inventory import ObjectRef
    from clusterguard.velero.resources import Backup

__all__ = ["undiscovered"]

_BETWEEN_LOOKS: Final = timedelta(minutes=5, seconds=30)  # five minutes, and what the look takes
_KEPT_OUT: Final = "velero.io/exclude-from-backup!=true"


def undiscovered(api: KubeClient, backup: Backup, contents: Collection[ObjectRef]) -> Iterator[OutcomeFinding]:
    """Yield the young kinds of which the cluster has objects that a backup should have, and has none of.

    Nothing is yielded where we may not list definitions: whoever may not cannot have made one.

    Args:
        api: The cluster that was backed up.
        backup: In its last state.
        contents: The objects in it.

    Raises:
        ClusterError: The objects of a young kind cannot be listed.
    """
    if backup.started is None:
        return
    known = {(ref.kind, ref.group) for ref in contents}
    for definition in _young(api, backup.started):
        names, group = definition["spec"]["names"], definition["spec"]["group"]
        if (names["kind"], group) not in known and _has_some(api, backup, definition):
            age = (backup.started - _made(definition)).total_seconds()
            detail = (
                f"objects of {names['kind']}.{group} are not in it: the kind was defined {age:.0f} s before, and "
                "Velero looks for new kinds every five minutes; back up again, or restart its server first"
            )
            yield OutcomeFinding(rule=Rule.KIND_UNDISCOVERED, detail=detail)


def _young(api: KubeClient, started: datetime) -> Iterator[dict[str, Any]]:
    """Yield the definitions that Velero may not have seen when a backup began."""
    try:
        every = list(api.list(DEFINITIONS, metadata_only=True))
    except ForbiddenError:
        return
    for item in every:
        if started - _BETWEEN_LOOKS < _made(item) <= started:
            try:
                yield api.get(DEFINITIONS, item["metadata"]["name"])
            except ResourceNotFoundError:
                continue  # it is gone again


def _has_some(api: KubeClient, backup: Backup, definition: dict[str, Any]) -> bool:
    options, spec = backup.options, definition["spec"]
    names, namespaced = spec["names"], spec["scope"] == "Namespaced"
    if not options.wants_kind(f"{names['plural']}.{spec['group']}", namespaced=namespaced):
        return False
    resource = ApiResource(
        group=spec["group"],
        version=next(each["name"] for each in spec["versions"] if each["served"]),
        kind=names["kind"],
        plural=names["plural"],
        namespaced=namespaced,
        verbs=frozenset(),
    )
    selectors = [str(each) for each in (options.label_selector, *options.or_label_selectors) if each]
    for selector in selectors or [""]:
        wanted = ",".join(filter(None, (selector, _KEPT_OUT)))
        for item in api.list(resource, label_selector=wanted, metadata_only=True):
            wanted_there = not namespaced or options.wants_namespace(item["metadata"].get("namespace", ""))
            if _made(item) <= (backup.started or _made(item)) and wanted_there:
                return True
    return False


def _made(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["metadata"]["creationTimestamp"])
