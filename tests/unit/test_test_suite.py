"""How this suite runs: all of it on several workers, what is asked for by name in the one process that is watched."""

from pathlib import Path

import pytest

INI = """
[pytest]
testpaths = tests
addopts = -m 'not slow' -p no:clusterguard -p no:cacheprovider -p no:hypothesispytest
markers =
    slow
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A suite of one test, whose name tells which worker ran it, under the conftest.py of this one."""
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeini(INI)
    folder = pytester.mkdir("tests")
    (folder / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    (folder / "test_one.py").write_text("def test_one(worker_id):\n    assert worker_id == 'master'\n")

    return pytester


def test_all_of_it_runs_on_workers(suite):
    # The real programs are got before the first test; here nobody needs them.
    suite.makepyfile(no_programs="from clusterguard.toolchain import Toolchain\nToolchain.ensure = lambda *_: {}\n")
    ended = suite.runpytest_subprocess("--override-ini=pythonpath=.", "-p", "no_programs")
    assert ended.parseoutcomes() == {"failed": 1}
    ended.stdout.fnmatch_lines(["*'gw0' == 'master'*"])


@pytest.mark.parametrize("words", [("tests",), ("-n0",), ("-m", "")], ids=" ".join)
def test_a_part_and_what_a_mark_asks_for_run_in_this_process(suite, words):
    assert suite.runpytest_inprocess(*words).parseoutcomes() == {"passed": 1}
