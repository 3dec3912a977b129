"""A policy's status on one screen. Every colour has a sign or a word beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from clusterguard.model.durations import format_duration
from clusterguard.policies.watching.verdict import DAY_WORDS, age_in_words, size_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from rich.console import RenderableType

    from clusterguard.policies.watching.verdict import (
        DayState,
        LocationStatus,
        PolicyStatus,
        ProofStatus,
        SourceStatus,
    )

__all__ = ["status_view"]

_STYLES: Final = {"protected": "green", "at risk": "yellow", "not protected": "red", "note": "dim"}
_MARKS: Final = {"protected": "✓", "at risk": "!", "not protected": "✗", "note": "·"}
_DAYS: Final[Mapping[DayState, tuple[str, str]]] = {
    "verified": ("■", "green"),
    "unverified": ("□", "yellow"),
    "damaged": ("✗", "red"),
    "missed": ("!", "bold red"),
    "none": ("·", "dim"),
}
_MOST_REASONS: Final = 12
_NAME: Final = 11  # what a longer name is folded to, where the screen is narrow


def status_view(status: PolicyStatus) -> RenderableType:
    """Return what a console shows of a policy."""
    return Group(*_parts(status))


def _parts(status: PolicyStatus) -> Iterator[RenderableType]:
    style = _STYLES[status.verdict]
    verdict = f"{_MARKS[status.verdict]} {status.verdict.upper()}"
    moment = f"{status.at:%Y-%m-%d %H:%M} UTC"
    yield Text.assemble((status.policy, "bold"), "  ", (verdict, f"bold {style}"), "  ", (moment, "dim"))
    if status.description:
        yield Text(status.description, style="dim")
    yield from _reasons(status)
    yield _indented(_sources(status))
    yield _indented(_calendar(status))
    yield _indented(_locations(status))
    if status.proofs:
        yield _indented(_proofs(status))


def _reasons(status: PolicyStatus) -> Iterator[RenderableType]:
    grid = Table.grid(padding=(0, 1))
    for reason in status.reasons[:_MOST_REASONS]:
        style = _STYLES[reason.severity]
        grid.add_row(Text(_MARKS[reason.severity], style=style), Text(str(reason), style=style))
        if reason.hint and reason.severity != "note":
            grid.add_row("", Text(f"→ {reason.hint}", style="dim"))
    more = len(status.reasons) - _MOST_REASONS
    if more > 0:
        grid.add_row("", Text(f"… and {more} more: --json has them all", style="dim"))
    if status.reasons:
        yield Padding(grid, (0, 0, 0, 2))


def _sources(status: PolicyStatus) -> Table:
    table = _table("source", "last success", "newest", "size", "copies", "kept", "next due UTC")
    for source in status.sources:
        table.add_row(*_source(source, status.at))
    return table


def _source(source: SourceStatus, now: datetime) -> tuple[Text, ...]:
    enough = source.verified_copies >= source.required_copies
    newest = age_in_words(now - source.newest_at) if source.newest_at else "none"
    return (
        Text(source.name, style="bold"),
        _judged(_ago(age_in_words(source.age)), good=not source.overdue),
        Text(_ago(newest)),
        Text(size_in_words(source.newest_bytes) if source.newest_bytes is not None else "-"),
        _judged(f"{source.verified_copies} of {source.required_copies}", good=enough),
        Text(f"{source.backups:,}"),
        Text(f"{source.next_due:%m-%d %H:%M}" if source.next_due else "no schedule"),
    )


def _calendar(status: PolicyStatus) -> Table:
    days = len(status.sources[0].days) if status.sources else 0
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0), show_header=True)
    table.add_column(f"last {days} days", no_wrap=True)
    table.add_column(_ruler(days), no_wrap=True)
    for source in status.sources:
        table.add_row(Text(source.name, style="bold"), Text.assemble(*(_DAYS[day.state] for day in source.days)))
    seen = {day.state for source in status.sources for day in source.days}
    legend = Text.assemble(
        *((f"{mark} {DAY_WORDS[state]}  ", style) for state, (mark, style) in _DAYS.items() if state in seen)
    )
    table.add_row("", legend)
    return table


def _ruler(days: int) -> str:
    return f"{f'{days - 1} days ago':<{max(0, days - 5)}}today" if days else ""


def _locations(status: PolicyStatus) -> Table:
    table = _table("location", "", "copies", "size", "oldest", "newest", "unverified", "damaged")
    for location in status.locations:
        table.add_row(*_location(location, status.at))
    return table


def _location(location: LocationStatus, now: datetime) -> tuple[Text, ...]:
    name = Text(location.name, style="bold")
    if not location.reachable:
        return name, _judged("", good=False, bad="down"), *(Text("?") for _ in range(6))
    behind = _judged("", good=not location.missing, bad="behind")
    return (
        name,
        behind,
        Text(f"{location.backups:,}"),
        Text(size_in_words(location.size)),
        Text(age_in_words(now - location.oldest) if location.oldest else "-"),
        Text(age_in_words(now - location.newest) if location.newest else "-"),
        Text(f"{location.unverified:,}"),
        Text(f"{location.damaged:,}", style="bold red" if location.damaged else ""),
    )


def _proofs(status: PolicyStatus) -> Table:
    table = _table("proof", "source", "last proven", "every", "RTO", "RPO")
    for proof in status.proofs:
        table.add_row(*_proof(proof))
    return table


def _proof(proof: ProofStatus) -> tuple[Text, ...]:
    failed = proof.last_outcome not in {None, "proven"}
    return (
        Text(proof.name, style="bold"),
        Text(proof.source),
        _judged(_ago(age_in_words(proof.age)), good=not proof.overdue and not failed),
        Text(age_in_words(proof.every)),
        Text(format_duration(proof.rto_seconds) if proof.rto_seconds is not None else "-"),
        Text(format_duration(proof.rpo_seconds) if proof.rpo_seconds is not None else "-"),
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number > 0, overflow="fold", min_width=None if number else _NAME)
    return table


def _indented(table: Table) -> Padding:
    return Padding(table, (1, 0, 0, 2))


def _judged(text: str, *, good: bool, bad: str = "") -> Text:
    if good:
        return Text(f"✓ {text}".rstrip(), style="green")
    return Text(" ".join(filter(None, ("✗", text, bad))), style="red")


def _ago(age: str) -> str:
    return age if age in {"never", "none"} else f"{age} ago"
