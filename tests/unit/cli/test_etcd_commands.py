"""``clusterguard etcd``: the options that reach etcd stand once, and mean the same in every command."""

import io
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from clusterguard.errors import ConfigError
from clusterguard.etcd import membership
from clusterguard.etcd.membership import MemberChange
from clusterguard.etcd.restore import RestoreStep

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: prod
contexts: [{name: prod, context: {cluster: prod, user: ops}}]
clusters: [{name: prod, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: ops, user: {token: a-token}}]
"""


@pytest.fixture
def prod(tmp_path, monkeypatch):
    monkeypatch.delenv("CLUSTERGUARD_NODE_SHELL", raising=False)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    return f"kubeconfig:{tmp_path}/kubeconfig"


@pytest.mark.parametrize("command", ["save", "verify", "restore", "recover", "replace-member"])
def test_every_command_reaches_etcd_by_the_same_options(cli, command):
    text = cli("etcd", command, "--help").out
    for option in ("--endpoints", "--cacert", "--cert", "--key", "--user", "--password-file", "--node-shell"):
        assert option in text


@pytest.mark.parametrize("command", [["save"], ["verify", "x"], ["restore", "x"]])
def test_the_scratch_folder_is_that_of_the_option(cli, tmp_path, prod, command, monkeypatch):
    seen = []

    def snapshotter(**options):
        seen.append(options["scratch"])
        raise ConfigError("that is enough")

    monkeypatch.setattr("clusterguard.etcd.EtcdSnapshotter", snapshotter)
    cli("etcd", *command, "--store", tmp_path, "--cluster", prod, "--scratch", tmp_path / "large")
    assert seen == [tmp_path / "large"]


@pytest.mark.parametrize(
    "command", [["save", "x"], ["verify", "x"], ["restore", "x"], ["recover"], ["replace-member", "x"]]
)
def test_a_word_that_names_no_node_is_refused(cli, tmp_path, prod, command):
    where = ["--cluster", prod]
    store = [] if command[0] in ("recover", "replace-member") else ["--store", tmp_path]
    ended = cli("etcd", *command, *where, *store, "--node-shell", "telnet:cp-1")
    assert ended.code == 2
    assert "'telnet:cp-1' is not a valid node reference" in ended.err
    assert "local, docker:NAME or ssh:[USER@]HOST" in ended.err


def test_a_certificate_without_its_key_is_refused_wherever_it_is_given(cli, tmp_path):
    cert = tmp_path / "cert"
    cert.touch()
    for command in ("save", "verify"):
        ended = cli("etcd", command, "x", "--store", tmp_path, "--endpoints", "https://127.0.0.1:1", "--cert", cert)
        assert "give both --cert and --key" in ended.err


def test_another_data_directory_needs_a_node(cli, tmp_path, prod):
    ended = cli("etcd", "restore", "x", "--store", tmp_path, "--cluster", prod, "--data-dir", "/mnt/new")
    assert ended.code == 2
    assert "--node-shell ssh:HOST" in ended.err


def test_recover_needs_a_node(cli, prod):
    ended = cli("etcd", "recover", "--cluster", prod)
    assert ended.code == 2
    assert "no shell given for the control-plane node" in ended.err


@pytest.mark.parametrize("command", ["restore", "recover"])
def test_a_host_that_is_no_node_of_kubeadm_is_told_not_traced(cli, tmp_path, prod, command, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    name, store = (["x"], ["--store", tmp_path]) if command == "restore" else ([], [])
    ended = cli("etcd", command, *name, "--cluster", prod, *store, "--node-shell", "docker:no-such-node")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "error: " in ended.err


@pytest.mark.parametrize(
    "command", [["save", "x"], ["verify", "x"], ["restore", "x"], ["recover"], ["replace-member", "x"]]
)
def test_an_identity_without_an_endpoint_is_not_silently_replaced_by_the_nodes(cli, tmp_path, prod, command):
    store = [] if command[0] in ("recover", "replace-member") else ["--store", tmp_path]
    ended = cli("etcd", *command, "--cluster", prod, *store, "--node-shell", "docker:cp-1", "--user", "root")
    assert ended.code == 2
    assert "nothing says where etcd is" in ended.err
    assert "--endpoints" in ended.err


# ---- replace-member ----------------------------------------------------------------------------------------


class Cluster:
    """A cluster whose members can be replaced, but for what it is asked."""

    name, provider, context, created_by_us, control_plane = "mine", "embedded", None, False, None
    etcd, api = object(), object()

    def close(self):
        pass

    @contextmanager
    def member_places(self):
        yield {"m1": "the place of m1"}


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the members' replacement, and of the cluster's lock."""
    asked = []
    monkeypatch.setattr("clusterguard.clusters.opening.open_cluster", lambda *_, **__: Cluster())

    def lock(*_, what, **__):
        asked.append(what)
        return SimpleNamespace(release=lambda: asked.append("released"))

    def replace(access, places, name, *, seconds, watch):
        asked.append((places[name], seconds))
        steps = [RestoreStep(name="add it anew", seconds=5.0), RestoreStep(name="start it empty", seconds=2.0)]
        for step in steps:
            watch(step)
        return MemberChange(name=name, reason="it does not answer", kept="/old", steps=tuple(steps))

    def remove(access, places, name, *, api):
        asked.append(f"remove {name}")
        return MemberChange(name=name, reason="it does not answer")

    monkeypatch.setattr("clusterguard.clusters.lock.lock_cluster", lock)
    monkeypatch.setattr(membership, "replace_member", replace)
    monkeypatch.setattr(membership, "remove_member", remove)
    monkeypatch.setattr(membership, "plan_replacement", lambda *_: "# the plan")
    return asked


REPLACE = ("etcd", "replace-member", "m1", "--cluster", "embedded:mine")


def test_a_member_is_replaced_under_the_lock_of_the_cluster_and_the_time_is_told(cli, asked):
    ended = cli(*REPLACE, "--yes", "--timeout", "90s")
    assert (ended.code, asked) == (0, ["clusterguard etcd replace-member", ("the place of m1", 90.0), "released"])
    assert "replaced m1 in 7.0s: it does not answer" in ended.out
    assert "/old" in ended.out


def test_nothing_is_replaced_before_somebody_says_yes(cli, asked, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert cli(*REPLACE).code == 2
    assert asked == []


def test_a_plan_asks_and_locks_nothing(cli, asked):
    ended = cli(*REPLACE, "--plan")
    assert (ended.code, ended.out, asked) == (0, "# the plan\n", [])


def test_a_removal_has_no_plan(cli, asked):
    ended = cli(*REPLACE, "--plan", "--remove-only")
    assert (ended.code, ended.out, asked) == (2, "", [])
    assert "--remove-only" in ended.err


def test_a_member_that_is_gone_for_good_is_only_removed(cli, asked):
    ended = cli(*REPLACE, "--yes", "--remove-only")
    assert (ended.code, asked[1]) == (0, "remove m1")
    assert "removed m1" in ended.out


def test_the_members_of_a_cluster_without_named_nodes_are_out_of_reach(cli, prod):
    ended = cli("etcd", "replace-member", "m1", "--cluster", prod, "--yes")
    assert ended.code == 2
    assert "--node-shell" in ended.err
