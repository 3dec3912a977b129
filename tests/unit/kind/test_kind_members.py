"""A member of etcd is stopped, lost and started on its node, and never begins an empty database by itself."""

import shlex

import pytest

from clusterguard.clusters.kind import members
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.errors import ProgramError

# Commands on the node run here, with programs that only write down that they were called.
NODE = 'shift 3; PATH={programs}:$PATH exec "$@"'
PROGRAMS = {
    "pkill": "echo killed >> {log}",
    "pgrep": "test -d {data}/member && echo 4711",
    "systemctl": 'echo "$@" >> {log}',
    "curl": "test -d {data}/member || {{ echo 'connection refused' >&2; exit 7; }}",
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data directory of a member that runs."""
    data = tmp_path / "etcd"
    (data / "member").mkdir(parents=True)
    (data / "member" / "db").write_text("what it wrote")
    monkeypatch.setattr(members, "ETCD_DATA", str(data))
    return data


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def shell(program, tmp_path, data, log):
    (tmp_path / "programs").mkdir()
    for name, text in PROGRAMS.items():
        program(text.format(log=shlex.quote(str(log)), data=data), f"programs/{name}")
    return DockerNodeShell("b", docker=program(NODE.format(programs=tmp_path / "programs")))


def test_a_member_that_was_stopped_starts_on_what_it_had(shell, data, log):
    assert members.runs(shell)
    members.stop(shell)
    assert not members.runs(shell)
    assert "connection refused" in members.why_not_ready(shell)
    assert (data / "member").is_file(), "etcd cannot begin an empty database there"
    members.start(shell)
    assert (data / "member" / "db").read_text() == "what it wrote"
    assert members.why_not_ready(shell) is None
    assert log.read_text().splitlines() == ["killed", "restart kubelet"]


def test_what_was_stopped_before_its_member_was_replaced_is_nobodys(shell, data):
    members.stop(shell)
    (data / "member").unlink()
    (data / "member").mkdir()
    (data / "member" / "db").write_text("what the new one wrote")
    members.stop(shell)
    with pytest.raises(ProgramError):
        members.stop(shell)
    members.start(shell)
    assert (data / "member" / "db").read_text() == "what the new one wrote"


@pytest.mark.parametrize("stopped", [False, True])
def test_a_member_that_was_lost_has_nothing_to_start_on(shell, data, stopped):
    if stopped:
        members.stop(shell)
    members.lose(shell)
    assert [each.name for each in data.iterdir() if each.is_dir()] == []
    assert (data / "member").is_file()
    with pytest.raises(ProgramError):
        members.start(shell)
    assert (data / "member").is_file()
