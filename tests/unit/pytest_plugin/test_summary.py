"""The page for CI: the one that GitHub Actions shows of a job, and the one of --drill-summary."""

import re

import pytest

from clusterguard.errors import ToolchainError
from clusterguard.pytest_plugin.summary import _MOST_BYTES, Summary, summary

HTTP = {"restored: {}": "http: {service: web, namespace: shop, port: 80}", "{context: nowhere}": "{}"}


@pytest.fixture
def page(pytester, monkeypatch):
    """The file that GitHub names, which other steps may have written to."""
    path = pytester.path / "summary.md"
    path.write_text("# Before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def rows(page):
    found = re.findall(r"^\| \S+ (\w+) \| (\S+) \| (.*) \| (.*) \|$", page.read_text(), re.MULTILINE)
    return {name: (verdict, rto.strip(), rpo.strip()) for verdict, name, rto, rpo in found}


def test_each_drill_has_a_row_and_red_ones_say_why(pytester, three, canned, page):
    pytester.runpytest()
    assert rows(page) == {
        "green": ("PASS", "8.8 s", "≤ 0.5 s"),
        "red": ("FAIL", "", "≤ 0.5 s"),
        "unknown": ("ERROR", "", "≤ 0.5 s"),
    }
    text = page.read_text()
    assert text.startswith("# Before\n## Disaster recovery: 1 PASS, 1 FAIL, 1 ERROR\n")
    assert re.findall(r"<summary>(\w+): (\w+)", text) == [("red", "FAIL"), ("unknown", "ERROR")]
    assert "│ -blue " in text


def test_one_that_could_not_run_is_no_part_of_what_passed(pytester, drill, canned, page, monkeypatch):
    def nothing(*_):
        raise ToolchainError("etcd: neither on PATH nor to be downloaded")

    monkeypatch.setattr("clusterguard.toolchain.Toolchain.missing", lambda _, *names: {"etcd"} & set(names))
    monkeypatch.setattr("clusterguard.toolchain.Toolchain.ensure", nothing)
    drill("lacking", **{"context: nowhere": "embedded: {}"})
    pytester.runpytest()
    assert rows(page) == {"lacking": ("ERROR", "", "")}


def test_one_that_fails_after_its_verdict_is_an_error():
    passed, failed = report("late", "it broke", verdict="PASS"), report("late", "it broke", verdict="PASS")
    passed.outcome, failed.when = "passed", "teardown"
    summary_of = Summary(None, append=True)
    for each in (passed, failed):
        summary_of.pytest_runtest_logreport(each)
    assert "1 ERROR" in summary(list(summary_of._reports.values()))


def test_one_that_was_skipped_says_why(pytester, drill, canned, page, monkeypatch):
    monkeypatch.setattr("clusterguard.toolchain.Toolchain.missing", lambda *_: set())
    drill("unreachable", **HTTP)
    pytester.runpytest()
    assert rows(page) == {"unreachable": ("SKIPPED", "", "")}
    assert "needs containers that run" in page.read_text()


def test_tests_that_are_no_drills_are_no_part_of_it(pytester, page):
    pytester.makepyfile("def test_it(): assert False")
    pytester.runpytest()
    assert page.read_text() == "# Before\n"


def test_another_ci_gets_it_as_a_file_of_its_own(pytester, three, canned, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    page = pytester.path / "drills.md"
    page.write_text("of the run before")
    pytester.runpytest("--drill-summary=drills.md")
    assert page.read_text().startswith("## Disaster recovery: 1 PASS, 1 FAIL, 1 ERROR\n")
    assert set(rows(page)) == {"green", "red", "unknown"}


def test_where_nothing_ran_the_file_of_the_run_before_does_not_stay(pytester, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    page = pytester.path / "drills.md"
    page.write_text("## Disaster recovery: 3 PASS\n")
    pytester.runpytest("--drill-summary=drills.md")
    assert "PASS" not in page.read_text()


def test_it_tells_how_many_defects_were_found():
    attacked, plain = report("attacked", "it broke"), report("plain", "it broke")
    attacked.user_properties += [("clusterguard.defects_found", 19), ("clusterguard.defects_counted", 20)]
    assert re.findall(r"\| (attacked|plain) \|  \|  \| (.*) \|", summary([attacked, plain])) == [
        ("attacked", "19 of 20"),
        ("plain", ""),
    ]


def test_workers_leave_it_to_the_one_that_collects_their_reports(pytester, three, canned_everywhere, page):
    pytester.runpytest_subprocess("-n2", "-p", "xdist")
    assert page.read_text().count("## Disaster recovery") == 1


def test_a_page_that_cannot_be_written_changes_no_verdict(pytester, drill, canned, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "missing" / "summary.md"))
    drill("green")
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*summary could not be written*"])


def report(name, words, *, verdict="FAIL"):
    properties = [("clusterguard.verdict", verdict)]
    return pytest.TestReport(
        f"f.drill.yaml::{name}", ("f", 0, name), {}, "failed", words, "call", user_properties=properties
    )


def test_what_a_program_printed_is_neither_markup_nor_a_cell():
    text = summary([report("a|b", "</pre><b>| bold | ```")])
    assert "| a&#124;b |" in text
    assert "<pre>&lt;/pre&gt;&lt;b&gt;| bold | ```</pre>" in text


def test_more_than_github_shows_is_left_out():
    text = summary([report(f"d{number}", "x" * 30_000) for number in range(100)])
    assert len(text.encode()) < _MOST_BYTES + 1000
    assert text.count("❌") == 100
    assert "x" * 20_001 not in text
