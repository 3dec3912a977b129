"""Docker that is missing, stopped or forbidden is told as such, with what to do."""

import json

import pytest
from fake_kind import node

from clusterguard.clusters.kind import Docker
from clusterguard.clusters.kind.docker import node_of
from clusterguard.clusters.kind.faults import kind_hint, telling
from clusterguard.errors import ProvisioningError

STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
FORBIDDEN = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"


def published(port, host="127.0.0.1"):
    return {"HostIp": host, "HostPort": port}


def inspected(**changes):
    return {
        "Id": "4711",
        "Name": "/test-control-plane",
        "Created": "2026-01-02T03:04:05.123456789Z",
        "State": {"Running": True},
        "Config": {
            "Image": "my/node",
            "Labels": {"io.x-k8s.kind.cluster": "test", "io.x-k8s.kind.role": "control-plane"},
        },
        "HostConfig": {"PortBindings": {"2379/tcp": [published("30001")], "6443/tcp": [published("30443")]}},
        "NetworkSettings": {"Networks": {"kind": {"IPAddress": "172.18.0.2"}}},
    } | changes


def test_docker_that_is_not_there():
    with pytest.raises(ProvisioningError) as raised:
        Docker("no-such-docker").require()
    assert (raised.value.code, raised.value.fields) == ("program-missing", {"program": "no-such-docker"})
    assert "docs.docker.com" in raised.value.hint


@pytest.mark.parametrize(("said", "hint"), [(STOPPED, "systemctl start docker"), (FORBIDDEN, "usermod -aG docker")])
def test_docker_that_does_not_answer_this_user(program, said, hint):
    docker = Docker(program(f"echo '{said}' >&2; exit 1"))
    with pytest.raises(ProvisioningError, match="Docker") as raised:
        docker.require()
    assert said in raised.value.message
    assert hint in raised.value.hint


def test_the_docker_host_is_named(program, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    with pytest.raises(ProvisioningError) as caught:
        Docker(program(f"echo '{STOPPED}' >&2; exit 1")).clusters()
    assert (caught.value.code, caught.value.fields) == ("docker-failed", {"docker_host": "tcp://192.0.2.1:2376"})


def test_the_nodes_of_a_cluster_are_read(program, tmp_path):
    (tmp_path / "inspected").write_text(json.dumps([inspected()]))
    docker = Docker(program(f"if [ $1 = ps ]; then echo 4711; else cat {tmp_path}/inspected; fi"))
    assert docker.nodes("test") == (node(id="4711", created=pytest.approx(1767323045.123456)),)


def test_a_cluster_that_is_not_there_has_no_nodes(program):
    assert Docker(program("[ $1 = ps ]")).nodes("test") == ()


def test_a_container_that_is_just_being_made_is_waited_for(program, tmp_path):
    """Docker lists it some moments before it can tell anything about it."""
    (tmp_path / "inspected").write_text(json.dumps([inspected()]))
    script = f"""
    if [ $1 = ps ]; then echo 4711; exit; fi
    echo x >> {tmp_path}/asked
    if [ $(wc -l < {tmp_path}/asked) -lt 3 ]; then echo 'Error: No such container: 4711' >&2; exit 1; fi
    cat {tmp_path}/inspected
    """
    assert [node.id for node in Docker(program(script)).nodes("test")] == ["4711"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"HostConfig": {"PortBindings": None}}, {"etcd_port": None}),
        ({"HostConfig": {"PortBindings": {"6443/tcp": [{"HostPort": "1"}]}}}, {"etcd_port": None}),
        ({"HostConfig": {"PortBindings": {"2379/tcp": [{"HostPort": ""}]}}}, {"etcd_port": None, "api": ""}),
        ({"State": {"Running": False}}, {"running": False}),
        ({"NetworkSettings": {"Networks": {}}}, {"address": "", "network": ""}),
        ({"NetworkSettings": {"Networks": {"kind": {"IPAddress": ""}}}}, {"address": "", "network": "kind"}),
    ],
)
def test_what_a_node_lacks_is_told_as_absent(changes, expected):
    told = node_of(inspected(**changes))
    assert {name: getattr(told, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "api"),
    [
        ({}, "127.0.0.1:30443"),
        ({"HostConfig": {"PortBindings": {"6443/tcp": [published("1", host="::1")]}}}, "[::1]:1"),
        (
            {"Config": {"Image": "my/node", "Labels": {"desktop.docker.io/ports/6443/tcp": "10.0.1.7:6443"}}},
            "10.0.1.7:6443",
        ),
    ],
)
def test_the_place_of_the_api_is_read_as_kind_reads_it(changes, api):
    assert node_of(inspected(**changes)).api == api


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('ERROR: failed to pull image "nowhere/node:v1": exit status 1', "`docker pull` it"),
        ("write /kind/x: no space left on device", "make room for Docker"),
        ("Failed to create inotify object: Too many open files", "max_user_instances"),
        (STOPPED, "start Docker"),
        ("unable to decode config: yaml: unmarshal errors", "correct the kind configuration file"),
        ("something new", "known-issues"),
    ],
)
def test_every_failure_of_kind_has_a_next_step(said, hint):
    assert hint in kind_hint(said)


def test_of_kinds_log_only_what_tells_something_is_shown():
    log = """Creating cluster "test" ...
 • Preparing nodes 📦  ...
 ✓ Preparing nodes 📦
 ✗ Starting control-plane 🕹️
ERROR: failed to create cluster: failed to init node with kubeadm: exit status 1
Command Output: I1122 19:49:00.000000     170 initconfiguration.go:255] loading configuration
I1122 19:49:30.000000     170 round_trippers.go:632] "Response" verb="GET"
[wait-control-plane] Waiting for the kubelet to boot up the control plane

error: error execution phase wait-control-plane: the API server did not answer
k8s.io/kubernetes/cmd/kubeadm/app/cmd/phases/workflow.(*Runner).Run.func1
\t/go/pkg/mod/k8s.io/kubernetes/cmd/kubeadm/app/cmd/phases/workflow/runner.go:262
runtime.goexit
\t/usr/local/go/src/runtime/asm_amd64.s:1771
"""
    assert telling(log).splitlines() == [
        "ERROR: failed to create cluster: failed to init node with kubeadm: exit status 1",
        'Creating cluster "test" ...',
        "Command Output: I1122 19:49:00.000000     170 initconfiguration.go:255] loading configuration",
        "[wait-control-plane] Waiting for the kubelet to boot up the control plane",
        "error: error execution phase wait-control-plane: the API server did not answer",
    ]


def test_kinds_own_error_is_shown_however_much_follows():
    log = "ERROR: failed to create cluster\n" + "".join(f"line {number}\n" for number in range(100))
    shown = telling(log, lines=3).splitlines()
    assert shown == ["ERROR: failed to create cluster", "line 97", "line 98", "line 99"]


def test_a_log_without_an_error_is_shown_by_its_end():
    assert telling(" • Preparing nodes\n ✓ Preparing nodes\n") == " • Preparing nodes\n ✓ Preparing nodes"
    assert telling("") == "(it printed nothing)"


@pytest.fixture
def freezer(tmp_path):
    """A freezer of cgroup v1 in which a container of node 4711 stayed frozen, and one of another node."""
    for name, state in (
        ("groups/4711/pod-a", "FROZEN"),
        ("groups/4711/pod-b", "THAWED"),
        ("groups/4712/pod", "FROZEN"),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "freezer.state").write_text(state)
    return tmp_path


@pytest.mark.parametrize("act", [lambda docker, node: docker.remove([node]), lambda docker, node: docker.kill(node)])
def test_what_stayed_frozen_in_a_node_is_thawed_so_that_the_node_ends(program, freezer, act):
    refusal = "echo 'tried to kill container, but did not receive an exit event' >&2; exit 1"
    docker = Docker(
        program(f"grep -q FROZEN {freezer}/groups/4711/*/freezer.state && {{ {refusal}; }}; exit 0"), freezer=freezer
    )
    act(docker, node_of(inspected()))
    assert (freezer / "groups/4711/pod-a/freezer.state").read_text() == "THAWED"
    assert (freezer / "groups/4712/pod/freezer.state").read_text() == "FROZEN"


def test_a_node_that_does_not_end_for_another_reason_is_told(program, tmp_path):
    docker = Docker(program("echo 'did not receive an exit event' >&2; exit 1"), freezer=tmp_path)
    with pytest.raises(ProvisioningError, match="exit event"):
        docker.kill(node_of(inspected()))


# Gives whoever starts the lowest free address, as Docker does; those that are taken are files.
NETWORK = """
cd {folder}
echo "$@" >> calls
lowest() {{ for n in 2 3 4 5 6 7 8; do [ -e $n ] || {{ echo $n; return; }}; done; }}
case "$1" in
run) n=$(lowest); echo holder > $n; echo $n ;;
start) echo node > $(lowest) ;;
network) sep=
  echo '[{{"IPAM": {{"Config": [{{"Subnet": "fc00::/64", "Gateway": "fc00::1"}}, {{"Gateway": "172.18.0.1"}}]}},'
  echo '"Containers": {{'
  for n in [0-9]*; do echo "$sep\\"$n\\": {{\\"IPv4Address\\": \\"172.18.0.$n/16\\"}}"; sep=,; done
  echo '}}}}]' ;;
rm) rm "$3" ;;
esac
"""


@pytest.fixture
def network(program, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    folder.joinpath("3").write_text("another")
    return Docker(program(NETWORK.format(folder=folder))), folder


@pytest.mark.parametrize("last", ["2", "4", "6"])
def test_a_node_is_started_where_it_was_whatever_is_free_below(network, last):
    docker, folder = network
    docker.start(node(image="my/node"), address=f"172.18.0.{last}")
    taken = {each.name: each.read_text().strip() for each in folder.iterdir() if each.name != "calls"}
    assert taken == {"3": "another", last: "node"}


def test_a_node_whose_address_was_given_away_is_not_started(network):
    docker, folder = network
    with pytest.raises(ProvisioningError) as caught:
        docker.start(node(), address="172.18.0.3")
    assert (caught.value.code, caught.value.fields["address"]) == ("address-taken", "172.18.0.3")
    assert [each.name for each in folder.iterdir() if each.name != "calls"] == ["3"]
    assert "start" not in (folder / "calls").read_text()


def test_a_node_that_may_be_anywhere_is_just_started(network):
    docker, folder = network
    docker.start(node())
    assert (folder / "calls").read_text() == "start id-of-leader\n"
