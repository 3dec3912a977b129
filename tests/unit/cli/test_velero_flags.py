"""``clusterguard velero``: what a backup is asked for is spelled once, for backups by hand and by a schedule."""

from dataclasses import fields
from datetime import timedelta

import pytest

from clusterguard.cli.velero.options import BackupFlags
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.selectors import LabelSelector

EVERYTHING = {
    "include_namespaces": ["a"],
    "exclude_namespaces": ["b"],
    "include_resources": ["pods"],
    "exclude_resources": ["events"],
    "include_cluster_resources": False,
    "selector": "app=web",
    "or_selector": ["tier=db", "tier=web"],
    "include_cluster_scoped_resources": ["nodes"],
    "exclude_cluster_scoped_resources": ["clusterroles"],
    "include_namespace_scoped_resources": ["secrets"],
    "exclude_namespace_scoped_resources": ["jobs.batch"],
    "label": ["team=shop"],
    "annotation": ["why=nightly"],
    "ttl": "72h",
    "storage_location": "far",
    "volume_snapshot_locations": ["east"],
    "snapshot_volumes": False,
    "snapshot_move_data": True,
    "data_mover": "velero",
    "default_volumes_to_fs_backup": False,
    "ordered_resources": ["pods=a/one,a/two"],
    "resource_policies": "rules",
    "csi_snapshot_timeout": "10m",
    "item_operation_timeout": "4h",
    "parallel_files_upload": 0,
}


@pytest.fixture
def prod(tmp_path):
    """A cluster that nobody answers for."""
    (tmp_path / "kubeconfig").write_text(
        """\
apiVersion: v1
kind: Config
current-context: prod
contexts: [{name: prod, context: {cluster: prod, user: ops}}]
clusters: [{name: prod, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: ops, user: {token: a-token}}]
"""
    )
    return f"kubeconfig:{tmp_path}/kubeconfig"


def test_every_flag_is_in_this_test():
    assert set(EVERYTHING) == {field.name for field in fields(BackupFlags)}


def test_a_flag_is_what_a_backup_is_asked_for():
    flags = EVERYTHING | {"selector": ""}
    assert BackupFlags(**flags).options() == BackupOptions(
        included_namespaces=("a",),
        excluded_namespaces=("b",),
        included_resources=("pods",),
        excluded_resources=("events",),
        include_cluster_resources=False,
        or_label_selectors=(LabelSelector.parse("tier=db"), LabelSelector.parse("tier=web")),
        included_cluster_scoped_resources=("nodes",),
        excluded_cluster_scoped_resources=("clusterroles",),
        included_namespace_scoped_resources=("secrets",),
        excluded_namespace_scoped_resources=("jobs.batch",),
        labels={"team": "shop"},
        annotations={"why": "nightly"},
        ttl=timedelta(hours=72),
        storage_location="far",
        volume_snapshot_locations=("east",),
        snapshot_volumes=False,
        snapshot_move_data=True,
        data_mover="velero",
        default_volumes_to_fs_backup=False,
        ordered_resources={"pods": ("a/one", "a/two")},
        resource_policy="rules",
        csi_snapshot_timeout=timedelta(minutes=10),
        item_operation_timeout=timedelta(hours=4),
        parallel_files_upload=0,
    )
    assert BackupFlags(selector="app=web").options() == BackupOptions(label_selector=LabelSelector.parse("app=web"))


def test_nothing_asked_for_is_what_the_server_does_by_itself():
    assert not BackupFlags().given
    assert not BackupFlags(include_namespaces=[]).given
    assert BackupFlags().options() == BackupOptions()


@pytest.mark.parametrize("name", EVERYTHING)
def test_any_flag_alone_is_something_asked_for(name):
    assert BackupFlags(**{name: EVERYTHING[name]}).given


@pytest.mark.parametrize("noun", ["backup", "schedule"])
def test_backups_by_hand_and_by_a_schedule_take_every_flag(cli, noun):
    words = cli("velero", noun, "create", "--help").out.split()
    renamed = {"resource_policies": "resource-policies-configmap"}
    options = {f"--{renamed.get(name, name.replace('_', '-'))}" for name in EVERYTHING}
    assert options <= {option for word in words for option in word.split(",")}


def test_a_backup_from_a_schedule_takes_no_flags(cli, prod):
    ended = cli("velero", "backup", "create", "x", "--cluster", prod, "--from-schedule", "nightly", "--ttl", "3h")
    assert ended.code == 2
    assert "give either, not both" in ended.err


@pytest.mark.parametrize("noun", [["backup"], ["schedule", "--schedule", "@every 6h"]])
def test_a_word_that_means_nothing_is_told_before_the_cluster_is_asked(cli, prod, noun):
    command, *more = noun
    ended = cli("velero", command, "create", "x", *more, "--cluster", prod, "--ttl", "long")
    assert ended.code == 2
    assert "--ttl" in ended.err
    assert "write it like 90s, 15m or 72h" in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "list"],
        ["backup", "describe", "x"],
        ["backup", "logs", "x"],
        ["restore", "list"],
        ["restore", "logs", "x"],
        ["schedule", "list"],
        ["schedule", "pause", "x"],
        ["location", "list"],
        ["status"],
    ],
)
def test_every_command_needs_a_cluster_and_says_if_it_does_not_answer(cli, prod, words):
    assert "--cluster" in cli("velero", *words).err
    ended = cli("velero", *words, "--cluster", prod)
    assert ended.code == 2
    assert "Traceback" not in ended.err
