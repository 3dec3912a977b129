"""Files of containers: what is read, and what counts as the same."""

import hashlib
import subprocess
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.clusters.kube_exec import Container, Executed
from clusterguard.drills.files import FileDigest, FileTree, differences, parse_tree, random_bytes, read_tree, write_file
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
    digest = FileDigest(size=10, sha256=hashlib.sha256(b"some bytes").hexdigest())
    assert tree.files == {f"{tmp_path}/deep/{name}": digest}


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
    assert (list(tree.files), tree.ignored) == ([f"{tmp_path}/a"], 1)


def test_a_path_that_is_not_there_is_an_error(shell, tmp_path):
    with pytest.raises(DrillError, match="could not be read"):
        read_tree(None, HERE, str(tmp_path / "nothing"), seconds=10)


def test_an_unreadable_file_is_an_error_and_no_difference():
    with pytest.raises(ValueError, match="/d/a is unreadable"):
        parse_tree(b"unreadable 0 /d/a\0end\0")


def test_a_list_that_was_cut_is_an_error(monkeypatch):
    cut = Executed(exit_code=0, stdout=b"aa 1 /d/a\0", stderr=b"")
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
