from __future__ import annotations

import os
import subprocess

import pytest
from policy_nights import Nightly

from etcd_member import member
from s3_gateway import gateway


@pytest.fixture(scope="session")
def versitygw(toolchain):
    return toolchain.ensure("versitygw")["versitygw"]


@pytest.fixture(scope="session")
def frankfurt(versitygw, tmp_path_factory):
    with gateway(versitygw, tmp_path_factory.mktemp("frankfurt")) as running:
        yield running


@pytest.fixture(scope="module")
def etcd(toolchain, tmp_path_factory):
    """A member with a few thousand keys, one for all tests of a module."""
    with member(toolchain.ensure("etcd")["etcd"], tmp_path_factory.mktemp("etcd") / "member") as running:
        for start in range(0, 2000, 100):
            keys = [f"/registry/configmaps/default/c{number:05}" for number in range(start, start + 100)]
            running.put(*keys, value=os.urandom(200) * 4)
        yield running


@pytest.fixture(scope="session")
def keys(toolchain, tmp_path_factory):
    """A key pair of age's own program."""
    folder = tmp_path_factory.mktemp("keys")
    program = toolchain.ensure("age-keygen")["age-keygen"]
    subprocess.run([program, "-o", folder / "identity.txt"], check=True, capture_output=True)
    public = subprocess.run([program, "-y", folder / "identity.txt"], check=True, capture_output=True, text=True).stdout
    (folder / "recipients.txt").write_text(public)
    return folder


@pytest.fixture
def nightly(tmp_path, etcd, monkeypatch, capsys):
    return Nightly(tmp_path, etcd, monkeypatch, capsys)
