"""What can be asked for: options and specs say the same, and contradictions are found before a server is asked."""

from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError
from clusterguard.velero.durations import go_duration, parse_go_duration
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.selectors import LabelRequirement, LabelSelector

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
WORDS = st.lists(NAMES, max_size=3, unique=True).map(tuple)
FLAGS = st.none() | st.booleans()
DURATIONS = st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=4000))
LABELS = st.dictionaries(NAMES, NAMES, max_size=3)
REQUIREMENTS = st.one_of(
    st.builds(LabelRequirement, key=NAMES, operator=st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(
        LabelRequirement,
        key=NAMES,
        operator=st.sampled_from(["In", "NotIn"]),
        values=st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    ),
)
SELECTORS = st.builds(LabelSelector, labels=LABELS, requirements=st.lists(REQUIREMENTS, max_size=3).map(tuple))
HOOKS = st.lists(st.fixed_dictionaries({"name": NAMES, "pre": st.just([{"exec": {}}])}), max_size=2).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FREEZE = {"exec": {"command": ["fsfreeze", "--freeze", "/data"]}}
BACKUPS = st.builds(
    BackupOptions,
    included_namespaces=WORDS,
    included_cluster_scoped_resources=WORDS,
    include_cluster_resources=st.none(),
    label_selector=st.none() | SELECTORS,
    snapshot_volumes=FLAGS,
    snapshot_move_data=FLAGS,
    default_volumes_to_fs_backup=FLAGS,
    storage_location=st.just("") | NAMES,
    volume_snapshot_locations=WORDS,
    ttl=DURATIONS,
    item_operation_timeout=DURATIONS,
    hooks=HOOKS,
    ordered_resources=st.none() | st.dictionaries(NAMES, st.lists(NAMES, min_size=1).map(tuple), min_size=1),
    resource_policy=st.just("") | NAMES,
    parallel_files_upload=st.none() | st.integers(0, 9),
)
RESTORES = st.builds(
    RestoreOptions,
    excluded_namespaces=WORDS,
    or_label_selectors=st.lists(SELECTORS, max_size=2).map(tuple),
    namespace_mapping=st.none() | st.dictionaries(NAMES, NAMES, min_size=1),
    restore_volumes=FLAGS,
    status_included_resources=WORDS,
    preserve_node_ports=FLAGS,
    existing_resource_policy=st.sampled_from(["", "none", "update"]),
    resource_modifier=st.just("") | NAMES,
    write_sparse_files=FLAGS,
    parallel_files_download=st.none() | st.integers(0, 9),
)


@given(options=BACKUPS)
def test_backup_options_survive_the_way_to_a_spec_and_back(options):
    assume(not list(options.problems()) and options.label_selector != LabelSelector())
    assert BackupOptions.from_spec(options.to_spec()) == options


@given(options=RESTORES)
def test_restore_options_survive_the_way_to_a_spec_and_back(options):
    assume(not list(options.problems()) and LabelSelector() not in options.or_label_selectors)
    assert RestoreOptions.from_spec(options.to_spec()) == options


KNOWN = [
    "includedNamespaces", "labelSelector", "orLabelSelectors", "ttl", "hooks", "uploaderConfig", "snapshotVolumes",
    "orderedResources", "resourcePolicy", "restoreStatus", "namespaceMapping", "csiSnapshotTimeout", "futureField",
]  # fmt: skip


@pytest.mark.parametrize("options", [BackupOptions, RestoreOptions])
@given(spec=st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=5), JSON, max_size=5))
def test_nothing_of_any_spec_is_lost(options, spec):
    read = options.from_spec(spec)
    if not list(read.problems()):
        kept = {key: value for key, value in spec.items() if not _selects_everything(key, value)}
        assert read.to_spec() == kept


def _selects_everything(key, value):
    return (key == "labelSelector" and value == {}) or (
        key == "orLabelSelectors" and isinstance(value, list) and {} in value
    )


def test_what_a_newer_server_adds_is_kept_beside_what_is_known():
    spec = {
        "includedNamespaces": ["shop"],
        "uploaderConfig": {"parallelFilesUpload": 3, "fromTheFuture": True},
        "resourcePolicy": {"kind": "secret", "name": "other"},
        "ttl": "1h",
    }
    read = BackupOptions.from_spec(spec)
    assert read.parallel_files_upload == 3
    assert read.extra == {
        "uploaderConfig": {"fromTheFuture": True},
        "resourcePolicy": {"kind": "secret", "name": "other"},
        "ttl": "1h",  # not as the server writes it, so not touched
    }
    assert read.to_spec() == spec


def test_a_spec_is_what_the_server_expects():
    options = BackupOptions(
        included_namespaces=("shop",),
        or_label_selectors=(LabelSelector.parse("app=web"), LabelSelector.parse("tier in (a, b),!old")),
        ttl=timedelta(hours=72),
        hooks=({"name": "freeze", "pre": [FREEZE]},),
        ordered_resources={"pods": ("shop/db", "shop/web")},
        resource_policy="rules",
    )
    assert options.to_spec() == {
        "includedNamespaces": ["shop"],
        "orLabelSelectors": [
            {"matchLabels": {"app": "web"}},
            {
                "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["a", "b"]},
                    {"key": "old", "operator": "DoesNotExist"},
                ]
            },
        ],
        "ttl": "72h0m0s",
        "hooks": {"resources": [{"name": "freeze", "pre": [FREEZE]}]},
        "orderedResources": {"pods": "shop/db,shop/web"},
        "resourcePolicy": {"kind": "configmap", "name": "rules"},
    }


def selecting(key, operator, *values):
    return LabelSelector(requirements=(LabelRequirement(key=key, operator=operator, values=values),))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (BackupOptions(included_resources=("a",), excluded_cluster_scoped_resources=("b",)), "exclude each other"),
        (BackupOptions(include_cluster_resources=False, included_namespace_scoped_resources=("b",)), "exclude each"),
        (BackupOptions(label_selector=LabelSelector(), or_label_selectors=(LabelSelector(),)), "exclude each other"),
        (BackupOptions(included_namespaces=("*", "a")), "includes the others"),
        (BackupOptions(excluded_namespaces=("*",)), "would leave nothing"),
        (BackupOptions(excluded_resources=("*",)), "would leave nothing"),
        (BackupOptions(included_namespaces=("a", "b"), excluded_namespaces=("b",)), "both included and excluded: b"),
        (
            BackupOptions(included_cluster_scoped_resources=("a",), excluded_cluster_scoped_resources=("*",)),
            "no room for others",
        ),
        (BackupOptions(ttl=timedelta(seconds=-1)), "not above zero"),
        (BackupOptions(parallel_files_upload=-1), "below zero"),
        (BackupOptions(snapshot_move_data=True, snapshot_volumes=False), "no snapshots to move"),
        (BackupOptions(data_mover="velero"), "does nothing without snapshot_move_data"),
        (BackupOptions(hooks=({"name": "freeze", "pre": []},)), "neither pre nor post"),
        (BackupOptions(label_selector=selecting("app", "In")), "In with 0 values"),
        (BackupOptions(or_label_selectors=(selecting("app", "Exists", "a"),)), "Exists with 1 values"),
        (RestoreOptions(label_selector=selecting("app", "NotIn")), "NotIn with 0 values"),
        (
            RestoreOptions(included_namespaces=("shop-*",), namespace_mapping={"bank": "copy"}),
            "'bank', which is not restored",
        ),
        (RestoreOptions(excluded_namespaces=("ba*",), namespace_mapping={"bank": "copy"}), "which is not restored"),
        (RestoreOptions(existing_resource_policy="overwrite"), "neither none nor update"),
        (RestoreOptions(namespace_mapping={"a": ""}), "empty name"),
        (RestoreOptions(label_selector=LabelSelector(), or_label_selectors=(LabelSelector(),)), "exclude each other"),
        (RestoreOptions(parallel_files_download=-1), "below zero"),
    ],
)
def test_what_contradicts_itself_or_does_nothing_is_refused(options, problem):
    with pytest.raises(ConfigError, match=problem):
        options.to_spec()


@pytest.mark.parametrize(
    "options",
    [
        BackupOptions(included_namespaces=("shop",), label_selector=LabelSelector()),
        BackupOptions(included_namespaces=("shop",), or_label_selectors=(LabelSelector(),)),
        BackupOptions(included_namespaces=("shop",), or_label_selectors=(LabelSelector.parse("a=b"), LabelSelector())),
        BackupOptions(included_namespaces=("shop",), extra={"labelSelector": {}}),
        RestoreOptions(included_namespaces=("shop",), label_selector=LabelSelector()),
    ],
)
def test_a_selector_of_everything_is_not_written(options):
    # Velero 1.18.3 cannot read ``{}``: it lists no object at all, but every Namespace of the cluster.
    assert options.to_spec() == {"includedNamespaces": ["shop"]}


EVERYTHING = {"includedClusterScopedResources": ["*"]}


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (BackupOptions(), EVERYTHING),
        (BackupOptions(included_namespaces=("*",)), EVERYTHING),
        (BackupOptions(excluded_namespaces=("kube-system",)), EVERYTHING),
        (BackupOptions(label_selector=LabelSelector.parse("app=web")), EVERYTHING),
        (BackupOptions(excluded_cluster_scoped_resources=("nodes",)), EVERYTHING),
        (BackupOptions(excluded_namespace_scoped_resources=("events",)), EVERYTHING),
        (BackupOptions(excluded_resources=("events",)), {"includeClusterResources": True}),
        (BackupOptions(included_namespaces=("shop",)), {}),
        (BackupOptions(include_cluster_resources=False), {}),
        (BackupOptions(included_cluster_scoped_resources=("storageclasses",)), {}),
        (BackupOptions(excluded_cluster_scoped_resources=("*",)), {}),
    ],
)
def test_a_backup_of_no_chosen_namespace_asks_for_all_cluster_scoped_objects(options, added):
    assert options.with_cluster_scoped().to_spec() == {**options.to_spec(), **added}


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (RestoreOptions(excluded_namespaces=("velero",)), {"includeClusterResources": True}),
        (RestoreOptions(included_namespaces=("*",), excluded_namespaces=("a",)), {"includeClusterResources": True}),
        (RestoreOptions(), {}),  # all of them by itself
        (RestoreOptions(included_namespaces=("shop",)), {}),
        (RestoreOptions(included_namespaces=("shop*",), excluded_namespaces=("shop-test",)), {}),
        (RestoreOptions(excluded_namespaces=("velero",), include_cluster_resources=False), {}),
    ],
)
def test_a_restore_that_excludes_a_namespace_still_has_all_cluster_scoped_objects(options, added):
    assert options.with_cluster_scoped().to_spec() == {**options.to_spec(), **added}


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        # Seen on Velero 1.18.3 in each case: all ClusterRoles and definitions, or those that something refers to.
        ({}, False),
        ({"includedNamespaces": ["*"]}, False),
        ({"includedNamespaces": ["*"], "includedClusterScopedResources": ["*"]}, True),
        ({"includedNamespaces": ["*"], "excludedResources": ["events"]}, True),
        ({"excludedNamespaces": ["other"], "excludedResources": ["events"]}, False),
        ({"excludedNamespaces": ["other"]}, False),
        ({"excludedNamespaces": ["other"], "includedClusterScopedResources": ["*"]}, True),
        ({"excludedNamespaceScopedResources": ["events"]}, False),
        ({"excludedClusterScopedResources": ["priorityclasses"]}, False),
        ({"includedResources": ["configmaps", "priorityclasses"]}, True),
        ({"includedNamespaces": ["shop"], "includeClusterResources": True}, True),
    ],
)
def test_what_a_spec_asks_of_cluster_scoped_objects_is_known(spec, asks):
    assert BackupOptions.from_spec(spec).asks_for_cluster_scoped == asks


def test_excluding_all_cluster_scoped_kinds_is_no_contradiction():
    options = BackupOptions(excluded_cluster_scoped_resources=("*",), included_namespaces=("*",))
    assert options.to_spec() == {"excludedClusterScopedResources": ["*"], "includedNamespaces": ["*"]}


@given(selector=SELECTORS.filter(lambda selector: selector.labels or selector.requirements))
def test_a_selector_reads_what_it_writes(selector):
    assert LabelSelector.parse(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "labels", "requirements"),
    [
        ("app=web", {"app": "web"}, []),
        ("app==web, tier = db", {"app": "web", "tier": "db"}, []),
        ("app=", {"app": ""}, []),
        ("app!=web", {}, [("app", "NotIn", ("web",))]),
        ("app", {}, [("app", "Exists", ())]),
        ("! app", {}, [("app", "DoesNotExist", ())]),
        ("app notin (a,b),x=y", {"x": "y"}, [("app", "NotIn", ("a", "b"))]),
        ("a=1,a=2", {"a": "1"}, [("a", "In", ("2",))]),  # both must hold, as kubectl has it
    ],
)
def test_selectors_are_read_as_kubectl_does(text, labels, requirements):
    selector = LabelSelector.parse(text)
    assert dict(selector.labels) == labels
    assert [(each.key, each.operator, each.values) for each in selector.requirements] == requirements


@pytest.mark.parametrize("text", ["", "a=b,,c=d", "a=b=c", "a in b", "a in (b", "(a)", "a b"])
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(ConfigError) as refused:
        LabelSelector.parse(text)
    assert refused.value.code == "invalid-selector"


@given(value=st.timedeltas(timedelta(days=-4000), timedelta(days=4000)))
def test_durations_survive_being_written_as_go_does(value):
    assert parse_go_duration(go_duration(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("720h0m0s", 2_592_000), ("10m0s", 600), ("1.5s", 1.5), ("250ms", 0.25), ("0s", 0), ("0", 0), ("-1m0s", -60)],
)
def test_durations_are_read_as_go_writes_them(text, seconds):
    assert parse_go_duration(text) == timedelta(seconds=seconds)
    assert text == "0" or go_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize("text", ["", "1", "1d", "h", "1h 2m", "1hm", "-", "9" * 400 + "h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        parse_go_duration(text)
