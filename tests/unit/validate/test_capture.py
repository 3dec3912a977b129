"""What belongs to an inventory, what is left out and under which rule, and what cannot be told."""

import tracemalloc

import pytest
from fake_client import KINDS, FakeClient, kind, thing

from clusterguard.errors import ClusterError, ClusterUnreachableError, ConflictError, ResourceNotFoundError
from clusterguard.model.inventory import Scope, canonical
from clusterguard.model.report import FindingKind
from clusterguard.validate import SYSTEM_KINDS, SYSTEM_RULES, RestoreValidator, Tolerance
from clusterguard.validate.capture import capture
from clusterguard.validate.rules import ETCD_RESTORE
from clusterguard.validate.system import kind_rule


def names(inventory):
    return sorted(str(ref) for ref in inventory.objects)


def validator(api):
    return RestoreValidator(api=api, digest_key=b"k")


def test_an_object_is_kept_in_no_more_memory_than_its_bytes():
    items = [thing("ConfigMap", f"object-{number}", data={"key": "x" * 500}) for number in range(200)]

    tracemalloc.start()
    try:
        kept = [canonical(item) for item in items]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < sum(map(len, kept)) * 1.3


def test_an_object_is_kept_as_canonical_json_without_managed_fields():
    api = FakeClient(thing("ConfigMap", "b", data={"z": "1", "a": "2"}, metadata={"managedFields": [{"manager": "x"}]}))
    [data] = capture(api, Scope()).objects.values()
    assert data == (
        b'{"apiVersion":"v1","data":{"a":"2","z":"1"},"kind":"ConfigMap","metadata":'
        b'{"name":"b","namespace":"shop","resourceVersion":"5","uid":"uid-b"}}'
    )


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (thing("ConfigMap", "kube-root-ca.crt"), "root certificates"),
        (thing("ConfigMap", "x", "kube-system"), "system namespaces"),
        (thing("Namespace", "kube-public", ""), "system namespaces"),
        (
            thing("Namespace", "default", "", metadata={"labels": {"kubernetes.io/metadata.name": "default"}}),
            "untouched default namespace",
        ),
        (thing("ServiceAccount", "default"), "untouched default service accounts"),
        (thing("Service", "kubernetes", "default"), "the API server's own Service"),
        (
            thing(
                "ClusterRole",
                "system:node",
                "",
                "rbac.authorization.k8s.io/v1",
                metadata={
                    "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                    "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
                },
            ),
            "bootstrap roles",
        ),
        (
            thing(
                "EndpointSlice",
                "web-1",
                api="discovery.k8s.io/v1",
                metadata={"labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
            ),
            "endpoints of Services",
        ),
        (
            thing("Pod", "p", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}),
            "mirrors of static pods",
        ),
        (
            thing("ConfigMap", "x", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            "already being deleted",
        ),
    ],
)
def test_system_owned_objects_are_left_out_by_name_of_the_rule(item, rule):
    inventory = capture(FakeClient(item), Scope())
    assert (names(inventory), dict(inventory.left_out)) == ([], {rule: 1})


@pytest.mark.parametrize(
    "item",
    [
        thing("ConfigMap", "kube-root-ca"),
        thing("Namespace", "shop", ""),
        thing(
            "Namespace",
            "default",
            "",
            metadata={"labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        ),
        thing("ServiceAccount", "default", imagePullSecrets=[{"name": "registry"}]),
        thing("ServiceAccount", "default", metadata={"annotations": {"eks.amazonaws.com/role-arn": "arn"}}),
        thing("Service", "kubernetes", "shop"),
        thing("ClusterRole", "shop", "", "rbac.authorization.k8s.io/v1"),
        thing("EndpointSlice", "by-hand", api="discovery.k8s.io/v1"),
    ],
)
def test_what_somebody_made_or_touched_is_not_system_owned(item):
    assert len(names(capture(FakeClient(item), Scope()))) == 1


def test_whole_kinds_are_left_out_by_name_of_the_rule_unless_named():
    api = FakeClient(thing("Node", "n", ""), thing("Event", "e"))
    inventory = capture(api, Scope())
    assert names(inventory) == []
    assert inventory.not_listed == {
        "Event": "events",
        "Lease.coordination.k8s.io": "leases",
        "Node": "nodes and their drivers",
        "PodMetrics.metrics.k8s.io": "computed kinds",
    }
    assert names(capture(api, Scope(kinds=("Node", "Event")))) == ["Event shop/e", "Node n"]


def test_every_rule_has_a_name_and_a_reason():
    assert all(rule.name and rule.reason for rule in (*SYSTEM_KINDS, *SYSTEM_RULES))
    assert kind_rule("Pod", frozenset({"create"})) is None


def test_namespaces_bring_their_namespace_objects_and_nothing_else_of_the_cluster():
    api = FakeClient(
        thing("ConfigMap", "a"),
        thing("ConfigMap", "b", "office"),
        thing("Namespace", "shop", ""),
        thing("Namespace", "office", ""),
        thing("ClusterRole", "mine", "", "rbac.authorization.k8s.io/v1"),
    )
    assert names(capture(api, Scope(namespaces=("shop",)))) == ["ConfigMap shop/a", "Namespace shop"]
    assert names(capture(api, Scope(namespaces=("sh*",)))) == ["ConfigMap shop/a", "Namespace shop"]
    both = capture(api, Scope(namespaces=("shop",), kinds=("ConfigMap", "clusterroles")))
    assert names(both) == ["ClusterRole.rbac.authorization.k8s.io mine", "ConfigMap shop/a"]


def test_few_namespaces_are_listed_one_by_one_so_that_rights_in_them_suffice():
    api = FakeClient(thing("ConfigMap", "a"))
    capture(api, Scope(namespaces=("shop", "office"), kinds=("ConfigMap",), selector="a=b"))
    assert set(api.requests) == {("ConfigMap", "shop", "a=b", ""), ("ConfigMap", "office", "a=b", "")}


def test_a_system_namespace_must_be_named_in_full():
    api = FakeClient(thing("ConfigMap", "a", "kube-system"), thing("ConfigMap", "kube-root-ca.crt", "kube-system"))
    assert names(capture(api, Scope(namespaces=("*",)))) == []
    assert names(capture(api, Scope(namespaces=("kube-system",)))) == ["ConfigMap kube-system/a"]


def test_excluded_kinds_are_not_even_listed():
    api = FakeClient(thing("ConfigMap", "a"), thing("Pod", "p"))
    assert names(capture(api, Scope(exclude=("ConfigMap",)))) == ["Pod shop/p"]
    assert not [request for request in api.requests if request[0] == "ConfigMap"]


@pytest.mark.parametrize("scope", [Scope(kinds=("Widget",)), Scope(exclude=("Widget",))])
def test_a_kind_that_the_cluster_does_not_have_is_an_error(scope):
    with pytest.raises(ResourceNotFoundError):
        capture(FakeClient(), scope)


def test_a_list_that_expired_is_taken_again_from_the_start():
    api = FakeClient(*(thing("ConfigMap", f"c{n}") for n in range(4)))
    api.failures["ConfigMap"] = [ConflictError("410"), ConflictError("410")]
    inventory = capture(api, Scope(kinds=("ConfigMap",)))
    assert len(inventory) == 4
    assert api.page_sizes == [500, 500, 0]


@pytest.mark.parametrize("error", [ClusterError("403 Forbidden"), ClusterUnreachableError("503"), ConflictError("410")])
def test_a_kind_that_cannot_be_listed_is_skipped_whole_with_the_reason(error):
    api = FakeClient(thing("Secret", "a"), thing("Secret", "b"), thing("ConfigMap", "c"))
    api.failures["Secret"] = [error] * 3
    inventory = capture(api, Scope(kinds=("Secret", "ConfigMap")))
    assert names(inventory) == ["ConfigMap shop/c"]
    assert inventory.skipped == {"Secret": error.message}


def test_a_server_that_is_gone_is_no_skipped_kind():
    api = FakeClient(thing("Secret", "a"))

    def gone():
        api.gone = True
        return ClusterUnreachableError("refused")

    class Failures(list):
        def pop(self, _):
            return gone()

    api.failures["Secret"] = Failures([1])
    with pytest.raises(ClusterUnreachableError):
        capture(api, Scope(kinds=("Secret",)))


# ---- validating ------------------------------------------------------------------------------------------


def test_an_untouched_cluster_has_no_findings():
    api = FakeClient(thing("ConfigMap", "a"), thing("Secret", "s"))
    report = validator(api).validate(validator(api).capture())
    assert report.ok
    assert report.compared == 2


def test_missing_changed_and_extra_are_told_apart():
    api = FakeClient(thing("ConfigMap", "a"), thing("ConfigMap", "b", data={"x": "1"}))
    inventory = validator(api).capture()
    api.items = [thing("ConfigMap", "b", data={"x": "2"}), thing("ConfigMap", "c")]
    report = validator(api).validate(inventory)
    assert [(finding.kind, finding.ref.name) for finding in report.findings] == [
        (FindingKind.MISSING, "a"),
        (FindingKind.CHANGED, "b"),
    ]
    assert [(finding.kind, finding.ref.name) for finding in report.tolerated] == [(FindingKind.EXTRA, "c")]


@pytest.mark.parametrize(("allowed", "ok"), [(0, False), (1, False), (2, True), (None, True)])
def test_more_findings_than_tolerated_all_count(allowed, ok):
    api = FakeClient(thing("ConfigMap", "a"), thing("ConfigMap", "b"), thing("ConfigMap", "c"))
    inventory = validator(api).capture()
    del api.items[:2]
    report = validator(api).validate(inventory, tolerate=Tolerance(missing=allowed))
    assert report.ok is ok
    assert len(report.findings) == (0 if ok else 2)


def test_extra_objects_count_when_asked_for():
    api = FakeClient(thing("ConfigMap", "a"))
    inventory = validator(api).capture()
    api.items.append(thing("ConfigMap", "b"))
    assert not validator(api).validate(inventory, tolerate=Tolerance(extra=0)).ok


@pytest.mark.parametrize("profile", ["etcd-restore", ETCD_RESTORE])
def test_identity_may_be_chosen_whether_the_profile_is_named_or_given(profile):
    api = FakeClient(thing("ConfigMap", "a"))
    inventory = validator(api).capture()
    api.items[0]["metadata"]["uid"] = "another"
    assert not validator(api).validate(inventory, profile=profile).ok
    assert validator(api).validate(inventory, profile=profile, identity="name").ok


def test_an_empty_scope_proves_nothing():
    assert not validator(FakeClient()).validate(validator(FakeClient()).capture()).ok


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kind_that_could_not_be_listed_is_unknown_and_not_missing(when):
    api = FakeClient(thing("Secret", "s"), thing("ConfigMap", "c"))
    forbidden = [ClusterError("403 Forbidden")]
    if when == "before":
        api.failures["Secret"] = forbidden
    inventory = validator(api).capture()
    if when == "after":
        api.failures["Secret"] = forbidden
    report = validator(api).validate(inventory, tolerate=Tolerance(missing=None, changed=None))
    assert [(finding.kind, str(finding.ref)) for finding in report.findings] == [(FindingKind.UNKNOWN, "Secret *")]
    assert "403" in report.findings[0].detail
    assert report.compared == 1


WIDGETS = (kind("Widget", "example.com", version="v2"), kind("Gadget", "example.com", version="v1"))


def test_an_api_that_does_not_answer_is_no_finding_where_nothing_of_it_could_be_compared():
    api = FakeClient(thing("ConfigMap", "c"), gaps=("metrics.k8s.io/v1beta1",))
    inventory = validator(api).capture()
    assert list(inventory.unanswered) == ["metrics.k8s.io/v1beta1"]
    report = validator(api).validate(inventory)
    assert report.ok
    assert report.suppressed_by_rule == {"API that does not answer": 1}
    scope = Scope(exclude=("*.metrics.k8s.io",))
    assert validator(api).validate(validator(api).capture(scope)).suppressed_by_rule == {}


@pytest.mark.parametrize("scope", [Scope(), Scope(kinds=("Widget", "Gadget"))], ids=["all", "named"])
def test_an_api_that_answered_at_capture_and_does_not_now_is_unknown_and_its_other_versions_are_compared(scope):
    items = [thing("Widget", "w", api="example.com/v2"), thing("Gadget", "g", api="example.com/v1")]
    api = FakeClient(*items, kinds=(*KINDS, *WIDGETS))
    inventory = validator(api).capture(scope)
    api.kinds, api.gaps, api.items = (*KINDS, WIDGETS[1]), ("example.com/v2",), []
    report = validator(api).validate(inventory)
    assert [(str(finding.kind), str(finding.ref)) for finding in report.findings] == [
        ("missing", "Gadget.example.com shop/g"),
        ("unknown", "Widget.example.com *"),
    ]


def test_a_kind_whose_captured_version_does_not_answer_is_not_compared_in_another_one():
    old = kind("Widget", "example.com", version="v1")
    api = FakeClient(thing("Widget", "w", api="example.com/v2"), kinds=(*KINDS, WIDGETS[0]))
    inventory = validator(api).capture()
    api.kinds, api.gaps = (*KINDS, old), ("example.com/v2",)
    report = validator(api).validate(inventory)
    assert [(str(finding.kind), str(finding.ref)) for finding in report.findings] == [
        ("unknown", "Widget.example.com *")
    ]


def test_an_api_that_did_not_answer_at_capture_and_has_objects_is_unknown():
    api = FakeClient(thing("ConfigMap", "c"), gaps=("example.com/v2",))
    inventory = validator(api).capture()
    api.kinds, api.gaps = (*KINDS, WIDGETS[0]), ()
    assert validator(api).validate(inventory).ok
    api.items.append(thing("Widget", "w", api="example.com/v2"))
    report = validator(api).validate(inventory)
    assert [(str(finding.kind), str(finding.ref)) for finding in report.findings] == [
        ("unknown", "Widget.example.com *")
    ]


def test_a_kind_that_is_gone_makes_its_objects_missing():
    widgets = kind("Widget", "example.com")
    api = FakeClient(thing("Widget", "w", api="example.com/v1"), kinds=(*KINDS, widgets))
    inventory = validator(api).capture(Scope(kinds=("Widget",)))
    api.kinds, api.items = KINDS, []
    report = validator(api).validate(inventory)
    assert [finding.kind for finding in report.findings] == [FindingKind.MISSING]


def test_an_account_that_lost_what_made_it_special_is_changed_and_not_missing():
    api = FakeClient(thing("ServiceAccount", "default", imagePullSecrets=[{"name": "registry"}]))
    inventory = validator(api).capture()
    api.items = [thing("ServiceAccount", "default")]
    assert [finding.kind for finding in validator(api).validate(inventory).findings] == [FindingKind.CHANGED]


def test_an_object_on_its_way_out_is_not_back():
    api = FakeClient(thing("ConfigMap", "a"))
    inventory = validator(api).capture()
    api.items[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    report = validator(api).validate(inventory)
    assert [change.path for change in report.findings[0].changes] == ["metadata.deletionTimestamp"]


def test_kinds_are_compared_in_the_version_they_were_captured_in():
    old, new = kind("Widget", "example.com", version="v1"), kind("Widget", "example.com", version="v2")
    api = FakeClient(thing("Widget", "w", api="example.com/v1"), kinds=(old,))
    inventory = validator(api).capture()
    api.kinds = (new, old)
    api.resources = lambda **_: (new,)
    seen = []
    listing = api.list_pages

    def watched(resource, *args, **kwargs):
        seen.append(resource.version)
        return listing(resource, *args, **kwargs)

    api.list_pages = watched
    validator(api).validate(inventory)
    assert seen == ["v1"]
