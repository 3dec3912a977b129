"""Tells people of a run, by whatever apprise can reach: webhooks, Slack, e-mail and a hundred others.

A target's address is a secret. It is in no message, log or error of ours; the target is called by its name.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import ConfigError
from clusterguard.policies.report import StepReport
from clusterguard.policies.watching.addresses import read_address, unlogged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from clusterguard.policies.policy import Notification, NotifyOn, Policy
    from clusterguard.policies.report import RunReport

__all__ = ["Message", "message_of", "notified_on", "notify"]

_MOST_PROBLEMS: Final = 10  # a message is read on a telephone
_LONGEST_DETAIL: Final = 400
_SECONDS: Final = 30.0
_HTTP_STATUS = re.compile(r"\berror=(\d{3})\b")
_MARKS: Final = {"failed": "✗", "warning": "!"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What people are told."""

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
    deliveries = [_Delivery(target, message, environ) for target in targets]
    until = time.monotonic() + seconds
    clock = now or (lambda: datetime.now(UTC))
    return tuple(each.report(max(0.0, until - time.monotonic()), limit=seconds, now=clock) for each in deliveries)


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


class _Delivery:
    """One message on its way to one target, in a thread of its own: nothing that it does can hold up the run."""

    def __init__(self, target: Notification, message: Message, environ: Mapping[str, str]) -> None:
        self._target = target
        self._message = message
        self._environ = environ
        self._problem = ""
        self._hint = ""
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._send, name=f"clusterguard-notify-{target.name}", daemon=True)
        self._thread.start()

    def report(self, seconds: float, *, limit: float, now: Callable[[], datetime]) -> StepReport:
        """Wait for the end, for so long at most, and tell what came of it."""
        self._thread.join(seconds)
        problem, hint = self._problem, self._hint
        if self._thread.is_alive():
            problem, hint = (
                f"its service did not answer within {limit:g} s",
                "check whether it can be reached from here",
            )
        who = self._target.name
        return StepReport(
            verb="notify",
            outcome="warning" if problem else "ok",
            at=now(),
            detail=f"{who} was not told: {problem}" if problem else f"{who} was told",
            hint=hint if problem else "",
            seconds=time.monotonic() - self._began,
        )

    def _send(self) -> None:
        try:
            address = read_address(self._target.url, self._environ)
        except ConfigError as error:
            self._problem, self._hint = error.message, error.hint or ""
            return
        with unlogged() as logged:
            self._problem = _deliver(address, self._message, logged)
        self._hint = f"check the address in {self._target.url}, and whether its service can be reached from here"


def _deliver(address: str, message: Message, logged: list[str]) -> str:
    """Send a message; return what went wrong, without the address, or nothing."""
    apprise = _import_apprise()
    try:
        sender = apprise.Apprise()
        if not sender.add(address):
            return "there is no address that apprise knows"
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
