"""A drill that a cluster can show nothing about is not run there, and says so; it never passes."""

import pytest

from clusterguard.drills import DrillRunner, DrillSettings, Verdict
from clusterguard.drills.clusters import cluster_ref_of
from clusterguard.drills.plan import plan_text
from clusterguard.drills.programs import programs_for, require_docker_for
from clusterguard.drills.requirements import Requirement, skip_reason
from clusterguard.errors import ProvisioningError

TARGET = {"namespace": "shop", "selector": "app=web"}


HTTP = {"verify": [{"http": {"service": "web", "namespace": "shop", "port": 80}}]}
EXEC = {"setup": [{"exec": {"command": ["true"], "in": TARGET}}]}
STOP = {"fault": [{"stopNode": {"name": "n1"}}]}
LOSE = {"fault": [{"loseEtcd": {}}]}
BOTH = {"clusters": {"main": {"kind": {"controlPlanes": 3}, "embedded": {"members": 3}}}}


@pytest.mark.parametrize(
    ("change", "needs"),
    [
        ({}, set()),
        (HTTP, {Requirement.CONTAINERS}),
        (EXEC, {Requirement.CONTAINERS}),
        ({"setup": [{"writeFile": {"in": TARGET, "path": "/d", "size": 1}}]}, {Requirement.CONTAINERS}),
        (STOP, {Requirement.NODES}),
        (LOSE, {Requirement.CONTROL_PLANE}),
        (HTTP | STOP, {Requirement.CONTAINERS, Requirement.NODES}),
    ],
)
def test_a_drill_tells_what_it_needs(load, change, needs):
    assert load(**change).requirements == needs


@pytest.mark.parametrize(
    ("change", "where", "reason"),
    [
        ({}, "embedded", None),
        (LOSE, "embedded", None),
        (HTTP, "kind", None),
        (STOP, "kind:mine", None),
        (HTTP, "context:prod", None),
        (HTTP, "embedded", "`http`"),
        (EXEC, "embedded:mine", "`exec`"),
        (STOP, "embedded", "`stopNode`"),
        (STOP, "context:prod", "`stopNode`"),
        (LOSE, "kubeconfig:/etc/prod", "`loseEtcd`"),
        (HTTP | {"clusters": {"main": {"kind": {}}}}, "embedded", None),
        (HTTP | {"clusters": {"main": {"embedded": {}}}}, "kind", "`http`"),
        (HTTP | BOTH, "kind", None),
        (HTTP | BOTH, "embedded", "`http`"),
        (HTTP | BOTH, "context:prod", "`http`"),
    ],
)
def test_where_its_steps_mean_nothing_it_is_not_run(load, change, where, reason):
    why = skip_reason(load(**change), default_cluster=where)
    assert why is None if reason is None else why.startswith(reason)


def test_the_reason_names_the_line_and_what_is_simulated(load):
    drill = load(**HTTP)
    assert skip_reason(drill, default_cluster="embedded") == (
        f"`http` ({drill.phase('verify')[0].location}) needs containers that run; pods and nodes of embedded clusters "
        "are simulated. On kind it can be run"
    )


def test_a_runner_that_is_made_to_run_it_does_not_call_it_a_pass(load):
    result = DrillRunner(settings=DrillSettings()).run(load(**HTTP))
    assert result.verdict is Verdict.ERROR
    assert result.code == "drill-skipped"
    assert result.steps == ()


@pytest.mark.parametrize(
    ("default", "chosen", "program", "words"),
    [
        ("kind", "kind", "kind", "kind (control planes: 3), created"),
        ("kind:mine", "kind", "kind", "kind (control planes: 3), created"),
        ("embedded", "embedded", "etcd", "embedded (members: 3), created"),
        ("context:prod", "embedded", "etcd", "embedded (members: 3), created"),
    ],
)
def test_a_drill_may_say_how_its_cluster_is_on_each_provider(load, default, chosen, program, words):
    drill = load(**BOTH)
    assert cluster_ref_of(drill.spec.effective_clusters["main"], drill, default=default) == chosen
    assert program in programs_for([drill], default_cluster=default)
    assert f"    main: {words}" in plan_text(drill, default_cluster=default)


def test_a_drill_that_reads_the_data_of_volumes_needs_kopia_and_no_other_does(load):
    steps = {"backup": [{"veleroBackup": {"name": "b"}}, {"verifyBackup": {"backup": "b", "data": "all"}}]}
    steps["restore"] = [{"veleroRestore": {"from": "b"}}]
    assert "kopia" in programs_for([load(**steps)], default_cluster="kind")
    assert "kopia" not in programs_for([load()], default_cluster="kind")


def test_drills_on_kind_need_kind_and_no_control_plane_of_ours(load):
    assert programs_for([load()], default_cluster="kind") == ("kind",)
    assert programs_for([load()], default_cluster="kind:mine") == ("kind",)
    assert "kind" not in programs_for([load()], default_cluster="embedded")
    assert programs_for([load(**HTTP)], default_cluster="embedded") == ()


@pytest.mark.parametrize(
    ("change", "where", "wanted"),
    [
        ({}, "kind", True),
        ({}, "kind:mine", True),
        ({}, "embedded", False),
        ({"clusters": {"main": {"embedded": {}}}}, "kind", False),
        ({"clusters": {"main": {"kind": {}}}}, "embedded", False),  # that drill says so itself
    ],
)
def test_docker_is_looked_for_at_once_where_kind_was_asked_for(load, monkeypatch, tmp_path, change, where, wanted):
    monkeypatch.setenv("PATH", str(tmp_path))
    if not wanted:
        require_docker_for([load(**change)], default_cluster=where)
        return
    with pytest.raises(ProvisioningError) as caught:
        require_docker_for([load(**change)], default_cluster=where)
    assert (caught.value.code, caught.value.fields) == ("program-missing", {"program": "docker"})
