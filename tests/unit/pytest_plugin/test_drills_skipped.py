"""Drills that a cluster can show nothing about: seen by whoever reads the end of the output, and never a pass."""

import pytest

HTTP = {"restored: {}": "http: {service: web, namespace: shop, port: 80}", "{context: nowhere}": "{}"}
PLAIN = {"{context: nowhere}": "{}"}
REASON = "`http` (*unreachable.drill.yaml:18:5) needs containers that run; pods and nodes of embedded clusters"


@pytest.fixture(autouse=True)
def _programs_are_there(monkeypatch):
    monkeypatch.setattr("clusterguard.toolchain.Toolchain.missing", lambda *_: set())


def test_they_are_skipped_and_listed_with_the_reason(pytester, drill, canned):
    drill("unreachable", **HTTP)
    drill("green", **PLAIN)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*= drills skipped =*", f"drill: unreachable: {REASON}*"])


def test_each_is_called_skipped(pytester, drill, canned):
    drill("unreachable", **HTTP)
    result = pytester.runpytest("-v")
    result.stdout.fnmatch_lines(["*unreachable.drill.yaml::unreachable SKIPPED*"])


def test_they_do_not_count_as_drills_that_ran(pytester, drill, canned):
    drill("unreachable", **HTTP)
    result = pytester.runpytest("--drill-min=1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["drills: 0 came to a verdict, --drill-min asks for 1"])


def test_machines_read_the_reason(pytester, drill, canned):
    drill("unreachable", **HTTP)
    pytester.runpytest("--junitxml=report.xml")
    report = (pytester.path / "report.xml").read_text()
    assert 'name="clusterguard.skip_reason"' in report
    assert "clusterguard.verdict" not in report


def test_with_workers_they_are_listed_too(pytester, drill, canned_everywhere):
    drill("unreachable", **HTTP)
    drill("green")
    result = pytester.runpytest_subprocess("-n", "1")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*= drills skipped =*", f"drill: unreachable: {REASON}*"])


def test_on_kind_they_are_run(pytester, drill, canned, monkeypatch):
    monkeypatch.setattr("clusterguard.clusters.kind.Docker.require", lambda _: None)
    drill("reachable", **HTTP)
    result = pytester.runpytest("--drill-cluster=kind")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*drills skipped*")


def test_kind_without_docker_is_an_error_at_once(pytester, drill, canned, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    drill("green", **PLAIN)
    result = pytester.runpytest("--drill-cluster=kind")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: kind needs Docker, and there is no program docker on PATH", "*→ https://docs.docker.com/*"]
    )
    result.stdout.no_fnmatch_line("*PASSED*")


def test_other_skipped_tests_are_no_drills(pytester):
    pytester.makepyfile("import pytest\n\ndef test_later():\n    pytest.skip('later')\n")
    pytester.runpytest().stdout.no_fnmatch_line("*drills skipped*")
