"""The report of drills: what it says of bundles, and that the page says no more than that."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from clusterguard.errors import ObjectNotFoundError
from clusterguard.evidence.envelope import Statement, sealed
from clusterguard.evidence.keys import SigningKey
from clusterguard.evidence.page import render_report
from clusterguard.evidence.report import read_drills
from html_page import Page

NOW = datetime(2030, 2, 1, tzinfo=UTC)
EVIL = "<script>alert('x')</script><b title=\"y\">&"
KEY = SigningKey(ed25519.Ed25519PrivateKey.generate())


def result(number=0, drill="menu", **changed):
    return {
        "drill": drill,
        "runId": f"{number:08x}",
        "verdict": "PASS",
        "reason": "all is well",
        "started": (datetime(2030, 1, 1, 2, tzinfo=UTC) + timedelta(days=number)).isoformat(),
        "seconds": 20.0,
        "rtoSeconds": {"total": 10.0 + number, "provision": 0, "restore": 10, "verify": number},
        "rpoSeconds": 2.0,
        "providers": {"main": "embedded"},
        "clusters": {"main": "embedded clusterguard-x, Kubernetes v1.36.3, pods simulated"},
        "redAfterFault": {"red": 1, "checks": 1},
        "phases": [
            {"name": "backup", "verdict": "PASS", "seconds": 5.0, "detail": ""},
            {"name": "restore", "verdict": "PASS", "seconds": 15.0, "detail": ""},
        ],
        "steps": [{"phase": "restore", "title": "etcdRestore", "verdict": "PASS", "seconds": 15.0, "detail": ""}],
        "objectives": {"rtoSeconds": 60.0},
        **changed,
    }


COMPARISON = {
    "check": "restored",
    "seen": "after the restore",
    "rules": "etcd-restore",
    "compared": 3,
    "summary": "3 objects compared, no findings",
    "suppressed": [
        {"rule": "resource version", "object": {"kind": "Pod", "namespace": "shop", "name": f"web-{n}"}, "path": "a.b"}
        for n in range(4)
    ],
}


@pytest.fixture
def keep(tmp_path):
    """Write a bundle as a run leaves it."""

    def keep(document, where="evidence", comparison=COMPARISON, **files):
        folder = tmp_path / where / f"{document['drill']}-{document['runId']}".replace("/", "_")
        folder.mkdir(parents=True)
        files = {"result.json": document, "comparison.json": [comparison] if comparison else None, **files}
        for name, content in files.items():
            if content is not None:
                (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    return keep


@pytest.fixture
def report(tmp_path):
    def report(*where, **options):
        return read_drills([tmp_path / each for each in where or ("evidence",)], **options)

    return report


def page(found):
    return Page(render_report(found, at=NOW))


def test_the_last_run_of_each_drill_counts_beside_those_before_it(keep, report):
    for number in range(7):
        keep(result(number))
    keep(result(9, "volumes", verdict="FAIL", rtoSeconds=None, reason="not recovered"))
    found = report()
    assert found.outcome == "NOT PROVEN"
    assert [(drill.run.drill, drill.outcome) for drill in found.drills] == [
        ("volumes", "NOT PROVEN"),
        ("menu", "PROVEN"),
    ]
    menu = found.drills[1]
    assert (menu.last.rto, menu.trend.median_seconds, menu.trend.runs) == (16.0, 12.5, 6)
    assert len(menu.runs) == 7


def test_the_page_says_it_and_shows_it(keep, report):
    for number in range(6):
        keep(result(number))
    shown = page(report())
    assert not shown.torn
    assert not shown.open
    for words in ("menu", "15.0s", "1.25", "resource version", "web-0", "etcdRestore"):
        assert words in shown.text
    assert shown.tags.count("rect") == 2 * 2 + 2 * 6  # phases with their tracks, and both plots
    assert {kind for tag, name, kind in shown.attributes if (tag, name) == ("line", "class")} == {"median"}


def test_an_objective_is_drawn_where_it_is_near(keep, report):
    keep(result(objectives={"rtoSeconds": 15.0, "rpoSeconds": 1.0}))
    lines = [kind for tag, name, kind in page(report()).attributes if (tag, name) == ("line", "class")]
    assert lines == ["objective", "objective"]


def test_what_it_does_not_prove_is_said(keep, report):
    keep(
        result(
            redAfterFault={"red": 0, "checks": 2},
            rpoSeconds=None,
            mutation={"found": 3, "counted": 4, "score": 75.0, "tried": [], "stopped": "", "minimum": 100},
            tolerated={"exists-different": 2},
        ),
        **{"materials.json": {"notCollected": [{"what": "inventory after", "reason": "it is gone"}]}},
    )
    keep(result(1, "bare", clusters={"main": "kind x"}), comparison=None)
    menu, bare = (next(each for each in report().drills if each.run.drill == name) for name in ("menu", "bare"))
    assert [limit.code for limit in menu.limits] == [
        "pods-simulated",
        "never-red",
        "differences-suppressed",
        "findings-tolerated",
        "loss-not-measured",
        "defects-missed",
        "not-collected",
        "signature-not-checked",
    ]
    assert [limit.code for limit in bare.limits] == ["not-compared", "defects-not-tried", "signature-not-checked"]
    shown = page(report()).text
    assert all(limit.text in shown for limit in (*menu.limits, *bare.limits))


def test_a_run_that_was_killed_is_the_last_word(keep, report):
    keep(result(0))
    begun = {"at": "2030-01-20T02:00:00+00:00", "event": "DrillStarted", "drill": "menu", "run_id": "aaaaaaaa"}
    keep({"drill": "menu", "runId": "aaaaaaaa"}, **{"result.json": None, "events.jsonl": json.dumps(begun) + "\n{"})
    (drill,) = report().drills
    assert (drill.outcome, drill.run.run_id, drill.trend.runs) == ("COULD NOT TELL", "aaaaaaaa", 0)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        '{"drill": "menu"}',
        json.dumps(result() | {"phases": "none"}),
        json.dumps(result() | {"phases": [{"name": "x", "verdict": "PASS", "seconds": -1}]}),
        json.dumps(result() | {"clusters": ["main"]}),
        json.dumps(result() | {"rtoSeconds": {"total": "soon"}}),
    ],
)
def test_what_is_no_result_is_told_and_nothing_is_proven(keep, report, broken):
    keep(result(1))
    keep(result(2, "broken"), **{"result.json": broken})
    found = report()
    assert found.outcome == "COULD NOT TELL"
    assert [folder for folder, _ in found.unreadable] == ["evidence/broken-00000002"]
    assert "evidence/broken-00000002" in page(found).text


def test_evidence_that_is_not_what_was_signed_proves_nothing(keep, report):
    folder = keep(result())
    predicate = {name: result()[name] for name in ("drill", "runId", "started", "verdict")}
    (folder / "evidence.intoto.jsonl").write_bytes(sealed(Statement(files={}, predicate=predicate), KEY))
    (drill,) = report(key=KEY.public).drills
    assert (drill.outcome, drill.signature.ok) == ("COULD NOT TELL", False)
    assert "evidence-file-added" in page(report(key=KEY.public)).text
    assert report().drills[0].outcome == "PROVEN"  # nobody asked


def test_folders_of_a_fleet_stand_beside_each_other(keep, report):
    keep(result(1), where="prod-1")
    keep(result(2, verdict="ERROR"), where="prod-2")
    found = report("prod-1", "prod-2")
    assert [(drill.where, drill.outcome) for drill in found.drills] == [
        ("prod-2", "COULD NOT TELL"),
        ("prod-1", "PROVEN"),
    ]
    assert "prod-2" in page(found).text


def test_one_bundle_by_itself_is_a_report(keep, tmp_path):
    folder = keep(result())
    (drill,) = read_drills([folder]).drills
    assert drill.run.drill == "menu"


def test_a_folder_without_evidence_is_an_error(tmp_path):
    with pytest.raises(ObjectNotFoundError):
        read_drills([tmp_path])


def evil(value):
    """Put markup into every text of a document."""
    match value:
        case str() if not re.fullmatch(r"PASS|[0-9a-f]{8}|\d{4}-.*|missed", value):
            return value + EVIL
        case dict():
            return {key + EVIL if key in ("main", "x") else key: evil(each) for key, each in value.items()}
        case list():
            return [evil(each) for each in value]
    return value


def test_every_text_is_escaped_and_nothing_comes_from_elsewhere(keep, report):
    document = result(
        diff="--- changed: x\n@@ a\n-b\n+c",
        controls=["SOC2"],
        hint="look",
        suppressed={"x": 1},
        tolerated={"x": 1},
        diagnostics=[{"title": "events", "text": "text"}],
        mutation={"found": 0, "counted": 1, "score": 0.0, "minimum": 100, "stopped": "halt", "tried": [
            {"defect": "d", "target": "t", "outcome": "missed", "detail": "why"}]},
    )  # fmt: skip
    materials = {
        "drill": {"description": "words"},
        "programs": [{"name": "etcd", "version": "3.6", "sha256": "ab"}],
        "backups": [{"name": "b", "kind": "k", "objects": [{"key": "o", "sha256": "cd"}]}],
        "notCollected": [{"what": "w", "reason": "r"}],
    }
    folder = keep(
        {**evil(document), "drill": "menu"}, comparison=evil(COMPARISON), **{"materials.json": evil(materials)}
    )
    (folder / "result.json").write_text(json.dumps(evil(document)))
    text = render_report(report(), at=NOW)
    shown = Page(text)
    assert not shown.torn
    assert "script" not in shown.tags
    assert "b" in shown.tags
    assert not [each for each in shown.attributes if each[1] == "title"]
    assert shown.text.count("alert('x')") > 20
    assert not {"link", "img", "iframe", "object"} & set(shown.tags)
    assert "default-src 'none'" in text
    for tag, name, value in shown.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "action") and (name != "href" or value.startswith("#"))  # noqa: PT018 - one law


def test_a_long_diff_is_cut_and_says_so(keep, report):
    keep(result(verdict="FAIL", diff="\n".join(f"+line {number}" for number in range(5000))))
    text = page(report()).text
    assert "line 399" in text
    assert "line 400" not in text
    assert "4,600 more lines" in text
