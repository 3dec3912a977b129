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
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.policies.report import StepReport
from clusterguard.policies.watching.addresses import unlogged
from clusterguard.scratch import replacing
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.policies.policy import Policy
    from clusterguard.policies.watching.verdict import LocationStatus, PolicyStatus, ProofStatus, SourceStatus

__all__ = ["METRICS", "publish", "push", "render", "serve", "write_textfile"]

METRICS: Final[Mapping[str, str]] = {
    "clusterguard_status_timestamp_seconds": "When the stores were looked at for these numbers.",
    "clusterguard_protection": "1 for the verdict that holds, 0 for the others.",
    "clusterguard_last_success_timestamp_seconds": "When a backup with enough verified copies was last made, or 0.",
    "clusterguard_last_run_timestamp_seconds": "When the last run ended, or 0.",
    "clusterguard_last_run_outcome": "1 for the outcome of the last run, 0 for the others.",
    "clusterguard_last_backup_timestamp_seconds": "When the newest backup was taken, or 0.",
    "clusterguard_backup_duration_seconds": "How long the last run took.",
    "clusterguard_backup_bytes": "Size of the newest backup as it is stored.",
    "clusterguard_backups": "Backups that are kept, each counted once.",
    "clusterguard_verified_copies": "Locations that hold a verified copy of the newest backup.",
    "clusterguard_required_copies": "How many of them the policy wants.",
    "clusterguard_next_due_timestamp_seconds": "When the next backup is due.",
    "clusterguard_overdue": "1 where a backup was due, the grace is over and none was made, or none ever was.",
    "clusterguard_missed_backups": "Backups in a row that were due and not made.",
    "clusterguard_location_up": "1 where the location can be read.",
    "clusterguard_location_bytes": "Bytes of all backups in the location.",
    "clusterguard_location_backups": "Copies in the location.",
    "clusterguard_location_unverified": "Copies that were never read back.",
    "clusterguard_location_unread": "Copies that could not be read the last time; nothing is known against them.",
    "clusterguard_location_verification_overdue": "Copies last read back longer ago than the policy says.",
    "clusterguard_location_damaged": "Copies that were found damaged.",
    "clusterguard_location_leftover_bytes": "Bytes that no record names: of what broke off half-way, or is being made.",
    "clusterguard_location_missing_newest": "Sources whose newest backup the location lacks.",
    "clusterguard_location_in_future": "Entries of a time that has not come yet: a clock was wrong.",
    "clusterguard_proof_last_proven_timestamp_seconds": "When the drill last proved a restore, or 0.",
    "clusterguard_proof_last_outcome": "1 for the outcome of the last drill, 0 for the others.",
    "clusterguard_proof_rto_seconds": "How long the restore took in the last drill.",
    "clusterguard_proof_rpo_seconds": "How old the backup was when the last drill began.",
    "clusterguard_proof_overdue": "1 where the last proof is longer ago than the policy says, or never was.",
}
"""What there is, and what it means; docs/reference/metrics.md has the labels."""

_JOB: Final = "clusterguard"
_PUSH_SECONDS: Final = 10.0
_VERDICTS: Final = ("protected", "at risk", "not protected")
_OUTCOMES: Final = ("ok", "warning", "failed")
_PROOF_OUTCOMES: Final = ("proven", "not proven", "error")


def render(*statuses: PolicyStatus) -> bytes:
    """Return the metrics of one or more policies in Prometheus's text format.

    Raises:
        ConfigError: The extra `policy` is not installed.
    """
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
        ConfigError: The URL is none, or the extra `policy` is not installed.
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
    return tuple(_step(where, way, clock) for where, way in ways)


@contextmanager
def serve(listen: str, collect: Callable[[], Sequence[PolicyStatus]], *, cache_seconds: float = 5.0) -> Iterator[str]:
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

    def __init__(self, collect: Callable[[], Sequence[PolicyStatus]], seconds: float) -> None:
        self._collect = collect
        self._seconds = seconds
        self._lock = threading.Lock()
        self._collected: Sequence[PolicyStatus] = ()
        self._until = float("-inf")

    def __call__(self) -> Sequence[PolicyStatus]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._collected = self._collect()
                self._until = time.monotonic() + self._seconds
            return self._collected


class _Collector:
    """What prometheus_client asks for numbers."""

    def __init__(self, statuses: Callable[[], Sequence[PolicyStatus]]) -> None:
        self._statuses = statuses

    def describe(self) -> list[Any]:
        """Return no names: otherwise registering this would look at the stores."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield every family that has a number."""
        families = _Families()
        for status in self._statuses():
            _add_policy(families, status)
        yield from families.filled()


class _Families:
    """Families of gauges, in the order of `METRICS`; the labels are those of the first number."""

    def __init__(self) -> None:
        self._gauge = _library().metrics_core.GaugeMetricFamily
        self._families: dict[str, Any] = {}

    def add(self, name: str, value: float | None, **labels: str) -> None:
        """Add a number; None is none."""
        if value is None:
            return
        full = f"clusterguard_{name}"
        if full not in self._families:
            self._families[full] = self._gauge(full, METRICS[full], labels=tuple(labels))
        self._families[full].add_metric(tuple(labels.values()), value)

    def one_of(self, name: str, choices: Sequence[str], chosen: str | None, label: str, **labels: str) -> None:
        """Add 1 for what is so, and 0 for what is not."""
        for choice in choices:
            self.add(name, float(choice == chosen), **labels, **{label: choice})

    def filled(self) -> Iterator[Any]:
        """Yield them."""
        yield from (self._families[name] for name in METRICS if name in self._families)


def _add_policy(families: _Families, status: PolicyStatus) -> None:
    labels = {"policy": status.policy}
    families.add("status_timestamp_seconds", status.at.timestamp(), **labels)
    families.one_of("protection", _VERDICTS, status.verdict, "verdict", **labels)
    for source in status.sources:
        _add_source(families, source, {**labels, "source": source.name})
    for location in status.locations:
        _add_location(families, location, {**labels, "location": location.name})
    for proof in status.proofs:
        _add_proof(families, proof, {**labels, "source": proof.source, "proof": proof.name})


def _add_source(families: _Families, source: SourceStatus, labels: dict[str, str]) -> None:
    families.add("last_success_timestamp_seconds", _seconds(source.last_success), **labels)
    families.add("last_run_timestamp_seconds", _seconds(source.last_run), **labels)
    families.one_of("last_run_outcome", _OUTCOMES, source.last_outcome, "outcome", **labels)
    families.add("last_backup_timestamp_seconds", _seconds(source.newest_at), **labels)
    families.add("backup_duration_seconds", source.last_seconds, **labels)
    families.add("backup_bytes", source.newest_bytes, **labels)
    families.add("backups", source.backups, **labels)
    families.add("verified_copies", source.verified_copies, **labels)
    families.add("required_copies", source.required_copies, **labels)
    if source.next_due is not None:
        families.add("next_due_timestamp_seconds", source.next_due.timestamp(), **labels)
    families.add("overdue", float(source.overdue), **labels)
    families.add("missed_backups", source.missed, **labels)


def _add_location(families: _Families, location: LocationStatus, labels: dict[str, str]) -> None:
    families.add("location_up", float(location.reachable), **labels)
    if not location.reachable:
        return
    families.add("location_bytes", location.size, **labels)
    families.add("location_backups", location.backups, **labels)
    families.add("location_unverified", location.unverified, **labels)
    families.add("location_unread", location.unread, **labels)
    families.add("location_verification_overdue", location.verification_overdue, **labels)
    families.add("location_damaged", location.damaged, **labels)
    families.add("location_leftover_bytes", location.leftover_bytes, **labels)
    families.add("location_missing_newest", len(location.missing), **labels)
    families.add("location_in_future", location.in_future, **labels)


def _add_proof(families: _Families, proof: ProofStatus, labels: dict[str, str]) -> None:
    families.add("proof_last_proven_timestamp_seconds", _seconds(proof.last_proven), **labels)
    families.one_of("proof_last_outcome", _PROOF_OUTCOMES, proof.last_outcome, "outcome", **labels)
    families.add("proof_rto_seconds", proof.rto_seconds, **labels)
    families.add("proof_rpo_seconds", proof.rpo_seconds, **labels)
    families.add("proof_overdue", float(proof.overdue), **labels)


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()


def _registry(statuses: Callable[[], Sequence[PolicyStatus]]) -> Any:  # noqa: ANN401 - the library's own
    registry = _library().CollectorRegistry()
    registry.register(_Collector(statuses))
    return registry


def _gateway(url: str) -> tuple[str, Callable[..., Any]]:
    """Return the address without user and password, and how to send with them."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            "the address of the Pushgateway is no http or https URL", hint="write it like http://pushgateway:9091"
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
        return "what it answered is no HTTP"
    return str(getattr(error, "reason", None) or error.strerror or type(error).__name__)


def _step(where: str, way: Callable[[], None], now: Callable[[], datetime]) -> StepReport:
    began = time.monotonic()
    try:
        way()
    except ClusterGuardError as error:
        return StepReport(
            verb="metrics",
            outcome="warning",
            at=now(),
            detail=error.message,
            hint=error.hint or "",
            seconds=time.monotonic() - began,
        )
    return StepReport(verb="metrics", outcome="ok", at=now(), detail=where, seconds=time.monotonic() - began)


def _host_and_port(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest port
        raise ConfigError(f"{listen!r} is no address and port", hint="write it like 127.0.0.1:9188")
    return host.strip("[]") or "127.0.0.1", int(port)


def _library() -> Any:  # noqa: ANN401 - imported late, for those who have not installed it
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigError("metrics need prometheus-client", hint="pip install 'clusterguard[policy]'") from error
    return prometheus_client
