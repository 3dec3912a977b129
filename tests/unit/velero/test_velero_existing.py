"""What a restore met is compared by the rules before it is judged, and what it set going again is told."""

import copy
from datetime import UTC, datetime
from types import SimpleNamespace

import orjson
import pytest

from clusterguard.errors import ResourceNotFoundError
from clusterguard.model.inventory import ObjectRef, canonical
from clusterguard.velero.existing import Comparer
from clusterguard.velero.outcome import Rule

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DONE, FAILED = ({"type": name, "status": "True", "reason": "DeadlineExceeded"} for name in ("Complete", "Failed"))


class Api:
    """Objects of a cluster, by reference."""

    def __init__(self, *items):
        self.items = {ObjectRef.of(item): item for item in items}
        self.gets = self.lists = 0

    def resource(self, kind, *, api_version):
        return SimpleNamespace(kind=kind, group=api_version.rpartition("/")[0])

    def list(self, resource, namespace=None):
        self.lists += 1
        wanted = resource.kind, namespace or "", resource.group
        return [
            copy.deepcopy(item) for ref, item in self.items.items() if (ref.kind, ref.namespace, ref.group) == wanted
        ]

    def server_version(self):
        return "v1.36.3"

    def get(self, resource, name, namespace=None):
        self.gets += 1
        try:
            return copy.deepcopy(self.items[ObjectRef(resource.kind, namespace or "", name, resource.group)])
        except KeyError as error:
            raise ResourceNotFoundError(name) from error


def thing(kind="ConfigMap", name="settings", namespace="shop", api_version="v1", **fields):
    metadata = {"name": name, "uid": "old", "resourceVersion": "1", **fields.pop("metadata", {})}
    metadata |= {"namespace": namespace} if namespace else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def again(item, **fields):
    """Return an object as it is after it was made anew or written to."""
    made = copy.deepcopy(item) | fields
    made["metadata"] |= {"uid": "new", "resourceVersion": "9", "managedFields": [{"time": "2030-01-01T00:00:00Z"}]}
    return made


def comparer(*live, doubtful=(), created=(), names=None, **settings):
    api, wanted = Api(*live), {"doubtful": set(doubtful), "created": set(created)}
    return Comparer(api=api, started=NOW, names=names or {}, **wanted, **settings)


def stored(*items):
    return [(ObjectRef.of(item), canonical(copy.deepcopy(item), with_managers=True)) for item in items]


def existing(item, *live, **settings):
    ref = ObjectRef.of(item)
    looking = comparer(*live, doubtful=[ref], **settings)
    return looking.existing(looking.wanted(stored(item))).get(ref)


def test_an_object_that_differs_only_in_what_every_write_changes_is_the_same():
    item = thing(data={"a": "1"}, metadata={"managedFields": [{"time": "2029-01-01T00:00:00Z"}]})
    assert existing(item, again(item)).rule is Rule.EXISTS_SAME


def test_an_object_that_differs_is_told_with_its_fields():
    item = thing(data={"a": "1"})
    found = existing(item, again(item, data={"a": "2"}))
    assert found.rule is Rule.EXISTS_DIFFERENT
    assert 'data.a: "1" in the backup, "2" in the cluster' in found.detail


def test_a_secret_is_not_told_in_clear():
    item = thing("Secret", "login", data={"password": "aHVudGVyMg=="})
    found = existing(item, again(item, data={"password": "b3RoZXI="}))
    assert found.rule is Rule.EXISTS_DIFFERENT
    assert "aHVudGVyMg" not in found.detail
    assert "b3RoZXI" not in found.detail


BOOTSTRAP = {"kubernetes.io/bootstrapping": "rbac-defaults"}
MIRRORED = {"endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"}


def role(manager):
    metadata = {
        "labels": BOOTSTRAP,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "managedFields": [{"manager": manager}],
    }
    return thing("ClusterRole", "view", "", "rbac.authorization.k8s.io/v1", metadata=metadata)


@pytest.mark.parametrize(
    "item",
    [
        role("kube-apiserver"),
        thing("CustomResourceDefinition", "backups.velero.io", "", "apiextensions.k8s.io/v1", spec={"group": "a"}),
        thing("Service", "kubernetes", "default", spec={}),
        thing("Lease", "kube-scheduler", "kube-system", "coordination.k8s.io/v1"),
        thing("EndpointSlice", "ext-x", "shop", "discovery.k8s.io/v1", metadata={"labels": MIRRORED}),
    ],
)
def test_what_the_cluster_makes_by_itself_is_system_owned_whether_it_is_there_or_not(item):
    assert existing(item, again(item, spec={"changed": True})).rule is Rule.SYSTEM_OWNED
    assert existing(item).rule is Rule.SYSTEM_OWNED


def test_a_bootstrap_role_that_somebody_changed_is_compared():
    item = role("kubectl-edit")
    assert existing(item, again(item, rules=[])).rule is Rule.EXISTS_DIFFERENT


@pytest.mark.parametrize(
    ("version", "rule"),
    [("v1.35.0", Rule.EXISTS_SAME), ("v1.36.3", Rule.EXISTS_DIFFERENT), ("", Rule.EXISTS_DIFFERENT)],
)
def test_what_another_kubernetes_keeps_in_a_bootstrap_role_is_no_difference(version, rule):
    item = role("kubectl-edit") | {"rules": [{"verbs": ["get"]}]}
    live = again(item, rules=[{"verbs": ["get", "list"]}])
    assert existing(item, live, source_version=version).rule is rule


def test_a_definition_that_is_not_veleros_own_is_compared():
    item = thing("CustomResourceDefinition", "things.example.com", "", "apiextensions.k8s.io/v1", spec={"group": "a"})
    assert existing(item, again(item)).rule is Rule.EXISTS_SAME
    assert existing(item, again(item, spec={"group": "b"})).rule is Rule.EXISTS_DIFFERENT


def test_of_an_object_that_is_gone_since_velero_has_the_last_word():
    assert existing(thing()) is None


def test_a_running_pod_that_could_not_be_patched_is_the_same():
    spec = {"containers": [{"name": "web", "image": "web:1"}], "nodeName": "one"}
    item = thing("Pod", "web", spec=spec, status={"phase": "Running"})
    assert existing(item, again(item)).rule is Rule.EXISTS_SAME
    other = copy.deepcopy(spec)
    other["containers"][0]["image"] = "web:2"
    assert existing(item, again(item, spec=other)).rule is Rule.EXISTS_DIFFERENT


def test_many_objects_of_a_kind_are_read_by_one_list():
    items = [thing(name=f"settings-{number}", data={"a": str(number)}) for number in range(20)]
    looking = comparer(*map(again, items), again(thing(name="other")), doubtful=map(ObjectRef.of, items))
    found = looking.existing(looking.wanted(stored(*items)))
    assert {each.rule for each in found.values()} == {Rule.EXISTS_SAME}
    assert len(found) == len(items)
    assert (looking.api.gets, looking.api.lists) == (0, 1)


def test_objects_are_found_under_the_new_names_of_their_namespaces():
    item = thing(data={"a": "1"})
    moved = again(thing(namespace="copy", data={"a": "1"}))
    ref = ObjectRef.of(moved)
    looking = comparer(moved, doubtful=[ref], names={"shop": "copy"})
    found = looking.existing(looking.wanted(stored(item)))
    assert {ref: each.rule for ref, each in found.items()} == {ref: Rule.EXISTS_SAME}


# ---- what runs again -------------------------------------------------------------------------------------


def job(name="report", *, owner="", suspend=False, conditions=(), **status):
    owners = [{"kind": "CronJob", "name": owner, "controller": True}] if owner else []
    metadata = {"ownerReferences": owners} if owners else {}
    return thing(
        "Job",
        name,
        api_version="batch/v1",
        metadata=metadata,
        spec={"suspend": suspend},
        status={"conditions": list(conditions), **status},
    )


def pod_of(owner="report", name="report-abcde"):
    return thing("Pod", name, metadata={"ownerReferences": [{"kind": "Job", "name": owner, "controller": True}]})


def restored(item):
    made = again(item, status={})
    made["metadata"].pop("ownerReferences", None)
    return made


def run_again(*items, kept=False, created=None):
    live = [again(item) if kept else restored(item) for item in items]
    refs = [ObjectRef.of(item) for item in items] if created is None else created
    looking = comparer(*live, created=refs)
    assert looking.needed == any(ref.kind == "Job" for ref in refs)
    return [each.rule for each in looking.jobs(looking.wanted(stored(*items)))]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([job(conditions=[FAILED])], [Rule.JOB_RUNS_AGAIN]),
        ([job(conditions=[FAILED], suspend=True)], []),
        ([job(active=1), pod_of()], [Rule.JOB_RUNS_TWICE]),
        ([job(active=1), pod_of("other", "other-abcde")], []),
        ([job(active=1, suspend=True), pod_of()], []),
        ([job(active=1)], []),
        ([job(owner="nightly", active=1)], [Rule.JOB_WITHOUT_OWNER]),
        ([job(owner="nightly", conditions=[FAILED])], [Rule.JOB_WITHOUT_OWNER, Rule.JOB_RUNS_AGAIN]),
        ([pod_of()], []),
    ],
)
def test_what_a_restored_job_does_once_more_has_a_name(items, expected):
    assert run_again(*items) == expected


def test_a_job_that_was_not_created_does_not_run_again():
    assert run_again(job(conditions=[FAILED], owner="nightly"), created=[ObjectRef.of(thing())]) == []


def test_a_job_whose_owner_adopted_it_again_is_no_finding():
    assert run_again(job(owner="nightly", active=1), kept=True) == []


def test_only_what_matters_of_a_backup_is_kept_in_memory():
    looking = comparer(doubtful=[ObjectRef.of(thing())])
    found = looking.wanted(stored(thing(), thing(name="other"), job(), pod_of()))
    assert {ref.name: orjson.loads(data)["kind"] for ref, data in found.items()} == {"settings": "ConfigMap"}
