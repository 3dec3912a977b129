"""How a drill looks, in a terminal and in a log."""

import re

import pytest

from clusterguard.drills.events import (
    DrillFinished,
    DrillStarted,
    Note,
    PhaseFinished,
    PhaseStarted,
    StepFinished,
    StepStarted,
)
from clusterguard.drills.verdict import Mutation, PhaseResult, TriedDefect, Verdict
from clusterguard.model.progress import Progress
from clusterguard.terminal.drill_view import DrillView, result_view

LONG = "structure: 95 pages, 308 records, all in order; live HashKV: 2648940758 at revision 309, as on 3 member(s)"


def finished(name, verdict=Verdict.PASS):
    return PhaseFinished(result=PhaseResult(name=name, verdict=verdict, seconds=1))


def tell(view, step, result):
    for event in (
        DrillStarted(drill="etcd-pods[k8s=1.36]", run_id="ab12cd34", description="Pods come back [again]."),
        PhaseStarted(phase="setup"),
        finished("setup"),
        PhaseStarted(phase="backup"),
        StepStarted(phase="backup", title="etcdSnapshot"),
        Progress(task="saving", done=5 << 20, total=9 << 20, unit="bytes"),
        Progress(task="saving", finished=True),
        StepFinished(result=step("etcdSnapshot")),
        StepFinished(result=step("verifyBackup", detail=LONG)),
        StepFinished(result=step("copyBackup", Verdict.ERROR, "bucket [west]:\nno answer", 75)),
        Note(text="restored: red, 3 missing"),
        finished("backup", Verdict.ERROR),
        DrillFinished(result=result(Verdict.ERROR)),
    ):
        view(event)


def test_the_score_comes_with_what_was_missed_and_what_would_find_it(console, result):
    tried = [
        TriedDefect(defect=name, target="Service shop/web", outcome=outcome, detail=detail)
        for name, outcome, detail in (
            ("object-left-out", "found", "restored: 1 missing"),
            ("port-changed", "missed", "`restored: {}`"),
            ("label-dropped", "notApplied", "a webhook denied it"),
        )
    ]
    log = console(200)
    log.print(result_view(result(mutation=Mutation(tried=tuple(tried), minimum=50))))
    shown = log.shown()
    assert "1 of 2 defects found (50 %)" in shown
    assert re.search(r"port-changed.*Service shop/web.*`restored: {}`", shown)
    assert re.search(r"label-dropped.*a webhook denied it", shown)


# ---- in a log --------------------------------------------------------------------------------------------


def test_a_log_has_one_line_for_each_step(console, step, result):
    log = console(60)
    tell(DrillView(log), step, result)
    lines = log.shown().splitlines()
    assert lines[1] == "etcd-pods[k8s=1.36]  Pods come back [again]."
    assert lines[2:9] == [
        "backup",
        "  · saving …",
        "  · saving, done (0.0s)",
        "  ✓ etcdSnapshot             1.2s  revision 7",
        f"  ✓ verifyBackup             1.2s  {LONG}",
        "  ! copyBackup              1m15s  bucket [west]: no answer",
        "  · restored: red, 3 missing",
    ]


def test_a_log_has_no_colours(console, step, result):
    log = console()
    tell(DrillView(log), step, result)
    assert "\x1b" not in log.file.getvalue()


def test_a_phase_without_anything_to_tell_has_no_heading(console, step, result):
    log = console()
    tell(DrillView(log), step, result)
    assert not re.search(r"^setup$", log.shown(), re.MULTILINE)


# ---- in a terminal ---------------------------------------------------------------------------------------


def test_a_terminal_shows_what_runs_right_now_and_for_how_long(console, step, result):
    terminal = console(terminal=True)
    tell(DrillView(terminal), step, result)
    assert re.search(r"etcdSnapshot\S* \S*0:00:00", terminal.file.getvalue())


def test_progress_of_a_step_is_told_beside_its_spinner(console):
    view = DrillView(console(terminal=True))
    view(PhaseStarted(phase="backup"))
    view(StepStarted(phase="backup", title="etcdSnapshot"))
    view(Progress(task="saving", done=5 << 20, total=9 << 20, unit="bytes", note="from one"))
    (doing,) = view._spinner.tasks
    assert doing.description == "saving  5 of 9 MiB  from one"
    view(Progress(task="saving", finished=True))
    assert doing.description == "etcdSnapshot"
    view(finished("backup"))
    assert view._spinner is None


def test_nothing_of_it_stays(console, step, result):
    terminal = console(terminal=True)
    view = DrillView(terminal)
    tell(view, step, result)
    assert view._spinner is None
    assert terminal.file.getvalue().count("\x1b[?25h") == terminal.file.getvalue().count("\x1b[?25l")  # the cursor


@pytest.mark.parametrize("width", [60, 100, 160])
def test_long_details_wrap_below_themselves(console, step, width):
    terminal = console(width, terminal=True)
    DrillView(terminal)(StepFinished(result=step(detail=LONG)))
    lines = [line.rstrip() for line in terminal.shown().splitlines()]
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(lines).split()) == f"✓ verifyBackup 1.2s {LONG}"
    indents = {len(line) - len(line.lstrip()) for line in lines[1:]}
    assert indents <= ({6} if width == 60 else {34})


def test_the_columns_of_steps_are_aligned(console, step):
    terminal = console(terminal=True)
    view = DrillView(terminal)
    for title, seconds in (("apply", 0.1), ("baseline of the scope", 83)):
        view(StepFinished(result=step(title, seconds=seconds, detail="here")))
    first, second = terminal.shown().splitlines()
    assert first.index("here") == second.index("here")


def test_verdicts_have_their_colours(console, step):
    terminal = console(terminal=True)
    view = DrillView(terminal)
    for verdict in Verdict:
        view(StepFinished(result=step(verdict.lower(), verdict)))
    text = terminal.export_text(styles=True)
    for mark, colour in (("✓", 32), ("✗", 31), ("!", 33)):
        assert re.search(rf"\x1b\[{colour}m +{mark}", text)


def test_told_to_be_quiet_it_shows_the_end_alone(console, step, result):
    terminal = console(terminal=True)
    tell(DrillView(terminal, narrate=False), step, result)
    assert "etcdSnapshot" not in terminal.shown()
    assert "ERROR  etcd-pods[k8s=1.36]" in terminal.shown()


# ---- the result ------------------------------------------------------------------------------------------


def text_of(console, result, width=100, **options):
    log = console(width)
    log.print(result_view(result, **options))
    return "\n".join(line.rstrip() for line in log.shown().splitlines())


def test_a_green_result(console, result):
    assert text_of(console, result()) == (
        "\n"
        "phase          duration  verdict\n"
        "setup              0.2s  PASS\n"
        "restore           1m05s  PASS     etcd and its API server\n"
        "verify             4.0s  PASS\n"
        "recovery time     1m08s           restore 1m05s, verify 3.5s\n"
        "changes lost     ≤ 0.5s           by the markers\n"
        "\n"
        "PASS  etcd-pods[k8s=1.36]  1 of 2 checks were red after the fault and all hold now\n"
        "  differences that named rules explain: resource version (9), status (3)\n"
        "  pods were simulated: no container ran in this drill"
    )


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.ERROR])
def test_a_red_result_has_what_explains_it(console, result, verdict):
    text = re.sub(" +", " ", text_of(console, result(verdict)))
    positions = [
        text.index(part)
        for part in (
            f"verify 4.0s {verdict}",
            f"{verdict} etcd-pods[k8s=1.36] not recovered: restored",
            "→ see drills/pods.drill.yaml:23:5",
            "what is not as it was",
            "--- missing: Pod shop/web-1",
            '+ data.page: "closed"',
            "recent events in cluster `main`",
            "Warning BackOff Pod shop/web-1: [x]",
        )
    ]
    assert positions == sorted(positions)
    assert "recovery time" not in text


def test_the_explanation_can_be_left_to_others(console, result):
    text = text_of(console, result(Verdict.FAIL), explain=False)
    assert "→ see drills" in text
    assert "what is not as it was" not in text
    assert "recent events" not in text


@pytest.mark.parametrize("width", [60, 160])
def test_it_stays_within_the_width(console, result, width):
    text = text_of(console, result(Verdict.FAIL), width)
    assert max(map(len, text.splitlines())) <= width


def test_lines_of_the_diff_have_their_colours(console, result):
    terminal = console(terminal=True)
    terminal.print(result_view(result(Verdict.FAIL)))
    text = terminal.export_text(styles=True)
    for line, colour in (
        ("--- missing", "1;31"),
        ("@@ changed", "36"),
        ('- data.page: "open"', "31"),
        ("+ data", "32"),
    ):
        assert f"\x1b[{colour}m{line}" in text


def test_an_endless_diff_ends(console, result):
    text = text_of(console, result(Verdict.FAIL, diff="\n".join(f"- line {number}" for number in range(1000))))
    assert "line 199" in text
    assert "line 200" not in text
    assert "800 more lines are in the evidence" in text
