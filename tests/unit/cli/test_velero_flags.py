"""``clusterguard velero``: what flags mean, and that each field of what they set has one."""

from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from types import SimpleNamespace

import pytest

from clusterguard.cli.velero.locations import LocationFlags
from clusterguard.cli.velero.options import BackupFlags, RestoreFlags, ServerFlags
from clusterguard.cli.velero.server import InstallFlags
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.describe import describe_restore
from clusterguard.velero.install import InstallOptions
from clusterguard.velero.locations import LocationSpec
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.outcome import Message, RestoredItem, judge_restore
from clusterguard.velero.resources import Restore
from clusterguard.velero.selectors import LabelSelector

# Each flag, what it sets, and to which value.
SELECTION = [
    ("--include-namespaces a --include-namespaces b", "included_namespaces", ("a", "b")),
    ("--exclude-namespaces b", "excluded_namespaces", ("b",)),
    ("--include-resources pods", "included_resources", ("pods",)),
    ("--exclude-resources events", "excluded_resources", ("events",)),
    ("--exclude-cluster-resources", "include_cluster_resources", False),
    ("--selector app=web", "label_selector", LabelSelector.parse("app=web")),
    ("-l app=web", "label_selector", LabelSelector.parse("app=web")),
    ("--or-selector tier=db --or-selector x", "or_label_selectors", tuple(map(LabelSelector.parse, ("tier=db", "x")))),
    ("--item-operation-timeout 4h", "item_operation_timeout", timedelta(hours=4)),
    ("--resource-policies-configmap rules", "resource_policy", "rules"),
    ("--label team=shop --label a=", "labels", {"team": "shop", "a": ""}),
    ("--annotation why=a=b", "annotations", {"why": "a=b"}),
]
BACKUP = [
    *SELECTION,
    ("--include-cluster-scoped-resources nodes", "included_cluster_scoped_resources", ("nodes",)),
    ("--exclude-cluster-scoped-resources clusterroles", "excluded_cluster_scoped_resources", ("clusterroles",)),
    ("--include-namespace-scoped-resources secrets", "included_namespace_scoped_resources", ("secrets",)),
    ("--exclude-namespace-scoped-resources jobs.batch", "excluded_namespace_scoped_resources", ("jobs.batch",)),
    ("--ttl 72h", "ttl", timedelta(hours=72)),
    ("--storage-location far", "storage_location", "far"),
    ("--volume-snapshot-locations east", "volume_snapshot_locations", ("east",)),
    ("--no-snapshot-volumes", "snapshot_volumes", False),
    ("--snapshot-move-data", "snapshot_move_data", True),
    ("--data-mover velero", "data_mover", "velero"),
    ("--no-default-volumes-to-fs-backup", "default_volumes_to_fs_backup", False),
    ("--ordered-resources pods=a/one,a/two", "ordered_resources", {"pods": ("a/one", "a/two")}),
    ("--csi-snapshot-timeout 10m", "csi_snapshot_timeout", timedelta(minutes=10)),
    ("--parallel-files-upload 0", "parallel_files_upload", 0),
]
RESTORE = [
    *SELECTION,
    ("--namespace-mappings shop:copy", "namespace_mapping", {"shop": "copy"}),
    ("--existing-resource-policy update", "existing_resource_policy", "update"),
    ("--no-restore-volumes", "restore_volumes", False),
    ("--preserve-nodeports", "preserve_node_ports", True),
    ("--status-include-resources pods", "status_included_resources", ("pods",)),
    ("--status-exclude-resources pods", "status_excluded_resources", ("pods",)),
    ("--resource-modifier-configmap patches", "resource_modifier", "patches"),
    ("--write-sparse-files", "write_sparse_files", True),
    ("--parallel-files-download 4", "parallel_files_download", 4),
]
LOCATION = [
    ("--prefix velero", "prefix", "velero"),
    ("--provider gcp", "provider", "gcp"),
    ("--config region=eu --config s3Url=http://x:1?a=b", "config", {"region": "eu", "s3Url": "http://x:1?a=b"}),
    ("--secret-file FILE", "credentials", "secret"),
    ("--credential keys=cloud", "credential", ("keys", "cloud")),
    ("--cacert FILE", "ca", "secret"),
    ("--default", "default", True),
    ("--read-only", "read_only", True),
]


class Client:
    """Takes what the server would be asked for, and asks nobody."""

    def __init__(self):
        self.locations, self.asked = self, None

    def back_up(self, name, options, *, from_schedule, wait):
        self.asked = options
        return SimpleNamespace(kind="Backup", name=name)

    def restore(self, backup, options, *, schedule, name, wait):
        self.asked = options
        return SimpleNamespace(kind="Restore", name=name)

    def create_schedule(self, name, cron, options, **settings):
        self.asked = options
        return SimpleNamespace(paused=True)

    def create(self, name, spec, *, wait):
        self.asked = spec
        return SimpleNamespace(phase="Available")


@pytest.fixture
def client(monkeypatch):
    client = Client()

    @contextmanager
    def opened(flags, download=None):
        yield client

    monkeypatch.setattr(ServerFlags, "client", opened)
    return client


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


def test_every_field_has_a_flag_and_every_flag_is_in_a_table():
    for flags, options, table in (
        (BackupFlags, BackupOptions, BACKUP),
        (RestoreFlags, RestoreOptions, RESTORE),
        (LocationFlags, LocationSpec, [*LOCATION, ("--bucket b", "bucket", "b")]),
    ):
        named = {field.name for field in fields(flags)}
        assert named == {name for _, name, _ in table}
        unreachable = {field.name for field in fields(options)} - named
        assert unreachable <= {
            "extra", "hooks", "volume_group_snapshot_label_key", "sync_period", "validation_frequency",
        }  # fmt: skip
    unreachable = {field.name for field in fields(InstallOptions)} - {field.name for field in fields(InstallFlags)}
    assert unreachable == {"namespace", "resources"}


@pytest.mark.parametrize(
    ("command", "kind", "table"),
    [
        ("backup create x --no-wait", BackupOptions, BACKUP),
        ("schedule create x --paused --schedule @daily", BackupOptions, BACKUP),
        ("restore create --no-wait --from-backup b", RestoreOptions, RESTORE),
        ("location create x --bucket b", LocationSpec, LOCATION),
    ],
)
def test_each_flag_sets_its_field_and_nothing_else(cli, client, tmp_path, command, kind, table):
    (tmp_path / "file").write_text("secret")
    always = {"bucket": "b"} if kind is LocationSpec else {}
    for words, name, value in [("", "", None), *table]:
        flag = words.replace("FILE", str(tmp_path / "file")).split()
        ended = cli("velero", *command.split(), "--cluster", "embedded:x", *flag)
        assert (ended.code, client.asked) == (0, kind(**always | ({name: value} if name else {}))), words


def ended_restore():
    """A restore that left an object as it was, and one that was made anew."""
    status = {"phase": "Completed", "warnings": 1, "progress": {"totalItems": 2, "itemsRestored": 2}}
    run = Restore.model_validate({"metadata": {"name": "r"}, "status": status})
    items = [RestoredItem(ref=ObjectRef("ConfigMap", "shop", name), action="created") for name in ("a", "b")]
    different = Message(severity="warning", namespace="shop", text="could not restore, ConfigMap:c already exists.")
    return lambda tolerate: judge_restore(run, messages=[different], items=items, tolerate=tolerate)


@pytest.mark.parametrize(
    ("words", "code"),
    [((), 1), (("--tolerate", "exists-different"), 0), (("--tolerate", "warning"), 1), (("--tolerate", "nonsense"), 2)],
)
@pytest.mark.parametrize("command", ["restore create --from-backup b", "restore describe r"])
def test_a_finding_is_tolerated_by_its_name(cli, client, command, words, code):
    judged = ended_restore()
    client.wait = lambda run, **_: run
    client.get_restore = lambda name: name
    client.outcome = lambda run, *, tolerate: judged(tolerate)
    client.describe = lambda run, *, tolerate: describe_restore(judged(tolerate))
    ended = cli("velero", *command.split(), "--cluster", "embedded:x", *words)
    assert ended.code == code


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
