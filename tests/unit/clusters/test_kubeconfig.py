"""kubeconfig files, merged as kubectl merges them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from clusterguard.clusters import ExistingCluster
from clusterguard.clusters.kubeconfig import default_kubeconfig, read_kubeconfig
from clusterguard.errors import ConfigError

FIRST = {
    "current-context": "",
    "clusters": [{"name": "c", "cluster": {"server": "https://first:6443"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
}
SECOND = {
    "current-context": "z",
    "clusters": [
        {"name": "c", "cluster": {"server": "https://second:6443", "certificate-authority": "ca.crt"}},
        {"name": "d", "cluster": {"server": "https://second:6444", "certificate-authority": "pki/ca.crt"}},
    ],
    "contexts": [
        {"name": "x", "context": {"cluster": "d", "user": "v", "namespace": "shop"}},
        {"name": "z", "context": {"cluster": "d", "user": "u"}},
    ],
    "users": [{"name": "u", "user": {"client-certificate": "u.crt", "client-key": "/keys/u.key"}}],
}
THIRD = {
    "current-context": "x",
    "users": [
        {"name": "u", "user": {"token": "third"}},
        {"name": "v", "user": {"tokenFile": "token", "exec": {"command": "./plugin", "args": ["a"]}}},
        {"name": "w", "user": {"exec": {"command": "aws"}}},
    ],
}


@pytest.fixture
def files(tmp_path):
    """Three files in folders of their own, and others that are passed over."""
    names = []
    for name, document in (("first", FIRST), ("second", SECOND), ("third", THIRD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **document}))
        names.append(str(tmp_path / name / "config"))
    (tmp_path / "empty").touch()
    return [str(tmp_path / "none"), names[0], "", str(tmp_path / "empty"), *names[1:]]


def named(merged, kind):
    return {each["name"]: each[kind] for each in merged[f"{kind}s"]}


def test_of_a_name_the_first_entry_counts_and_paths_are_those_of_its_file(files, tmp_path):
    merged = read_kubeconfig(":".join(files))
    assert merged["current-context"] == "z"
    assert named(merged, "cluster") == {
        "c": {"server": "https://first:6443"},
        "d": {"server": "https://second:6444", "certificate-authority": f"{tmp_path}/second/pki/ca.crt"},
    }
    assert named(merged, "context")["x"] == {"cluster": "c", "user": "u"}
    assert named(merged, "user") == {
        "u": {"client-certificate": f"{tmp_path}/second/u.crt", "client-key": "/keys/u.key"},
        "v": {
            "tokenFile": f"{tmp_path}/third/token",
            "exec": {"command": f"{tmp_path}/third/plugin", "args": ["a"]},
        },
        "w": {"exec": {"command": "aws"}},
    }


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="NOT RUN: there is no kubectl on PATH")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_kubectl_merges_them_alike(files, order):
    names = [files[1], files[4], files[5]]
    given = ":".join([files[0], files[3], *(names[each] for each in order)])
    env = {**os.environ, "KUBECONFIG": given}
    told = subprocess.run(
        ["kubectl", "config", "view", "--raw", "-o", "json"], env=env, check=True, capture_output=True, text=True
    )
    theirs, ours = json.loads(told.stdout), read_kubeconfig(given)
    assert ours["current-context"] == theirs["current-context"]
    for kind in ("cluster", "context", "user"):
        mine, expected = named(ours, kind), named(theirs, kind)
        assert mine.keys() == expected.keys()
        for name, entry in expected.items():
            same = {key for key in entry if key not in {"exec", "tokenFile"} and not key.startswith(("cert", "client"))}
            assert {key: mine[name].get(key) for key in same} == {key: entry[key] for key in same}


def test_the_usual_one_is_that_of_kubectl(monkeypatch):
    assert default_kubeconfig({"KUBECONFIG": "/a:/b"}) == Path("/a:/b")
    for environ in ({}, {"KUBECONFIG": ""}):
        assert default_kubeconfig(environ) == Path.home() / ".kube" / "config"
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert ExistingCluster().kubeconfig == Path("/a:/b")


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (None, "no such file"),
        ("", "empty"),
        ("a: [", "flow node"),
        ("just text", "config"),
        ("users: [me]", "config"),
        ("users: [{user: {}}]", "name"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, seen):
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=seen) as raised:
        read_kubeconfig(path)
    assert str(path) in raised.value.message
