"""Every question that is asked of a backup goes red in a test of its own."""

import gzip
import json

import pytest
from backup_builder import (
    CONTENTS,
    FOLDER,
    LIST,
    LOG,
    METADATA,
    NAME,
    NOW,
    OPERATIONS,
    POD_VOLUMES,
    RESULTS,
    SNAPSHOTS,
    VOLUMES,
    BackupBuilder,
    paths,
    thing,
    usual_objects,
)

from clusterguard.errors import (
    BackupCorruptError,
    ConfigError,
    ObjectCorruptError,
    ObjectNotFoundError,
    StoreUnavailableError,
)
from clusterguard.model.inventory import Inventory, ObjectRef, Scope
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.bucket import verify_backup
from clusterguard.velero.bucket_report import RULES, BucketPolicy

CONFIG_MAP = "resources/configmaps/namespaces/shop/settings.json"
SECOND_COPY = "resources/configmaps/v1-preferredversion/namespaces/shop/settings.json"


def verify(builder, store=None, **options):
    return verify_backup(store or builder.store(), NAME, now=NOW, **options)


def failed(report):
    return [check.name for check in report.checks if check.ok is False]


def told(report):
    return [(one.check, one.subject, one.detail) for one in report.findings]


def rules(report):
    return [(one.rule, one.subject) for one in report.explained]


@pytest.fixture
def builder():
    return BackupBuilder()


def test_an_intact_backup_has_no_findings(builder):
    report = verify(builder)
    assert report.ok, report.to_text()
    assert report.objects == len(builder.objects) == 7
    assert [check.name for check in report.unasked] == ["inventory", "digest manifest"]
    assert report.explained == []
    report.raise_for_findings()


def test_the_report_tells_everything_as_text_and_as_data(builder):
    builder.status["phase"] = "Failed"
    report = verify(builder)
    assert report.to_text().splitlines()[0] == "nightly: NOT INTACT (7 objects, memory:)"
    assert "  phase                FAILED     nightly: Failed: it was given up" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["findings"] == [
        {"check": "phase", "subject": "nightly", "detail": "Failed: it was given up", "code": ""}
    ]
    with pytest.raises(BackupCorruptError, match="it was given up"):
        report.raise_for_findings()


def test_many_findings_are_cut_short_in_the_text_only(builder):
    builder.documents[LIST]["v1/ConfigMap"] += [f"shop/extra-{number}" for number in range(50)]
    report = verify(builder)
    assert len(report.findings) == 50
    assert "    … 30 more" in report.to_text()


# ---- files and metadata ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [METADATA, CONTENTS, LIST, RESULTS, VOLUMES, POD_VOLUMES, SNAPSHOTS, OPERATIONS])
def test_a_missing_file_is_found(builder, key):
    builder.raw[key] = None
    report = verify(builder)
    assert ("files", key, "it is missing") in told(report)


def test_a_missing_log_and_an_unknown_file_are_explained(builder):
    builder.raw |= {LOG: None, f"{FOLDER}/{NAME}-news.json.gz": b"?"}
    report = verify(builder)
    assert report.ok
    assert rules(report) == [("unknown file", f"{FOLDER}/{NAME}-news.json.gz"), ("no log", LOG)]


def test_without_metadata_nothing_else_is_claimed_of_it(builder):
    builder.raw[METADATA] = b"{"
    report = verify(builder)
    assert "velero-backup.json" in failed(report)
    assert {"phase", "format version", "expiration", "object count"} <= {check.name for check in report.unasked}


@pytest.mark.parametrize(
    "document", [b"", b"{", b"[]", b"null", b'{"kind": "Restore"}', b'{"kind": "Backup", "apiVersion": "other/v1"}']
)
def test_metadata_that_is_no_backup_is_found(builder, document):
    builder.raw[METADATA] = document
    assert "velero-backup.json" in failed(verify(builder))


def test_the_metadata_of_another_backup_is_found(builder):
    builder.metadata["metadata"]["name"] = "weekly"
    assert failed(verify(builder)) == ["velero-backup.json"]


def test_a_backup_that_is_being_deleted_is_found(builder):
    builder.metadata["metadata"]["deletionTimestamp"] = "2030-01-01T01:00:00Z"
    assert failed(verify(builder)) == ["velero-backup.json"]


@pytest.mark.parametrize(
    ("phase", "meaning"),
    [
        ("PartiallyFailed", "not everything is in it"),
        ("Failed", "it was given up"),
        ("FailedValidation", "the server did not begin it"),
        ("Deleting", "it is being deleted"),
        ("InProgress", "not finished when this was written (begun at 2030-01-01T00:00:00+00:00)"),
        ("Finalizing", "not finished when this was written"),
        ("Queued", "not finished"),
        ("Resting", "this release does not know that phase"),
    ],
)
def test_any_other_phase_is_found(builder, phase, meaning):
    builder.status["phase"] = phase
    report = verify(builder)
    assert failed(report) == ["phase"]
    assert phase in report.findings[0].detail
    assert meaning in report.findings[0].detail


def test_a_phase_that_the_policy_takes_is_explained(builder):
    builder.status["phase"] = "PartiallyFailed"
    report = verify(builder, policy=BucketPolicy(tolerate_phases=("PartiallyFailed",)))
    assert report.ok
    assert rules(report) == [("tolerated phase", NAME)]


@pytest.mark.parametrize("version", ["2.0.0", "11.0.0", "", "one", "²"])
def test_another_format_is_found(builder, version):
    builder.status["formatVersion"] = version
    assert "format version" in failed(verify(builder))


def test_a_later_minor_format_is_read(builder):
    builder.status["formatVersion"] = "1.2.0"
    builder.replace("metadata/version", b"1.2.0\n")
    assert verify(builder).ok


@pytest.mark.parametrize("members", [b"1.2.0\n", None])
def test_a_tarball_of_another_or_no_version_is_found(builder, members):
    builder.replace("metadata/version", members or b"")
    if members is None:
        del builder.members[0]
    assert failed(verify(builder)) == ["format version"]


def test_an_expired_backup_is_found(builder):
    builder.status["expiration"] = "2030-01-01T12:00:00Z"
    assert failed(verify(builder)) == ["expiration"]
    assert verify(builder, policy=BucketPolicy(expired_ok=True)).ok


def test_a_backup_that_does_not_tell_its_expiration_is_found(builder):
    builder.status["expiration"] = "soon"
    assert failed(verify(builder)) == ["expiration"]


# ---- the tarball -----------------------------------------------------------------------------------------


def test_a_tarball_that_is_cut_off_is_found_and_nothing_is_claimed_of_the_rest(builder):
    builder.raw[CONTENTS] = builder.tarball()[:-20]
    report = verify(builder)
    assert failed(report) == ["tarball"]
    assert "cut off" in report.findings[0].detail
    assert {"resource list", "object count", "volumes"} <= {check.name for check in report.unasked}


def test_a_file_that_velero_does_not_write_is_found(builder):
    builder.members.append(("notes.txt", b"hello"))
    assert told(verify(builder)) == [("tarball", "notes.txt", "Velero writes no such file")]


def test_copies_that_differ_are_found(builder):
    builder.replace(SECOND_COPY, dict(builder.members)[CONFIG_MAP].replace(b"blue", b"red!"))
    assert told(verify(builder)) == [("both copies", "configmaps shop/settings", "its two copies are not equal")]


def test_copies_may_be_apart_and_must_be_equal_there_too(builder):
    builder.members.sort(key=lambda member: "preferredversion" in member[0])
    assert verify(builder).ok
    builder.replace(SECOND_COPY, b"{}")
    assert failed(verify(builder)) == ["both copies"]


@pytest.mark.parametrize(
    ("left_out", "detail"),
    [
        (CONFIG_MAP, "it has no copy outside the folder of its version, which is the one that restores read"),
        (SECOND_COPY, "it has no copy in its preferred version"),
    ],
)
def test_a_copy_that_is_missing_is_found(builder, left_out, detail):
    builder.members = [member for member in builder.members if member[0] != left_out]
    assert told(verify(builder)) == [("both copies", "configmaps shop/settings", detail)]


def test_an_object_in_a_version_of_no_preference_alone_is_found(builder):
    builder.members = [member for member in builder.members if member[0] not in {CONFIG_MAP, SECOND_COPY}]
    other = thing("ConfigMap", "settings", api_version="v2")
    builder.members.append(("resources/configmaps/v2/namespaces/shop/settings.json", json.dumps(other).encode()))
    detail = "it is stored only in a version that the server did not prefer; restores read it only when configured to"
    assert ("both copies", "configmaps shop/settings", detail) in told(verify(builder))


def test_further_versions_of_an_object_are_no_finding(builder):
    # Velero's feature EnableAPIGroupVersions stores them.
    other = {"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}}
    path = "resources/deployments.apps/v1beta1/namespaces/shop/web.json"
    builder.members.append((path, json.dumps(other).encode()))
    assert verify(builder).ok


@pytest.mark.parametrize("path", [CONFIG_MAP, SECOND_COPY, "metadata/version"])
def test_a_file_that_is_there_twice_is_found(builder, path):
    builder.members.append((path, dict(builder.members)[path]))
    assert failed(verify(builder)) in (["both copies"], ["tarball"])


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda item: item["metadata"].update(name="other"), "the object in it is shop/other"),
        (lambda item: item["metadata"].update(namespace="elsewhere"), "the object in it is elsewhere/settings"),
        (lambda item: item["metadata"].pop("namespace"), "the object in it is settings"),
        (lambda item: item.update(apiVersion="apps/v1"), "the object in it is of apps/v1/ConfigMap"),
        (lambda item: item.pop("kind"), "it lacks apiVersion, kind or metadata"),
        (lambda item: item.pop("metadata"), "it lacks apiVersion, kind or metadata"),
    ],
)
def test_an_object_that_is_not_what_its_path_says_is_found(builder, change, detail):
    item = usual_objects()[1][1]
    change(item)
    for path in (CONFIG_MAP, SECOND_COPY):
        builder.replace(path, json.dumps(item).encode())
    assert ("paths", "configmaps shop/settings", detail) in told(verify(builder))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000])
def test_an_object_that_is_no_json_object_is_found(builder, data):
    for path in (CONFIG_MAP, SECOND_COPY):
        builder.replace(path, data)
    assert "paths" in failed(verify(builder))


def test_an_object_of_another_kind_among_the_others_is_found():
    objects = [*usual_objects(), ("configmaps", thing("Secret", "odd"))]
    report = verify(BackupBuilder(objects))
    assert "its kind is Secret, but others in configmaps are of ConfigMap" in [one[2] for one in told(report)]


def test_objects_that_are_all_of_another_kind_are_found():
    objects = [*usual_objects(), ("services", thing("Pod", "odd"))]
    assert told(verify(BackupBuilder(objects))) == [("paths", "services", "the objects in it are of kind Pod")]


def test_custom_objects_must_be_of_the_kind_that_their_definition_names():
    objects = [each for each in usual_objects() if each[0] != "mice.example.com"]
    objects.append(("mice.example.com", thing("Cat", "tom", api_version="example.com/v1")))
    assert told(verify(BackupBuilder(objects))) == [("paths", "mice.example.com", "the objects in it are of kind Cat")]


def test_custom_objects_without_a_definition_may_have_any_plural():
    objects = [each for each in usual_objects() if not each[0].startswith("customresource")]
    assert failed(verify(BackupBuilder(objects))) == ["completeness"]  # which is no matter of its path


def test_an_object_under_a_version_that_is_not_its_own_is_found(builder):
    wrong = SECOND_COPY.replace("v1-", "v2-")
    builder.members = [(wrong if path == SECOND_COPY else path, data) for path, data in builder.members]
    detail = "it is of version v1, and is stored as v2"
    assert told(verify(builder)) == [("paths", "configmaps shop/settings", detail)]
    builder.members.sort(key=lambda member: "preferredversion" in member[0])
    assert failed(verify(builder)) == ["paths"]


def test_a_further_version_must_be_the_object_that_its_path_names(builder):
    path = "resources/deployments.apps/v1beta1/namespaces/shop/web.json"
    builder.members.append((path, json.dumps(thing("Deployment", "web", api_version="apps/v1")).encode()))
    assert told(verify(builder)) == [("paths", "deployments.apps shop/web", "the object in it is of version v1")]


def test_a_definition_may_be_stored_in_its_older_version_under_the_newer_one(builder):
    resource, item = builder.objects[-1]
    for path in paths(resource, item):
        builder.replace(path, json.dumps(item | {"apiVersion": "apiextensions.k8s.io/v1beta1"}).encode())
    assert verify(builder).ok


def test_control_characters_in_names_do_not_reach_the_terminal(builder):
    builder.members.append(("notes-\x1b[2J.txt", b"hello"))
    text = verify(builder).to_text()
    assert "\x1b" not in text
    assert "notes-" in text


# ---- what the files say of each other --------------------------------------------------------------------


def test_an_object_of_the_resource_list_that_is_not_in_the_tarball_is_found(builder):
    builder.documents[LIST]["v1/ConfigMap"].append("shop/lost")
    detail = "it is in the resource list, and not in the tarball"
    assert told(verify(builder)) == [("resource list", "ConfigMap shop/lost", detail)]


def test_an_object_that_is_not_in_the_resource_list_is_found(builder):
    del builder.documents[LIST]["v1/Secret"]
    detail = "it is in the tarball, and not in the resource list"
    assert told(verify(builder)) == [("resource list", "Secret shop/login", detail)]


def test_the_version_in_the_resource_list_does_not_matter(builder):
    builder.documents[LIST]["apps/v1beta2/Deployment"] = builder.documents[LIST].pop("apps/v1/Deployment")
    assert verify(builder).ok


def test_what_is_stored_when_operations_end_is_explained(builder):
    late = {"Group": "velero.io", "Resource": "datauploads", "Namespace": "velero", "Name": "late"}
    item = thing("DataUpload", "late", "velero", "velero.io/v2alpha1")
    whole = BackupBuilder([*usual_objects(), ("datauploads.velero.io", item)])
    del whole.documents[LIST]["velero.io/v2alpha1/DataUpload"]
    whole.status["progress"] = builder.status["progress"]
    operation = {"spec": {"postOperationItems": [late]}, "status": {"phase": "Completed"}}
    assert failed(verify(whole)) == ["resource list", "object count"]
    whole.documents[OPERATIONS] = [operation]
    report = verify(whole)
    assert report.ok, report.to_text()
    assert rules(report) == [("added when operations ended", "DataUpload.velero.io velero/late")]


@pytest.mark.parametrize("done", [6, 8, 0])
def test_a_count_that_is_not_the_number_of_objects_is_found(builder, done):
    builder.status["progress"] = {"totalItems": done, "itemsBackedUp": done}
    assert failed(verify(builder)) == ["object count"]


def test_objects_that_velero_did_not_get_to_are_found(builder):
    builder.status["progress"]["totalItems"] = 9
    assert told(verify(builder)) == [("object count", NAME, "Velero stored 7 of 9 objects")]


def test_an_empty_backup_is_found():
    assert failed(verify(BackupBuilder([]))) == ["object count"]


def test_errors_and_warnings_are_told_with_the_name_of_the_object(builder):
    builder.status |= {"errors": 1, "warnings": 2}
    builder.documents[RESULTS] = {
        "errors": {"namespaces": {"shop": [" resource: /pods name: /web-1 message: /cannot exec error: /no such pod"]}},
        "warnings": {"velero": ["the sky is low"], "cluster": [" resource: /persistentvolumes name: /a message: /odd"]},
    }
    report = verify(builder)
    assert told(report) == [
        ("errors and warnings", "pods shop/web-1", "error: cannot exec: no such pod"),
        ("errors and warnings", "Velero", "warning: the sky is low"),
        ("errors and warnings", "persistentvolumes a", "warning: odd"),
    ]
    policy = BucketPolicy(tolerate_warnings=("the sky *", "*/odd"), tolerate_errors=("*no such pod",))
    report = verify(builder, policy=policy)
    assert report.ok
    assert [one.rule for one in report.explained] == ["tolerated error", "tolerated warning", "tolerated warning"]


@pytest.mark.parametrize(
    ("about", "tolerate", "wrong"),
    [
        (" resource: /configmaps name: /settings", {"error", "partially-failed"}, []),
        (" name: /settings", {"error", "partially-failed"}, []),
        (" name: /settings", {"error"}, ["phase"]),
        (" name: /settings", {}, ["phase", "resource list", "object count", "errors and warnings"]),
        (" name: /another", {"error", "partially-failed"}, ["resource list"]),
        (" resource: /secrets name: /settings", {"error", "partially-failed"}, ["resource list"]),
        ("", {"error", "partially-failed"}, ["resource list", "object count"]),
    ],
)
def test_an_object_that_a_tolerated_error_is_about_need_not_be_in_a_partial_backup(builder, about, tolerate, wrong):
    """Velero 1.18.3 names the pod of a hook that failed without its namespace."""
    policy = BucketPolicy(tolerate_rules=frozenset(tolerate))
    text = f"{about} message: /Error running pre hooks for pod error: /no preferred addresses found"
    builder.members = [(path, data) for path, data in builder.members if not path.endswith("shop/settings.json")]
    builder.status |= {"errors": 1, "phase": "PartiallyFailed"}
    builder.documents[RESULTS]["errors"] = {"velero": [text]}
    assert failed(verify(builder, policy=policy)) == wrong


@pytest.mark.parametrize("counts", [{"warnings": 1}, {"errors": 2}])
def test_messages_that_are_counted_and_not_told_are_found(builder, counts):
    builder.status |= counts
    assert failed(verify(builder)) == ["errors and warnings"]


def test_messages_that_are_told_and_not_counted_are_found(builder):
    builder.documents[RESULTS]["warnings"] = {"velero": ["low"]}
    report = verify(builder, policy=BucketPolicy(tolerate_warnings=("*",)))
    assert told(report) == [("errors and warnings", NAME, "Velero counted 0 warnings, and lists 1")]


def test_errors_of_operations_are_counted_later(builder):
    builder.status |= {"errors": 1, "backupItemOperationsFailed": 1}
    assert rules(verify(builder)) == [("errors of operations", NAME)]


def bare():
    return [("namespaces", thing("Namespace", "shop", ""))]


@pytest.mark.parametrize(
    ("objects", "spec", "rule"),
    [
        (bare(), {"includedNamespaces": ["shop"]}, "nothing-backed-up"),
        (usual_objects(), {"includedNamespaces": ["shop", "bank-*"]}, "filter-matches-nothing"),
        (usual_objects()[1:], {"includedNamespaces": ["shop"]}, "namespace-left-out"),
        (usual_objects()[:-1], {"includedNamespaces": ["shop"]}, "definition-left-out"),
    ],
)
def test_what_a_backup_lacks_is_seen_in_the_bucket(objects, spec, rule):
    builder = BackupBuilder(objects)
    builder.metadata["spec"] = spec
    report = verify(builder)
    assert [(each.check, each.detail.partition(":")[0]) for each in report.findings] == [("completeness", rule)]
    tolerant = verify(builder, policy=BucketPolicy(tolerate_rules=frozenset({rule})))
    assert tolerant.ok
    assert [each.rule for each in tolerant.explained] == ["tolerated finding"]


API_DOWN = (
    " message: /Failed to discover group: metrics.k8s.io/v1beta1"
    " error: /stale GroupVersion discovery: metrics.k8s.io/v1beta1"
)


def test_what_velero_says_three_times_is_one_finding(builder):
    builder.status["warnings"] = 3
    builder.documents[RESULTS] = {"errors": {}, "warnings": {"velero": [API_DOWN] * 3}}
    [(check, subject, detail)] = told(verify(builder))
    assert (check, subject) == ("errors and warnings", "Velero")
    assert detail.endswith("(3 times)")


def test_a_message_is_tolerated_by_the_rule_that_an_outcome_gives_it(builder):
    builder.status["warnings"] = 3
    builder.documents[RESULTS] = {"errors": {}, "warnings": {"velero": [API_DOWN] * 3}}
    report = verify(builder, policy=BucketPolicy(tolerate_rules=frozenset({"api-unavailable"})))
    assert report.ok
    assert rules(report) == [("tolerated warning", "Velero")]
    assert not verify(builder, policy=BucketPolicy(tolerate_rules=frozenset({"warning"}))).ok


# ---- volumes ---------------------------------------------------------------------------------------------


def claim(name="orders", volume="pv-1"):
    return ("persistentvolumeclaims", thing("PersistentVolumeClaim", name, spec={"volumeName": volume}))


def with_claim(volume="pv-1", **record):
    builder = BackupBuilder([*usual_objects(), claim(volume=volume)])
    if record:
        builder.documents[VOLUMES] = [{"pvcNamespace": "shop", "pvcName": "orders", "pvName": "pv-1", **record}]
    return builder


@pytest.mark.parametrize(
    "record",
    [
        {"backupMethod": "PodVolumeBackup", "result": "succeeded"},
        {"backupMethod": "CSISnapshot", "csiSnapshotInfo": {"ReadyToUse": True}},
    ],
)
def test_a_volume_with_data_is_no_finding(record):
    assert verify(with_claim(**record)).ok


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        ({}, "Velero does not say what became of its volume pv-1"),
        ({"skipped": True, "skippedReason": "no snapshotter"}, "will be restored empty: no snapshotter"),
        ({"backupMethod": "PodVolumeBackup", "result": "failed"}, "PodVolumeBackup failed"),
        ({"backupMethod": "CSISnapshot", "csiSnapshotInfo": {"ReadyToUse": False}}, "CSISnapshot without a result"),
        (
            {"backupMethod": "CSISnapshot", "csiSnapshotInfo": {"ReadyToUse": True, "operationID": "x"}},
            "without a result",
        ),
        ({"backupMethod": "CSISnapshot", "snapshotDataMoved": True, "csiSnapshotInfo": "odd"}, "without a result"),
    ],
)
def test_a_volume_without_data_is_found_unless_it_is_declared(record, detail):
    builder = with_claim(**record)
    report = verify(builder)
    assert "volumes" in failed(report)
    assert detail in report.findings[0].detail
    declared = verify(builder, policy=BucketPolicy(volumes_without_data=("shop/*",)))
    assert "volumes" not in failed(declared)
    assert rules(declared) == [("volume without data", "shop/orders")]


def test_a_volume_that_was_skipped_one_way_and_saved_another_is_no_finding():
    builder = with_claim(skipped=True)
    builder.documents[VOLUMES].append(builder.documents[VOLUMES][0] | {"skipped": False, "result": "succeeded"})
    assert verify(builder).ok


# What Velero 1.18.3 and 1.14.0 write for a volume whose data nobody backed up.
NOT_ASKED = "volumeSnapshot: not satisfy the criteria for VolumePolicy or the legacy snapshot way;"
NO_SNAPSHOTTER = "volumeSnapshot: no applicable volumesnapshotter found;"
BY_POLICY = "any: skipped due to resource policy ;"
BY_LABEL = "any: item has label velero.io/exclude-from-backup=true;"
OPTED_OUT = "podvolume: opted out due to annotation in pod web-1;"
NO_DATA = {"snapshotVolumes": False, "defaultVolumesToFsBackup": False}
FILES = {"snapshotVolumes": False, "defaultVolumesToFsBackup": True}


@pytest.mark.parametrize(
    ("spec", "reason", "rule"),
    [
        (NO_DATA, NOT_ASKED, "volume data not asked for"),
        (NO_DATA, None, "volume data not asked for"),  # its PersistentVolume was filtered out as well
        ({"snapshotVolumes": False}, NOT_ASKED, "volume data not asked for"),
        ({}, BY_POLICY, "volume left out by choice"),
        ({}, "volumeSnapshot: matched action is 'skip' in chosen resource policies;", "volume left out by choice"),
        ({}, BY_LABEL, "volume left out by choice"),
        (FILES, OPTED_OUT + NOT_ASKED, "volume left out by choice"),
    ],
)
def test_a_volume_that_was_left_out_by_decision_is_explained(spec, reason, rule):
    builder = with_claim(**({"skipped": True, "skippedReason": reason} if reason else {}))
    builder.metadata["spec"] = spec
    report = verify(builder)
    assert report.ok
    assert rules(report) == [(rule, "shop/orders")]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, NO_SNAPSHOTTER),  # nobody decided: there was nobody to take the snapshot
        ({}, NOT_ASKED),
        ({}, OPTED_OUT + NO_SNAPSHOTTER),
        ({"snapshotVolumes": True}, NOT_ASKED),
        ({"snapshotVolumes": False, "defaultVolumesToFsBackup": True}, NOT_ASKED),
        ({"snapshotVolumes": "false"}, NOT_ASKED),
        ({"snapshotMoveData": True}, NO_SNAPSHOTTER),
        ({}, "any: no reason at all;"),
    ],
)
def test_a_volume_that_was_left_out_without_a_decision_is_found(spec, reason):
    builder = with_claim(skipped=True, skippedReason=reason)
    builder.metadata["spec"] = spec
    assert failed(verify(builder)) == ["volumes"]


@pytest.mark.parametrize(
    ("spec", "record", "ok"),
    [
        ({}, {"skipped": True, "skippedReason": NO_SNAPSHOTTER}, True),
        ({}, {"backupMethod": "CSISnapshot", "result": "failed"}, False),
        (FILES, {"skipped": True, "skippedReason": NOT_ASKED}, False),
    ],
)
def test_who_asked_for_no_volumes_may_say_so(spec, record, ok):
    builder = with_claim(**record)
    builder.metadata["spec"] = spec
    assert verify(builder, policy=BucketPolicy(skipped_volumes_ok=True)).ok == ok


def test_a_volume_that_failed_is_found_although_no_data_was_asked_for():
    builder = with_claim(backupMethod="PodVolumeBackup", result="failed")  # its pod asked for it by annotation
    builder.metadata["spec"] = NO_DATA
    assert failed(verify(builder)) == ["volumes"]


def test_a_claim_without_a_volume_is_explained():
    assert rules(verify(with_claim(volume=""))) == [("unbound claim", "shop/orders")]


def pod_volume(**status):
    spec = {"pod": {"namespace": "shop", "name": "web-1"}, "volume": "data", "uploaderType": "kopia"}
    usual = {"phase": "Completed", "snapshotID": "x", "progress": {"totalBytes": 10, "bytesDone": 10}}
    return {"spec": spec, "status": usual | status}


def test_pod_volume_backups_need_their_repository(builder):
    builder.documents[POD_VOLUMES] = [pod_volume()]
    report = verify(builder)
    assert told(report) == [
        ("repositories", "kopia/shop/kopia.repository", "the repository of these volumes is missing")
    ]
    assert verify(builder, builder.store(**{"kopia/shop/kopia.repository": b"x"})).ok


def test_moved_snapshots_need_their_repository():
    builder = with_claim(result="succeeded", snapshotDataMoved=True, snapshotDataMovementInfo={"uploaderType": "kopia"})
    assert failed(verify(builder)) == ["repositories"]


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        ({"phase": "Failed", "message": "disk on fire"}, "Failed disk on fire"),
        ({"phase": "InProgress"}, "InProgress"),
        ({"progress": {"totalBytes": 10, "bytesDone": 9}}, "9 of 10 bytes"),
        ({"snapshotID": ""}, "Completed, but without a snapshot"),
    ],
)
def test_a_pod_volume_backup_that_is_not_whole_is_found(builder, status, detail):
    builder.documents[POD_VOLUMES] = [pod_volume(**status)]
    assert ("pod volume backups", "shop/web-1:data", detail) in told(verify(builder))


@pytest.mark.parametrize("phase", ["Failed", "New", None])
def test_a_volume_snapshot_that_is_not_completed_is_found(builder, phase):
    good = {"spec": {"persistentVolumeName": "pv-1"}, "status": {"phase": "Completed"}}
    builder.documents[SNAPSHOTS] = [good]
    assert verify(builder).ok
    builder.documents[SNAPSHOTS] = [good | {"status": {"phase": phase}}]
    assert failed(verify(builder)) == ["volume snapshots"]


def test_an_operation_that_failed_is_found(builder):
    identifier = {"Resource": "persistentvolumeclaims", "Namespace": "shop", "Name": "orders"}
    status = {"phase": "Failed", "error": "timed out"}
    builder.documents[OPERATIONS] = [{"spec": {"resourceIdentifier": identifier}, "status": status}]
    assert told(verify(builder)) == [("item operations", "persistentvolumeclaims shop/orders", "Failed timed out")]


@pytest.mark.parametrize("key", [LIST, RESULTS, VOLUMES, POD_VOLUMES, SNAPSHOTS, OPERATIONS])
@pytest.mark.parametrize("document", ["text", 1, [1], {"errors": 1}, {"errors": {"velero": "x"}}, {"v1/Pod": {}}])
def test_documents_of_any_other_shape_are_findings_and_not_crashes(builder, key, document):
    builder.documents[key] = document
    assert not verify(builder).ok


@pytest.mark.parametrize("key", [LIST, RESULTS, VOLUMES, POD_VOLUMES, SNAPSHOTS, OPERATIONS])
@pytest.mark.parametrize(
    "data",
    [b"", b"{}", gzip.compress(b"", mtime=0), gzip.compress(b"{}", mtime=0)[:-1], gzip.compress(b"{}", mtime=0) + b"x"],
)
def test_documents_that_are_no_whole_gzip_files_are_found(builder, key, data):
    builder.raw[key] = data
    report = verify(builder)
    assert len(failed(report)) == 1
    assert report.findings[0].subject == key


# ---- the inventory ---------------------------------------------------------------------------------------


def inventory(*items):
    objects = {}
    for item in items:
        metadata = item["metadata"]
        group = item["apiVersion"].rpartition("/")[0]
        ref = ObjectRef(item["kind"], metadata.get("namespace", ""), metadata["name"], group)
        objects[ref] = json.dumps(item).encode()
    return Inventory(taken=NOW, server_version="v1.36.3", scope=Scope(), objects=objects)


def test_what_the_inventory_has_is_in_the_backup(builder):
    report = verify(builder, inventory=inventory(*(item for _, item in builder.objects)))
    assert report.ok
    assert "inventory" not in [check.name for check in report.unasked]


def test_an_object_of_the_inventory_that_is_not_in_the_backup_is_found(builder):
    report = verify(builder, inventory=inventory(thing("ConfigMap", "forgotten")))
    detail = "it was in the cluster, and is not in the backup"
    assert told(report) == [("inventory", "ConfigMap shop/forgotten", detail)]


def test_another_object_of_the_same_name_is_found(builder):
    item = thing("ConfigMap", "settings")
    item["metadata"]["uid"] = "an older one"
    assert failed(verify(builder, inventory=inventory(item))) == ["inventory"]


def test_an_object_that_its_owner_keeps_out_of_backups_is_explained(builder):
    item = thing("ConfigMap", "private")
    item["metadata"]["labels"] = {"velero.io/exclude-from-backup": "true"}
    assert rules(verify(builder, inventory=inventory(item))) == [("excluded by label", "ConfigMap shop/private")]


# ---- the store -------------------------------------------------------------------------------------------


def test_a_backup_that_is_not_there_is_an_error_that_names_those_which_are(builder):
    with pytest.raises(ObjectNotFoundError, match="no backup 'weekly'") as error:
        verify_backup(builder.store(), "weekly", now=NOW)
    assert error.value.hint == "there are nightly"
    with pytest.raises(ObjectNotFoundError) as error:
        verify_backup(MemoryStore(), "weekly", now=NOW)
    assert "opened at the location's prefix" in error.value.hint


@pytest.mark.parametrize("name", ["", "../x", "a/b", "UPPER", "a" * 300])
def test_a_name_that_no_backup_can_have_is_refused(name):
    with pytest.raises(ConfigError):
        verify_backup(MemoryStore(), name, now=NOW)


class BreakingStore(MemoryStore):
    """Breaks every stream after some bytes."""

    def get(self, key):
        del key
        raise StoreUnavailableError("the bucket does not answer")


def test_a_store_that_cannot_be_read_is_an_error_and_no_verdict(builder):
    store = BreakingStore()
    store._objects = builder.store()._objects
    with pytest.raises(StoreUnavailableError):
        verify(builder, store)


def test_an_answer_that_never_came_for_one_of_the_files_is_an_error_and_no_verdict(builder):
    store = builder.store()
    real, last = store.get, [info.key for info in store.list()][-1]

    def get(key):
        if key == last:
            raise StoreUnavailableError("503")
        return real(key)

    store.get = get
    with pytest.raises(StoreUnavailableError):
        verify(builder, store)


def test_a_file_whose_encrypted_bytes_are_cut_is_a_finding(builder):
    store = builder.store()
    real, contents = store.get, f"backups/{NAME}/{NAME}.tar.gz"

    def get(key):
        if key == contents:
            raise ObjectCorruptError("the encrypted bytes are cut")
        return real(key)

    store.get = get
    assert "the encrypted bytes are cut" in verify(builder, store).to_text()


def test_progress_ends_at_the_size_of_all_files(builder):
    seen = []
    verify(builder, progress=seen.append)
    assert seen[-1].finished
    assert [one.finished for one in seen].count(True) == 1
    assert all(one.done <= one.total for one in seen)


def test_every_rule_that_is_used_is_written_down():
    used = {
        "tolerated phase",
        "tolerated warning",
        "tolerated error",
        "tolerated finding",
        "volume without data",
        "volume data not asked for",
        "volume left out by choice",
        "unbound claim",
        "excluded by label",
        "added when operations ended",
        "errors of operations",
        "no log",
        "unknown file",
    }
    assert used == set(RULES)
