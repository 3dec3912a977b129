"""Tells people of a run, by whatever apprise can reach: webhooks, Slack, e-mail and a hundred others.

A target's address is a secret. It is in no message, log or error of ours; the target is called by its name.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.policies.copies.encryption import read_secret
from clusterguard.policies.report import reported
from clusterguard.policies.watching.addresses import unlogged
from clusterguard.policies.watching.background import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from clusterguard.policies.policy import Notification, NotifyOn, Policy
    from clusterguard.policies.report import RunReport, StepReport

__all__ = ["Message", "message_of", "notified_on", "notify"]

_MOST_PROBLEMS: Final = 10  # a message is read on a telephone
_LONGEST_DETAIL: Final = 400
_SECONDS: Final = 30.0
_HTTP_STATUS = re.compile(r"\berror=(\d{3})\b")
_MARKS: Final = {"failed": "✗", "warning": "!"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notification."""

    title: str  # one line
    body: str  # what failed, what to do about it, and what still counts; plain text
    kind: str  # how apprise colours it


def notify(
    policy: Policy,
    report: RunReport,
    *,
    environ: Mapping[str, str],
    seconds: float = _SECONDS,
    now: Callable[[], datetime] | None = None,
) -> tuple[StepReport, ...]:
    """Send the notifications that the policy wants for this run, all at once, and report which arrived.

    A target that is down is a warning: the backup counts all the same.

    - ``seconds``: how long any target may take.
    """
    kinds = set(notified_on(report))
    targets = [each for each in policy.notifications if kinds.intersection(each.on)]
    if not targets:
        return ()
    _import_apprise()
    message = message_of(report, copies=policy.copies)
    until = time.monotonic() + seconds
    # Each in a thread of its own: nothing that one of them does holds up the others, or the run.
    deliveries = [
        (each, in_background(f"clusterguard-notify-{each.name}", partial(_send, each, message, environ)))
        for each in targets
    ]
    clock = now or (lambda: datetime.now(UTC))
    return tuple(
        reported(
            "notify", f"{each.name} was notified", partial(_require_arrival, each, delivery, until, seconds), now=clock
        )
        for each, delivery in deliveries
    )


def notified_on(report: RunReport) -> tuple[NotifyOn, ...]:
    """Return which notifications a run is for; a run that succeeds again is for two kinds."""
    by_outcome: Mapping[str, NotifyOn] = {"failed": "failure", "warning": "warning", "ok": "success"}
    kind = by_outcome[report.outcome]
    return (kind, "recovery") if report.recovered else (kind,)


def message_of(report: RunReport, *, copies: int) -> Message:
    """Put a run into words.

    - ``copies``: how many verified copies the policy wants.
    """
    return Message(
        title=_title(report),
        body="\n".join(_body(report, copies)),
        kind={"failed": "failure", "warning": "warning", "ok": "success"}[report.outcome],
    )


def _title(report: RunReport) -> str:
    problems = [*report.with_outcome("failed"), *report.with_outcome("warning")]
    about = f"backup policy {report.policy}"
    if report.outcome == "failed":
        return f"FAILED: {about}: {_headline(problems)}"
    if report.outcome == "warning":
        return f"Warning: {about}: {_headline(problems)}"
    if report.recovered:
        return f"Recovered: {about}: {_and(report.recovered)} backed up again"
    return f"OK: {about}"


def _headline(problems: list[StepReport]) -> str:
    first = problems[0]
    where = " ".join(filter(None, (first.verb, first.source, f"in {first.location}" if first.location else "")))
    return where if len(problems) == 1 else f"{where} and {len(problems) - 1} more"


def _body(report: RunReport, copies: int) -> Iterator[str]:
    problems = [*report.with_outcome("failed"), *report.with_outcome("warning")]
    for step in problems[:_MOST_PROBLEMS]:
        yield f"{_MARKS[step.outcome]} {_shortened(_said(step))}"
        if step.hint:
            yield f"  → {_shortened(step.hint)}"
    if len(problems) > _MOST_PROBLEMS:
        yield f"… and {len(problems) - _MOST_PROBLEMS} more"
    if problems:
        yield ""
    yield from _what_counts(report, copies)
    if report.recovered:
        yield f"✓ works again: {_and(report.recovered)}"
    seconds = (report.finished - report.started).total_seconds()
    yield f"run {report.run}, {report.finished:%Y-%m-%d %H:%M} UTC, {seconds:.0f} s"


def _said(step: StepReport) -> str:
    about = "/".join(filter(None, (step.source, step.backup)))
    words = " ".join(filter(None, (step.verb, about, f"in {step.location}" if step.location else "")))
    return f"{words}: {step.detail or step.outcome}"


def _what_counts(report: RunReport, copies: int) -> Iterator[str]:
    """Say which backups were made, and how many of their copies were read back whole."""
    made = {(step.source, step.backup) for step in report.steps if step.verb == "backup" and step.outcome != "failed"}
    for source, backup in sorted(made):
        whole = {
            step.location
            for step in report.steps
            if (step.verb, step.source, step.backup, step.outcome) == ("verify", source, backup, "ok")
        }
        enough = "✓" if len(whole) >= copies else "!"
        yield f"{enough} {source}: {backup}, {len(whole)} of {copies} verified copies that are wanted"
    failed = {step.source for step in report.steps if step.verb == "backup" and step.outcome == "failed"}
    for source in sorted(failed - {source for source, _ in made}):
        yield f"✗ {source}: no new backup; the earlier ones are as they were"


def _require_arrival(target: Notification, delivery: Future[None], until: float, limit: float) -> None:
    try:
        delivery.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        raise ClusterGuardError(
            f"{target.name} was not notified: its service did not answer within {limit:g} s",
            hint="check whether it can be reached from here",
        ) from None
    except ClusterGuardError as error:
        raise ClusterGuardError(f"{target.name} was not notified: {error.message}", hint=error.hint) from None


def _send(target: Notification, message: Message, environ: Mapping[str, str]) -> None:
    address = read_secret(target.url, environ, what="the address")
    with unlogged() as logged:
        if problem := _deliver(address, message, logged):
            hint = f"check the address in {target.url}, and whether its service can be reached from here"
            raise ClusterGuardError(problem, hint=hint)


def _deliver(address: str, message: Message, logged: list[str]) -> str:
    """Send a message; return what went wrong, without the address, or nothing."""
    apprise = _import_apprise()
    try:
        sender = apprise.Apprise()
        if not sender.add(address):
            return "not an address that apprise knows"
        if sender.notify(
            title=message.title, body=message.body, notify_type=message.kind, body_format=apprise.NotifyFormat.TEXT
        ):
            return ""
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises may have the address in it, and ends here
        return f"its plugin failed with {type(error).__name__}"
    return f"its service refused the message{_reason(logged)}"


def _reason(logged: list[str]) -> str:
    """Return the HTTP status out of what apprise logged; the rest of it may have the address in it."""
    with suppress(StopIteration):
        return next(f" (HTTP {match[1]})" for match in map(_HTTP_STATUS.search, logged) if match)
    return " or could not be reached"


def _import_apprise() -> Any:  # noqa: ANN401 - it ships no types
    try:
        import apprise
    except ImportError as error:
        raise ConfigError("notifications need apprise", hint="pip install 'clusterguard[policy]'") from error
    return apprise


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 1]}…"


def _and(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
