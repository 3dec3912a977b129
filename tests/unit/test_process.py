"""Programs: how they end, how they are told apart, and that none outlives us unknown."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import psutil
import pytest

from clusterguard.errors import ProgramError
from clusterguard.process import ProcessRecord, attached, run, spawn, stream_lines, tail

SLEEP = ["/bin/sleep", "1000"]


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


def wait_until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def started(tmp_path):
    """Start programs that end with the test."""
    records = []

    def start(argv, **options):
        records.append(spawn(argv, log=tmp_path / "log", **options))
        return records[-1]

    yield start
    for record in records:
        record.stop(grace_seconds=0)


class Killed:
    """A Python process of its own that prints one line of JSON and then waits to be killed."""

    def __init__(self, code, *arguments):
        code = f"import json, time\n{textwrap.dedent(code)}\ntime.sleep(1000)\n"
        argv = [sys.executable, "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.said = json.loads(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


# ---- run


def test_a_program_that_ends_well_gives_what_it_printed():
    done = run(["/bin/sh", "-c", "echo out; echo err >&2"], timeout_seconds=10)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert done.seconds > 0


def test_a_program_gets_variables_directory_and_input(tmp_path):
    argv = ["/bin/sh", "-c", 'echo "$COLOUR $PWD"; cat']
    done = run(argv, timeout_seconds=10, env={"COLOUR": "blue"}, cwd=tmp_path, stdin="typed")
    assert done.stdout == f"blue {tmp_path}\ntyped"


@pytest.mark.parametrize("dies_with_us", [False, True])
def test_a_failure_tells_exit_code_and_output(dies_with_us):
    with pytest.raises(ProgramError) as raised:
        run(["/bin/sh", "-c", "echo it hurts >&2; exit 3"], timeout_seconds=10, dies_with_us=dies_with_us)
    assert raised.value.fields == {"program": "sh"}
    assert (raised.value.exit_code, raised.value.output) == (3, "it hurts")


def test_a_silent_failure_says_so():
    with pytest.raises(ProgramError, match="it printed nothing"):
        run(["/bin/false"], timeout_seconds=10)


def test_a_killed_program_tells_the_signal():
    with pytest.raises(ProgramError, match="killed by SIGTERM"):
        run(["/bin/sh", "-c", "kill -TERM $$"], timeout_seconds=10)


def test_a_program_that_takes_too_long_is_killed():
    with pytest.raises(ProgramError) as caught:
        run(SLEEP, timeout_seconds=0.05)
    assert (caught.value.code, caught.value.fields) == ("program-timed-out", {"program": "sleep", "seconds": 0.05})


@pytest.mark.parametrize("dies_with_us", [False, True])
def test_a_missing_program_is_named(dies_with_us):
    with pytest.raises(ProgramError, match="no such program") as raised:
        run(["/nowhere/etcdutl"], timeout_seconds=1, dies_with_us=dies_with_us)
    assert "/nowhere/etcdutl" in raised.value.message
    assert "toolchain install" in raised.value.hint


def starts(argv, **options):
    """Every way to start a program that takes these options."""
    yield lambda: run(argv, timeout_seconds=10, **options)
    yield lambda: list(stream_lines(argv, **options))


@pytest.mark.parametrize("way", [0, 1])
def test_a_missing_directory_is_not_called_a_missing_program(tmp_path, way):
    with pytest.raises(ProgramError) as raised:
        list(starts(["/bin/true"], cwd=tmp_path / "gone"))[way]()
    assert str(tmp_path / "gone") in raised.value.message
    assert raised.value.hint is None  # installing the program would not help


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(("text", "mode"), [("#!/bin/sh\n", 0o600), ("no program at all", 0o700)])
def test_a_program_that_cannot_be_executed_is_told_not_traced(tmp_path, way, text, mode):
    program = tmp_path / "program"
    program.write_text(text)
    program.chmod(mode)
    with pytest.raises(ProgramError) as raised:
        list(starts([program]))[way]()
    assert str(program) in raised.value.message


def test_a_missing_input_is_told_by_its_name(tmp_path):
    with pytest.raises(ProgramError) as raised:
        run(["/bin/cat"], timeout_seconds=10, stdin=tmp_path / "gone")
    assert str(tmp_path / "gone") in raised.value.message


def test_a_program_that_shall_die_with_us_does(tmp_path):
    code = """
        import sys, threading
        from pathlib import Path
        from clusterguard.process import run
        file = Path(sys.argv[1])
        argv = ["/bin/sh", "-c", "echo $$ > $0; exec sleep 1000", file]
        threading.Thread(target=run, args=(argv,), kwargs=dict(timeout_seconds=999, dies_with_us=True)).start()
        while not (file.exists() and file.read_text().endswith("\\n")):
            time.sleep(0.01)
        print(json.dumps(int(file.read_text())), flush=True)
    """
    parent = Killed(code, tmp_path / "pid")
    assert psutil.pid_exists(parent.said)
    parent.kill()
    wait_until(lambda: not psutil.pid_exists(parent.said))


def test_a_program_that_nobody_asks_about_any_more_is_no_zombie_for_ever(started):
    forgotten = started(["/bin/true"]).pid
    wait_until(lambda: psutil.Process(forgotten).status() == psutil.STATUS_ZOMBIE)
    started(SLEEP)
    assert not psutil.pid_exists(forgotten)


# ---- stream_lines


def test_lines_come_as_they_are_printed():
    assert list(stream_lines(["/bin/sh", "-c", "echo one; echo two >&2"])) == ["one", "two"]


def test_a_failing_stream_tells_the_end_of_what_was_printed():
    lines = stream_lines(["/bin/sh", "-c", "for i in $(seq 1 500); do echo line $i; done; exit 4"])
    with pytest.raises(ProgramError, match="exit code 4") as raised:
        list(lines)
    assert raised.value.output.endswith("line 500")
    assert "line 100\n" not in raised.value.output


def test_a_missing_program_has_no_lines():
    with pytest.raises(ProgramError, match="no such program"):
        list(stream_lines(["/nowhere/go", "build"]))


def test_an_abandoned_stream_ends_the_program_and_its_children():
    lines = stream_lines(["/bin/sh", "-c", "sleep 1000 & echo $!; echo $$; wait"])
    child, shell = int(next(lines)), int(next(lines))
    lines.close()
    wait_until(lambda: not psutil.pid_exists(shell))
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


# ---- spawn and its record


def test_a_spawned_program_is_the_recorded_process(started):
    record = started(SLEEP)
    assert record.alive()
    wait_until(lambda: psutil.Process(record.pid).cmdline() == SLEEP)
    assert ProcessRecord.of(record.pid) == record
    record.stop(grace_seconds=5)
    assert not record.alive()
    assert not psutil.pid_exists(record.pid)  # collected: no zombie


def test_its_output_goes_to_the_log(started, tmp_path):
    record = started(["/bin/sh", "-c", "echo out; echo err >&2"])
    wait_until(lambda: not record.alive())
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_only_its_own_descriptors_are_open_in_it(started, tmp_path):
    record = started(["/bin/sh", "-c", "ls /proc/self/fd"])
    wait_until(lambda: not record.alive())
    opened = set((tmp_path / "log").read_text().split())
    assert opened <= {"0", "1", "2", "3"}  # the last one is the listing's own


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(started, tmp_path):
    record = started(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
    wait_until(lambda: "ready" in (tmp_path / "log").read_text())
    began = time.monotonic()
    record.stop(grace_seconds=0.2)
    assert not record.alive()
    assert time.monotonic() - began >= 0.2


def test_what_is_gone_can_be_stopped_again(started):
    record = started(["/bin/true"])
    wait_until(lambda: not record.alive())
    record.terminate()
    record.stop(grace_seconds=0)


def test_a_program_whose_parent_does_not_collect_it_is_gone_all_the_same():
    parent = Killed("import subprocess; print(json.dumps(subprocess.Popen(['/bin/sleep', '1000']).pid), flush=True)")
    record = ProcessRecord.of(parent.said)
    began = time.monotonic()
    record.stop(grace_seconds=600)
    assert time.monotonic() - began < 300  # it did not wait for the grace to end
    assert psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE
    assert not record.alive()
    parent.kill()


def test_another_process_with_the_same_number_is_left_alone(started):
    running = started(SLEEP)
    earlier = ProcessRecord(pid=running.pid, started=running.started - 100)
    other = subprocess.Popen(SLEEP)  # one that spawn does not know
    try:
        stale = ProcessRecord(pid=other.pid, started=ProcessRecord.of(other.pid).started - 0.01)
        assert not stale.alive()
        stale.stop(grace_seconds=0)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert earlier != running


def test_setting_the_clock_makes_nobody_look_dead(monkeypatch):
    me = ProcessRecord.of(os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 0.0)
    assert me.alive()


@pytest.mark.parametrize(
    ("changes", "visible", "ended"),
    [
        ({}, True, False),
        ({"started": 0.0}, True, True),
        ({"pid_namespace": "pid:[1]"}, False, False),  # another container's: nobody here can tell
        ({"pid_namespace": "pid:[1]", "started": 0.0}, False, False),
        ({"boot_id": "another boot"}, False, True),  # the machine was started anew
        ({"boot_id": "", "pid_namespace": ""}, False, False),  # an older record
        ({"boot_id": "", "pid_namespace": "", "started": 0.0}, False, True),
    ],
)
def test_a_number_counts_in_its_own_boot_and_namespace_alone(changes, visible, ended):
    me = ProcessRecord.of(os.getpid())
    record = replace(me, **changes)
    assert (record.visible(), record.ended()) == (visible, ended)


def test_a_process_that_proc_does_not_show_may_run(monkeypatch):
    """Where /proc is mounted with hidepid, another user's process is there for kill alone."""
    record = replace(ProcessRecord.of(os.getpid()), pid=1)

    def hide(pid):
        raise FileNotFoundError(f"/proc/{pid}/stat")

    def refuse(pid, signal):
        raise PermissionError("not yours")

    monkeypatch.setattr("clusterguard.process._started", hide)
    monkeypatch.setattr(os, "kill", refuse)
    assert (record.alive(), record.ended()) == (False, False)
    monkeypatch.setattr("clusterguard.process._started", lambda _: record.started + 1)
    assert record.ended(), "it can be seen, and is another one"


def test_another_containers_process_is_not_signalled():
    victim = subprocess.Popen(SLEEP)
    try:
        record = replace(ProcessRecord.of(victim.pid), pid_namespace="pid:[1]")
        record.terminate()
        record.stop(grace_seconds=0)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_a_number_that_nobody_has_is_told():
    with pytest.raises(ProgramError, match="there is no process"):
        ProcessRecord.of(2**22 + 1)  # beyond the largest number the kernel gives


def test_a_program_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ProgramError, match="no such program"):
        spawn([tmp_path / "etcd"], log=tmp_path / "log")


def test_a_spawned_program_does_not_outlive_its_parent(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from clusterguard.process import spawn
        log = Path(sys.argv[1])
        records = [spawn(["/bin/sleep", "1000"], log=log, outlive_us=outlive) for outlive in (False, True)]
        print(json.dumps([record.pid for record in records]), flush=True)
    """
    parent = Killed(code, tmp_path / "log")
    tied, kept = parent.said
    wait_until(lambda: psutil.Process(tied).name() == psutil.Process(kept).name() == "sleep")
    parent.kill()
    wait_until(lambda: not psutil.pid_exists(tied))
    assert psutil.pid_exists(kept)
    os.kill(kept, signal.SIGKILL)


def test_it_lives_on_when_the_thread_that_asked_for_it_ends(started):
    records = []
    # By then the kernel was told whose death to follow; a thread that ends before that is not noticed.
    settled = {"write_down": lambda _: time.sleep(0.3)}
    thread = threading.Thread(target=lambda: records.append(started(SLEEP, **settled)))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert records[0].alive()


def test_the_program_begins_only_once_it_is_written_down(started, tmp_path):
    mark = tmp_path / "begun"

    def write_down(record):
        time.sleep(0.2)  # more than enough to begin, if it could
        assert record.alive()
        assert not mark.exists()

    started(["/bin/sh", "-c", f"touch {mark}; exec sleep 1000"], write_down=write_down)
    wait_until(mark.exists)


def test_a_parent_killed_before_that_leaves_nothing(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from clusterguard.process import spawn
        def write_down(record):
            print(json.dumps(record.pid), flush=True)
            time.sleep(1000)
        spawn(["/bin/sleep", "1000"], log=Path(sys.argv[1]), outlive_us=True, write_down=write_down)
    """
    parent = Killed(code, tmp_path / "log")
    assert psutil.pid_exists(parent.said)
    parent.kill()
    wait_until(lambda: not psutil.pid_exists(parent.said))


def test_a_parent_that_cannot_write_it_down_starts_nothing(tmp_path):
    seen = []

    def write_down(record):
        seen.append(record)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        spawn(SLEEP, log=tmp_path / "log", outlive_us=True, write_down=write_down)
    wait_until(lambda: not seen[0].alive())


def test_ctrl_c_in_the_terminal_does_not_reach_it(started):
    record = started(SLEEP)
    assert os.getsid(record.pid) == record.pid != os.getsid(0)


# ---- tail


def test_the_end_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {number}" for number in range(10_000)))
    assert tail(log, lines=2) == "line 9998\nline 9999"
    assert tail(log, start=log.stat().st_size - 4) == "9999"


def test_an_empty_log_and_none_are_told_apart(tmp_path):
    assert tail(tmp_path / "none") == "(no log was written)"
    (tmp_path / "empty").touch()
    assert tail(tmp_path / "empty") == "(it printed nothing)"


def test_a_log_with_half_a_letter_is_readable(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\xfe ok")
    with contextlib.suppress(IndexError):
        assert tail(tmp_path / "log").endswith("ok")


# ---- attached and fed --------------------------------------------------------------------------------------


ECHO = ["/bin/sh", "-c", "echo $$; exec cat"]


def test_an_attached_program_answers_and_ends_with_its_block():
    with attached(ECHO) as program:
        number = int(program.read_line(timeout_seconds=10))
        program.write_line("one\ntwo\n")
        assert [program.read_line(timeout_seconds=10) for _ in range(2)] == ["one", "two"]
    wait_until(lambda: not psutil.pid_exists(number))


def test_an_attached_program_that_says_nothing_is_given_up():
    with (
        attached(["/bin/sleep", "1000"], grace_seconds=0.1) as program,
        pytest.raises(ProgramError) as caught,
    ):
        program.read_line(timeout_seconds=0.2)
    assert (caught.value.code, caught.value.fields) == ("program-timed-out", {"program": "sleep", "seconds": 0.2})


def test_an_attached_program_that_ends_tells_why():
    with attached(["/bin/sh", "-c", "echo taken >&2; exit 75"]) as program:
        with pytest.raises(ProgramError, match="sh: exit code 75: taken") as caught:
            program.read_line(timeout_seconds=10)
        assert caught.value.exit_code == 75
        with pytest.raises(ProgramError, match="it has ended"):
            program.write_line("x" * 100_000)


def test_an_attached_program_that_is_not_there_is_told():
    with pytest.raises(ProgramError, match="no such program"), attached(["/nowhere/flock"]):
        pass


def test_what_an_attached_program_is_for_may_fail():
    with pytest.raises(ZeroDivisionError), attached(ECHO):
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", ["text", "bytes", "file"])
def test_a_program_is_fed_text_bytes_or_a_file(tmp_path, kind):
    path = tmp_path / "food"
    path.write_bytes(b"caf\xc3\xa9")
    food = {"text": "café", "bytes": "café".encode(), "file": path}[kind]
    assert run(["/bin/cat"], timeout_seconds=10, stdin=food).stdout == "café"
