"""A drill's events and results, and consoles to show them on."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from clusterguard.drills.verdict import DrillResult, PhaseResult, RecoveryTime, StepResult, Verdict

DIFF = """\
9 objects compared, 2 findings: 1 missing, 1 changed

--- missing: Pod shop/web-1

@@ changed: ConfigMap shop/web @@
- data.page: "open"
+ data.page: "closed"\
"""


@pytest.fixture
def console():
    """Make a console of a width, on a terminal or not; `shown` is what is on it, without colours."""

    def console(width=100, *, terminal=False):
        colours = "truecolor" if terminal else None
        made = Console(
            file=io.StringIO(), width=width, force_terminal=terminal, record=True, highlight=False, color_system=colours
        )
        made.shown = lambda **options: made.export_text(clear=False, **options)
        return made

    return console


@pytest.fixture
def result():
    """Make the result of a drill."""

    def result(verdict=Verdict.PASS, **changes):
        green = verdict is Verdict.PASS
        values = {
            "drill": "etcd-pods[k8s=1.36]",
            "run_id": "ab12cd34",
            "verdict": verdict,
            "reason": "1 of 2 checks were red after the fault and all hold now" if green else "not recovered: restored",
            "hint": "" if green else "see drills/pods.drill.yaml:23:5",
            "started": datetime(2030, 1, 1, tzinfo=UTC),
            "seconds": 20.0,
            "phases": (
                PhaseResult(name="setup", verdict=Verdict.PASS, seconds=0.25),
                PhaseResult(name="restore", verdict=Verdict.PASS, seconds=65.0, detail="etcd and its API server"),
                PhaseResult(name="verify", verdict=verdict, seconds=4.0),
            ),
            "steps": (),
            "rto": RecoveryTime(provision=0, restore=65, verify=3.5) if green else None,
            "rpo": 0.5 if green else None,
            "red_after_fault": (1, 2),
            "diff": "" if green else DIFF,
            "suppressed": {"status": 3, "resource version": 9},
            "diagnostics": ()
            if green
            else (("recent events in cluster `main`", "Warning BackOff Pod shop/web-1: [x]"),),
            "clusters": {"main": "embedded run-1, Kubernetes v1.36.3, pods simulated"},
            "controls": (),
        }
        return DrillResult(**(values | changes))

    return result


@pytest.fixture
def step():
    """Make the result of a step."""

    def step(title="verifyBackup", verdict=Verdict.PASS, detail="revision 7", seconds=1.25):
        return StepResult(phase="backup", title=title, verdict=verdict, seconds=seconds, detail=detail)

    return step
