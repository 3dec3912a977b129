"""What a defect does to an object, and which objects get one."""

import base64
import copy
from pathlib import Path

import pytest

from clusterguard.drills.defects.attempts import LATER_STATE, MEMBER_CHANGED, PREVIOUS_BACKUP
from clusterguard.drills.defects.catalogue import OBJECT_DEFECTS, changed_field
from clusterguard.drills.defects.choosing import choose
from clusterguard.drills.defects.volumes import BYTE_CHANGED, VOLUME_EMPTIED
from clusterguard.model.inventory import ObjectRef

BY_NAME = {each.name: each for each in OBJECT_DEFECTS}
RBAC = "rbac.authorization.k8s.io/v1"


def item(api_version, kind, name="web", **more):
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **more}


def pods(image="registry.example:5000/web:1", **container):
    return {"containers": [{"name": "web", "image": image, **container}]}


def secret(value):
    return item("v1", "Secret", data={"password": base64.b64encode(value).decode()})


LABELLED = item("v1", "ConfigMap")
LABELLED["metadata"]["labels"] = {"app": "web", "velero.io/restore-name": "r"}
ANNOTATED = item("v1", "ConfigMap")
ANNOTATED["metadata"]["annotations"] = {"owner": "me", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
# The cluster writes these, and a restore by Velero has it write them anew: no check could tell that one was dropped.
CLAIMED = item("v1", "PersistentVolumeClaim")
CLAIMED["metadata"]["annotations"] = {
    "backup": "daily",
    "pv.kubernetes.io/bind-completed": "yes",
    "volume.beta.kubernetes.io/storage-provisioner": "ebs.csi.aws.com",
    "volume.kubernetes.io/selected-node": "worker-1",
    "volume.kubernetes.io/storage-provisioner": "ebs.csi.aws.com",
}
NOTED = item("v1", "Pod")
NOTED["metadata"]["annotations"] = {"note": "kept", "owner": "me"}
SCHEMA = {"properties": {"metadata": {"properties": {"name": {}}}, "spec": {"properties": {"a": {}, "b": {}}}}}

# The defect, an object, the first field that differs with it, and what is there then.
CASES = [
    ("label-dropped", LABELLED, "metadata.labels.app", None),
    ("annotation-dropped", ANNOTATED, "metadata.annotations.owner", None),
    ("annotation-dropped", CLAIMED, "metadata.annotations.backup", None),
    ("annotation-dropped", NOTED, "metadata.annotations.owner", None),
    ("secret-changed", secret(b"ab"), "data.password", base64.b64encode(b"ac").decode()),
    ("config-cut", item("v1", "ConfigMap", data={"a": "1", "b": "1234"}), "data.b", "12"),
    (
        "image-changed",
        item("apps/v1", "Deployment", spec={"template": {"spec": pods()}}),
        "spec.template.spec.containers[0].image",
        "registry.example:5000/web:clusterguard-other",
    ),
    (
        "image-changed",
        item("v1", "Pod", spec=pods("web@sha256:0")),
        "spec.containers[0].image",
        "web:clusterguard-other",
    ),
    (
        "image-changed",
        item("batch/v1", "CronJob", spec={"jobTemplate": {"spec": {"template": {"spec": pods()}}}}),
        "spec.jobTemplate.spec.template.spec.containers[0].image",
        "registry.example:5000/web:clusterguard-other",
    ),
    (
        "limit-changed",
        item("v1", "Pod", spec=pods(resources={"requests": {"cpu": "1"}})),
        "spec.containers[0].resources.requests.cpu",
        "2",
    ),
    ("replicas-changed", item("apps/v1", "Deployment", spec={"replicas": 3}), "spec.replicas", 2),
    ("replicas-changed", item("apps/v1", "StatefulSet", spec={"replicas": 1}), "spec.replicas", 2),
    ("selector-changed", item("v1", "Service", spec={"selector": {"app": "web"}}), "spec.selector.app", "web-other"),
    ("port-changed", item("v1", "Service", spec={"ports": [{"port": 80}]}), "spec.ports[0].port", 81),
    ("port-changed", item("v1", "Service", spec={"ports": [{"port": 65535}]}), "spec.ports[0].port", 65534),
    ("network-opened", item("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}}), "spec.ingress", [{}]),
    (
        "network-opened",
        item("networking.k8s.io/v1", "NetworkPolicy", spec={"policyTypes": ["Egress"], "egress": []}),
        "spec.egress",
        [{}],
    ),
    ("rule-widened", item(RBAC, "Role", rules=[{"verbs": ["get"]}]), "rules[0].verbs", ["*"]),
    (
        "rule-widened",
        item(RBAC, "ClusterRole", rules=[{"verbs": ["*"], "resources": ["pods"]}]),
        "rules[0].resources",
        ["*"],
    ),
    ("subject-changed", item(RBAC, "RoleBinding", subjects=[{"name": "me"}]), "subjects[0].name", "me-other"),
    (
        "definition-older",
        item(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            spec={"versions": [{"schema": {"openAPIV3Schema": SCHEMA}}]},
        ),
        "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.b",
        None,
    ),
    ("field-changed", item("shop.example/v1", "Menu", spec={"dishes": ["soup"]}), "spec.dishes", []),
    ("field-changed", item("shop.example/v1", "Menu", spec={"inner": {"name": "a"}}), "spec.inner.name", "a-other"),
    (
        "field-changed",
        item("autoscaling/v2", "HorizontalPodAutoscaler", spec={"maxReplicas": 3}),
        "spec.maxReplicas",
        4,
    ),
    ("field-changed", item("batch/v1", "Lease", spec={"on": True}), "spec.on", False),
]


def at(value, path):
    for part in path.replace("[", ".").replace("]", "").split("."):
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value


@pytest.mark.parametrize(("name", "before", "field", "then"), CASES)
def test_a_defect_changes_one_field_of_a_copy(name, before, field, then):
    untouched = copy.deepcopy(before)
    after = BY_NAME[name].put_into(before)
    assert before == untouched
    assert (changed_field(before, after), at(after, field)) == (field, then)


@pytest.mark.parametrize("name", [each.name for each in OBJECT_DEFECTS if not each.removes])
def test_every_defect_has_a_case(name):
    assert name in {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("label-dropped", item("v1", "Namespace")),
        ("secret-changed", secret(b"")),
        ("config-cut", item("v1", "ConfigMap", data={"a": ""})),
        ("config-cut", item("v1", "ConfigMap")),
        ("image-changed", item("v1", "Pod", spec={})),
        ("limit-changed", item("v1", "Pod", spec=pods())),
        ("replicas-changed", item("apps/v1", "Deployment", spec={})),
        ("selector-changed", item("v1", "Service", spec={"externalName": "x"})),
        ("port-changed", item("v1", "Service", spec={})),
        ("network-opened", item("networking.k8s.io/v1", "NetworkPolicy", spec={"ingress": [{}]})),
        ("rule-widened", item(RBAC, "Role", rules=[{"verbs": ["*"], "resources": ["*"]}])),
        ("subject-changed", item(RBAC, "RoleBinding")),
        # A quantity or a name of a built-in kind: another text might not be readable at all.
        ("field-changed", item("v1", "PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"], "class": "a"})),
    ],
)
def test_where_there_is_nothing_to_change_there_is_no_defect(name, before):
    assert BY_NAME[name].put_into(before) is None


def test_what_a_controller_counts_by_is_no_annotation_that_somebody_could_miss():
    agent = item("apps/v1", "DaemonSet")
    agent["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "1"}
    assert not BY_NAME["annotation-dropped"].fits("DaemonSet.apps", agent)
    agent["metadata"]["annotations"]["a"] = "b"
    changed = BY_NAME["annotation-dropped"].put_into(agent)
    assert set(changed["metadata"]["annotations"]) == {"deprecated.daemonset.template.generation"}


def test_a_label_that_every_namespace_has_cannot_be_dropped():
    namespace = item("v1", "Namespace")
    namespace["metadata"]["labels"] = {"kubernetes.io/metadata.name": "shop"}
    assert not BY_NAME["label-dropped"].fits("Namespace", namespace)


# ---- which objects ------------------------------------------------------------------------------------------


def chosen(*items, owned_too=False):
    objects = {ObjectRef.of(each): each for each in items}
    return [(defect.name, ref.name) for defect, ref in choose(objects, owned_too=owned_too)]


def test_each_defect_is_tried_once_for_each_kind_and_objects_take_turns():
    some = [item("v1", "ConfigMap", name, data={"a": "1"}) for name in "abc"] + [secret(b"x")]
    assert chosen(*some) == [
        ("object-left-out", "a"),
        ("object-left-out", "web"),
        ("secret-changed", "web"),
        ("config-cut", "b"),
    ]


def test_thousands_of_objects_are_no_more_work_than_a_few():
    many = [item("v1", "ConfigMap", f"number-{n}", data={"a": "1"}) for n in range(5000)]
    assert len(chosen(*many)) == 2


def test_what_a_controller_makes_again_is_only_missed_where_the_very_same_object_must_be_back():
    pod = item("v1", "Pod", spec=pods())
    pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": "1"}]
    assert chosen(pod) == []
    assert chosen(pod, owned_too=True) == [("object-left-out", "web")]


# ---- the documentation --------------------------------------------------------------------------------------


def test_the_documentation_lists_every_defect():
    page = (Path(__file__).parents[3] / "docs/reference/defects.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| `")]
    written = {name.strip("`"): (words, kinds) for name, words, kinds in rows}
    for defect in OBJECT_DEFECTS:
        kinds = ", ".join(kind.partition(".")[0] for kind in defect.kinds)
        kinds = kinds or ("every other kind" if defect.not_kinds else "every kind")
        assert written.pop(defect.name) == (defect.words, kinds)
    assert written.keys() == {PREVIOUS_BACKUP, LATER_STATE, MEMBER_CHANGED, BYTE_CHANGED, VOLUME_EMPTIED}
