"""``pytest --rehearse``: one test for each backup, without any drill file."""

import xml.etree.ElementTree as ET

import pytest

from clusterguard.errors import StoreUnavailableError
from clusterguard.pytest_plugin import rehearsals
from clusterguard.rehearsal.report import KindCount, Level, Phase, RehearsalFinding, RehearsalReport

LOST = RehearsalFinding(code="definition-missing", level=Level.ERROR, message="a thing is lost", hint="find it")


@pytest.fixture
def rehearsed(monkeypatch):
    """Let backups be whole, but for those whose names say otherwise; return what was asked for."""
    asked = []

    class Rehearsed:
        def __init__(self, **options):
            asked.append(options)

        def run(self):
            location = asked[-1]["location"]
            if "away" in location:
                raise StoreUnavailableError("the bucket is away", hint="wait for it")
            return RehearsalReport(
                source=location,
                kinds=(KindCount(kind="configmaps", backed_up=3, equal=3),),
                findings=(LOST,) if "broken" in location else (),
                phases=(Phase(name="start etcd", seconds=1.25),),
            )

    monkeypatch.setattr(rehearsals, "Rehearsal", Rehearsed)
    monkeypatch.setattr(rehearsals, "holds_velero_backups", lambda _: False)
    return asked


def properties(pytester):
    cases = ET.parse(pytester.path / "report.xml").iter("testcase")  # noqa: S314 - our own report
    return {(each.get("classname"), each.get("name")): properties_of(each) for each in cases}


def properties_of(case):
    return {item.get("name"): item.get("value") for item in case.iter("property")}


def test_each_backup_is_a_test_and_tells_what_does_not_come_back(pytester, rehearsed):
    result = pytester.runpytest(
        "--rehearse=s3://backups/etcd", "--rehearse=broken.db", "--rehearse=s3://away/", "--junitxml=report.xml"
    )
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*a thing is lost (definition-missing)*", "*→ find it*"])
    result.stdout.fnmatch_lines(["*ERROR: the bucket is away*", "*→ wait for it*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    told = properties(pytester)
    assert told["rehearse", "s3://backups/etcd"] == {
        "clusterguard.verdict": "PASS",
        "clusterguard.objects": "3",
        "clusterguard.equal": "3",
        "clusterguard.findings": "",
        "clusterguard.seconds": "1.25",
        "clusterguard.phase.start_etcd_seconds": "1.25",
    }
    assert told["rehearse", "broken.db"]["clusterguard.findings"] == "definition-missing"
    assert told["rehearse", "broken.db"]["clusterguard.verdict"] == "FAIL"
    assert told["rehearse", "s3://away/"] == {"clusterguard.verdict": "ERROR"}


def test_the_marker_leaves_other_tests_out(pytester, rehearsed):
    pytester.makepyfile("def test_of_mine(): raise AssertionError")
    pytester.runpytest("--rehearse=a.db", "--rehearse=a.db", "-m", "rehearsal").assert_outcomes(passed=1, deselected=1)
    pytester.runpytest("--rehearse=a.db").assert_outcomes(passed=1, failed=1)


def test_a_rehearsal_does_not_count_as_a_drill(pytester, rehearsed):
    assert pytester.runpytest("--rehearse=a.db", "--drill-min=1").ret == pytest.ExitCode.TESTS_FAILED


def test_options_open_what_is_encrypted(pytester, rehearsed, tmp_path):
    (tmp_path / "pass.txt").write_text("a passphrase\n")
    (tmp_path / "pass.txt").chmod(0o600)
    options = [f"--rehearse-passphrase-file={tmp_path / 'pass.txt'}", "--rehearse-encryption-config=at-rest.yaml"]
    options += ["--rehearse-prefix=/kubernetes.io", "--rehearse-kubernetes-version=1.34"]
    pytester.runpytest("--rehearse=a.db", *options).assert_outcomes(passed=1)
    (given,) = rehearsed
    assert given["encryption"].passphrase == "a passphrase"
    assert str(given["encryption_config"]) == "at-rest.yaml"
    assert (given["prefix"], given["kubernetes_version"]) == ("/kubernetes.io", "1.34")


def test_a_velero_backup_takes_the_version_too(pytester, rehearsed, monkeypatch):
    monkeypatch.setattr(rehearsals, "VeleroRehearsal", rehearsals.Rehearsal)
    monkeypatch.setattr(rehearsals, "holds_velero_backups", lambda _: True)
    pytester.runpytest("--rehearse=velero", "--rehearse-kubernetes-version=1.37").assert_outcomes(passed=1)
    assert rehearsed[0]["kubernetes_version"] == "1.37"


def test_without_it_nothing_is_rehearsed(pytester, rehearsed):
    assert pytester.runpytest().ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert rehearsed == []
