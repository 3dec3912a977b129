"""Loading: from a file to a policy that can run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from clusterguard.errors import ConfigError, InvalidPolicyError
from clusterguard.policies.files.load import load_policy
from clusterguard.policies.policy import (
    EtcdSource,
    Heartbeat,
    Notification,
    RetentionPolicy,
    Schedule,
    Secret,
    Source,
    VeleroSource,
)

ROOT = Path(__file__).parents[3]
HEAD = "apiVersion: clusterguard.dev/v1alpha1\nkind: BackupPolicy\nmetadata: {name: small}\n"
SMALL = f"""{HEAD}spec:
  sources: [{{name: etcd, etcd: {{cluster: "context:a"}}}}]
  locations: [{{name: near, url: ./backups}}]
"""


def test_paths_are_relative_to_the_file_and_come_out_absolute(load, minimal, tmp_path):
    policy = load(minimal)

    assert policy.sources[0] == Source(
        name="etcd",
        etcd=EtcdSource(
            endpoints=("https://127.0.0.1:2379",),
            ca_file=f"{tmp_path}/pki/ca.crt",
            cert_file=f"{tmp_path}/pki/client.crt",
            key_file=f"{tmp_path}/pki/client.key",
        ),
    )
    assert policy.locations[0].url == f"{tmp_path}/backups"
    assert policy.encryption.recipients_file == f"{tmp_path}/readers.txt"
    assert policy.heartbeat == Heartbeat(url_file=f"{tmp_path}/heartbeat.url")
    assert load(SMALL + "  scratch: ./large\n").scratch == f"{tmp_path}/large"


def test_etcds_user_and_password_are_in_variables(load, minimal):
    written = minimal.replace("keyFile: pki/client.key", "keyFile: pki/client.key, userEnv: WHO, passwordEnv: WORD")
    source = load(written, WHO="root", WORD="hooksecret").sources[0].etcd
    assert (source.user, source.password) == (Secret(env="WHO"), Secret(env="WORD"))


def test_a_file_that_is_named_from_elsewhere_has_the_same_paths(minimal, write, tmp_path, monkeypatch):
    write(minimal)
    monkeypatch.chdir(tmp_path.parent)

    policy = load_policy(Path(tmp_path.name) / "policy.yaml", environ={})

    assert policy == load_policy(tmp_path / "policy.yaml", environ={})
    assert policy.path == f"{tmp_path}/policy.yaml"


def test_what_is_written_is_what_is_meant(load, minimal):
    policy = load(minimal)

    assert policy.name == "production"
    assert policy.schedule == Schedule(cron="30 3 * * *", time_zone="Europe/Berlin", grace=timedelta(hours=1))
    assert policy.sources[1] == Source(
        name="shop",
        velero=VeleroSource(
            cluster="context:production", bucket="s3://velero/production", included_namespaces=("shop",)
        ),
    )
    assert policy.retention == RetentionPolicy(daily=14)
    assert policy.notifications == (Notification(name="ops", url_env="OPS_URL", on=("failure", "recovery")),)


def test_what_is_left_out_has_its_default(load):
    policy = load(SMALL)

    assert policy.copies == 1
    assert policy.schedule is policy.encryption is policy.heartbeat is None
    assert policy.compression_level == 3
    assert policy.verification.every == timedelta(days=7)
    assert policy.retention.rules == {}


def test_without_a_number_every_location_must_have_a_copy(load, minimal):
    assert load(minimal).copies == 2


@pytest.mark.parametrize(
    ("written", "level"), [("none", None), ("{}", 3), ("{level: 19}", 19)], ids=["none", "default", "most"]
)
def test_compression_is_a_level_or_none(load, written, level):
    assert load(f"{SMALL}  compression: {written}\n").compression_level == level


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [("500Gi", 500 << 30), ("2Ti", 2 << 40), ("800M", 800 * 10**6), ("1048576", 1 << 20), ("5k", 5000)],
)
def test_sizes_are_written_as_in_kubernetes(load, written, bytes_):
    assert load(f"{SMALL}  retention: {{maximumBytes: {written}}}\n").retention.maximum_bytes == bytes_


def test_days_are_durations(load):
    assert load(f"{SMALL}  retention: {{maximumAge: 90d}}\n").retention.maximum_age == timedelta(days=90)


def test_on_is_a_key_although_yaml_reads_a_boolean(load):
    policy = load(f"{SMALL}  notifications: [{{name: a, urlEnv: B, on: [success]}}]\n")

    assert policy.notifications[0].on == ("success",)


def test_variables_are_replaced(load):
    policy = load(SMALL.replace("./backups", "'s3://${env.BUCKET}/x'"), BUCKET="mine")

    assert policy.locations[0].url == "s3://mine/x"


def test_the_certificate_of_an_s3_server_is_beside_the_policy(load, tmp_path):
    written = "'s3://bucket-b/p?endpoint=https://s3.example&ca=pki/ca.pem'"

    policy = load(SMALL.replace("./backups", written))

    assert policy.locations[0].url == f"s3://bucket-b/p?endpoint=https://s3.example&ca={tmp_path}/pki/ca.pem"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("kubeconfig:admin.conf", "kubeconfig:{0}/admin.conf"),
        ("kubeconfig:/a/b", "kubeconfig:/a/b"),
        ("kind:x", "kind:x"),
    ],
)
def test_a_kubeconfig_is_beside_the_policy(load, tmp_path, written, meant):
    policy = load(SMALL.replace("context:a", written))

    assert policy.sources[0].etcd.cluster == meant.format(tmp_path)


def test_the_digest_is_that_of_the_file(write, minimal):
    path = write(minimal)

    assert load_policy(path, environ={}).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_prefixes_of_one_bucket_are_other_places(load):
    text = SMALL.replace(
        "{name: near, url: ./backups}", "{name: a, url: 's3://bucket-b/x'}, {name: b, url: 's3://bucket-b/xy'}"
    )

    assert len(load(text).locations) == 2


def test_buckets_of_one_name_on_two_servers_are_two_places(load):
    text = SMALL.replace(
        "{name: near, url: ./backups}",
        "{name: a, url: 's3://bucket-b/x?endpoint=http://h:1'}, {name: b, url: 's3://bucket-b/x?endpoint=http://h:2'}",
    )

    assert len(load(text).locations) == 2


def test_a_folder_by_another_name_is_the_same_place(write, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "backups")
    text = SMALL.replace("url: ./backups}", "url: ./backups}, {name: far, url: ./link}")

    with pytest.raises(InvalidPolicyError) as caught:
        load_policy(write(text), environ={})
    assert "`near`" in caught.value.message


def test_two_sources_may_share_the_bucket_of_one_velero(load):
    velero = "velero: {cluster: 'context:a', bucket: 's3://bucket-v/p'}"

    assert len(load(SMALL.replace('etcd: {cluster: "context:a"}}', f"{velero}}}, {{name: b, {velero}}}")).sources) == 2


def test_a_file_that_is_not_there_is_an_invalid_policy(tmp_path):
    with pytest.raises(InvalidPolicyError, match="no such file"):
        load_policy(tmp_path / "policy.yaml", environ={})


def test_without_the_extra_a_schedule_says_what_to_install(minimal, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)

    with pytest.raises(ConfigError) as caught:
        load_policy(write(minimal), environ={})

    assert caught.value.hint == "pip install 'clusterguard[policy]'"


def test_a_policy_is_read_without_the_sdks_that_it_does_not_need(write):
    code = (
        "import sys; from pathlib import Path; from clusterguard.policies.files.load import load_policy;"
        f"load_policy(Path({str(write(SMALL))!r}), environ={{}});"
        "sys.exit(any(name in sys.modules for name in ('boto3', 'kubernetes', 'cronsim', 'apprise', 'pyrage')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PROOF = "  proofs:\n  - {{name: weekly, source: etcd, every: 7d, rehearse: {{kubernetesVersion: {}}}}}\n"


@pytest.mark.parametrize("written", ["v1.34", '"1.30"', "v1.36"])
def test_a_rehearsal_may_name_a_version_of_kubernetes(minimal, load, written):
    policy = load(f"{minimal}{PROOF.format(written)}", BACKUPS="x")
    assert policy.proofs[0].rehearse.kubernetes_version == written.strip('"')


@pytest.mark.parametrize(("key", "right"), [("kubernetesVersion: v1.37", True), ("prefix: /kubernetes.io", False)])
def test_what_the_rehearsal_of_a_velero_backup_may_name(minimal, load, refused, key, right):
    text = minimal + PROOF.replace("source: etcd", "source: shop").replace("kubernetesVersion: {}", key).format()
    if right:
        assert load(text, BACKUPS="x").proofs[0].rehearse.kubernetes_version == "v1.37"
    else:
        assert "prefix" in refused(text, BACKUPS="x").message


@pytest.mark.parametrize("written", ["1.30", "v1.29", "v1.34.2", "latest", '""'])
def test_another_version_is_refused_before_any_run(minimal, refused, written):
    error = refused(f"{minimal}{PROOF.format(written)}", BACKUPS="x")
    assert error.message.count("policy.yaml:") == 1
    assert f":{minimal.count(chr(10)) + 2}:" in error.message  # the line of the proof
