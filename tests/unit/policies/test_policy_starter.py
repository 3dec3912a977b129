"""A newcomer's first policy is valid, private, and overwrites nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterguard.drills.load import load_drill
from clusterguard.errors import ConfigError
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.files.load import load_policy
from clusterguard.policies.files.starter import starter_files, write_starter
from clusterguard.policies.policy import RehearsalOptions


@pytest.mark.parametrize("cluster", ["", "embedded:demo", "context:arn:aws:eks:eu-central-1:1:cluster/a"])
@pytest.mark.parametrize("locations", [(), ("s3://bucket-a/b", "s3://bucket-c/d?region=eu-west-1")])
@pytest.mark.parametrize("expect", ["", "shop"])
def test_it_can_be_loaded_as_it_is(tmp_path, cluster, locations, expect):
    folder = tmp_path / "nightly"
    write_starter(folder, starter_files(name="nightly", cluster=cluster, locations=locations, expect=expect))
    policy = load_policy(folder / "policy.yaml", environ={})
    assert len(policy.locations) == policy.copies == max(1, len(locations))
    assert policy.sources[0].etcd.cluster == cluster
    rehearsal, *others = policy.proofs
    assert (rehearsal.rehearse, rehearsal.source) == (RehearsalOptions(), "etcd")
    assert [each.drill for each in others] == ([str(folder / "prove.drill.yaml")] if expect else [])
    assert all(load_drill(Path(each.drill)).spec.proves_stored for each in others)
    assert encryption_of(policy, {}).can_decrypt


def test_the_private_key_is_for_its_owner(tmp_path):
    before = os.umask(0)
    try:
        write_starter(tmp_path / "new", starter_files(name="new", cluster="", locations=(), expect=""))
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "identity.txt").stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "recipients.txt").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        write_starter(tmp_path, starter_files(name="new", cluster="", locations=(), expect=""))
    assert (caught.value.code, caught.value.fields) == ("file-exists", {"files": ["recipients.txt"]})
    assert [path.name for path in tmp_path.iterdir()] == ["recipients.txt"]
