"""What would hurt after a restore, read off the objects of a backup one by one.

Each hazard is a small class that sees every object once and keeps no object, so that a backup of any size can be looked
at in one pass.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509

from clusterguard.rehearsal.report import Examples, Level, RehearsalFinding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    Object: TypeAlias = Mapping[str, Any]

__all__ = ["Hazards"]

_OWN_NAMESPACES: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
_SOON: Final = timedelta(days=14)
_STALE: Final = timedelta(hours=1)


_ADMISSION: Final = "admissionregistration.k8s.io/v1"


def _is(item: Object, api_version: str, kind: str) -> bool:
    """Return whether an object is of a built-in kind; custom resources may have any kind, and any shape."""
    return (item["apiVersion"], item["kind"]) == (api_version, kind)


class _Hazard(Protocol):
    def see(self, item: Object) -> None: ...

    def findings(self) -> Iterator[RehearsalFinding]: ...


class Hazards:
    """Looks at each object for everything that is known to hurt.

    Args:
        now: The time, UTC.
        claimed: When the backup says that it was made, if it says so.
        users: Whether a cluster without a namespace of its users is a finding.
    """

    def __init__(self, *, now: datetime, claimed: datetime | None = None, users: bool = True) -> None:
        self._all: list[_Hazard] = [
            _BlockingWebhooks(),
            _VolumesElsewhere(),
            _ExpiredCertificates(now),
            _Age(claimed),
            *([_Users()] if users else []),
        ]

    def see(self, item: Object) -> None:
        """Take the next object."""
        for hazard in self._all:
            hazard.see(item)

    def findings(self) -> Iterator[RehearsalFinding]:
        """Yield what was found, after the last object."""
        for hazard in self._all:
            yield from hazard.findings()


class _BlockingWebhooks:
    """A webhook that must answer before any pod is created, and runs as a pod itself.

    ``failurePolicy: Fail`` is the default. After a restore none of its pods runs, so none is ever let in.
    """

    def __init__(self) -> None:
        self._found = Examples()
        self._labels: dict[str, Mapping[str, str]] = {}
        self._webhooks: list[tuple[str, str, Object]] = []  # the name, its service's namespace, namespaceSelector

    def see(self, item: Object) -> None:
        if _is(item, "v1", "Namespace"):
            self._labels[item["metadata"]["name"]] = {
                "kubernetes.io/metadata.name": item["metadata"]["name"],
                **(item["metadata"].get("labels") or {}),
            }
        if not any(_is(item, _ADMISSION, f"{kind}WebhookConfiguration") for kind in ("Validating", "Mutating")):
            return
        for webhook in item.get("webhooks") or ():
            service = (webhook.get("clientConfig") or {}).get("service")
            if service and webhook.get("failurePolicy", "Fail") == "Fail" and _asks_for_pods(webhook):
                name = f"{item['metadata']['name']}/{webhook.get('name', '')}"
                self._webhooks.append((name, service.get("namespace", ""), webhook))

    def findings(self) -> Iterator[RehearsalFinding]:
        for name, namespace, webhook in self._webhooks:
            labels = self._labels.get(namespace, {"kubernetes.io/metadata.name": namespace})
            if _selects(webhook.get("namespaceSelector") or {}, labels) and not webhook.get("objectSelector"):
                self._found.add(name)
        yield from self._found.finding(
            "webhook-blocks-itself",
            Level.WARNING,
            "webhooks that must answer before any pod is created, and run as such pods themselves: {n}",
            "after a restore, set failurePolicy to Ignore until its pods run; better, exempt its own namespace by "
            "namespaceSelector now",
        )


def _asks_for_pods(webhook: Object) -> bool:
    for rule in webhook.get("rules") or ():
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        operations = rule.get("operations") or ()
        if (
            {"", "*"} & set(groups)
            and {"pods", "*", "*/*", "pods/*"} & set(resources)
            and {"CREATE", "*"} & set(operations)
        ):
            return True
    return False


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector holds for labels."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    judged: Mapping[str, Callable[[str, list[str]], bool]] = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    expressions = selector.get("matchExpressions") or ()
    return all(judged[each["operator"]](each["key"], each.get("values") or []) for each in expressions)


class _VolumesElsewhere:
    """Volumes whose data is not in the backup."""

    def __init__(self) -> None:
        self._found = Examples()

    def see(self, item: Object) -> None:
        if _is(item, "v1", "PersistentVolume"):
            self._found.add(item["metadata"]["name"])

    def findings(self) -> Iterator[RehearsalFinding]:
        return self._found.finding(
            "volume-data-elsewhere",
            Level.NOTE,
            "PersistentVolumes, whose data is not in the backup: {n}",
            "back the data up, too (Velero, or the storage's own snapshots), and prove that with a drill",
        )


class _ExpiredCertificates:
    """TLS certificates in Secrets that have expired, or soon will."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._ended, self._soon = Examples(), Examples()

    def see(self, item: Object) -> None:
        if not _is(item, "v1", "Secret") or item.get("type") != "kubernetes.io/tls":
            return
        ends = _end_of((item.get("data") or {}).get("tls.crt"))
        name = f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
        if ends is None:
            return
        if ends <= self._now:
            self._ended.add(f"{name}, on {ends:%Y-%m-%d}")
        elif ends <= self._now + _SOON:
            self._soon.add(f"{name}, on {ends:%Y-%m-%d}")

    def findings(self) -> Iterator[RehearsalFinding]:
        yield from self._ended.finding(
            "certificate-expired",
            Level.WARNING,
            "Secrets with a certificate that has expired: {n}",
            "renew them right after a restore; whoever connects refuses them until then",
        )
        yield from self._soon.finding(
            "certificate-expires-soon",
            Level.NOTE,
            f"Secrets with a certificate that expires within {_SOON.days} days: {{n}}",
            "have them renewed, and save a new backup then",
        )


def _end_of(encoded: object) -> datetime | None:
    """Return when the first certificate of a Secret's value ends; None where it is not a certificate."""
    if not isinstance(encoded, str):
        return None
    try:
        return x509.load_pem_x509_certificate(base64.b64decode(encoded)).not_valid_after_utc
    except (ValueError, binascii.Error, x509.InvalidVersion):
        return None


class _Age:
    """When the cluster last did something: its Leases are renewed every few seconds while anything runs."""

    def __init__(self, claimed: datetime | None) -> None:
        self._claimed = claimed
        self._newest: datetime | None = None

    def see(self, item: Object) -> None:
        if not _is(item, "coordination.k8s.io/v1", "Lease"):
            return
        renewed = _time_of((item.get("spec") or {}).get("renewTime"))
        if renewed is not None and (self._newest is None or renewed > self._newest):
            self._newest = renewed

    def findings(self) -> Iterator[RehearsalFinding]:
        if self._newest is None or self._claimed is None or self._claimed - self._newest <= _STALE:
            return
        yield RehearsalFinding(
            code="older-than-it-claims",
            level=Level.WARNING,
            message=f"it is of {self._claimed:%Y-%m-%d %H:%M} UTC, but nothing in its cluster renewed a Lease after "
            f"{self._newest:%Y-%m-%d %H:%M} UTC",
            hint="what saves it may be reading a stopped member or copying an old file: look at the job that saves it",
        )


def _time_of(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) else None
    except ValueError:
        return None


class _Users:
    """A cluster that nobody uses is seldom the one that people mean to back up."""

    def __init__(self) -> None:
        self._theirs = False
        self._any = False

    def see(self, item: Object) -> None:
        if _is(item, "v1", "Namespace"):
            self._any = True
            self._theirs = self._theirs or item["metadata"]["name"] not in _OWN_NAMESPACES

    def findings(self) -> Iterator[RehearsalFinding]:
        if not self._theirs:
            yield RehearsalFinding(
                code="no-user-namespaces",
                level=Level.WARNING,
                message="it has no namespace but Kubernetes' own",
                hint="make sure that it is a snapshot of the cluster you mean",
            )
