"""A policy's status as Prometheus metrics: as text, in a file, pushed to a gateway, or served.

Every number is a gauge that is read from the stores, so it is right whoever runs the backups and wherever this runs. A
time that never was is 0, so that whatever compares it with now finds it too long ago. What is not known is left out:
a location that is down has no number of backups.
"""

from __future__ import annotations

import base64
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.evidence.history import LatestRun
from clusterguard.policies.report import reported
from clusterguard.policies.watching.addresses import unlogged
from clusterguard.scratch import replacing
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.policies.policy import Policy
    from clusterguard.policies.report import StepReport
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["METRICS", "publish", "push", "render", "serve", "write_textfile"]

_MEANINGS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "policy": {
        "status_timestamp_seconds": ("at", "When the stores were looked at for these numbers."),
        "protection": ("verdict", "1 for the verdict that holds, 0 for the others."),
    },
    "source": {
        "last_success_timestamp_seconds": (
            "last_success", "When a backup with enough verified copies was last made, or 0."
        ),
        "last_run_timestamp_seconds": ("last_run", "When the last run ended, or 0."),
        "last_run_outcome": ("last_outcome", "1 for the outcome of the last run, 0 for the others."),
        "last_backup_timestamp_seconds": ("newest_at", "When the newest backup was taken, or 0."),
        "backup_duration_seconds": ("last_seconds", "How long the last run took."),
        "backup_bytes": ("newest_bytes", "Size of the newest backup as it is stored."),
        "backups": ("backups", "Backups that are kept, each counted once."),
        "verified_copies": ("verified_copies", "Locations that hold a verified copy of the newest backup."),
        "required_copies": ("required_copies", "How many of them the policy wants."),
        "next_due_timestamp_seconds": ("next_due", "When the next backup is due."),
        "overdue": ("overdue", "1 where a backup was due, the grace is over and none was made, or none ever was."),
        "missed_backups": ("missed", "Backups in a row that were due and not made."),
    },
    "location": {
        "location_up": ("reachable", "1 where the location can be read."),
        "location_bytes": ("size", "Bytes of all backups in the location."),
        "location_backups": ("backups", "Copies in the location."),
        "location_unverified": ("unverified", "Copies that were never read back."),
        "location_unread": (
            "unread", "Copies that could not be read the last time; nothing is known against them."
        ),
        "location_verification_overdue": (
            "verification_overdue", "Copies last read back longer ago than the policy says."
        ),
        "location_damaged": ("damaged", "Copies that were found damaged."),
        "location_leftover_bytes": (
            "leftover_bytes", "Bytes that no record names: of what broke off half-way, or is being made."
        ),
        "location_missing_newest": ("missing", "Sources whose newest backup the location lacks."),
        "location_in_future": ("in_future", "Entries of a time that has not come yet: a clock was wrong."),
    },
    "proof": {
        "proof_last_proven_timestamp_seconds": ("last_proven", "When a restore was last proven, or 0."),
        "proof_last_outcome": ("last_outcome", "1 for the outcome of the last proof, 0 for the others."),
        "proof_rto_seconds": ("rto_seconds", "How long the restore took in the last proof."),
        "proof_rpo_seconds": ("rpo_seconds", "How old the backup was when the last proof began."),
        "proof_overdue": ("overdue", "1 where the last proof is longer ago than the policy says, or never was."),
    },
    "drill": {
        "drill_last_run_timestamp_seconds": ("started", "When the last run whose evidence is kept began."),
        "drill_last_verdict": ("verdict", "1 for the verdict of that run, 0 for the others."),
        "drill_rto_seconds": ("rto", "How long recovery took in that run."),
        "drill_rpo_seconds": ("lost", "How many seconds of changes were lost at most in that run."),
        "drill_rto_median_seconds": ("median", "Median of the recovery times of up to ten runs before it that passed."),
        "drill_rto_ratio": ("ratio", "How many times that median the recovery of that run took."),
    },
}  # fmt: skip
METRICS: Final[Mapping[str, str]] = {
    f"clusterguard_{name}": text for metrics in _MEANINGS.values() for name, (_, text) in metrics.items()
}
"""What there is, and what it means; docs/reference/metrics.md has the labels."""

_CHOICES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "protection": ("verdict", ("protected", "at risk", "not protected")),
    "last_run_outcome": ("outcome", ("ok", "warning", "failed")),
    "proof_last_outcome": ("outcome", ("proven", "not proven", "error")),
    "drill_last_verdict": ("verdict", ("PASS", "FAIL", "ERROR")),
}
_NEVER_IS_ZERO: Final = ("last_success", "last_run", "newest_at", "last_proven")
_JOB: Final = "clusterguard"
_PUSH_SECONDS: Final = 10.0


def render(*statuses: PolicyStatus | LatestRun) -> bytes:
    """Return the metrics of policies, and of drills' last runs, in Prometheus's text format."""
    text: bytes = _library().generate_latest(_registry(lambda: statuses))
    return text


def write_textfile(path: Path | str, *statuses: PolicyStatus) -> None:
    """Write the metrics to a file for a node exporter, which never sees half of it; mode 0644.

    Raises:
        ConfigError: The name does not end in ``.prom``, without which no node exporter reads it, or the extra `policy`
            is not installed.
        ClusterGuardError: It cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix != ".prom":
        raise ConfigError(f"{target}: a node exporter reads files that end in .prom alone", hint="name it so")
    text = render(*statuses)
    try:
        with replacing(target, mode=0o644) as file:
            file.write(text)
    except OSError as error:
        raise ClusterGuardError(
            f"{target}: {error.strerror}", hint=f"let this user write in {target.parent}, and make room there"
        ) from error


def push(url: str, status: PolicyStatus, *, seconds: float = _PUSH_SECONDS) -> None:
    """Put the metrics of a policy in the place of its earlier ones at a Pushgateway.

    Args:
        url: Of the gateway; a user and password in it are sent as basic authentication.
        status: What to push; the gateway keeps it by the policy's name.
        seconds: How long the gateway may take.

    Raises:
        ConfigError: The URL is invalid, or the extra `policy` is not installed.
        ClusterGuardError: The gateway did not take them.
    """
    library = _library()
    gateway, handler = _gateway(url)
    try:
        with unlogged():
            library.push_to_gateway(
                gateway,
                job=_JOB,
                registry=_registry(lambda: (status,)),
                grouping_key={"policy": status.policy},
                timeout=seconds,
                handler=handler,
            )
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise ClusterGuardError(
            f"the Pushgateway at {gateway} did not take the metrics: {_in_words(error)}",
            code="metrics-not-pushed",
            hint="check the address, and whether it can be reached from here",
        ) from None  # the error may hold the password


def publish(
    policy: Policy, status: PolicyStatus, *, now: Callable[[], datetime] | None = None
) -> tuple[StepReport, ...]:
    """Bring the metrics to where the policy says, and report what came of it: a failure is a warning."""
    ways: list[tuple[str, Callable[[], None]]] = []
    if policy.metrics.textfile:
        ways.append((policy.metrics.textfile, lambda: write_textfile(policy.metrics.textfile, status)))
    if policy.metrics.pushgateway:
        ways.append(("the Pushgateway", lambda: push(policy.metrics.pushgateway, status)))
    clock = now or (lambda: datetime.now(UTC))
    return tuple(reported("metrics", where, way, now=clock) for where, way in ways)


@contextmanager
def serve(
    listen: str, collect: Callable[[], Sequence[PolicyStatus | LatestRun]], *, cache_seconds: float = 5.0
) -> Iterator[str]:
    """Serve the metrics at ``/metrics`` while the ``with`` block runs, and give the URL.

    When they cannot be collected the answer is 500, which a Prometheus sees as a target that is down: never numbers of
    an earlier look.

    Args:
        listen: Address and port, such as ``127.0.0.1:9188``; port 0 is any free one.
        collect: Looks at the stores; called by one thread at a time.
        cache_seconds: For how long an answer is given again.

    Raises:
        ConfigError: The address cannot be listened on, or the extra `policy` is not installed.
    """
    library = _library()
    host, port = _host_and_port(listen)
    registry = _registry(_Cached(collect, cache_seconds))
    try:
        server, thread = library.start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen}: {error.strerror or error}", hint="choose another address or port"
        ) from error
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Cached:
    """Collects once for all who ask within a few seconds."""

    def __init__(self, collect: Callable[[], Sequence[PolicyStatus | LatestRun]], seconds: float) -> None:
        self._collect = collect
        self._seconds = seconds
        self._lock = threading.Lock()
        self._collected: Sequence[PolicyStatus | LatestRun] = ()
        self._until = float("-inf")

    def __call__(self) -> Sequence[PolicyStatus | LatestRun]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._collected = self._collect()
                self._until = time.monotonic() + self._seconds
            return self._collected


class _Collector:
    """What prometheus_client asks for numbers."""

    def __init__(self, statuses: Callable[[], Sequence[PolicyStatus | LatestRun]]) -> None:
        self._statuses = statuses

    def describe(self) -> list[Any]:
        """Return no names: otherwise registering this would look at the stores."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield every family that has a number."""
        statuses = self._statuses()
        for scope, metrics in _MEANINGS.items():
            items = [item for status in statuses for item in _items(scope, status)]
            for name, (attribute, text) in metrics.items():
                samples = [sample for item, labels in items for sample in _samples(name, attribute, item, labels)]
                if samples:
                    yield _family(f"clusterguard_{name}", text, samples)


_Sample: TypeAlias = tuple[dict[str, str], float]


def _family(name: str, text: str, samples: Sequence[_Sample]) -> Any:  # noqa: ANN401 - the library's own
    family = _library().metrics_core.GaugeMetricFamily(name, text, labels=tuple(samples[0][0]))
    for labels, value in samples:
        family.add_metric(tuple(labels.values()), value)
    return family


def _items(scope: str, status: PolicyStatus | LatestRun) -> Iterator[tuple[object, dict[str, str]]]:
    """Yield what a policy or a drill has numbers of, with their labels."""
    if isinstance(status, LatestRun):
        if scope == "drill":
            yield status, {"drill": status.drill}
        return
    labels = {"policy": status.policy}
    match scope:
        case "policy":
            yield status, labels
        case "source":
            yield from ((each, {**labels, "source": each.name}) for each in status.sources)
        case "location":
            yield from ((each, {**labels, "location": each.name}) for each in status.locations)
        case "proof":
            yield from ((each, {**labels, "source": each.source, "proof": each.name}) for each in status.proofs)


def _samples(name: str, attribute: str, item: object, labels: dict[str, str]) -> Iterator[_Sample]:
    value = getattr(item, attribute)
    if attribute != "reachable" and not getattr(item, "reachable", True):
        return
    if name in _CHOICES:
        label, choices = _CHOICES[name]
        yield from (({**labels, label: choice}, float(choice == value)) for choice in choices)
    elif value is not None or attribute in _NEVER_IS_ZERO:
        yield labels, _number(value)


def _number(value: float | datetime | tuple[str, ...] | None) -> float:
    match value:
        case datetime():
            return value.timestamp()
        case tuple():
            return len(value)
    return float(value or 0)


def _registry(statuses: Callable[[], Sequence[PolicyStatus | LatestRun]]) -> Any:  # noqa: ANN401 - the library's own
    registry = _library().CollectorRegistry()
    registry.register(_Collector(statuses))
    return registry


def _gateway(url: str) -> tuple[str, Callable[..., Any]]:
    """Return the address without user and password, and how to send with them."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            "the address of the Pushgateway is not an http or https URL", hint="write it like http://pushgateway:9091"
        )
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    authorization = {"Authorization": f"Basic {login}"} if parts.username is not None else {}
    # The library's own handler would send what is for loopback to a proxy, too.
    opener = build_opener(ProxyHandler({}) if is_loopback(address) else ProxyHandler())

    def handler(
        *, url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        request = Request(url, data=data, headers={**dict(headers), **authorization}, method=method)  # noqa: S310 - http
        return lambda: opener.open(request, timeout=timeout).close()

    return address, handler


def _in_words(error: OSError | HTTPException) -> str:
    if isinstance(error, HTTPError):
        return f"it answered {error.code}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return "it did not answer in time"
    if isinstance(error, HTTPException):
        return "its answer is not HTTP"
    return str(getattr(error, "reason", None) or error.strerror or type(error).__name__)


def _host_and_port(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest port
        raise ConfigError(f"{listen!r} is not an address and port", hint="write it like 127.0.0.1:9188")
    return host.strip("[]") or "127.0.0.1", int(port)


def _library() -> Any:  # noqa: ANN401 - imported late, for those who have not installed it
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigError("metrics need prometheus-client", hint="pip install 'clusterguard[policy]'") from error
    return prometheus_client
