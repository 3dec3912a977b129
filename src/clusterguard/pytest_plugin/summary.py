"""A page of Markdown for CI: a table of drills and rehearsals, and what the red ones said."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from clusterguard.pytest_plugin import PROPERTIES, SKIP_REASON, VERDICT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Summary"]

_MARKS = {"PASS": "✅ PASS", "FAIL": "❌ FAIL", "ERROR": "❗ ERROR", "SKIPPED": "⏭️ SKIPPED"}
# GitHub shows no page at all of a step that wrote more than 1 MiB
# (https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#adding-a-job-summary); a comment
# in GitLab may have 1,000,000 characters (https://docs.gitlab.com/administration/instance_limits).
_MOST_BYTES = 900 * 1024
_MOST_OF_ONE = 20_000  # characters


class Summary:
    """Writes a table to a file, of ``--drill-summary`` or the one that GitHub Actions names in ``GITHUB_STEP_SUMMARY``.

    Args:
        path: The file.
        append: Whether what is in it stays.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self._path = path
        self._append = append
        self._reports: dict[str, pytest.TestReport] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a drill or a rehearsal; of several attempts the last one counts."""
        if {VERDICT, SKIP_REASON} & dict(report.user_properties).keys() and (
            report.when == "call" or not report.passed
        ):
            self._reports[report.nodeid] = report

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the table; where that fails, say so and leave the verdict of the run alone."""
        if not self._reports and self._append:
            return
        try:
            with self._path.open("a" if self._append else "w", encoding="utf-8") as file:
                file.write(summary(list(self._reports.values())))
        except OSError as error:
            terminalreporter.write_line(f"the summary could not be written: {error}", red=True)


def summary(reports: list[pytest.TestReport]) -> str:
    """Return the Markdown of drills and rehearsals, one row for each, and what the red ones said as far as it fits."""
    rows = [(_name(report), _verdict(report), report) for report in reports]
    counts = Counter(verdict for _, verdict, _ in rows)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _MARKS if counts[verdict]) or "nothing ran"
    heads = ["", "", "recovery time", "changes lost"]
    cells = [
        [_MARKS[verdict], _cell(name), _seconds(report, "rto"), _seconds(report, "rpo", most="≤ ")]
        for name, verdict, report in rows
    ]
    if any(_defects(report) for *_, report in rows):
        heads.append("defects found")
        for row, (*_, report) in zip(cells, rows, strict=True):
            row.append(_defects(report))
    lines = [f"## Disaster recovery: {told}", ""]
    if rows:
        lines += [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells)]
    text = "".join(f"{line}\n" for line in lines)
    for name, verdict, report in rows:
        if verdict != "PASS":
            more = _details(name, _words(report))
            if len((text + more).encode()) > _MOST_BYTES:
                return f"{text}\nThe log of this job says more: what was written here is as much as GitHub shows.\n"
            text += more
    return text


def _name(report: pytest.TestReport) -> str:
    return report.nodeid.partition("::")[2] or report.nodeid


def _verdict(report: pytest.TestReport) -> str:
    verdict = str(dict(report.user_properties).get(VERDICT, "SKIPPED"))
    return "ERROR" if verdict == "PASS" and report.failed else verdict  # what came after it went wrong


def _seconds(report: pytest.TestReport, name: str, *, most: str = "") -> str:
    seconds = dict(report.user_properties).get(f"{PROPERTIES}{name}_seconds")
    return "" if seconds is None else f"{most}{float(str(seconds)):.1f} s"


def _defects(report: pytest.TestReport) -> str:
    properties = dict(report.user_properties)
    if (counted := properties.get(f"{PROPERTIES}defects_counted")) is None:
        return ""
    return f"{properties[f'{PROPERTIES}defects_found']} of {counted}"


def _words(report: pytest.TestReport) -> str:
    return str(dict(report.user_properties).get(SKIP_REASON) or report.longreprtext)


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;")


def _details(name: str, words: str) -> str:
    # In a <pre> nothing is Markdown, whatever a program printed.
    said = html.escape(words[:_MOST_OF_ONE], quote=False)
    cut = "" if len(words) <= _MOST_OF_ONE else "\n…"
    first = html.escape(words.partition("\n")[0][:200], quote=False)
    return f"\n<details><summary>{_cell(name)}: {first}</summary>\n<pre>{said}{cut}</pre>\n</details>\n"
