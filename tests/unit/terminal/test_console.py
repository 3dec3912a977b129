"""Progress, where there is a terminal and where there is none."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.model.progress import Progress
from clusterguard.terminal.console import ProgressLines, amount, console_on, progress_sink


class Lines(list):
    """What was written, with a clock to be turned."""

    now = 0.0

    def sink(self):
        return ProgressLines(self.append, clock=lambda: self.now)


def test_a_task_is_told_when_it_begins_now_and_then_and_when_it_ends():
    lines = Lines()
    tell = lines.sink()
    for second in range(41):
        lines.now = second
        tell(Progress(task="building etcd", done=second, total=40, unit="packages"))
    lines.now = 41.5
    tell(Progress(task="building etcd", finished=True))
    assert lines == [
        "building etcd …",
        "building etcd … 15 of 40 packages",
        "building etcd … 30 of 40 packages",
        "building etcd, done (41.5s)",
    ]


def test_each_task_has_its_own_time():
    lines = Lines()
    tell = lines.sink()
    tell(Progress(task="one"))
    lines.now = 14
    tell(Progress(task="two"))
    lines.now = 15
    tell(Progress(task="one"))
    tell(Progress(task="two"))
    assert [line.rstrip() for line in lines] == ["one …", "two …", "one …"]


def test_a_remark_comes_with_its_task_and_an_end_that_had_no_beginning_is_not_told():
    lines = Lines()
    tell = lines.sink()
    tell(Progress(task="etcd", finished=True))
    tell(Progress(task="etcd", finished=True, note="found on PATH"))
    tell(Progress(task="etcdctl", note="from the cache"))
    tell(Progress(task="etcdctl", finished=True, note="v3.7.3"))
    assert lines == ["etcd: found on PATH", "etcdctl …: from the cache", "etcdctl: v3.7.3 (0.0s)"]


@given(st.lists(st.floats(0, 100), max_size=200))
def test_a_log_gets_at_most_a_line_in_fifteen_seconds(pauses):
    lines = Lines()
    tell = lines.sink()
    for pause in pauses:
        lines.now += pause
        tell(Progress(task="a"))
    assert len(lines) <= 1 + lines.now / 15


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (Progress(task="a"), ""),
        (Progress(task="a", done=312, total=1104, unit="packages"), "312 of 1,104 packages"),
        (Progress(task="a", done=61 << 20, total=800 << 20, unit="bytes"), "61 of 800 MiB"),
        (Progress(task="a", done=61 << 20, unit="bytes"), "61 MiB"),
        (Progress(task="a", total=5, unit="objects"), "0 of 5 objects"),
    ],
)
def test_how_far_a_task_is(moment, words):
    assert amount(moment) == words


def test_without_a_terminal_progress_is_lines(console):
    log = console()
    with progress_sink(log) as tell:
        tell(Progress(task="building [etcd]"))
        tell(Progress(task="building [etcd]", finished=True))
    assert log.shown().splitlines()[0] == "building [etcd] …"


def test_in_a_terminal_progress_leaves_what_is_done(console):
    terminal = console(terminal=True)
    with progress_sink(terminal) as tell:
        tell(Progress(task="building [etcd]", done=1, total=2, unit="packages"))
        tell(Progress(task="building [etcd]", finished=True))
    assert "building [etcd], done" in terminal.shown()


def test_a_log_is_as_wide_as_logs_are(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console_on(io.StringIO()).width == 120
    monkeypatch.setenv("COLUMNS", "70")
    assert console_on(io.StringIO()).width == 70


def test_what_is_printed_stands_there_as_it_is():
    file = io.StringIO()
    console_on(file).print("[::1]:100: refused :warning:", markup=False)
    assert file.getvalue() == "[::1]:100: refused :warning:\n"
