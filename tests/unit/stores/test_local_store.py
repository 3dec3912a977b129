"""What is true of a directory alone; the rest is the contract."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from clusterguard.errors import ConfigError, ObjectChangedError, ObjectExistsError, ObjectNotFoundError, StoreError
from clusterguard.stores import LocalStore, MemoryStore, local
from clusterguard.stores.base import PARTIAL

DAY = 24 * 3600


def put(store, key, data, *, overwrite=False, if_version=None):
    with store.put(key, overwrite=overwrite, if_version=if_version) as writer:
        writer.write(data)


def get(store, key):
    with store.get(key) as reader:
        return reader.read()


def unfinished(root):
    return sorted((root / PARTIAL).iterdir())


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    return LocalStore(root)


def test_files_and_directories_are_this_users_alone(store, root):
    old = os.umask(0)
    try:
        put(store, "a/b/c", b"secret")
    finally:
        os.umask(old)
    for path in (root, root / "a", root / "a" / "b", root / PARTIAL):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o600


def test_a_local_path_holds_the_bytes_themselves(store, root):
    put(store, "a/b", b"bytes")
    assert store.local_path("a/b") == root / "a/b"
    assert store.local_path("a/b").read_bytes() == b"bytes"
    with pytest.raises(ObjectNotFoundError):
        store.local_path("a")


def test_nothing_unfinished_remains_after_any_outcome(store, root):
    put(store, "good", b"1")
    put(store, "good", b"2", overwrite=True)
    with pytest.raises(KeyboardInterrupt), store.put("interrupted") as writer:
        writer.write(b"x")
        raise KeyboardInterrupt
    with pytest.raises(ObjectExistsError), store.put("raced"):
        put(store, "raced", b"first")
    assert unfinished(root) == []


def test_the_url_leads_back_to_the_store(root):
    assert LocalStore(root / "ä b?#").url == f"file://{root}/%C3%A4%20b%3F%23"


def test_a_relative_root_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = LocalStore("backups")
    put(store, "a", b"1")
    monkeypatch.chdir("/")
    assert get(store, "a") == b"1"


class TestLeftovers:
    def test_a_killed_writer_leaves_no_object_and_its_leftover_goes_after_a_day(self, root):
        script = (
            "import sys\nfrom clusterguard.stores import LocalStore\n"
            "with LocalStore(sys.argv[1]).put('snapshots/killed') as writer:\n"
            "    writer.write(bytes(3 << 20))\n    print('writing', flush=True)\n    sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        store = LocalStore(root)
        assert list(store.list()) == []
        assert len(unfinished(root)) == 1

        put(store, "snapshots/killed", b"the next one")
        assert len(unfinished(root)) == 1, "a day has not passed: its writer might still be at work"
        notes = unfinished(root)[0].with_name("notes.txt")
        notes.write_bytes(b"somebody's own")
        put(LocalStore(root, now=lambda: time.time() + DAY + 60), "later", b"")
        assert unfinished(root) == [notes]
        assert get(store, "snapshots/killed") == b"the next one"

    def test_a_long_write_is_not_swept_by_its_neighbour(self, root):
        with LocalStore(root).put("slow") as writer:
            writer.write(b"begun")
            put(LocalStore(root, now=lambda: time.time() + DAY - 60), "neighbour", b"")
            writer.write(b", ended")
        assert get(LocalStore(root), "slow") == b"begun, ended"

    def test_what_cannot_be_swept_stops_nobody(self, store, root):
        (root / PARTIAL / "a-directory").mkdir(parents=True)
        os.utime(root / PARTIAL / "a-directory", (0, 0))
        put(store, "a", b"1")
        assert get(store, "a") == b"1"


class TestLinks:
    """A key leads nowhere outside of the store, whatever somebody put into its directory."""

    @pytest.fixture
    def outside(self, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_bytes(b"not yours")
        return outside

    @pytest.mark.parametrize("key", ["link/file", "link/new", "file-link"])
    def test_a_symbolic_link_is_refused(self, store, root, outside, key):
        root.mkdir()
        (root / "link").symlink_to(outside)
        (root / "file-link").symlink_to(outside / "file")
        for verb in (store.stat, store.delete, store.local_path):
            with pytest.raises(StoreError, match="symbolic link"):
                verb(key)
        with pytest.raises(StoreError, match="symbolic link"), store.get(key):
            pass
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="symbolic link"), store.put(key, overwrite=overwrite):
                pass
        assert everything(outside) == ["file"]
        assert (outside / "file").read_bytes() == b"not yours"
        assert list(store.list()) == []

    def test_a_link_to_the_store_itself_is_followed(self, tmp_path, outside):
        (tmp_path / "link").symlink_to(outside)
        put(LocalStore(tmp_path / "link"), "a", b"1")
        assert (outside / "a").read_bytes() == b"1"

    def test_dots_do_not_lead_out(self, store, root):
        with pytest.raises(ConfigError), store.put("a/../../outside"):
            pass
        assert not root.exists()


class TestTrouble:
    @pytest.mark.parametrize("piece", [1000, 4 << 20], ids=["buffered", "direct"])
    def test_no_room_is_told_with_a_hint_and_leaves_nothing(self, store, root, piece, largest_file):
        put(store, "kept", b"old")
        with (
            largest_file(2 << 20),
            pytest.raises(StoreError, match="too large") as raised,
            store.put("kept", overwrite=True) as writer,
        ):
            for _ in range((4 << 20) // piece + 1):
                writer.write(bytes(piece))
        assert "make room" in raised.value.hint
        assert get(store, "kept") == b"old"
        assert unfinished(root) == []

    def test_a_disk_that_fills_at_the_last_moment_leaves_nothing(self, store, root, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left") as raised:
            put(store, "a", b"1")
        assert "make room" in raised.value.hint
        monkeypatch.undo()
        assert list(store.list()) == []

    def test_a_failed_write_cannot_be_talked_over(self, store, largest_file):
        """A caller who goes on after an error does not get a torn object."""
        with pytest.raises(StoreError, match="too large"), largest_file(1 << 20), store.put("torn") as writer:
            with pytest.raises(StoreError, match="too large"):
                writer.write(bytes(4 << 20))
            with pytest.raises(StoreError, match="too large"):
                writer.write(b"")
        assert list(store.list()) == []

    def test_a_file_system_without_hard_links_is_named(self, store, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(StoreError, match="hard links") as raised:
            put(store, "a", b"1")
        assert "overwriting" in raised.value.hint
        put(store, "a", b"1", overwrite=True)
        assert get(store, "a") == b"1"

    def test_an_object_is_no_directory(self, store, root):
        put(store, "a", b"1")
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="/a/b: Not a directory") as raised:
                put(store, "a/b", b"2", overwrite=overwrite)
            assert "beginning of another" in raised.value.hint
        assert get(store, "a") == b"1"
        assert unfinished(root) == []

    def test_a_directory_is_no_object(self, store):
        put(store, "a/b", b"1")
        with pytest.raises(StoreError):
            put(store, "a", b"2")
        with pytest.raises(StoreError) as raised:
            put(store, "a", b"2", overwrite=True)
        assert "beginning of another" in raised.value.hint
        assert get(store, "a/b") == b"1"

    def test_a_part_that_is_too_long_for_a_file_name(self, store):
        with pytest.raises(StoreError) as raised:
            put(store, "n" * 256, b"")
        assert "255" in raised.value.hint

    def test_a_root_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="file"):
            put(LocalStore(tmp_path / "file"), "a", b"")

    def test_a_missing_root_is_named_when_something_is_read(self, store, root):
        with pytest.raises(ObjectNotFoundError) as raised:
            store.stat("a")
        assert str(root) in raised.value.hint

    def test_errors_of_the_caller_pass_unchanged(self, store):
        """An OSError from the caller's own work is not the store's."""
        with pytest.raises(ConnectionResetError), store.put("a") as writer:
            writer.write(b"x")
            raise ConnectionResetError

    def test_only_files_are_listed(self, store, root):
        put(store, "object", b"1")
        os.mkfifo(root / "pipe")
        (root / "empty-directory").mkdir()
        (root / os.fsdecode(b"not-utf8-\xff")).touch()
        assert [info.key for info in store.list()] == ["object"]


class TestVersions:
    def test_a_version_is_the_same_before_and_after_the_partial_is_gone(self, store, root, monkeypatch):
        put(store, "other", b"makes the directories")
        seen = []
        sync = local._sync_directory
        monkeypatch.setattr(local, "_sync_directory", lambda path: (seen.append(store.stat("a").version), sync(path)))
        put(store, "a", b"first")
        assert [store.stat("a").version] == seen

    def test_whoever_is_replacing_an_object_keeps_others_out_and_nobody_waits_for_it(self, store, root):
        put(store, "a", b"first")
        seen = store.stat("a").version
        with (root / "a").open("r+b") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(ObjectChangedError):
                put(store, "a", b"second", if_version=seen)
        put(store, "a", b"second", if_version=seen)
        assert get(store, "a") == b"second"
        assert unfinished(root) == []

    def test_the_lock_of_a_file_that_was_replaced_is_worth_nothing(self, store, root, monkeypatch):
        put(store, "a", b"first")
        seen = store.stat("a").version
        lock = fcntl.flock

        def rival_is_faster(file, how):
            monkeypatch.setattr(fcntl, "flock", lock)
            put(store, "a", b"rival", if_version=seen)
            lock(file, how)

        monkeypatch.setattr(fcntl, "flock", rival_is_faster)
        with pytest.raises(ObjectChangedError):
            put(store, "a", b"late", if_version=seen)
        assert get(store, "a") == b"rival"

    def test_a_symbolic_link_is_never_replaced(self, store, root, tmp_path, monkeypatch):
        put(store, "a", b"first")
        seen = store.stat("a").version
        with pytest.raises(StoreError), store.put("a", if_version=seen) as writer:
            writer.write(b"new")
            (root / "a").rename(tmp_path / "elsewhere")
            (root / "a").symlink_to(tmp_path / "elsewhere")
        assert (tmp_path / "elsewhere").read_bytes() == b"first"

    def test_a_file_system_without_locks_is_named(self, store, monkeypatch):
        put(store, "a", b"first")

        def refuse(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(StoreError, match="No locks available") as raised:
            put(store, "a", b"second", if_version=store.stat("a").version)
        assert not isinstance(raised.value, ObjectChangedError)
        assert "flock" in raised.value.hint
        assert get(store, "a") == b"first"


def test_bytes_reach_the_disk_before_the_name_does(store, monkeypatch):
    """fsync of the file, then its name, then fsync of the directory: a power cut leaves all or nothing."""
    log = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (log.append("dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))[1],
    )
    monkeypatch.setattr(os, "link", lambda *paths: (log.append("name"), link(*paths))[1])
    put(store, "a", b"1")
    log.clear()
    put(store, "b", b"1")
    assert log == ["file", "name", "dir"]


def test_deleting_takes_empty_directories_along(store, root):
    put(store, "a/b/c", b"")
    put(store, "a/d", b"")
    store.delete("a/b/c")
    assert everything(root) == [PARTIAL, "a", "a/d"]
    store.delete("a/d")
    assert everything(root) == [PARTIAL]


def test_a_directory_emptied_while_a_put_ends_is_made_again(store, monkeypatch):
    """Somebody deletes the last neighbour between our mkdir and our link."""
    put(store, "a/neighbour", b"")
    link = os.link
    calls = []

    def late(*paths):
        if not calls:
            calls.append("first")
            store.delete("a/neighbour")
        return link(*paths)

    monkeypatch.setattr(os, "link", late)
    put(store, "a/mine", b"1")
    assert calls == ["first"]
    assert get(store, "a/mine") == b"1"


class TwoStores(RuleBasedStateMachine):
    """Whatever is done to a directory and to a dictionary, both hold the same objects."""

    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.stores = [LocalStore(self.directory.name), MemoryStore()]

    def teardown(self):
        self.directory.cleanup()

    # d/ holds objects, f-… are objects: a key that is both is refused by a directory alone.
    @rule(
        target=keys,
        key=st.from_regex(r"(d[-./]?){0,3}f[-.é]?[0-2]?", fullmatch=True).filter(lambda k: "//" not in k),
    )
    def key(self, key):
        return key

    @rule(
        key=keys,
        pieces=st.lists(st.binary(max_size=50), max_size=4),
        overwrite=st.booleans(),
        fail=st.booleans(),
    )
    def put(self, key, pieces, overwrite, fail):
        outcomes = []
        for store in self.stores:
            try:
                with store.put(key, overwrite=overwrite) as writer:
                    for piece in pieces:
                        writer.write(piece)
                    if fail:
                        raise InterruptedError  # noqa: TRY301 - the block must be left by it
            except (StoreError, InterruptedError) as error:
                outcomes.append(type(error))
        assert len(set(outcomes)) <= 1
        assert len(outcomes) in {0, 2}

    @rule(key=keys)
    def delete(self, key):
        for store in self.stores:
            store.delete(key)

    @invariant()
    def same(self):
        local, memory = ([(i.key, i.size, get(s, i.key)) for i in s.list()] for s in self.stores)
        assert local == memory


TwoStores.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestTwoStores = TwoStores.TestCase


def test_a_large_object_is_on_its_way_to_the_disk_before_it_ends(store, monkeypatch):
    begun = []
    monkeypatch.setattr("clusterguard.stores.local._FLUSH_BYTES", 100)
    monkeypatch.setattr("os.posix_fadvise", lambda _file, start, size, _advice: begun.append((start, size)))
    with store.put("large") as writer:
        for _ in range(8):
            writer.write(bytes(60))
        assert begun == [(0, 120), (120, 120), (240, 120), (360, 120)]


def test_a_file_system_that_refuses_to_begin_early_gets_everything_at_the_end(store, monkeypatch):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("clusterguard.stores.local._FLUSH_BYTES", 100)
    monkeypatch.setattr("os.posix_fadvise", refuse)
    with store.put("large") as writer:
        writer.write(bytes(500))
    assert store.stat("large").size == 500
