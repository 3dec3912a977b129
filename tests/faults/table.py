"""What was tried and what was seen: a count for the terminal, and the tables of README.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- generated from here -->", "<!-- generated to here -->"
_ORDER = (
    *("before", "refused", "after", "middle", "hang", "wrong", "absent", "taken", "full"),
    *("kill", "kill after", "stop", "clock+1h", "clock-1h"),
)


def results_of(reports):
    """Return (cells, kills) of the tests that ran: what each recorded."""
    found = {"fault": [], "kills": []}
    for report in reports:
        for name, value in report.user_properties:
            if name in found and report.when == "call":
                found[name].append(value)
    return found["fault"], found["kills"]


def summary(cells, kills):
    """Return the counts, a line each."""
    by_code = Counter(code for *_, code, _ in cells)
    broken = sum(1 for *_, wrong in cells if wrong)
    codes = ", ".join(f"{number} ended with {code}" for code, number in by_code.most_common())
    if cells:
        yield f"fault matrix: {len(cells)} cells: {codes}; {broken} broke a promise"
    for name, killed, missed, seed in kills:
        yield f"kills: {name}: killed {killed} times (seed {seed}); {missed} more tries had ended before"


def tables(cells, kills):
    """Return the tables for the README."""
    lines = [f"- {line}" for line in summary(cells, kills)]
    for operation in dict.fromkeys(cell[0] for cell in cells):
        ours = [cell for cell in cells if cell[0] == operation]
        faults = [fault for fault in _ORDER if any(cell[2] == fault for cell in ours)]
        lines += ["", f"### {operation}", "", f"| call | {' | '.join(faults)} |", f"|---|{'---|' * len(faults)}"]
        for site in dict.fromkeys(cell[1] for cell in ours):
            seen = {fault: code + (" **!**" if wrong else "") for _, where, fault, code, wrong in ours if where == site}
            lines.append(f"| {site} | {' | '.join(seen.get(fault, '') for fault in faults)} |")
    return "\n".join(lines)


def write(cells, kills):
    """Put the tables into the README, in the place of those before."""
    text = README.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}\n\n{tables(cells, kills)}\n\n{END}{tail}")
