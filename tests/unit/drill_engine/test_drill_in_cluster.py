"""Commands, requests, files, nodes and etcd in drills: what each answer of the cluster comes to."""

import contextlib
import time

import pytest
from fake_cluster import FakeCluster

from clusterguard.clusters.kube import ApiReadiness, ApiResponse
from clusterguard.clusters.kube_exec import Container, Executed
from clusterguard.drills import Verdict
from clusterguard.drills.files import FileDigest, FileTree
from clusterguard.drills.run import DrillRun
from clusterguard.drills.steps import delete, http, members, same_files, start_node, write_file
from clusterguard.errors import ClusterError, ClusterUnreachableError, ConfigError, ResourceNotFoundError

IN = {"namespace": "shop", "selector": "app=web"}
COMMAND = {"command": ["true"], "in": IN}
ASK = {"service": "web", "namespace": "shop", "port": 80}


def done(code=0, stdout=b"", stderr=b""):
    return Executed(exit_code=code, stdout=stdout, stderr=stderr)


class Containers:
    """What happens when the drill looks for a container and runs a command in it."""

    def __init__(self):
        self.answers = []  # for each command; the last one stays
        self.finds = []
        self.asked = []

    def find(self, api, namespace, **which):
        if self.finds:
            found = self.finds.pop(0) if len(self.finds) > 1 else self.finds[0]
            if isinstance(found, Exception):
                raise found
        return Container(namespace=namespace, pod="web-0", name="web")

    def run(self, api, container, command, **_):
        self.asked.append(list(command))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def containers(monkeypatch):
    containers = Containers()
    monkeypatch.setattr("clusterguard.clusters.kube_exec.find_container", containers.find)
    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", containers.run)
    return containers


@pytest.fixture
def check(run, spec):
    """Run a drill whose only check is this one; the fault and the restore are others' business."""

    def check(verb, action, **more):
        result = run(spec | {"verify": [{verb: action}], "prove": False, **more})
        return result, next((step for step in result.steps if step.phase == "verify" and step.title == verb), None)

    return check


# ---- exec ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "action", "ok", "told"),
    [
        (done(0, b"42\n"), {}, True, "exit code 0: 42"),
        (done(1, b"", b"no such table"), {}, False, "exit code 1: no such table; 0 expected"),
        (done(3), {"exitCode": 3}, True, "exit code 3"),
        (done(0, b"open"), {"contains": "open"}, True, "open"),
        (done(0, b"closed"), {"contains": "open"}, False, "its output lacks 'open'"),
    ],
)
def test_a_command_is_judged_by_its_exit_code_and_its_output(check, containers, answer, action, ok, told):
    containers.answers = [answer]
    result, step = check("exec", COMMAND | action)
    assert (result.verdict is Verdict.PASS) == ok
    assert told in step.detail


def test_a_command_is_tried_again_until_it_ends_as_it_must(check, containers):
    containers.answers = [done(1), done(1), done(0)]
    assert check("exec", COMMAND)[0].verdict is Verdict.PASS
    assert len(containers.asked) >= 3


@pytest.mark.parametrize(
    "error", [ClusterUnreachableError("no Pod runs"), ResourceNotFoundError("container not found")]
)
def test_a_container_that_does_not_run_is_red_and_no_error(check, containers, error):
    containers.finds = [error]
    result, step = check("exec", COMMAND)
    assert (result.verdict, step.detail) == (Verdict.FAIL, error.message)


@pytest.mark.parametrize("error", [ConfigError("no container db"), ClusterError("executable file not found")])
def test_a_command_that_can_never_run_is_an_error(check, containers, error):
    containers.answers = [error]
    result, _ = check("exec", COMMAND)
    assert (result.verdict, error.message in result.reason) == (Verdict.ERROR, True)


def test_a_command_of_setup_waits_for_its_container_and_must_end_well(run, spec, containers):
    containers.finds = [ClusterUnreachableError("not yet"), None]
    containers.answers = [done(2, b"", b"disk full")]
    result = run(spec | {"setup": [*spec["setup"], {"exec": COMMAND}]})
    assert result.verdict is Verdict.ERROR
    assert "'true' in shop/web-0, container web: exit code 2: disk full; 0 expected" in result.reason


@pytest.mark.parametrize(
    ("left", "seconds", "least", "given"),
    [(100, 0, 10, 10), (100, 30, 10, 30), (5, 0, 10, 5), (5, 30, 10, 5), (0.1, 0, 10, 1), (-50, 30, 10, 1)],
)
def test_no_look_takes_more_time_than_the_drill_has_left(load, spec, left, seconds, least, given, monkeypatch):
    run = DrillRun(drill=load(spec), deadline=1000 + left)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert run.at_least(seconds, least) == pytest.approx(given)


# ---- http ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "action", "ok", "told"),
    [
        ((200, b"hello"), {}, True, "status 200: hello"),
        ((200, b""), {}, True, "status 200, empty"),
        ((404, b"nothing here"), {}, False, "status 404: nothing here; 200 expected"),
        ((301, b""), {"status": 301}, True, "status 301"),
        ((200, b"closed"), {"contains": "open"}, False, "status 200: closed; it lacks 'open'"),
        (ResourceNotFoundError('services "web" not found'), {}, False, "not found"),
        (ClusterUnreachableError("no endpoints available"), {}, False, "no endpoints available"),
    ],
)
def test_a_service_is_judged_by_status_and_text(check, monkeypatch, answer, action, ok, told):
    def ask(_, namespace, name, *, port, path, timeout_seconds):
        assert (namespace, name, port, path) == ("shop", "web", 80, "/")
        if isinstance(answer, Exception):
            raise answer
        return ApiResponse(status=answer[0], headers={}, body=answer[1])

    monkeypatch.setattr(http, "ask_service", ask)
    result, step = check("http", ASK | action)
    assert (result.verdict is Verdict.PASS) == ok, result
    assert told in step.detail


def test_a_service_that_streams_is_red_and_ends_no_drill(check, monkeypatch):
    cut = "the answer did not end in time"
    answer = ApiResponse(status=200, headers={}, body=b"data: hello", cut=cut)
    monkeypatch.setattr(http, "ask_service", lambda *_, **__: answer)
    result, step = check("http", ASK | {"contains": "hello"})
    assert (result.verdict, step.verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert cut in step.detail


def test_not_being_allowed_to_ask_is_an_error(check, monkeypatch):
    def refuse(*_, **__):
        raise ClusterError("403: may not get services/proxy")

    monkeypatch.setattr(http, "ask_service", refuse)
    assert check("http", ASK)[0].verdict is Verdict.ERROR


# ---- how long a look may take ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "action", "least"),
    [
        ("exec", COMMAND, 1000),
        ("sameFiles", {"in": IN, "path": "/data"}, 1000),
        ("http", ASK, 10),
    ],
)
def test_also_the_last_look_has_the_time_that_the_step_gives(run, spec, containers, monkeypatch, verb, action, least):
    """A command that takes a minute held once, and was cut off when it was asked whether it still did."""
    given = []

    def took(answer):
        return lambda *_, timeout_seconds=0, seconds=0, **__: given.append(timeout_seconds or seconds) or answer

    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", took(done()))
    monkeypatch.setattr(same_files, "read_tree", took(tree(a="aa")))
    monkeypatch.setattr(http, "ask_service", took(ApiResponse(status=200, headers={}, body=b"")))
    verify = [{verb: action, "timeout": "20m"}]
    assert run(spec | {"verify": verify, "prove": False}, longest_wait=None).verdict is Verdict.PASS
    assert len(given) >= 3
    assert min(given) >= least


# ---- files -----------------------------------------------------------------------------------------------


@pytest.fixture
def trees(containers, monkeypatch):
    """What is read below a path, each time; the last one stays."""
    trees = []
    monkeypatch.setattr(same_files, "read_tree", lambda *_, **__: trees.pop(0) if len(trees) > 1 else trees[0])
    return trees


def tree(**files):
    return FileTree(files={f"/data/{name}": FileDigest(size=1, sha256=digest) for name, digest in files.items()})


SAME = {"in": IN, "path": "/data"}


def test_files_that_are_as_before_the_backup_are_green(check, trees):
    trees += [tree(a="aa")]
    result, step = check("sameFiles", SAME)
    assert result.verdict is Verdict.PASS
    assert step.detail.startswith("the same 1 file(s), 1 bytes")
    notes = [each.detail for each in result.steps if each.title == "notes for sameFiles"]
    assert any(each.startswith("/data: 1 file(s), 1 bytes") for each in notes)


def test_one_changed_byte_is_red(check, trees):
    trees += [tree(a="aa"), tree(a="ab")]
    result, step = check("sameFiles", SAME)
    assert result.verdict is Verdict.FAIL
    assert "1 changed: /data/a" in step.detail
    assert "/data/a" in result.diff


def test_a_lost_file_is_red(check, trees):
    trees += [tree(a="aa", b="bb"), tree(a="aa")]
    assert check("sameFiles", SAME)[0].verdict is Verdict.FAIL


def test_nothing_to_compare_is_an_error_before_anything_is_broken(check, trees, cluster):
    trees += [tree()]
    result, _ = check("sameFiles", SAME)
    assert (result.verdict, "there is no file below /data" in result.reason) == (Verdict.ERROR, True)
    assert ("delete", "ConfigMap") not in cluster.api.calls[: len(cluster.api.calls) // 2]


@pytest.mark.parametrize("error", [ClusterUnreachableError("no Pod runs")])
def test_files_of_a_container_that_is_gone_are_red(check, trees, containers, error):
    trees += [tree(a="aa")]
    containers.finds = [None, error]
    assert check("sameFiles", SAME)[0].verdict is Verdict.FAIL


def test_a_file_is_written_new_in_every_run(run, spec, containers, monkeypatch):
    written = []
    monkeypatch.setattr(write_file, "write_file", lambda _, __, path, data, **___: written.append(data) or "ab" * 32)
    step = {"writeFile": {"in": IN, "path": "/data/a", "size": "4Ki"}}
    for _ in range(2):
        assert run(spec | {"setup": [*spec["setup"], step]}).verdict is Verdict.PASS
        spec["setup"][0]["apply"]["manifest"][1]["metadata"]["name"] = "web"
    assert [len(data) for data in written] == [4096, 4096]
    assert written[0] != written[1]


# ---- nodes and etcd --------------------------------------------------------------------------------------


class Switchable(FakeCluster):
    created_by_us = True
    provider = "kind"

    def __init__(self):
        super().__init__()
        self.power = {"n1": True, "n2": True}
        self.has_etcd = True
        self.api.ready = lambda: ApiReadiness(ok=all(self.power.values()) and self.has_etcd, failing="etcd")
        for name in self.power:
            labels = {"node-role.kubernetes.io/control-plane": ""} if name == "n1" else {}
            self.api.objects["Node", None, name] = {"metadata": {"name": name, "labels": labels, "uid": name}}

    def node_power(self):
        return dict(self.power)

    def stop_node(self, name):
        self.power[name] = False

    def start_node(self, name):
        self.power[name] = True

    def lose_etcd(self):
        self.has_etcd = False


@pytest.fixture
def cluster(monkeypatch):
    for module in (members, start_node):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("clusterguard.drills.run.EtcdSnapshotter", __import__("fake_cluster").FakeSnapshotter)
    return Switchable()


POWER = {
    "canary": False,
    "fault": [{"stopNode": {"selector": "node-role.kubernetes.io/control-plane"}}],
    "restore": [{"startNode": {}}],
}


def test_a_node_without_power_makes_everything_red_until_it_is_back(run, spec, cluster):
    result = run(spec | POWER)
    assert result.verdict is Verdict.PASS, result
    assert result.red_after_fault == (1, 1)
    assert cluster.power == {"n1": True, "n2": True}


def test_a_node_that_stays_off_fails_the_drill(run, spec, cluster):
    cluster.start_node = lambda name: None
    cluster_wait = {"restore": [{"startNode": {}, "timeout": "100ms"}]}
    result = run(spec | POWER | cluster_wait)
    assert result.verdict is Verdict.FAIL
    assert result.code == "wait-timeout"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"selector": "role=none"}, "role=none"),
        ({"name": "n2"}, "n2"),
    ],
)
def test_a_power_cut_that_breaks_nothing_is_an_error(run, spec, cluster, fault, told):
    cluster.power["n2"] = False
    cluster.api.ready = lambda: ApiReadiness(ok=True)
    result = run(spec | POWER | {"fault": [{"stopNode": fault}]})
    assert (result.verdict, result.code) == (Verdict.ERROR, "nothing-broken"), result.reason
    assert told in result.reason


def test_the_name_of_the_cluster_may_be_left_out_of_a_nodes(run, spec, cluster):
    name = f"{cluster.name}-worker"
    cluster.power[name] = True
    steps = {"fault": [{"stopNode": {"name": "worker"}}], "restore": [{"startNode": {"name": "worker"}}]}
    result = run(spec | POWER | steps)
    assert result.verdict is Verdict.PASS, result
    assert cluster.power[name]
    assert [step.detail for step in result.steps if name in step.detail] == [
        f"{name} without power",
        f"{name} started; the API server answers",
    ]


def test_the_machines_of_somebodys_cluster_are_left_alone(run, spec, cluster):
    cluster.created_by_us = False
    for fault in ({"stopNode": {"name": "n1"}}, {"loseEtcd": {}}):
        result = run(spec | POWER | {"fault": [fault]})
        assert (result.verdict, result.code) == (Verdict.ERROR, "not-allowed"), result.reason
    assert cluster.power == {"n1": True, "n2": True}
    assert cluster.has_etcd


def test_without_etcd_everything_is_red_at_once(run, spec, cluster):
    cluster.restored = lambda api: setattr(cluster, "has_etcd", True)
    with contextlib.suppress(KeyError):
        del spec["canary"]
    result = run(spec | {"fault": [*spec["fault"], {"loseEtcd": {}}]})
    assert result.verdict is Verdict.PASS, result
    assert result.red_after_fault == (1, 1)


# ---- deletions that hang ---------------------------------------------------------------------------------

HELD = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "held", "namespace": "shop", "finalizers": ["example.com/hold"]},
}
STUCK = {"delete": {"kind": "ConfigMap", "namespace": "shop", "name": "held", "until": "stuck"}}


def test_a_deletion_that_hangs_is_a_fault_and_what_holds_it_is_told(run, spec, monkeypatch):
    monkeypatch.setattr(delete, "_STUCK_SECONDS", 0.2)
    spec["setup"][0]["apply"]["manifest"].append(HELD)
    spec["fault"].append(STUCK)
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    told = [step.detail for step in result.steps if step.phase == "fault"]
    assert told[-1] == "ConfigMap is being deleted, with finalizers example.com/hold"


def test_a_deletion_that_goes_through_is_not_stuck(run, spec):
    spec["setup"][0]["apply"]["manifest"].append(HELD | {"metadata": {"name": "held", "namespace": "shop"}})
    spec["fault"].append(STUCK)
    result = run(spec)
    assert (result.verdict, "not stuck" in result.reason) == (Verdict.ERROR, True), result.reason


def test_a_deletion_that_hangs_unasked_is_an_error_with_what_holds_it(run, spec):
    spec["setup"][0]["apply"]["manifest"].append(HELD)
    spec["fault"].append({"delete": STUCK["delete"] | {"until": "gone"}, "timeout": "200ms"})
    result = run(spec)
    assert (result.verdict, "example.com/hold" in result.reason) == (Verdict.ERROR, True), result.reason
