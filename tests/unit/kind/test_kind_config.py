"""What kind is told: etcd within reach on loopback, and the node image that was meant."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.clusters.kind.config import chosen_image, is_version, kind_config, published_etcd_ports
from clusterguard.errors import ConfigError

PORT = 30001
ETCD = {"containerPort": 2379, "hostPort": PORT, "listenAddress": "127.0.0.1", "protocol": "TCP"}


def ports(count, first=PORT):
    return list(range(first, first + count))


def test_the_control_plane_publishes_etcd_on_loopback_alone():
    assert kind_config(etcd_ports=ports) == {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": [ETCD]}],
        "networking": {"apiServerAddress": "127.0.0.1"},
    }


def test_workers_stand_beside_the_control_planes():
    config = kind_config(control_planes=3, workers=2, etcd_ports=ports)
    assert [node["role"] for node in config["nodes"]] == [*["control-plane"] * 3, "worker", "worker"]
    assert [len(node.get("extraPortMappings", ())) for node in config["nodes"]] == [1, 1, 1, 0, 0]
    assert published_etcd_ports(config) == (30001, 30002, 30003)


def test_nodes_that_share_an_anchor_publish_a_port_each():
    shared = {"role": "control-plane", "extraPortMappings": [{"containerPort": 80, "hostPort": 8080}]}
    mappings = shared["extraPortMappings"]
    given = {"kind": "Cluster", "nodes": [shared, shared, {"role": "control-plane", "extraPortMappings": mappings}]}
    config = kind_config(etcd_ports=ports, given=given)
    assert published_etcd_ports(config) == (30001, 30002, 30003)
    assert [len(node["extraPortMappings"]) for node in config["nodes"]] == [2, 2, 2]
    assert mappings == [{"containerPort": 80, "hostPort": 8080}]


def test_the_users_configuration_stays_and_etcd_is_added():
    given = {
        "kind": "Cluster",
        "nodes": [
            {"role": "worker"},
            {"image": "mine", "extraPortMappings": [{"containerPort": 80, "hostPort": 8080}]},
        ],
        "networking": {"apiServerAddress": "127.0.0.2", "podSubnet": "10.1.0.0/16"},
    }
    before = deepcopy(given)
    config = kind_config(workers=5, etcd_ports=ports, given=given)
    assert config["nodes"] == [
        {"role": "worker"},
        {"image": "mine", "extraPortMappings": [{"containerPort": 80, "hostPort": 8080}, ETCD]},
    ]
    assert config["networking"] == before["networking"]
    assert given == before


def test_a_port_that_the_user_published_is_the_one():
    given = {
        "kind": "Cluster",
        "nodes": [{"role": "control-plane", "extraPortMappings": [{"containerPort": 2379, "hostPort": 12379}]}],
    }
    assert published_etcd_ports(kind_config(etcd_ports=ports, given=given)) == (12379,)


def test_the_members_that_the_user_did_not_publish_are_published_beside():
    published = {"extraPortMappings": [{"containerPort": 2379, "hostPort": 12379}]}
    given = {"kind": "Cluster", "nodes": [{}, published, {"role": "worker"}, {"role": "control-plane"}]}
    assert published_etcd_ports(kind_config(etcd_ports=ports, given=given)) == (30001, 12379, 30002)


ROLES = st.sampled_from(["control-plane", "worker", None])


@given(st.lists(ROLES, min_size=1, max_size=4).filter(lambda roles: {"control-plane", None} & set(roles)))
def test_each_member_is_published_once_however_the_nodes_are_written(roles):
    given = {"kind": "Cluster", "nodes": [{"role": role} if role else {} for role in roles]}
    once = kind_config(etcd_ports=ports, given=given)
    members = sum(role != "worker" for role in roles)
    assert published_etcd_ports(once) == tuple(ports(members))
    assert kind_config(etcd_ports=lambda count: ports(count, 31001), given=once) == once
    assert sum(len(node.get("extraPortMappings", ())) for node in once["nodes"]) == members


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "does not say `kind: Cluster`"),
        ({"kind": "Deployment"}, "does not say `kind: Cluster`"),
        ({"kind": "Cluster", "nodes": {}}, "is not a list of nodes"),
        ({"kind": "Cluster", "nodes": ["worker"]}, "is not a list of nodes"),
        ({"kind": "Cluster", "nodes": [{"role": "worker"}]}, "no node of the role control-plane"),
    ],
)
def test_what_is_no_configuration_of_kind_is_refused(given, reason):
    with pytest.raises(ConfigError, match=reason):
        kind_config(etcd_ports=ports, given=given)


@pytest.mark.parametrize(
    ("image", "version", "variable", "chosen"),
    [
        (None, None, None, None),
        (None, None, "env/node", "env/node"),
        (None, None, "", None),
        ("my/node", "1.36", "env/node", "my/node"),
        (None, "1.36.3", "env/node", "env/node"),
        (None, "1.36.3", None, "kindest/node:v1.36.3"),
        (None, "v1.36.3", None, "kindest/node:v1.36.3"),
        (None, "1.36", None, None),
    ],
)
def test_the_image_asked_for_wins_then_the_variable_then_the_version(image, version, variable, chosen):
    environ = {} if variable is None else {"CLUSTERGUARD_KIND_IMAGE": variable}
    assert chosen_image(image=image, version=version, environ=environ) == chosen


def test_what_is_no_version_is_refused():
    with pytest.raises(ConfigError, match="'latest'"):
        chosen_image(image=None, version="latest", environ={})


@pytest.mark.parametrize(
    ("running", "wanted", "same"),
    [
        ("v1.36.3", "1.36", True),
        ("v1.36.3", "1.36.3", True),
        ("v1.36.3-eks-1", "v1.36", True),
        ("v1.36.3", "1.36.4", False),
        ("v1.36.3", "1.3", False),
        ("", "1.36", False),
    ],
)
def test_a_version_is_compared_in_the_parts_that_were_written(running, wanted, same):
    assert is_version(running, wanted) is same
