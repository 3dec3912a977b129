"""What of a cluster is covered, on one screen. Every colour has a word beside it; in JSON there is all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from clusterguard.policies.watching.verdict import age_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from rich.console import RenderableType

    from clusterguard.coverage.recorded import RecordedCoverage
    from clusterguard.coverage.sources import NotCounted
    from clusterguard.coverage.table import Coverage, Row
    from clusterguard.coverage.volumes import VolumeRow

__all__ = ["coverage_line", "coverage_view"]

_STYLES: Final = {
    "proven": "green",
    "protected": "green",
    "partly": "red",
    "unprotected": "bold red",
    "unknown": "yellow",
    "excused": "dim",
}
_MOST: Final = 40


def coverage_view(coverage: Coverage) -> RenderableType:
    """Return what a console shows; what is covered as a whole is counted, and what is not is listed."""
    return Group(*_parts(coverage))


def coverage_line(coverage: RecordedCoverage, now: datetime) -> Text:
    """Return one line of what was recorded some time ago: how it was, how long ago, and how much is not covered."""
    mark, verdict, style = {
        "covered": ("✓", "COVERED", "green"),
        "uncovered": ("✗", "NOT ALL COVERED", "red"),
        "unknown": ("!", "UNKNOWN", "yellow"),
    }[coverage.verdict]
    age = f"{age_in_words(coverage.age(now))} ago"
    if not coverage.is_current(now):
        age += ": old, see `clusterguard coverage`" if coverage.at < now else ": a clock is wrong"
        mark, style = ("!", "yellow") if mark == "✓" else (mark, style)
    counts = ", ".join(f"{what} {count:,}" for what, count in coverage.uncovered().items())
    told = Text.assemble(
        ("coverage of ", "dim"), (coverage.cluster, "bold"), "  ", (f"{mark} {verdict}", f"bold {style}")
    )
    return told.append(f"  {age}{f'; not covered: {counts}' if counts else ''}", style="dim")


def _parts(coverage: Coverage) -> Iterator[RenderableType]:
    verdict, style = ("COVERED", "green")
    if coverage.unread:
        verdict, style = ("UNKNOWN", "yellow")
    elif coverage.uncovered:
        verdict, style = ("NOT ALL COVERED", "red")
    moment = f"{coverage.at:%Y-%m-%d %H:%M} UTC"
    yield Text.assemble((coverage.cluster, "bold"), "  ", (verdict, f"bold {style}"), "  ", (moment, "dim"))
    for source in coverage.sources:
        age = age_in_words(coverage.at - source.taken)
        yield Text(f"  {source.name}: {source.backup}, {age} old")
    yield from _lines("does not count", _most_told(coverage.not_counted), style="yellow")
    yield from _lines(
        "could not be looked at",
        [f"{each.what}{f' in {each.namespace}' if each.namespace else ''}: {each.reason}" for each in coverage.unread],
        style="yellow",
    )
    yield _rows("namespace", coverage.namespaces, coverage)
    for title, rows in (("kind", coverage.kinds), ("definition", coverage.definitions)):
        worth = [each for each in rows if each.state in {"partly", "unprotected", "unknown"}]
        good = len(rows) - len(worth)
        if worth:
            yield _rows(title, worth[:_MOST], coverage)
        if len(worth) > _MOST:
            yield Text(f"  and {len(worth) - _MOST:,} more", style="dim")
        if good:
            yield Text(f"  {good:,} {title}(s) protected as a whole, or excused", style="dim")
    yield from _volumes(coverage.volumes)
    yield from _left_out(coverage)
    excused = [f"{rule} {count:,}" for rule, count in coverage.excused.items()]
    yield from _lines("excused", [", ".join(excused)] if excused else [], style="dim")


def _most_told(refused: Sequence[NotCounted]) -> list[str]:
    told = [f"{each.name}: {each.detail} ({each.code})" for each in refused]
    more = [f"and {len(told) - _MOST:,} more"] if len(told) > _MOST else []
    return [*told[:_MOST], *more]


def _lines(title: str, lines: Iterable[str], *, style: str) -> Iterator[Text]:
    for line in lines:
        yield Text(f"  {title}: {line}", style=style)


def _rows(title: str, rows: Sequence[Row], coverage: Coverage) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in (title, "state", "objects", "proven", "why not"):
        table.add_column(
            heading, header_style="dim", overflow="fold", justify="right" if heading == "objects" else "left"
        )
    for each in rows:
        counted = each.objects - each.excused
        table.add_row(
            Text(each.name),
            Text(each.state, style=_STYLES[each.state]),
            f"{each.protected:,}/{counted:,}",
            _proven(each, coverage),
            Text("; ".join(_why(each))),
        )
    return table


def _proven(row: Row, coverage: Coverage) -> str:
    if row.proven_at is not None:
        return f"{age_in_words(coverage.at - row.proven_at)} ago"
    return f"{row.proven:,} of them" if row.proven else "-"


def _why(row: Row) -> Iterator[str]:
    if row.unread:
        yield f"could not be looked at: {', '.join(row.unread[:3])}{' …' if len(row.unread) > 3 else ''}"  # noqa: PLR2004 - enough to know which
    for reason, count in row.reasons.items():
        yield f"{count:,} {reason}"
    if row.newer:
        yield f"{row.newer:,} newer than the backup"


def _volumes(volumes: Sequence[VolumeRow]) -> Iterator[RenderableType]:
    bad = [each for each in volumes if each.state == "unprotected"]
    if bad:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("volume", "type", "state", "why not"):
            table.add_column(heading, header_style="dim", overflow="fold")
        for each in bad[:_MOST]:
            why = each.detail or (each.reason.words if each.reason else "")
            shown = Text(each.state, style=_STYLES[each.state])
            table.add_row(Text(each.name), each.source or "-", shown, Text(f"{each.reason}: {why}"))
        yield table
    if len(bad) > _MOST:
        yield Text(f"  and {len(bad) - _MOST:,} more", style="dim")
    for state in ("protected", "excused"):
        found = [each for each in volumes if each.state == state]
        reasons = sorted({str(each.reason) for each in found if each.reason})
        if found:
            yield Text(
                f"  {len(found):,} volume(s) {state}{f': {chr(44).join(reasons)}' if reasons else ''}", style="dim"
            )


def _left_out(coverage: Coverage) -> Iterator[RenderableType]:
    told = [each for each in coverage.left_out if each.objects > each.excused]
    for each in told[:_MOST]:
        elsewhere = f", {each.elsewhere:,} of them in an etcd snapshot" if each.elsewhere else ""
        examples = ", ".join(each.examples)
        found = f"{each.kind} {each.objects - each.excused:,} ({examples}){elsewhere}"
        yield Text(f"  Velero leaves out: {found}: {each.reason.words}")
    if len(told) > _MOST:
        yield Text(f"  and {len(told) - _MOST:,} more", style="dim")
