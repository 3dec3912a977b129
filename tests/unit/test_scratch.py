"""What is left of bytes on their way: nothing, however the process ends. The processes that are killed are real."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from clusterguard import scratch
from clusterguard.errors import ConfigError, ScratchError
from clusterguard.process import run
from clusterguard.scratch import in_memory, private_folder, replacing, scratch_folder, unnamed_file

SECRET = b"this is a Secret of the cluster"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Keep private folders of these tests apart; give the folder that they lie in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "clusterguard" / "scratch"


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


# ---- where -------------------------------------------------------------------------------------------------


def test_whoever_named_a_folder_gets_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/")
    assert scratch_folder(tmp_path) == tmp_path


def test_the_environment_comes_before_the_systems_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert scratch_folder() == tmp_path


def test_by_default_it_is_the_one_for_large_files(monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    assert scratch_folder() == Path("/var/tmp")


def test_where_that_cannot_be_written_it_is_the_one_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "_LARGE_FILES", tmp_path / "not there")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert scratch_folder() == tmp_path


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_one_that_was_named_and_is_none_is_refused(tmp_path, monkeypatch, by):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file") if by == "environment" else str(tmp_path))
    with pytest.raises(ConfigError, match="file"):
        scratch_folder(tmp_path / "file" if by == "argument" else None)


# ---- files without a name ----------------------------------------------------------------------------------


def test_an_unnamed_file_is_read_by_us_and_by_our_programs_and_by_nobody_else(tmp_path):
    with unnamed_file(tmp_path) as file:
        file.write(SECRET[:9])
        file.write(memoryview(SECRET)[9:])
        assert file.path.read_bytes() == file.path.read_bytes() == SECRET
        assert run(["cat", file.path], timeout_seconds=10).stdout == SECRET.decode()
        argv = ["dd", f"if={file.path}", "status=none"]
        assert run(["/bin/sh", "-c", '"$@"', "sh", *argv], timeout_seconds=10, dies_with_us=True).stdout
        assert files_below(tmp_path) == []
        assert not file.path.samefile(tmp_path)
        path = file.path
    assert not path.exists()


def test_a_file_in_memory_is_on_no_disk_and_in_no_other_program(tmp_path):
    with in_memory(SECRET) as file:
        assert file.path.read_bytes() == SECRET
        assert run(["cat", file.path], timeout_seconds=10).stdout == SECRET.decode()
        assert run(["ls", "/proc/self/fd"], timeout_seconds=10).stdout.split() == ["0", "1", "2", "3"]
        assert "memfd" in str(file.path.readlink())
        assert file.path.stat().st_mode & 0o777 == 0o600


def test_room_is_asked_for_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ScratchError) as raised:
        unnamed_file(tmp_path, needed=1001)
    assert "--scratch" in raised.value.hint
    assert raised.value.code == "scratch-full"
    assert raised.value.fields == {"folder": str(tmp_path), "needed": 1001, "free": 1000}
    unnamed_file(tmp_path, needed=1000).close()


def test_a_full_disk_is_an_error_of_the_scratch_folder(tmp_path, largest_file):
    with largest_file(1 << 20), unnamed_file(tmp_path) as file, pytest.raises(ScratchError) as raised:
        file.write(bytes(2 << 20))
    assert raised.value.__cause__.errno == errno.EFBIG
    assert raised.value.code == "scratch-full"
    assert files_below(tmp_path) == []


MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK), reason="this machine has no /dev/shm")
def test_memory_is_not_filled_with_a_database(monkeypatch, tmp_path):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2000}))
    with pytest.raises(ScratchError) as raised:
        unnamed_file(MEMORY, needed=1001)
    assert raised.value.code == "scratch-in-memory"
    unnamed_file(MEMORY, needed=1000).close()
    if not scratch._is_memory(tmp_path):
        unnamed_file(tmp_path, needed=1001).close()


# ---- what must have a name ---------------------------------------------------------------------------------


def test_a_private_folder_is_this_users_alone_and_goes_with_the_block(state):
    with private_folder() as folder, private_folder() as other:
        assert folder != other
        assert folder.parent == state
        assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
        (folder / "kubeconfig").write_bytes(SECRET)
    assert files_below(state) == []
    assert list(state.iterdir()) == []


def test_where_the_home_cannot_be_written_it_is_a_private_one_below_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with private_folder() as folder:
        assert folder.parent == tmp_path / f"clusterguard-{os.getuid()}"
        assert folder.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("laid", ["readable", "link"])
def test_a_folder_that_others_may_look_into_is_not_taken(tmp_path, monkeypatch, laid):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / f"clusterguard-{os.getuid()}"
    if laid == "readable":
        theirs.mkdir()
        theirs.chmod(0o755)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        theirs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ScratchError), private_folder():
        pass
    assert files_below(tmp_path) == [tmp_path / "file"]


HOLDS = """
    import sys, time
    from clusterguard.scratch import private_folder
    with private_folder() as folder:
        (folder / "key").write_text("secret")
        print(folder, flush=True)
        sys.stdin.read()
"""


def process(code, *arguments, **options):
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def test_what_a_killed_process_left_goes_at_the_next_start_and_what_is_in_use_stays(state):
    with process(HOLDS) as killed, process(HOLDS) as working:
        left, used = (Path(each.stdout.readline().strip()) for each in (killed, working))
        killed.kill()
        killed.wait()
        assert (left / "key").exists()
        with private_folder():
            assert not left.exists()
            assert (used / "key").exists()
        working.send_signal(signal.SIGSTOP)  # it does not answer, and lives
        with private_folder():
            assert (used / "key").exists()
        working.send_signal(signal.SIGCONT)
        working.communicate("", timeout=30)
    assert list(state.iterdir()) == []


SWEEPS = """
    import sys
    from clusterguard.scratch import private_folder
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(300):
        with private_folder() as folder:
            (folder / "key").write_text(str(number))
            assert (folder / "key").read_text() == str(number)
"""


def test_processes_that_sweep_at_once_take_nothing_from_each_other(state):
    processes = [process(SWEEPS) for _ in range(3)]
    for each in processes:
        each.stdout.readline()
    for each in processes:
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in processes:
        each.communicate(timeout=120)
    assert [each.returncode for each in processes] == [0, 0, 0]
    assert list(state.iterdir()) == []


# ---- files that replace others -----------------------------------------------------------------------------


def test_a_file_is_replaced_once_it_is_whole(tmp_path):
    target = tmp_path / "inventory"
    target.write_bytes(b"old")
    with replacing(target, mode=0o640) as file:
        file.write(SECRET)
        file.flush()
        assert files_below(tmp_path) == [target]
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == SECRET
    assert target.stat().st_mode & 0o777 == 0o640
    assert files_below(tmp_path) == [target]


def test_after_a_failure_the_old_file_stays(tmp_path):
    target = tmp_path / "inventory"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(target) as file:
        file.write(SECRET)
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert files_below(tmp_path) == [target]


def test_where_the_file_system_has_no_unnamed_files_it_has_a_name_for_a_while(tmp_path, monkeypatch):
    real = os.open

    def refused(path, flags, *more, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refused)
    with replacing(tmp_path / "inventory") as file:
        file.write(SECRET)
        (named,) = files_below(tmp_path)
        assert named.stat().st_mode & 0o777 == 0o600
    assert files_below(tmp_path) == [tmp_path / "inventory"]
    with suppress(ZeroDivisionError), replacing(tmp_path / "inventory") as file:
        raise ZeroDivisionError
    assert files_below(tmp_path) == [tmp_path / "inventory"]


# ---- killed at any moment ----------------------------------------------------------------------------------


WRITES = """
    import sys
    from pathlib import Path
    from clusterguard.scratch import in_memory, replacing, unnamed_file
    folder, secret = Path(sys.argv[1]), b"this is a Secret of the cluster"
    print("ready", flush=True)
    while True:
        with unnamed_file(folder) as file, in_memory(secret) as key:
            for _ in range(64):
                file.write(secret * 2000)
            file.path.read_bytes(), key.path.read_bytes()
        with replacing(folder / "whole") as file:
            for _ in range(64):
                file.write(secret * 2000)
"""


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_at_any_moment_no_half_of_a_file_is_left(tmp_path, moments, count):
    whole = len(SECRET) * 2000 * 64
    for _ in range(count):
        with process(WRITES, tmp_path) as writer:
            writer.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                writer.wait(moments.uniform(0, 0.15))
            writer.kill()
        # A whole file may have the name that it bears for a moment before it takes that of the old one.
        assert all(path.stat().st_size == whole for path in files_below(tmp_path))
