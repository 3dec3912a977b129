"""A member of etcd is stopped, lost and started on its node, and never begins an empty database by itself."""

import shlex

import pytest
import yaml

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
MANIFEST = """apiVersion: v1
kind: Pod
spec:
  containers:
  - command:
    - etcd
    - --initial-advertise-peer-urls=https://172.18.0.3:2380
    - --initial-cluster=b=https://172.18.0.3:2380
    - --name=b
    - --snapshot-count=10000
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data directory of a member that runs."""
    data = tmp_path / "etcd"
    (data / "member").mkdir(parents=True)
    (data / "member" / "db").write_text("what it wrote")
    monkeypatch.setattr(members, "ETCD_DATA", str(data))
    monkeypatch.setattr(members, "_KUBERNETES", str(tmp_path / "kubernetes"))
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
    assert members.why_not_ready(shell, alone=True) is None
    assert log.read_text().splitlines() == ["killed", "restart kubelet"]


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


@pytest.mark.parametrize("state", ["", "    - --initial-cluster-state=new\n"])
def test_an_empty_member_joins_those_that_are_there(shell, data, tmp_path, state):
    manifest = tmp_path / "kubernetes" / "manifests" / "etcd.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(MANIFEST + state)
    members.lose(shell)
    members.start_empty(shell, {name: members.peer_url(f"172.18.0.{n}") for n, name in enumerate("abc", 2)})
    (container,) = yaml.safe_load(manifest.read_text())["spec"]["containers"]
    assert sorted(container["command"]) == [
        "--initial-advertise-peer-urls=https://172.18.0.3:2380",
        "--initial-cluster-state=existing",
        "--initial-cluster=a=https://172.18.0.2:2380,b=https://172.18.0.3:2380,c=https://172.18.0.4:2380",
        "--name=b",
        "--snapshot-count=10000",
        "etcd",
    ]
    assert list(data.iterdir()) == []
    assert [each.name for each in manifest.parent.parent.iterdir()] == ["manifests"]
