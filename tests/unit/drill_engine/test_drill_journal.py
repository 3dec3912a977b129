"""The evidence of a run."""

import json
from datetime import UTC, datetime

import pytest

from clusterguard.drills.events import DrillStarted, PhaseStarted, StepFinished
from clusterguard.drills.journal import Journal
from clusterguard.drills.verdict import StepResult, Verdict
from clusterguard.errors import EtcdUnavailableError

NOW = datetime(2030, 1, 2, tzinfo=UTC)


def lines(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_file_its_events_and_its_result(run, spec, tmp_path):
    result = run(spec, evidence=tmp_path / "evidence")
    (folder,) = (tmp_path / "evidence").iterdir()
    assert folder.name == f"small-{result.run_id}"
    assert folder.stat().st_mode & 0o077 == 0
    assert json.loads((folder / "result.json").read_text()) == result.to_dict()
    assert (folder / "drill.yaml").read_text() == (tmp_path / "small.drill.yaml").read_text()
    told = lines(folder)
    assert told[0]["event"] == "DrillStarted"
    assert (told[-1]["event"], told[-1]["verdict"]) == ("DrillFinished", "PASS")
    assert all(datetime.fromisoformat(line["at"]).tzinfo for line in told)


def test_every_attempt_is_kept(run, spec, tmp_path, cluster):
    run(spec, evidence=tmp_path / "evidence")
    cluster.broken["restore"] = EtcdUnavailableError("refused")
    run(spec, evidence=tmp_path / "evidence")
    verdicts = sorted(json.loads(file.read_text())["verdict"] for file in tmp_path.rglob("result.json"))
    assert verdicts == ["ERROR", "PASS"]


def test_each_line_is_on_the_disk_before_the_next_step_begins(load, spec, tmp_path):
    journal = Journal(tmp_path / "evidence", load(spec), now=lambda: NOW)
    journal(DrillStarted(drill="small[k8s=1.36]", run_id="ab12", description=""))
    journal(PhaseStarted(phase="setup"))
    folder = tmp_path / "evidence" / "small_k8s_1.36_-ab12"
    assert [line["event"] for line in lines(folder)] == ["DrillStarted", "PhaseStarted"]
    step = StepResult(phase="setup", title="apply", verdict=Verdict.FAIL, seconds=1.5)
    journal(StepFinished(result=step))
    assert lines(folder)[-1] == {
        "at": "2030-01-02T00:00:00+00:00",
        "event": "StepFinished",
        "result": {
            "phase": "setup", "title": "apply", "verdict": "FAIL", "seconds": 1.5, "detail": "", "location": "",
        },
    }  # fmt: skip
    assert not (folder / "result.json").exists()  # a run that was killed has no result
    journal._events.close()


def test_nothing_is_ever_overwritten(load, spec, tmp_path):
    started = DrillStarted(drill="small", run_id="ab12", description="")
    first = Journal(tmp_path, load(spec), now=lambda: NOW)
    first(started)
    with pytest.raises(FileExistsError):
        Journal(tmp_path, load(spec), now=lambda: NOW)(started)
    first._events.close()


def test_after_ctrl_c_the_journal_is_closed_with_a_result(run, spec, cluster, tmp_path):
    cluster.broken["restore"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(spec, evidence=tmp_path / "evidence")
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["reason"] == "interrupted"


def test_the_result_as_json(run, spec):
    result = run(spec)
    data = result.to_dict()
    assert (data["runId"], data["verdict"], data["started"]) == (result.run_id, "PASS", result.started.isoformat())
    assert data["rtoSeconds"].keys() == {"total", "provision", "restore", "verify"}
    assert data["rtoSeconds"]["total"] == round(result.rto.total, 3)
    assert (data["rpoSeconds"], data["redAfterFault"]) == (round(result.rpo, 3), {"red": 1, "checks": 1})
    assert data["phases"][0] == {
        "name": "provision",
        "verdict": "PASS",
        "seconds": round(result.phases[0].seconds, 3),
        "detail": result.phases[0].detail,
    }
    assert data["steps"][0].keys() == {"phase", "title", "verdict", "seconds", "detail", "location"}
    others = {
        "drill",
        "code",
        "reason",
        "hint",
        "seconds",
        "clusters",
        "providers",
        "mutation",
        "trend",
        "objectives",
        "controls",
        "diff",
        "stored",
        "suppressed",
        "tolerated",
        "diagnostics",
    }
    assert data.keys() == {*others, "runId", "verdict", "started", "rtoSeconds", "rpoSeconds", "redAfterFault",
                           "phases", "steps"}  # fmt: skip
    assert json.loads(json.dumps(data)) == data
