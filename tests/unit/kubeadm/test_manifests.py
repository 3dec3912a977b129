"""What the manifests say, and what of it is refused."""

import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.clusters.kubeadm.manifests import ApiServerManifest, EtcdManifest, relocation
from clusterguard.clusters.kubeadm.survey import minor
from clusterguard.errors import ClusterError
from kubeadm_node import API, ETCD


def parsed(text=ETCD):
    return EtcdManifest.parse(text, where="etcd.yaml")


def test_the_layout_is_what_etcdutl_must_be_told():
    layout = parsed().layout
    assert (layout.name, layout.peer_url, layout.token) == ("node-1", "https://10.0.0.5:2380", "etcd-cluster")
    assert layout.initial_cluster == "node-1=https://10.0.0.5:2380"
    assert layout.data_dir == "/var/lib/etcd"


def test_a_flag_and_its_value_may_be_two_words():
    text = ETCD.replace("- --name=node-1", "- --name\n    - node-1")
    assert parsed(text) == parsed()


def test_the_node_is_spoken_to_on_loopback_and_others_on_what_it_advertises():
    assert (parsed().client_url, parsed().advertised_url) == ("https://127.0.0.1:2379", "https://10.0.0.5:2379")
    # As on hosts that kubeadm set up for etcd alone.
    assert parsed(ETCD.replace("https://127.0.0.1:2379,", "")).client_url == "https://10.0.0.5:2379"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    - --name=node-1\n", "", "started without --name"),
        ("--initial-advertise-peer-urls", "--x", "without --initial-advertise-peer-urls"),
        ("mountPath: /var/lib/etcd", "mountPath: /elsewhere", "no hostPath volume is mounted"),
        ("name: etcd\n    volume", "name: other\n    volume", "has no container 'etcd'"),
        ("spec:", "spec: [", "is not valid YAML"),
    ],
)
def test_what_cannot_be_restored_is_refused_with_what_was_seen(old, new, told):
    assert old in ETCD
    with pytest.raises(ClusterError, match=told) as caught:
        parsed(ETCD.replace(old, new))
    assert caught.value.hint


def test_an_empty_manifest_is_refused():
    with pytest.raises(ClusterError, match="has no container"):
        parsed("")


def test_the_api_server_tells_its_port_and_its_etcd():
    api = ApiServerManifest.parse(API, where="api")
    assert (api.port, api.etcd_servers) == (6443, ("https://127.0.0.1:2379",))


def moved(text, target):
    edits = [word for each in relocation(parsed(text), target) for word in ("-e", each)]
    return subprocess.run(["sed", *edits], input=text, text=True, check=True, capture_output=True).stdout


def test_a_relocated_manifest_differs_in_nothing_but_the_place():
    before, after = yaml.safe_load(ETCD), yaml.safe_load(moved(ETCD, "/mnt/new"))
    assert str(after) == str(before).replace("/var/lib/etcd", "/mnt/new")


def test_a_container_with_a_path_of_its_own_keeps_it():
    text = ETCD.replace("path: /var/lib/etcd", "path: /srv/etcd").replace("mountPath: /srv", "mountPath: /var/lib")
    manifest = parsed(moved(text, "/mnt/new"))
    assert (manifest.host_dir, manifest.data_dir) == ("/mnt/new", "/var/lib/etcd")


@given(st.from_regex(r"(/[a-z0-9._-]{1,9}){1,4}", fullmatch=True).filter(lambda path: "/." not in path))
def test_a_member_can_be_moved_anywhere(path):
    assert parsed(moved(ETCD, path)).host_dir == path


@pytest.mark.parametrize(("version", "expected"), [("3.6.8", "3.6"), ("v3.7.0", "3.7"), ("", ""), ("latest", "")])
def test_the_minor_of_a_version(version, expected):
    assert minor(version) == expected
