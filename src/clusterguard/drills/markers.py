"""Markers that tell a restore from luck.

A ReplicaSet recreates deleted pods, an operator writes its objects again: a cluster can look whole without any
restore. So one marker is written before the backup and removed by the fault: only a restore brings it back, under its
old UID when etcd itself was restored. Another one is written after the backup: an etcd restore must lose it. Markers
that are written again and again measure how much was lost.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from clusterguard.errors import ClusterError, ResourceNotFoundError
from clusterguard.model.attempts import try_each
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.clusters.kube import KubeClient

__all__ = ["MARKER_LABEL", "RUN_LABEL", "MarkerFindings", "Markers"]

RUN_LABEL = "clusterguard.dev/run"
MARKER_LABEL = "clusterguard.dev/canary"  # as every release wrote it
_BEFORE, _AFTER = "before-backup", "after-backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerFindings:
    """What the markers say after a restore.

    Attributes:
        problems: Why the restore cannot have done it, or is not what it seems; empty when it did.
        newest: When the newest marker that came back was written, UTC, or None when none did.
        seen: Whether the cluster answered at all.
    """

    problems: tuple[str, ...]
    newest: datetime | None
    seen: bool = True


@dataclass(slots=True)
class Markers:
    """The markers of one run, in one namespace."""

    namespace: str
    run_id: str
    # What the scope selects by: a marker without these labels would not be restored with it.
    labels: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    _uids: dict[str, str] = field(default_factory=dict)
    _written: dict[str, datetime] = field(default_factory=dict)
    _ticker: _Ticker | None = None

    def write_before_backup(self, api: KubeClient) -> None:
        """Write the marker that must come back."""
        self._write(api, _BEFORE)

    def write_after_backup(self, api: KubeClient) -> None:
        """Write the marker that an etcd restore must lose."""
        self._write(api, _AFTER)

    @property
    def first(self) -> str:
        """The name of the marker that must come back, or ``""`` if none was written."""
        return self._name(_BEFORE) if _BEFORE in self._written else ""

    @property
    def second(self) -> str:
        """The name of the marker that an etcd restore must lose, or ``""`` if none was written."""
        return self._name(_AFTER) if _AFTER in self._written else ""

    def tick(self, api: KubeClient, *, every_seconds: float) -> None:
        """Write further markers in the background until `stop_ticking`."""
        self._ticker = _Ticker(lambda number: self._write(api, f"tick-{number:06d}"), every_seconds)

    def stop_ticking(self) -> None:
        """Stop writing markers; returns once none is being written."""
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None

    def remove_first(self, api: KubeClient) -> None:
        """Remove the marker that must come back; the fault may have done so already."""
        with suppress(ResourceNotFoundError):
            api.delete(api.resource("ConfigMap"), self._name(_BEFORE), self.namespace)

    def look(self, api: KubeClient, *, etcd_restored: bool, namespace: str = "") -> MarkerFindings:
        """See which markers a restored cluster has, in their namespace or in the one it was renamed to.

        Raises:
            ClusterError: The cluster could not be asked.
        """
        found = {
            item["metadata"]["name"]: item["metadata"]["uid"]
            for item in api.list(
                api.resource("ConfigMap"), namespace or self.namespace, label_selector=f"{RUN_LABEL}={self.run_id}"
            )
        }
        present = {marker: found[self._name(marker)] for marker in self._written if self._name(marker) in found}
        problems = []
        if _BEFORE not in self._written:
            pass  # the backup is older than this run: it can only show what must be gone
        elif _BEFORE not in present:
            problems.append(
                "the marker written before the backup is not back: whatever brought the rest back, "
                "it was not this restore"
            )
        elif etcd_restored and present[_BEFORE] != self._uids[_BEFORE]:
            problems.append("the marker written before the backup is back under another UID: it was recreated")
        if etcd_restored and _AFTER in present:
            problems.append("the marker written after the backup is still there: this is not the state of the snapshot")
        newest = max((self._written[marker] for marker in present), default=None)
        return MarkerFindings(problems=tuple(problems), newest=newest)

    def remove_all(self, api: KubeClient, *, renamed: str = "") -> None:
        """Remove every marker of this run that is there, also from the namespace that theirs was renamed to.

        Each is tried, whatever becomes of the others.
        """
        namespaces = dict.fromkeys((self.namespace, renamed or self.namespace))
        try_each(partial(self._remove_from, api, namespace) for namespace in namespaces)

    def _remove_from(self, api: KubeClient, namespace: str) -> None:
        resource = api.resource("ConfigMap")

        def remove(name: str) -> None:
            with suppress(ResourceNotFoundError):
                api.delete(resource, name, namespace)

        selector = f"{RUN_LABEL}={self.run_id},{MARKER_LABEL}"
        found = list(api.list(resource, namespace, label_selector=selector))
        try_each(partial(remove, item["metadata"]["name"]) for item in found)

    def _write(self, api: KubeClient, marker: str) -> None:
        at = self.now()
        created = api.create(self._manifest(marker, at))
        # Noted once the API server has it: a marker that was never written must not be looked for.
        self._uids[marker] = created["metadata"]["uid"]
        self._written[marker] = at

    def _name(self, marker: str) -> str:
        return f"clusterguard-marker-{self.run_id}-{marker}"

    def _manifest(self, marker: str, at: datetime) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._name(marker),
                "namespace": self.namespace,
                "labels": {**self.labels, RUN_LABEL: self.run_id, MARKER_LABEL: marker},
            },
            "data": {"written": at.isoformat()},
        }


class _Ticker:
    def __init__(self, write: Callable[[int], None], every_seconds: float) -> None:
        self._write = write
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = Worker(self._run, name="clusterguard-markers")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            # A marker that cannot be written is one that cannot come back: the measured loss grows by it.
            with suppress(ClusterError):
                self._write(number)
            number += 1
            due += self._every
