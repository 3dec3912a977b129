"""The report of drills as one HTML file; see `clusterguard.documents.pages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from clusterguard.documents.pages import page_environment
from clusterguard.evidence.history import LEAST_RUNS
from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from clusterguard.evidence.history import EarlierRun
    from clusterguard.evidence.report import DrillReport, Report, RunDetails

__all__ = ["render_report"]

_RECOVERY: Final = ("provision for the restore", "restore", "verify")
_LEAST_WIDTH: Final = 0.6  # percent: a phase of a moment is seen to be there
_MOST_LINES: Final = 400  # of a diff, and of what was collected
_MARKS: Final = {"PASS": "✓", "FAIL": "✗", "ERROR": "!"}
_COLOURS: Final = {"PASS": "good", "FAIL": "bad", "ERROR": "warn"}
_HEADROOM: Final = 1.15
_FAR: Final = 2.5
_STUMP: Final = 3  # percent: what stands for a run without a value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """A phase on the time line, or a run in a plot; places and sizes in percent."""

    left: float
    width: float
    height: float
    colour: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """Recovery time or lost changes of the last runs; lines are heights in percent, by what they stand for."""

    bars: tuple[_Bar, ...]
    lines: tuple[tuple[str, float], ...]
    words: str


def render_report(report: Report, *, at: datetime) -> str:
    """Return the page.

    Args:
        report: What it shows.
        at: When it was made, UTC.

    Raises:
        ConfigError: The extra `policy` is not installed.
    """
    environment = page_environment("clusterguard.evidence")
    environment.filters |= {"diff": _diff_lines, "cut": _cut, "share": lambda score: f"{int(score)} %"}
    environment.globals |= {"timeline": _timeline, "recovery": _recovery, "loss": _loss, "least_runs": LEAST_RUNS}
    environment.globals |= {"marks": _MARKS, "colours": _COLOURS, "recovery_phases": _RECOVERY}
    page: str = environment.get_template("report.html.j2").render(report=report, at=at, several=_several(report))
    return page


def _several(report: Report) -> bool:
    return len({drill.where for drill in report.drills}) > 1


def _timeline(run: RunDetails) -> Iterator[tuple[Any, _Bar]]:
    """Yield each phase with its bar."""
    whole = sum(phase.seconds for phase in run.phases) or 1.0
    begun = 0.0
    for phase in run.phases:
        width = max(100 * phase.seconds / whole, _LEAST_WIDTH)
        counts = phase.name in _RECOVERY
        colour = _COLOURS.get(phase.verdict, "warn") if phase.verdict != "PASS" or counts else "other"
        yield (
            phase,
            _Bar(left=min(100 * begun / whole, 100 - width), width=width, height=100, colour=colour, title=phase.name),
        )
        begun += phase.seconds


def _recovery(drill: DrillReport) -> _Plot | None:
    median = drill.trend.median_seconds
    lines = [("objective", drill.run.objectives.get("rtoSeconds")), ("median", median)]
    return _plot([(run, run.rto) for run in drill.runs], lines, what="recovery")


def _loss(drill: DrillReport) -> _Plot | None:
    objective = drill.run.objectives.get("rpoSeconds")
    return _plot([(run, run.lost) for run in drill.runs], [("objective", objective)], what="changes lost")


def _plot(
    runs: Sequence[tuple[EarlierRun, float | None]], lines: Sequence[tuple[str, float | None]], *, what: str
) -> _Plot | None:
    """Return the plot of some runs, each beside the next; None where no run has a value."""
    values = [value for _, value in runs if value is not None]
    if not values:
        return None
    highest = max(values)
    # An objective far above all of them would make them too small to tell apart.
    top = max(highest, *(at for _, at in lines if at and at <= _FAR * highest), 1e-9) * _HEADROOM
    told = {name: format_duration(at) for name, at in lines if at is not None}
    words = [f"the last {len(runs)} runs" if len(runs) > 1 else "one run", f"longest {format_duration(max(values))}"]
    words += [f"{name} {text}" for name, text in told.items()]
    if any(at is not None and at > top for _, at in lines):
        words.append("the objective is far above this picture")
    step = 100 / max(len(runs), 8)
    return _Plot(
        bars=tuple(_bar(index * step, step, run, value, top, what) for index, (run, value) in enumerate(runs)),
        lines=tuple((name, 100 - 100 * at / top) for name, at in lines if at is not None and at <= top),
        words=", ".join(words),
    )


def _bar(left: float, step: float, run: EarlierRun, value: float | None, top: float, what: str) -> _Bar:
    told = f"{what} {format_duration(value)}" if value is not None else f"{what} not known"
    return _Bar(
        left=left + step * 0.12,
        width=step * 0.76,
        height=max(100 * value / top, 0.5) if value is not None else _STUMP,
        colour=_COLOURS.get(run.verdict, "warn"),
        title=f"{run.started:%Y-%m-%d %H:%M} UTC, run {run.run_id}: {run.verdict}, {told}",
    )


def _diff_lines(text: str) -> list[tuple[str, str]]:
    """Return the lines of a diff, each with what it is."""
    kinds = {"---": "object", "+++": "object", "@@": "field", "-": "bad", "+": "good"}
    return [
        (line, next((kind for start, kind in kinds.items() if line.startswith(start)), ""))
        for line in _cut(text).split("\n")
    ]


def _cut(text: str) -> str:
    lines = text.split("\n")
    if len(lines) <= _MOST_LINES:
        return text
    return "\n".join([*lines[:_MOST_LINES], f"… {len(lines) - _MOST_LINES:,} more lines are in the evidence"])
