"""Files of containers: what is read, and what counts as the same."""

import hashlib
import os
import shutil
import socket
import subprocess
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.clusters.kube_exec import Container, Executed
from clusterguard.drills.files import (
    FileDigest,
    FileTree,
    differences,
    filled_holes,
    parse_tree,
    random_bytes,
    read_tree,
    write_file,
)
from clusterguard.errors import DrillError

HERE = Container(namespace="shop", pod="web-0", name="web")
digests = st.builds(FileDigest, size=st.integers(0, 99), sha256=st.sampled_from(["aa", "bb", "cc"]))
trees = st.builds(FileTree, files=st.dictionaries(st.sampled_from(["/d/a", "/d/b", "/d/c", "/d/e f"]), digests))


@pytest.fixture
def shell(monkeypatch):
    """Run what would run in a container on this machine, whose shell is as good as any."""

    def run_in(api, container, command, *, stdin=None, timeout_seconds, most_output=0):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

        def feed():
            # A command that ended before it read everything is told by its exit code, in a container as well.
            with suppress(BrokenPipeError):
                for piece in stdin or ():
                    process.stdin.write(piece)

        # As version 4 of the protocol: nothing tells where standard input ends.
        feeder = threading.Thread(target=feed)
        feeder.start()
        with process.stdout, process.stderr:
            out, err = process.stdout.read(), process.stderr.read()
        feeder.join()
        process.stdin.close()
        return Executed(exit_code=process.wait(), stdout=out, stderr=err)

    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", run_in)


@given(trees)
def test_a_tree_is_the_same_as_itself(tree):
    assert differences(tree, tree) == ()


@given(trees, trees)
def test_whatever_differs_is_told_both_ways(before, after):
    same = dict(before.files) == dict(after.files)
    assert (differences(before, after) == ()) == same
    assert (differences(after, before) == ()) == same


def test_missing_changed_and_additional_files_are_told_apart():
    before = FileTree(files={"/d/a": FileDigest(size=1, sha256="aa"), "/d/b": FileDigest(size=2, sha256="bb")})
    after = FileTree(files={"/d/b": FileDigest(size=2, sha256="cc"), "/d/c": FileDigest(size=3, sha256="cc")})
    missing, changed, extra = differences(before, after)
    assert missing == "1 missing: /d/a"
    assert changed.startswith("1 changed: /d/b (2 bytes, sha256 bb… before, cc… now)")
    assert extra == "1 additional: /d/c"


@pytest.mark.parametrize("name", ["plain", "with space", "with\nline", "quote'\"", "-dash", "ümlaut", "$(touch x)"])
def test_files_of_any_name_are_read(shell, tmp_path, name):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).write_bytes(b"some bytes")
    tree = read_tree(None, HERE, str(tmp_path), seconds=10)
    found = tree.files[f"{tmp_path}/deep/{name}"]
    assert (found.size, found.sha256) == (10, hashlib.sha256(b"some bytes").hexdigest())
    assert set(tree.files) == {f"{tmp_path}/deep", f"{tmp_path}/deep/{name}"}


def test_one_changed_byte_is_seen(shell, tmp_path):
    (tmp_path / "a").write_bytes(bytes(1000))
    before = read_tree(None, HERE, str(tmp_path), seconds=10)
    (tmp_path / "a").write_bytes(bytes(500) + b"\1" + bytes(499))
    assert len(differences(before, read_tree(None, HERE, str(tmp_path), seconds=10))) == 1


def test_what_velero_leaves_in_a_volume_is_passed_over_and_counted(shell, tmp_path):
    (tmp_path / ".velero").mkdir()
    (tmp_path / ".velero" / "7d6a").touch()
    (tmp_path / "a").write_bytes(b"x")
    tree = read_tree(None, HERE, str(tmp_path), seconds=10)
    assert (list(tree.files), tree.ignored) == ([f"{tmp_path}/a"], 2)


@pytest.fixture
def volume(tmp_path):
    """A volume with everything that is no plain file in it."""
    top = tmp_path / "volume"
    (top / "empty").mkdir(parents=True)
    (top / "a").write_bytes(b"x")
    (top / "b").hardlink_to(top / "a")
    (top / "link").symlink_to("a")
    os.mkfifo(top / "pipe")
    with (top / "sparse").open("wb") as file:
        file.truncate(8 << 20)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(top / "socket"))
        yield top


def read(path):
    return read_tree(None, HERE, str(path), seconds=10)


def test_what_is_no_plain_file_is_told_by_its_kind(shell, volume):
    kinds = {path.rpartition("/")[2]: each.kind for path, each in read(volume).files.items()}
    assert kinds == {
        "a": "file",
        "b": "file",
        "empty": "folder",
        "link": "link",
        "pipe": "fifo",
        "socket": "socket",
        "sparse": "file",
    }


@pytest.mark.parametrize(
    ("change", "told", "ignored"),
    [
        (lambda top: (top / "empty").rmdir(), "1 missing: ", "emptyFolders"),
        (lambda top: (top / "pipe").unlink(), "1 missing: ", "specialFiles"),
        (lambda top: (top / "a").chmod(0o600), "2 with another mode: ", "modes"),
        (lambda top: split(top / "b"), "2 no longer one file", "hardLinks"),
        (lambda top: lead(top / "link", "b"), "1 changed: ", ""),
        (lambda top: lead(top / "pipe", "b"), "1 changed: ", ""),
        (lambda top: (top / "more").mkdir(), "1 additional: ", "emptyFolders"),
    ],
)
def test_each_change_beside_the_bytes_is_seen(shell, volume, change, told, ignored):
    before = read(volume)
    change(volume)
    after = read(volume)
    (found,) = differences(before, after)
    assert found.startswith(told)
    if ignored:
        assert differences(before, after, ignore=[ignored]) == ()


def split(path):
    data = path.read_bytes()
    mode = path.stat().st_mode & 0o777
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)


def lead(path, target):
    path.unlink()
    path.symlink_to(target)


def test_what_a_mover_does_not_keep_is_said_to_be_so(shell, volume):
    before = read(volume)
    (volume / "pipe").unlink()
    split(volume / "b")
    plain, moved = (differences(before, read(volume), moved=moved) for moved in (False, True))
    assert [after.startswith(was) and after != was for was, after in zip(plain, moved, strict=True)] == [True, True]


def test_another_owner_is_seen_and_an_unknown_one_is_not():
    def tree(owner, mode="644"):
        return FileTree(files={"/d/a": FileDigest(size=1, sha256="aa", owner=owner, mode=mode)})

    (found,) = differences(tree("0:0"), tree("1000:0"))
    assert found.startswith("1 with another owner: /d/a (0:0 before, 1000:0 now)")
    assert differences(tree("0:0"), tree("1000:0"), ignore=["owners"]) == ()
    assert differences(tree("0:0"), tree("", mode="")) == ()


def test_filled_holes_are_told_and_no_difference(shell, volume):
    before = read(volume)
    (volume / "sparse").write_bytes(bytes(8 << 20))
    os.sync()
    after = read(volume)
    assert differences(before, after) == ()
    assert filled_holes(before, after).startswith("the holes of 1 file(s) are filled")
    assert filled_holes(before, before) == ""


def test_without_stat_the_bytes_are_compared_and_the_rest_is_said_not_to_be(shell, volume, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "find", "sha256sum", "wc", "readlink"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    tree = read(volume)
    assert tree.files[f"{volume}/sparse"].size == 8 << 20
    assert tree.files[f"{volume}/a"].mode == ""
    assert "no stat" in tree.summary()


def test_a_path_that_is_not_there_is_an_error(shell, tmp_path):
    with pytest.raises(DrillError, match="could not be read"):
        read_tree(None, HERE, str(tmp_path / "nothing"), seconds=10)


def test_an_unreadable_file_is_an_error_and_no_difference():
    with pytest.raises(ValueError, match="/d/a is unreadable"):
        parse_tree(b"unreadable - 0 - - - - - /d/a\0\0end\0")


def test_a_list_that_was_cut_is_an_error(monkeypatch):
    cut = Executed(exit_code=0, stdout=b"file aa 1 - - - - - /d/a\0\0", stderr=b"")
    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", lambda *_, **__: cut)
    with pytest.raises(DrillError, match="could not be read"):
        read_tree(None, HERE, "/d", seconds=10)


def test_a_file_is_written_whole_and_its_digest_is_ours(shell, tmp_path):
    data = random_bytes(200_000, seed="run")
    path = tmp_path / "new" / "orders.bin"
    assert write_file(None, HERE, str(path), data, seconds=10) == hashlib.sha256(data).hexdigest()
    assert path.read_bytes() == data
    assert [each.name for each in path.parent.iterdir()] == ["orders.bin"]


def test_a_file_that_cannot_be_written_is_an_error(shell, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DrillError, match="could not be written"):
        write_file(None, HERE, str(tmp_path / "file" / "below"), b"x", seconds=10)


def test_a_container_that_has_other_bytes_right_after_is_an_error(monkeypatch):
    other = Executed(exit_code=0, stdout=b"00ff  -\n", stderr=b"")
    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", lambda *_, **__: other)
    with pytest.raises(DrillError, match="right after"):
        write_file(None, HERE, "/d/a", b"x", seconds=10)


def test_bytes_are_new_for_every_seed():
    assert random_bytes(64, seed="a") == random_bytes(64, seed="a") != random_bytes(64, seed="b")
