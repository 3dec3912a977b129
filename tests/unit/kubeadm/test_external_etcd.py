"""etcd on hosts of its own, as a static pod or as a unit of systemd, beside nodes that have API servers only."""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from clusterguard.clusters.kubeadm import Command
from clusterguard.errors import ClusterError, ClusterGuardError, WaitTimeoutError
from kubeadm_node import CA, PATIENT, PODS, Api, Cluster, Killed, Node, peer_url

MEMBERS = ("etcd-1", "etcd-2", "etcd-3")
SERVERS = ("cp-1", "cp-2")
CLIENTS = tuple(pod for pod in PODS if pod != "etcd")
FORMS = ("static pod", "unit")


def unit_files(name, *, config="flags"):
    """Return what systemd says of etcd's unit on a host, and the files that it names."""
    settings = {
        "name": name,
        "data-dir": "/var/lib/etcd",
        "initial-advertise-peer-urls": peer_url(name),
        "initial-cluster": ",".join(f"{each}={peer_url(each)}" for each in MEMBERS),
        "listen-client-urls": "https://0.0.0.0:2379",
        "advertise-client-urls": peer_url(name).replace("2380", "2379"),
        "trusted-ca-file": "/etc/etcd/pki/ca.crt",
        "cert-file": "/etc/etcd/pki/server.crt",
        "key-file": "/etc/etcd/pki/server.key",
    }
    argv, told, files = "/opt/etcd/etcd", "", {}
    if config == "flags":
        argv += "".join(f" --{key}={value}" for key, value in settings.items())
    else:
        lines = [f"ETCD_{key.upper().replace('-', '_')}={value}" for key, value in settings.items()]
        told = "EnvironmentFiles=/etc/etcd/etcd.env (ignore_errors=no)\n"
        files["etc/etcd/etcd.env"] = "# written by hand\n" + "\n".join(lines) + "\n"
    show = (
        "LoadState=loaded\nUnitFileState=enabled\nUser=\n"
        f"ExecStart={{ path=/opt/etcd/etcd ; argv[]={argv} ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}\n{told}"
    )
    pki = {f"etc/etcd/pki/{file}": CA for file in ("ca.crt", "server.crt", "server.key")}
    return files | pki | {"unit": show, "unit-active": "", "etc/systemd/system/etcd.service": "[Service]\n"}


def new_cluster(root, form="unit", config="flags"):
    world = SimpleNamespace(dead=False)
    common = {"cluster": MEMBERS, "world": world}
    members = [
        Node(root / name, name, pods=(), unit=unit_files(name, config=config), **common)
        if form == "unit"
        else Node(root / name, name, pods=("etcd",), **common)
        for name in MEMBERS
    ]
    cluster = Cluster([*(Node(root / name, name, pods=CLIENTS, **common) for name in SERVERS), *members])
    for node in cluster.nodes:
        (node.root / "nodes").write_text(" ".join(str(root / name) for name in MEMBERS))
    return cluster


@pytest.fixture(params=FORMS)
def cluster(tmp_path, request):
    return new_cluster(tmp_path, request.param)


@pytest.fixture
def units(tmp_path):
    return new_cluster(tmp_path)


def members_of(cluster):
    return [node for node in cluster.nodes if node.has_etcd]


def servers_of(cluster):
    return [node for node in cluster.nodes if not node.has_etcd]


ALL_RUN = {("etcd",), tuple(sorted(CLIENTS))}


def outcome(cluster):
    return cluster.states(), cluster.running(), cluster.leftovers()


# ---- the way there -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FORMS)
def whole(tmp_path_factory, request):
    """A restore of everything that stands there, with a worker among the nodes, and what was seen of it."""
    root = tmp_path_factory.mktemp("whole")
    cluster = new_cluster(root, request.param)
    unused = {"unit": "LoadState=loaded\nUnitFileState=disabled\n"} if request.param == "unit" else None
    worker = Node(
        root / "worker-1", "worker-1", pods=("web",), cluster=MEMBERS, unit=unused, world=cluster.nodes[0].world
    )
    nodes = [*cluster.nodes, worker]
    planned = [
        each.line for step in cluster.plane().runbook(nodes[0].snapshot, bump_revision=1000) for each in step.lines
    ]
    for node in nodes:
        node.shell.lines.clear()
    watched = []
    cluster.restore(cluster.plane(nodes, workers=None, on_command=watched.append))
    return SimpleNamespace(
        form=request.param,
        outcome=outcome(cluster),
        planned=planned,
        watched=watched,
        lines={node.name: node.shell.lines for node in nodes},
        kubelets={node.name: log.read_text() for node in nodes if (log := node.root / "systemctl.log").exists()},
    )


def test_members_elsewhere_are_restored_as_one_with_the_api_servers(whole):
    assert whole.outcome == ({"restored"}, ALL_RUN, [])
    built = [line for lines in whole.lines.values() for line in lines if "snapshot restore" in line]
    wanted = ",".join(f"{name}={peer_url(name)}" for name in MEMBERS)
    assert len(built) == len(MEMBERS)
    assert all(f"--initial-cluster={wanted}" in line for line in built)


def test_a_unit_may_be_set_up_by_variables(tmp_path):
    cluster = new_cluster(tmp_path, config="variables")
    cluster.restore(cluster.plane())
    assert outcome(cluster) == ({"restored"}, ALL_RUN, [])


def test_no_etcd_is_stopped_while_an_api_server_runs_anywhere(whole):
    order = [command.why for command in whole.watched]
    stages = [
        ("see their containers gone: kube-apiserver", len(SERVERS)),
        ("see their containers gone: etcd|see it gone: etcd", len(MEMBERS)),
        ("the restored member goes live", len(MEMBERS)),
        ("the kubelet starts etcd|systemd starts etcd", len(MEMBERS)),
        ("etcd serves", len(MEMBERS)),
        ("the kubelet starts kube-apiserver", len(SERVERS)),
        ("the API server is ready", len(SERVERS)),
    ]
    found = [next((s for s, _ in stages if any(why.startswith(each) for each in s.split("|"))), None) for why in order]
    assert [each for each in found if each] == [stage for stage, count in stages for _ in range(count)]


def test_the_kubelets_of_api_servers_forget_before_these_start(whole):
    assert {name: whole.kubelets[name] for name in SERVERS} == dict.fromkeys(SERVERS, "restart kubelet\n" * 2)


def test_a_run_executes_what_the_plan_says_and_nothing_else(whole):
    assert all(isinstance(command, Command) for command in whole.watched)
    # Several nodes commit once more before they clean up.
    assert len(whole.watched) == len(whole.planned) + len(SERVERS + MEMBERS)


def test_a_node_with_nothing_but_a_unit_that_nobody_uses_is_a_worker(whole):
    assert whole.kubelets["worker-1"] == "restart kubelet\n"
    assert not [line for line in whole.lines["worker-1"] if "etcdutl" in line]


def test_a_unit_may_stand_beside_an_api_server(tmp_path):
    world = SimpleNamespace(dead=False)
    nodes = [
        Node(tmp_path / name, name, cluster=MEMBERS, world=world, pods=CLIENTS, unit=unit_files(name))
        for name in MEMBERS
    ]
    cluster = Cluster(nodes)
    cluster.restore(cluster.plane())
    assert outcome(cluster) == ({"restored"}, {tuple(sorted(PODS))}, [])
    cluster.restore(cluster.plane(), until="start_api")
    cluster.recover()
    assert outcome(cluster) == ({"restored"}, {tuple(sorted(PODS))}, [])


def test_a_member_of_a_unit_is_not_replaced(units):
    with pytest.raises(ClusterError) as caught, units.plane().member_places():
        pass
    assert caught.value.code == "unit-not-replaceable"


@pytest.mark.parametrize(
    ("names", "endpoints"),
    [
        (["etcd-1"], ("https://10.0.0.5:2379",)),
        (["cp-1"], tuple(peer_url(name).replace("2380", "2379") for name in MEMBERS)),
    ],
)
def test_etcd_is_reached_by_what_either_kind_of_node_has(units, names, endpoints):
    for node in servers_of(units):
        manifest = node.manifests / "kube-apiserver.yaml"
        pki = "/etc/kubernetes/pki/etcd"
        flags = f"--etcd-cafile={pki}/ca.crt, --etcd-certfile={pki}/healthcheck-client.crt, "
        flags += f"--etcd-keyfile={pki}/healthcheck-client.key, --secure-port"
        manifest.write_text(manifest.read_text().replace("--secure-port", flags))
    named = [node for node in units.nodes if node.name in names]
    with ExitStack() as keep:
        access = units.plane(named).etcd_access(keep=keep)
        assert (access.endpoints, access.ca.read_text()) == (endpoints, CA)


# ---- interrupted -------------------------------------------------------------------------------------------


def test_a_host_that_starts_again_does_not_start_what_was_stopped(units):
    units.restore(units.plane(), until="stop")
    for node in members_of(units):
        node.reboot()
    assert {tuple(node.live()[0]) for node in members_of(units)} == {()}
    units.recover()
    assert outcome(units) == ({"old"}, ALL_RUN, [])
    for node in members_of(units):
        node.reboot()
    assert {tuple(node.live()[0]) for node in members_of(units)} == {("etcd",)}


def test_a_member_that_is_not_enabled_is_found_again_while_it_is_stopped(units):
    for node in members_of(units):
        (node.root / "unit").write_text((node.root / "unit").read_text().replace("=enabled", "=disabled"))
    units.restore(units.plane(workers=None), until="swap_in")
    for node in units.nodes:
        node.survive()
    plane = units.plane(workers=None)
    with plane.exclusive():
        assert "rolled back" in plane.recover()
    assert outcome(units) == ({"old"}, ALL_RUN, [])


def test_what_was_proven_runs_after_its_hosts_were_off(units):
    units.restore(units.plane(), until="commit")
    for node in members_of(units):
        (node.root / "unit-active").unlink()
    assert "finished" in units.recover()
    assert outcome(units) == ({"restored"}, ALL_RUN, [])


def kill_before(cluster, name, number):
    """Restore, with everything killed before a command on one node; return the state that the recovery ends in."""
    node = next(node for node in cluster.nodes if node.name == name)
    node.shell.die_before = number
    with suppress(Killed):
        cluster.restore(cluster.plane(workers=None))  # as the whole one, whose commands were counted
    cluster.recover()
    last = f"killed before command {number} of {name}: {node.shell.lines[number - 1 :][:1]}"
    assert len(cluster.states()) == 1, last
    assert (cluster.running(), cluster.leftovers()) == (ALL_RUN, []), last
    return cluster.states().pop()


@pytest.mark.parametrize(
    ("name", "part", "states"),
    [
        ("cp-2", '"phase": "preparing"', {"old"}),
        ("etcd-2", '"phase": "switching"', {"old"}),
        ("cp-1", "pod in kube-apiserver", {"old"}),
        ("etcd-3", "/member /var/lib/etcd/member", {"old"}),
        # Some nodes may have committed already: then all are.
        ("cp-2", "mv -fT /etc/kubernetes/clusterguard/proven", {"old", "restored"}),
        ("etcd-2", "rm -f /etc/kubernetes/clusterguard/proven", {"restored"}),
    ],
)
# Static pods are killed at the same points where three nodes have all.
@pytest.mark.parametrize("whole", ["unit", pytest.param("static pod", marks=pytest.mark.slow)], indirect=True)
def test_killed_at_its_turning_points_all_hosts_have_one_state(tmp_path, whole, name, part, states):
    number = max(number for number, line in enumerate(whole.lines[name]) if part in line)
    assert kill_before(new_cluster(tmp_path, whole.form), name, number) in states


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["cp-1", "etcd-1", "etcd-3"])
def test_killed_before_any_command_of_any_host_all_have_one_state(tmp_path, whole, name):
    for number in range(len(whole.lines[name]) + 1):
        kill_before(new_cluster(tmp_path / str(number), whole.form), name, number)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_in_the_middle_of_any_command_of_a_host_all_have_one_state(tmp_path, whole):
    counting = new_cluster(tmp_path / "counting", whole.form)
    counting.nodes[-1].die_at_call(-1)
    counting.restore(counting.plane())
    for number in range(1, counting.nodes[-1].calls() + 1):
        cluster = new_cluster(tmp_path / str(number), whole.form)
        cluster.nodes[-1].die_at_call(number)
        with suppress(Killed):
            cluster.restore(cluster.plane())
        cluster.recover()
        assert len(cluster.states()) == 1, f"killed at call {number}"
        left = [path for path in cluster.leftovers() if not path.endswith(".json.part")]
        assert (cluster.running(), left) == (ALL_RUN, []), f"killed at call {number}"


@pytest.mark.parametrize(("form", "name"), [("static pod", "cp-2"), ("unit", "etcd-3")])
def test_a_host_whose_line_is_lost_brings_all_others_back(tmp_path, form, name):
    cluster = new_cluster(tmp_path, form)
    lost = next(node for node in cluster.nodes if node.name == name)

    def lose(command):
        if "kept" in command.why:
            lost.shell.broken_for = range(10**6)

    with pytest.raises(ClusterGuardError):
        cluster.restore(cluster.plane(on_command=lose))
    cluster.recover()
    assert outcome(cluster) == ({"old"}, ALL_RUN, [])


@pytest.mark.parametrize(
    ("lost", "goes_on"), [(("cp-2", "etcd-3"), True), (SERVERS, False), (("etcd-2", "etcd-3"), False)]
)
def test_a_rollback_goes_on_without_a_host_that_the_others_can_do_without(units, lost, goes_on):
    done = []
    plane = units.plane(on_command=lambda command: done.append(command.why))
    units.restore(plane, until="swap_in")
    done.clear()
    for node in units.nodes:
        if node.name in lost:
            node.shell.broken_for = range(10**6)
    with pytest.raises(ClusterGuardError) as caught:
        plane.roll_back()
    assert (caught.value.code == "rollback-incomplete", "the old data" in done) == (goes_on, goes_on)
    units.recover()
    assert outcome(units) == ({"old"}, ALL_RUN, [])


def test_an_interrupted_restore_is_not_recovered_on_a_part_of_its_hosts(cluster):
    cluster.restore(cluster.plane(), until="swap_in")
    for left_out, missing in {"cp-2": "kube-apiserver 10.0.1.2", "etcd-3": "etcd-3"}.items():
        with pytest.raises(ClusterError) as caught:
            cluster.plane([node for node in cluster.nodes if node.name != left_out]).recover()
        assert (caught.value.code, caught.value.fields) == ("members-missing", {"members": missing})
    cluster.recover()
    assert outcome(cluster) == ({"old"}, ALL_RUN, [])


def test_an_api_server_that_finds_its_address_by_itself_is_missed_as_well(units):
    for node in servers_of(units):
        manifest = node.manifests / "kube-apiserver.yaml"
        text = manifest.read_text()
        manifest.write_text(text.replace(f", --advertise-address=10.0.1.{node.name[-1]}", ""))
        assert manifest.read_text() != text
    units.restore(units.plane(), until="swap_in")
    with pytest.raises(ClusterError) as caught:
        units.plane([node for node in units.nodes if node.name != "cp-2"]).recover()
    assert (caught.value.code, caught.value.fields) == ("members-missing", {"members": "kube-apiserver cp-2"})
    units.recover()
    assert outcome(units) == ({"old"}, ALL_RUN, [])


@pytest.mark.parametrize("dies", ["before", "during"])
@pytest.mark.parametrize("until", ["swap_in", "commit"])
def test_a_dead_member_that_was_also_a_worker_is_left_out_of_a_recovery(units, dies, until):
    """etcd's list tells that it is a member, and an interrupted restore has only what it wrote down."""
    for node in units.nodes:
        (node.root / "range").write_text("")
    *there, lost = units.nodes
    gone = (lost.name,)
    how = {"api": lambda: Api(nodes=[{"metadata": {"name": lost.name}}]), "gone": gone}
    units.restore(units.plane(there, **how) if dies == "before" else units.plane(), until=until)
    units.plane(there, **how).recover()
    others = Cluster(there)
    assert outcome(others) == ({"old" if until == "swap_in" else "restored"}, ALL_RUN, [])


def test_a_unit_that_does_not_come_back_is_told_with_its_log(units):
    plane = units.plane(timeouts=replace(PATIENT, etcd=1))
    units.restore(plane, until="swap_in")
    for node in members_of(units):
        (node.root / "etcd-broken").touch()
        journal = node.root / "stand-ins/journalctl"
        journal.write_text("#!/bin/sh\ncase $1 in --unit=etcd.service) echo its last words ;; esac\n")
        journal.chmod(0o755)
    with pytest.raises(WaitTimeoutError) as caught:
        plane.start_etcd()
    assert caught.value.last_seen == "its last words"


# ---- refused -----------------------------------------------------------------------------------------------


def problems(plane):
    with pytest.raises(ClusterError) as caught:
        plane.check(needed_bytes=10)
    return caught.value.fields


def lease(cluster, *addresses):
    keys = [base64.b64encode(f"/registry/masterleases/{each}".encode()).decode() for each in addresses]
    for node in members_of(cluster):
        (node.root / "range").write_text(json.dumps({"kvs": [{"key": key} for key in keys]}))


def test_api_servers_that_were_not_named_are_told_by_their_leases(cluster):
    lease(cluster, "10.0.1.1", "10.0.1.2")
    cluster.plane().check(needed_bytes=10)
    found = problems(cluster.plane([node for node in cluster.nodes if node.name != "cp-2"]))
    assert (found["problems"], found["addresses"]) == (["api-servers-missing"], "10.0.1.2")


def test_hosts_of_etcd_alone_are_refused_though_no_lease_tells_of_an_api_server(cluster):
    assert problems(cluster.plane(members_of(cluster)))["problems"] == ["api-servers-missing"]
    assert outcome(cluster) == ({"old"}, ALL_RUN, [])


@pytest.mark.parametrize("answers", [True, False], ids=["the members answer", "only the stranger does"])
def test_an_etcd_that_no_other_node_knows_is_refused_and_not_touched(cluster, tmp_path, answers):
    """Such as that of a database, on a worker."""
    files = unit_files("db-9")
    worker = Node(tmp_path / "worker-1", "db-9", cluster=("db-9",), pods=(), unit=files, world=cluster.nodes[0].world)
    worker.shell.name = "worker-1"
    if not answers:
        for node in cluster.nodes:
            (node.root / "members").write_text("")
            (node.root / "range").write_text("")
    found = problems(cluster.plane([*cluster.nodes, worker], workers=None))
    assert "not-a-member" in found["problems"]
    assert found["node"] == "worker-1"
    assert worker.live() == (["etcd"], "old")


def test_api_servers_alone_are_refused(units):
    with pytest.raises(ClusterError) as caught:
        units.plane(servers_of(units)).check(needed_bytes=10)
    assert (caught.value.code, caught.value.fields["pod"]) == ("no-static-pod", "etcd")


def test_a_member_that_was_not_named_is_told(cluster):
    found = problems(cluster.plane(cluster.nodes[:-1]))
    assert (found["problems"], found["members"]) == (["members-missing"], "etcd-3")


def test_members_of_another_cluster_are_told_by_what_the_api_servers_write_to(units):
    theirs = {"members": [{"name": "other-1", "peerURLs": ["https://10.9.9.9:2380"]}]}
    for node in servers_of(units):
        (node.root / "members").write_text(json.dumps(theirs))
    found = problems(units.plane())
    assert (found["problems"], found["members"]) == (["members-missing"], "other-1")


def test_where_no_etcd_answers_another_one_is_told_by_its_addresses(units):
    for node in units.nodes:
        (node.root / "members").write_text("")
        (node.root / "range").write_text("")
    units.plane().check(needed_bytes=10)
    server = servers_of(units)[0]
    manifest = server.manifests / "kube-apiserver.yaml"
    manifest.write_text(manifest.read_text().replace("https://10.0.0.", "https://10.9.9."))
    found = problems(units.plane())
    assert (found["problems"], found["node"]) == (["other-etcd"], "cp-1")
    manifest.write_text(manifest.read_text().replace("https://10.9.9.", "https://etcd."))
    units.plane().check(needed_bytes=10)  # a name may stand for any address


def test_another_etcd_is_told_though_its_members_answer(units):
    """They list each other, while the etcd that the API servers use is lost."""
    for node in servers_of(units):
        (node.root / "members").write_text("")
    units.plane().check(needed_bytes=10)
    server = servers_of(units)[1]
    manifest = server.manifests / "kube-apiserver.yaml"
    manifest.write_text(manifest.read_text().replace("https://10.0.0.", "https://10.9.9."))
    found = problems(units.plane())
    assert (found["problems"], found["node"]) == (["other-etcd"], "cp-2")
    assert outcome(units) == ({"old"}, ALL_RUN, [])


def test_a_lost_etcd_that_the_api_servers_know_by_name_is_restored(cluster):
    for node in cluster.nodes:
        (node.root / "members").write_text("")
        (node.root / "range").write_text("")
    for node in servers_of(cluster):
        manifest = node.manifests / "kube-apiserver.yaml"
        manifest.write_text(manifest.read_text().replace("https://10.0.0.", "https://etcd-1.example."))
    cluster.plane([*servers_of(cluster), members_of(cluster)[0]], gone=MEMBERS[1:]).check(needed_bytes=10)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("path=/opt/etcd/etcd", "path=/usr/bin/docker", "etcd-unit-unreadable"),
        (" --name=etcd-3", "", "etcd-flags-missing"),
        (" --name=etcd-3", " --name=etcd-3 --wal-dir=/fast", "own-wal-dir"),
        ("--data-dir=/var/lib/etcd", "--data-dir=etcd.data", "etcd-unit-unreadable"),
        (" --trusted-ca-file=/etc/etcd/pki/ca.crt", "", "etcd-unit-unreadable"),
        (" --name=etcd-3", " --config-file=/etc/etcd/nowhere.yaml", "etcd-unit-unreadable"),
    ],
)
def test_a_unit_that_does_not_tell_what_etcd_is_started_with_is_refused(units, old, new, code):
    unit = units.nodes[-1].root / "unit"
    assert old in unit.read_text()
    unit.write_text(unit.read_text().replace(old, new))
    with pytest.raises(ClusterError) as caught:
        units.plane().check(needed_bytes=10)
    assert caught.value.code == code
    assert outcome(units) == ({"old"}, ALL_RUN, [])


def test_a_unit_is_not_moved_to_another_directory(units):
    assert problems(units.plane(data_dir="/mnt/new"))["problems"] == ["unit-not-movable"] * len(MEMBERS)


def test_a_unit_that_would_be_stopped_together_with_etcd_is_refused_while_it_runs(units):
    """systemd stops it with etcd, and would not start it again."""
    host = members_of(units)[1]
    relations = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
    told = "".join(f"{relation}=proxy-{relation}.service idle.service\n" for relation in relations)
    (host.root / "unit").write_text((host.root / "unit").read_text() + told)
    systemctl = host.root / "stand-ins/systemctl"
    systemctl.write_text(
        systemctl.read_text().replace(
            "is-active*) ;;",
            "is-active*idle*|is-active*stopped*) echo inactive; exit 3 ;; "
            "is-active*proxy*) echo active ;; is-active*) ;;",
        )
    )
    found = problems(units.plane())
    assert found["problems"] == ["unit-required"]
    assert found["units"].split(", ") == [f"proxy-{relation}.service" for relation in relations]
    assert outcome(units) == ({"old"}, ALL_RUN, [])
    (host.root / "unit").write_text((host.root / "unit").read_text().replace("proxy", "stopped"))
    units.plane().check(needed_bytes=10)


def test_a_host_of_a_unit_without_etcdutl_is_refused_unless_ours_fits(units, tmp_path):
    for node in members_of(units):
        (node.root / "stand-ins/etcdutl").write_text("#!/bin/sh\nexit 127\n")
    with pytest.raises(ClusterError) as caught:
        units.plane().check(needed_bytes=10)
    assert caught.value.code == "etcdutl-missing"
    ours = tmp_path / "ours"
    ours.write_text("#!/bin/sh\necho etcdutl version: 3.7.3\n")
    ours.chmod(0o755)
    units.plane(etcdutl=lambda: ours).check(needed_bytes=10)


def test_a_control_plane_without_its_kubeconfig_is_refused_and_a_host_of_etcd_needs_none(cluster):
    (servers_of(cluster)[0].root / "etc/kubernetes/admin.conf").unlink()
    assert problems(cluster.plane())["problems"] == ["no-admin-kubeconfig"]


# ---- told --------------------------------------------------------------------------------------------------


def test_keys_of_others_are_told_before_they_go_back(units):
    curl = members_of(units)[0].root / "stand-ins/curl"
    counts = {"\0": 4, "/registry0": 8, "compact_rev_key": 1}
    cases = "".join(
        f"""*'"{base64.b64encode(first.encode()).decode()}", "range_end'*) echo '{{"count": "{count}"}}'; exit ;; """
        for first, count in counts.items()
    )
    curl.write_text(curl.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\ncase "$*" in {cases} esac\n'))
    (note,) = units.plane().notes()
    assert "11 keys" in note


def test_a_dead_member_of_hosts_of_their_own_joins_by_etcds_own_means(units):
    for node in units.nodes:
        (node.root / "range").write_text("")
    plane = units.plane(units.nodes[:-1], gone=("etcd-3",))
    plane.check(needed_bytes=10)
    (told,) = [warning for warning in plane.warnings() if warning.startswith("etcd-3")]
    assert "etcdctl member add" in told
