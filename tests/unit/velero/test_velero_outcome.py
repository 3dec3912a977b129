"""What a run came to is decided from evidence: each way of failing quietly has a finding of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import BackupFailedError, RestoreFailedError, VeleroError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.outcome import (
    Message,
    OutcomeFinding,
    RestoredItem,
    Rule,
    doubtful,
    judge_backup,
    judge_restore,
    parse_resource_list,
    parse_results,
)
from clusterguard.velero.phases import BackupPhase, RestorePhase
from clusterguard.velero.resources import Backup, DataDownload, PodVolumeRestore, Restore

DIFFERENT = (
    "could not restore, {} already exists. Warning: the in-cluster version is different than the backed-up version"
)


def backup(phase="Completed", *, done=3, total=3, **status):
    progress = {"itemsBackedUp": done, "totalItems": total}
    return Backup.model_validate(
        {"metadata": {"name": "b"}, "status": {"phase": phase, "progress": progress, **status}}
    )


def restore(phase="Completed", *, done=3, total=3, **status):
    progress = {"itemsRestored": done, "totalItems": total}
    return Restore.model_validate(
        {"metadata": {"name": "r"}, "status": {"phase": phase, "progress": progress, **status}}
    )


def item(action="created", name="web", kind="ConfigMap", namespace="shop"):
    return RestoredItem(ref=ObjectRef(kind=kind, namespace=namespace, name=name), action=action)


def warning(text, namespace="shop"):
    return Message(severity="warning", namespace=namespace, text=text)


def rules(outcome):
    return [finding.rule for finding in outcome.findings]


# ---- phases ----------------------------------------------------------------------------------------------


def test_a_clean_backup_and_a_clean_restore_have_no_findings():
    assert judge_backup(backup()).ok
    assert judge_restore(restore(), items=[item()]).ok


@given(phase=st.sampled_from(list(BackupPhase)) | st.text(max_size=8))
def test_only_a_completed_backup_can_be_fine(phase):
    assert judge_backup(backup(phase)).ok == (phase == "Completed")


@given(phase=st.sampled_from(list(RestorePhase)) | st.text(max_size=8))
def test_only_a_completed_restore_can_be_fine(phase):
    assert judge_restore(restore(phase), items=[item()]).ok == (phase == "Completed")


@pytest.mark.parametrize(
    ("phase", "rule"),
    [
        ("PartiallyFailed", Rule.PARTIALLY_FAILED),
        ("Failed", Rule.FAILED),
        ("FailedValidation", Rule.FAILED),
        ("InProgress", Rule.NOT_FINAL),
        ("Deleting", Rule.NOT_FINAL),
        ("Shining", Rule.UNKNOWN_PHASE),
    ],
)
def test_phases_have_their_findings(phase, rule):
    assert rules(judge_backup(backup(phase))) == [rule]


def test_the_reason_of_a_failure_is_told():
    outcome = judge_backup(backup("Failed", failureReason="the server restarted"))
    with pytest.raises(BackupFailedError, match="the server restarted") as caught:
        outcome.raise_for_findings()
    assert caught.value.phase == "Failed"
    assert "logs b" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        "backup can't be created because BackupStorageLocation default is in Unavailable status.",
        "The BSL default is unavailable, cannot retrieve the backup",
    ],
)
def test_an_unavailable_location_is_recognised(error):
    assert rules(judge_backup(backup("FailedValidation", validationErrors=[error]))) == [Rule.LOCATION_UNAVAILABLE]
    assert rules(judge_restore(restore("FailedValidation", validationErrors=[error]))) == [Rule.LOCATION_UNAVAILABLE]


def test_other_refusals_are_told_each():
    outcome = judge_backup(backup("FailedValidation", validationErrors=["one", "two"]))
    assert [(each.rule, each.detail) for each in outcome.findings] == [
        (Rule.VALIDATION, "one"),
        (Rule.VALIDATION, "two"),
    ]


# ---- messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worded", ["ConfigMap:web", 'ConfigMap "web"'])
def test_an_object_that_exists_and_differs_is_named(worded):
    outcome = judge_restore(restore(warnings=1), messages=[warning(DIFFERENT.format(worded))], items=[item()])
    assert [(each.rule, each.ref) for each in outcome.findings] == [
        (Rule.EXISTS_DIFFERENT, ObjectRef(kind="ConfigMap", namespace="shop", name="web"))
    ]


def test_the_certificate_that_every_namespace_has_is_tolerated_by_name():
    message = warning(DIFFERENT.format("ConfigMap:kube-root-ca.crt"))
    failed = item("failed", "kube-root-ca.crt")
    outcome = judge_restore(restore(warnings=1), messages=[message], items=[item(), failed])
    assert outcome.ok
    assert [each.rule for each in outcome.tolerated] == [Rule.ROOT_CA_EXISTS]
    assert "kube-root-ca.crt" in outcome.to_text()
    assert not judge_restore(restore(warnings=1), messages=[message], items=[item()], tolerate=frozenset()).ok


def test_a_secret_of_that_name_is_not_tolerated():
    message = warning(DIFFERENT.format("Secret:kube-root-ca.crt"))
    assert rules(judge_restore(restore(warnings=1), messages=[message], items=[item()])) == [Rule.EXISTS_DIFFERENT]


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("error restoring pods/shop/web: no", ObjectRef(kind="pods", namespace="shop", name="web")),
        (
            "error restoring clusterroles.rbac.authorization.k8s.io/reader: no",
            ObjectRef(kind="clusterroles", namespace="", name="reader", group="rbac.authorization.k8s.io"),
        ),
    ],
)
def test_the_object_of_an_error_is_named(text, ref):
    message = Message(severity="error", namespace=ref.namespace, text=text)
    outcome = judge_restore(restore("PartiallyFailed", errors=1), messages=[message], items=[item()])
    assert [(each.rule, each.ref) for each in outcome.findings][1:] == [(Rule.ERROR, ref)]


def test_an_object_that_an_error_names_by_its_resource_is_told_once():
    failed = RestoredItem(ref=ObjectRef(kind="ConfigMap", namespace="shop", name="web"), action="failed")
    text = "error restoring configmaps/shop/web: admission webhook denied the request"
    message = Message(severity="error", namespace="shop", text=text)
    outcome = judge_restore(restore("PartiallyFailed", errors=1), messages=[message], items=[item(), failed])
    assert [(each.rule, each.ref) for each in outcome.findings][1:] == [(Rule.ERROR, failed.ref)]


def test_a_missing_deployment_of_the_server_has_its_name():
    text = 'error getting restic restore helper: deployments.apps "velero" not found'
    message = Message(severity="error", namespace="shop", text=text)
    outcome = judge_restore(restore("PartiallyFailed", errors=1), messages=[message], items=[item()])
    assert Rule.SERVER_NOT_DEPLOYED in rules(outcome)


def test_messages_that_are_counted_but_not_told_are_missed():
    outcome = judge_backup(backup(warnings=2), messages=[warning("one")])
    assert rules(outcome) == [Rule.WARNING, Rule.WARNING]
    assert "1 more warning" in outcome.findings[1].detail


def test_a_results_file_is_read_errors_first():
    document = {
        "warnings": {"namespaces": {"b": ["w2"], "a": ["w1"]}},
        "errors": {"velero": ["e1"], "cluster": ["e2"], "namespaces": {"a": ["e3"]}},
    }
    assert [(each.severity, each.namespace, each.text) for each in parse_results(document)] == [
        ("error", "", "e1"),
        ("error", "", "e2"),
        ("error", "a", "e3"),
        ("warning", "a", "w1"),
        ("warning", "b", "w2"),
    ]
    assert parse_results({"errors": {}, "warnings": {}}) == ()
    assert parse_results([])[0].severity == "error"


EMPTY_SELECTOR = " message: /Error listing resources error: /found '<', expected: !, identifier, or 'end of string'"
API_DOWN = (
    " message: /Failed to discover group: metrics.k8s.io/v1beta1"
    " error: /stale GroupVersion discovery: metrics.k8s.io/v1beta1"
)


def test_ninety_equal_lines_are_one_finding_with_a_count():
    messages = [Message(severity="error", namespace="", text=EMPTY_SELECTOR)] * 86
    outcome = judge_backup(backup("PartiallyFailed", errors=86), messages=messages)
    assert [(each.rule, each.count) for each in outcome.findings] == [(Rule.PARTIALLY_FAILED, 1), (Rule.ERROR, 86)]
    assert outcome.to_dict()["findings"][1]["count"] == 86
    assert "86 times" in outcome.to_text()


def test_what_is_said_of_many_namespaces_is_one_finding_that_names_some():
    messages = [warning("quota exceeded", namespace=f"team-{number}") for number in range(5)]
    [finding] = judge_restore(restore(warnings=5), messages=messages, items=[item()]).findings
    assert (finding.rule, finding.count) == (Rule.WARNING, 5)
    assert "team-0, team-1, team-2 and 2 more" in finding.detail


def test_what_is_said_of_many_kinds_is_one_finding_unless_it_names_an_object():
    said = " resource: /{} message: /Error listing items error: /found '<'"
    named = " resource: /{} name: /{} message: /Error getting item error: /timeout"
    messages = [warning(said.format(kind)) for kind in ("pods", "secrets", "events")]
    messages += [warning(named.format("pods", name)) for name in ("a", "b")]
    outcome = judge_backup(backup(warnings=5), messages=messages)
    assert [each.count for each in outcome.findings] == [3, 1, 1]


def test_an_object_of_the_same_name_in_another_namespace_is_another_one():
    messages = [warning(DIFFERENT.format("ConfigMap:web"), namespace=name) for name in ("a", "b")]
    outcome = judge_restore(restore(warnings=2), messages=messages, items=[item()])
    assert [(each.ref.namespace, each.count) for each in outcome.findings] == [("a", 1), ("b", 1)]


def test_an_api_that_is_down_is_one_finding_that_names_it():
    # Velero says so three times in each backup, whichever namespaces it is of.
    messages = [Message(severity="warning", namespace="", text=API_DOWN)] * 3
    [finding] = judge_backup(backup(warnings=3), messages=messages).findings
    assert (finding.rule, finding.count) == (Rule.API_UNAVAILABLE, 3)
    assert finding.ref == ObjectRef("APIService", "", "v1beta1.metrics.k8s.io", "apiregistration.k8s.io")


# What the API server says where policy ``update`` could not patch, and of what a controller has removed meanwhile.
NOT_PATCHED = [
    ('Pod "web" is invalid: spec: Forbidden: pod updates may not change fields', ("Pod", "web", "")),
    ('Job.batch "web" is invalid: [spec.template: field is immutable]', ("Job", "web", "batch")),
    ('endpointslices.discovery.k8s.io "web" not found', ("EndpointSlice", "web", "discovery.k8s.io")),
    (
        'Operation cannot be fulfilled on deployments.apps "web": the object has been modified',
        ("Deployment", "web", "apps"),
    ),
]


@pytest.mark.parametrize(("text", "named"), NOT_PATCHED)
def test_an_object_that_could_not_be_updated_is_named_once(text, named):
    kind, name, group = named
    ref = ObjectRef(kind, "shop", name, group)
    items = [item("created", "other"), RestoredItem(ref=ref, action="failed")]
    outcome = judge_restore(restore(warnings=1), messages=[warning(text)], items=items)
    assert [(each.rule, each.ref) for each in outcome.findings] == [(Rule.EXISTS_DIFFERENT, ref)]
    assert doubtful([warning(text)], items) == {ref}


def test_what_is_said_of_an_object_that_was_not_restored_stays_a_warning():
    outcome = judge_restore(restore(warnings=1), messages=[warning('Pod "db" is invalid: spec: no')], items=[item()])
    assert rules(outcome) == [Rule.WARNING]


def test_an_object_that_exists_has_the_group_that_the_list_says():
    ref = ObjectRef("Job", "shop", "web", "batch")
    items = [item(), RestoredItem(ref=ref, action="failed")]
    messages = [warning(DIFFERENT.format("Job:web"))]
    assert doubtful(messages, items) == {ref}
    outcome = judge_restore(restore(warnings=1), messages=messages, items=items)
    assert [(each.rule, each.ref) for each in outcome.findings] == [(Rule.EXISTS_DIFFERENT, ref)]


def test_a_comparison_has_the_last_word_on_what_exists():
    same, other = item("failed", "same").ref, item("failed", "other").ref
    messages = [warning(DIFFERENT.format(f"ConfigMap:{ref.name}")) for ref in (same, other)]
    items = [item(), item("failed", "same"), item("failed", "other")]
    compared = {
        same: OutcomeFinding(rule=Rule.EXISTS_SAME, detail="as it is in the backup", ref=same),
        other: OutcomeFinding(
            rule=Rule.EXISTS_DIFFERENT, detail="data.a: 1 in the backup, 2 in the cluster", ref=other
        ),
    }
    outcome = judge_restore(restore(warnings=2), messages=messages, items=items, existing=compared)
    assert outcome.findings == (compared[other],)
    assert outcome.tolerated == (compared[same],)
    strict = judge_restore(restore(warnings=2), messages=messages, items=items, existing=compared, tolerate=frozenset())
    assert strict.findings == (compared[other],), "there is nothing to tolerate in an object that is the same"


# ---- objects ---------------------------------------------------------------------------------------------


def test_a_resource_list_is_read():
    document = {
        "apps/v1/Deployment": ["shop/web(created)"],
        "v1/Namespace": ["shop(skipped)"],
        "rbac.authorization.k8s.io/v1/ClusterRole": ["system:odd(name)(failed)"],
        "v1/Pod": ["shop/plain"],
    }
    found = {(str(each.ref), each.action) for each in parse_resource_list(document)}
    assert found == {
        ("Deployment.apps shop/web", "created"),
        ("Namespace shop", "skipped"),
        ("ClusterRole.rbac.authorization.k8s.io system:odd(name)", "failed"),
        ("Pod shop/plain", ""),
    }
    assert parse_resource_list(None) == ()


def test_an_object_that_the_list_calls_failed_is_a_finding():
    outcome = judge_restore(restore(), items=[item(), item("failed", "db")])
    assert [(each.rule, each.ref.name) for each in outcome.findings] == [(Rule.ITEM_FAILED, "db")]


@pytest.mark.parametrize("items", [[item("skipped")], [item("skipped"), item("failed", "db")]])
def test_a_restore_that_created_and_updated_nothing_did_nothing(items):
    assert Rule.NOTHING_RESTORED in rules(judge_restore(restore(), items=items))


def test_one_update_is_something():
    assert judge_restore(restore(), items=[item("skipped"), item("updated", "db")]).ok


def test_a_restore_of_no_objects_did_nothing():
    assert rules(judge_restore(restore(done=0, total=0))) == [Rule.NOTHING_RESTORED]


def test_without_the_list_it_is_unknown_whether_anything_was_done():
    outcome = judge_restore(restore(), missing_evidence=["resource list of restore r: 404"])
    assert rules(outcome) == [Rule.EVIDENCE_MISSING]
    assert outcome.undecided
    with pytest.raises(VeleroError, match="404") as raised:
        outcome.raise_for_findings()
    assert not isinstance(raised.value, RestoreFailedError), "nothing says that it failed"


@pytest.mark.parametrize(
    ("judged", "known"),
    [
        (judge_restore(restore(), items=[item("failed", "db")], missing_evidence=["503"]), RestoreFailedError),
        (judge_backup(backup(done=2, total=3), missing_evidence=["503"]), BackupFailedError),
    ],
)
def test_what_is_known_to_be_wrong_is_not_hidden_by_what_could_not_be_read(judged, known):
    assert not judged.undecided
    with pytest.raises(known):
        judged.raise_for_findings()


def test_a_backup_whose_files_could_not_be_read_is_neither_good_nor_bad():
    judged = judge_backup(backup(), missing_evidence=["503"])
    assert (judged.ok, judged.undecided) == (False, True)
    with pytest.raises(VeleroError) as raised:
        judged.raise_for_findings()
    assert not isinstance(raised.value, BackupFailedError)


def test_a_backup_without_objects_is_a_finding():
    assert rules(judge_backup(backup(done=0, total=0))) == [Rule.NOTHING_BACKED_UP]


def test_a_completed_backup_that_lacks_objects_is_a_finding():
    assert rules(judge_backup(backup(done=2, total=3))) == [Rule.ITEMS_LEFT_OUT]


# ---- volumes, hooks, operations --------------------------------------------------------------------------


def volume(kind, phase, **status):
    spec = {"pod": {"namespace": "shop", "name": "db"}, "volume": "data"}
    return kind.model_validate({"spec": spec, "status": {"phase": phase, **status}})


@pytest.mark.parametrize("kind", [PodVolumeRestore, DataDownload])
@pytest.mark.parametrize("phase", ["", "New", "Accepted", "Prepared", "InProgress", "Canceling", "Shining"])
def test_a_restore_that_ended_before_its_volumes_did_is_noticed(kind, phase):
    outcome = judge_restore(restore(), items=[item()], volumes=[volume(kind, phase)])
    assert rules(outcome) == [Rule.VOLUME_UNFINISHED]
    assert "shop/db:data" in outcome.findings[0].detail


@pytest.mark.parametrize("phase", ["Failed", "Canceled"])
def test_a_failed_volume_is_told_with_its_reason(phase):
    volumes = [volume(PodVolumeRestore, phase, message="no space")]
    outcome = judge_restore(restore(), items=[item()], volumes=volumes)
    assert rules(outcome) == [Rule.VOLUME_FAILED]
    assert "no space" in outcome.findings[0].detail


def test_a_completed_volume_must_be_whole():
    half = volume(PodVolumeRestore, "Completed", progress={"totalBytes": 10, "bytesDone": 5})
    whole = volume(PodVolumeRestore, "Completed", progress={"totalBytes": 10, "bytesDone": 10})
    assert rules(judge_restore(restore(), items=[item()], volumes=[half])) == [Rule.VOLUME_UNFINISHED]
    assert judge_restore(restore(), items=[item()], volumes=[whole]).ok


def test_hooks_and_operations_that_failed_are_findings():
    status = {"hookStatus": {"hooksAttempted": 3, "hooksFailed": 1}, "backupItemOperationsFailed": 2}
    assert rules(judge_backup(backup(**status))) == [Rule.HOOK_FAILED, Rule.OPERATION_FAILED]


@pytest.mark.parametrize(
    ("namespaces", "mapping", "expected"),
    [
        (["shop"], {}, []),
        (["shop", "bank"], {}, [Rule.FILTER_MATCHES_NOTHING]),
        (["sh*", "bank-*"], {}, [Rule.FILTER_MATCHES_NOTHING]),
        (["*"], {}, []),
        (["old"], {"old": "shop"}, []),
        (["ol*"], {"old": "shop"}, []),
        (["old", "bank"], {"old": "shop"}, [Rule.FILTER_MATCHES_NOTHING]),
    ],
)
def test_a_namespace_of_which_nothing_was_restored_is_told(namespaces, mapping, expected):
    run = restore()
    spec = {"includedNamespaces": namespaces, "namespaceMapping": mapping}
    assert rules(judge_restore(Restore.model_validate({**run.manifest, "spec": spec}), items=[item()])) == expected


def test_many_tolerated_findings_of_a_rule_are_one_line_of_the_text():
    names = [f"web-{number}" for number in range(40)]
    messages = [warning(DIFFERENT.format(f"ConfigMap:{name}")) for name in names]
    tolerant = judge_restore(restore(warnings=40), messages=messages, items=[item()], tolerate={Rule.EXISTS_DIFFERENT})
    assert len(tolerant.to_dict()["tolerated"]) == 40
    assert tolerant.to_text().splitlines()[1:] == ["  tolerated: 40 exists-different"]


def test_an_outcome_is_data_and_text():
    outcome = judge_restore(restore(), items=[item("skipped"), item("failed", "db")])
    document = outcome.to_dict()
    assert document["actions"] == {"skipped": 1, "failed": 1}
    assert document["findings"][0]["object"] == {"kind": "ConfigMap", "namespace": "shop", "name": "db"}
    assert outcome.to_text().splitlines()[0] == "r: Completed, 1 item-failed, 1 nothing-restored"
