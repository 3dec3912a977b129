"""Comparing: every difference is found or explained, and none is told that is not there."""

import copy
import dataclasses
import json

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError
from clusterguard.model.inventory import ObjectRef, canonical
from clusterguard.model.report import FindingKind
from clusterguard.validate.compare import compare
from clusterguard.validate.paths import Element, format_path, parse_pattern
from clusterguard.validate.rules import (
    ETCD_RESTORE,
    FILLED_IN,
    OWNERS_LOST,
    PROFILES,
    SAME_CLUSTER,
    VELERO_RESTORE,
    profile_named,
)

KEY = b"a key for tests"


def make(kind="ConfigMap", name="settings", *, api="v1", namespace="shop", uid="u-1", version="10", **fields):
    metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version}
    metadata |= fields.pop("metadata", {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def objects(*items):
    return {ObjectRef.of(item): canonical(copy.deepcopy(item)) for item in items}


def findings(before, after, profile=ETCD_RESTORE):
    return compare(objects(*before), objects(*after), profile=profile, digest_key=KEY)


def changes(before, after, profile=ETCD_RESTORE):
    found = findings([before], [after], profile).findings
    return {change.path: (change.before, change.after) for finding in found for change in finding.changes}


def deployment(**spec):
    containers = [
        {
            "name": "web",
            "image": "busybox:1.37",
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        },
        {"name": "log", "image": "busybox:1.37"},
    ]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}
    return make(
        "Deployment",
        "web",
        api="apps/v1",
        spec={"replicas": 3, "template": template, **spec},
        status={"replicas": 3},
    )


# ---- laws ------------------------------------------------------------------------------------------------

words = st.text(alphabet="abcxyz-./_ é", min_size=1, max_size=8)
scalars = st.one_of(words, st.integers(-5, 5), st.booleans(), st.floats(-2, 2, allow_nan=False))
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(words, inner, max_size=4),
        st.lists(st.fixed_dictionaries({"name": words, "value": inner}), max_size=4),
    ),
    max_leaves=12,
)
specs = st.dictionaries(st.sampled_from(["containers", "env", "ports", "rules", "x", "y"]), json_values, max_size=4)
anything = st.builds(
    lambda name, kind, spec, namespace: make(kind, name, spec=spec, namespace=namespace),
    st.sampled_from("abcd"),
    st.sampled_from(["ConfigMap", "Secret", "Widget"]),
    specs,
    st.sampled_from(["shop", "office"]),
)
clusters = st.lists(anything, max_size=6)


@given(clusters, st.sampled_from(list(PROFILES.values())))
def test_nothing_differs_from_itself(items, profile):
    comparison = findings(items, items, profile)
    assert (comparison.findings, comparison.suppressed) == ((), ())


@given(clusters, clusters)
def test_what_is_missing_one_way_is_extra_the_other(before, after):
    def refs(comparison, kind):
        return [finding.ref for finding in comparison.findings if finding.kind is kind]

    there, back = findings(before, after), findings(after, before)
    assert refs(there, FindingKind.MISSING) == refs(back, FindingKind.EXTRA)
    assert refs(there, FindingKind.EXTRA) == refs(back, FindingKind.MISSING)
    assert refs(there, FindingKind.CHANGED) == refs(back, FindingKind.CHANGED)


@given(specs, specs)
def test_different_specs_are_always_found_with_a_change_that_differs(before, after):
    one, two = make("Widget", spec=before), make("Widget", spec=after)
    assume(canonical(copy.deepcopy(one)) != canonical(copy.deepcopy(two)))
    found = changes(one, two)
    assert found
    assert all(then != now for then, now in found.values())


@given(specs, st.data())
def test_one_mutated_field_is_always_found(spec, data):
    places = list(_leaves(spec, ()))
    assume(places)
    place = data.draw(st.sampled_from(places))
    mutated = copy.deepcopy(spec)
    holder = mutated
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = data.draw(scalars.filter(lambda value: orjson.dumps(value) != orjson.dumps(holder[place[-1]])))
    assert changes(make("Widget", spec=spec), make("Widget", spec=mutated))


def _leaves(value, path):
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in pairs:
        yield (*path, step)
        yield from _leaves(inner, (*path, step))


@given(anything)
def test_canonical_form_is_a_fixed_point(item):
    once = canonical(copy.deepcopy(item))
    assert canonical(orjson.loads(once)) == once


@given(st.lists(st.one_of(words, st.builds(Element, st.integers(0, 99).map(str))), min_size=1, max_size=5))
def test_a_path_as_written_is_a_pattern_that_covers_it(path):
    assume(not any(isinstance(step, str) and "*" in step for step in path))
    assert parse_pattern(format_path(tuple(path))).covers(tuple(path))


# ---- fields ----------------------------------------------------------------------------------------------


def test_true_is_not_one():
    assert changes(make(spec={"x": True}), make(spec={"x": 1})) == {"spec.x": ("true", "1")}


def test_containers_are_told_apart_by_name():
    after = deployment()
    after["spec"]["template"]["spec"]["containers"][1]["image"] = "busybox:1.36"
    path = "spec.template.spec.containers[name=log].image"
    assert changes(deployment(), after) == {path: ('"busybox:1.37"', '"busybox:1.36"')}


def test_a_container_that_is_gone_is_one_change_and_not_a_shift_of_all():
    after = deployment()
    del after["spec"]["template"]["spec"]["containers"][0]
    assert list(changes(deployment(), after)) == ["spec.template.spec.containers[name=web]"]


def test_order_of_containers_counts():
    after = deployment()
    after["spec"]["template"]["spec"]["containers"].reverse()
    assert changes(deployment(), after) == {
        "spec.template.spec.containers[order]": ('["name=web","name=log"]', '["name=log","name=web"]')
    }


def test_ports_are_told_apart_by_number_and_protocol():
    before = make("Service", "web", spec={"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]})
    after = copy.deepcopy(before)
    after["spec"]["ports"][1]["targetPort"] = 53
    assert list(changes(before, after)) == ["spec.ports[port=53,protocol=TCP].targetPort"]


def test_a_list_of_words_is_one_value():
    before, after = make(spec={"args": ["a", "b"]}), make(spec={"args": ["b", "a"]})
    assert changes(before, after) == {"spec.args": ('["a","b"]', '["b","a"]')}


def test_an_empty_map_is_not_nothing():
    assert changes(make(spec={"emptyDir": {}}), make(spec={})) == {"spec.emptyDir": ("{}", None)}


def test_keys_that_are_no_words_are_quoted():
    before = make(data={"app.properties": "a"})
    assert list(changes(before, make(data={"app.properties": "b"}))) == ['data["app.properties"]']


# ---- rules -----------------------------------------------------------------------------------------------


def test_a_resource_version_may_move_on_but_not_back():
    assert changes(make(version="10"), make(version="11")) == {}
    assert changes(make(version="10"), make(version="9")) == {"metadata.resourceVersion": ('"10"', '"9"')}


def test_status_is_explained_and_counted():
    after = deployment() | {"status": {"replicas": 1, "readyReplicas": 1}}
    comparison = findings([deployment()], [after])
    assert comparison.findings == ()
    assert [(item.rule, item.path) for item in comparison.suppressed] == [("status", "status")]


def test_an_etcd_restore_must_bring_back_the_very_same_objects():
    assert list(changes(make(uid="u-1"), make(uid="u-2"))) == ["metadata.uid"]
    assert changes(make(uid="u-1"), make(uid="u-2"), profile_named("etcd-restore", identity="name")) == {}


def test_a_copy_by_name_fails_when_the_profile_asks_for_the_uid():
    assert list(changes(make(uid="u-1"), make(uid="u-2"), profile_named("velero-restore", identity="uid"))) == [
        "metadata.uid"
    ]


def test_what_a_rule_covers_does_not_hide_what_came_with_it():
    before = make("Deployment", "web", api="apps/v1")
    after = make(
        "Deployment",
        "web",
        api="apps/v1",
        metadata={"annotations": {"deployment.kubernetes.io/revision": "1", "example.com/owner": "me"}},
    )
    assert changes(before, after, SAME_CLUSTER) == {'metadata.annotations["example.com/owner"]': (None, '"me"')}


def test_an_etcd_restore_has_no_excuse_for_an_annotation():
    after = make(
        "Deployment",
        "web",
        api="apps/v1",
        metadata={"annotations": {"deployment.kubernetes.io/revision": "2"}},
    )
    assert changes(make("Deployment", "web", api="apps/v1"), after)


@pytest.mark.parametrize(
    ("before", "after", "excused"),
    [
        ("10.0.0.1", "10.0.0.2", True),
        ("None", "10.0.0.2", False),
    ],
)
def test_a_headless_service_must_stay_headless(before, after, excused):
    one, two = (make("Service", "web", spec={"clusterIP": address}) for address in (before, after))
    assert (changes(one, two, VELERO_RESTORE) == {}) is excused
    assert changes(one, two, ETCD_RESTORE)


def test_a_pod_that_got_a_node_since_is_fine_but_one_that_moved_is_not():
    waiting, placed, moved = (make("Pod", "p", spec=spec) for spec in ({}, {"nodeName": "a"}, {"nodeName": "b"}))
    assert changes(waiting, placed) == {}
    assert changes(placed, moved)
    assert changes(placed, waiting)


def test_fields_the_drill_ignores_are_explained_under_that_name():
    profile = profile_named("etcd-restore", ignore=["ConfigMap:data.color"])
    comparison = findings([make(data={"color": "blue"})], [make(data={"color": "red"})], profile)
    assert comparison.findings == ()
    assert [item.rule for item in comparison.suppressed] == ["ignored by the drill"]
    assert changes(make("Widget", data={"color": "blue"}), make("Widget", data={"color": "red"}), profile)


@pytest.mark.parametrize("path", ["", "spec..x", "spec.", "spec[", 'spec["a]', "a]b"])
def test_what_is_not_a_path_is_refused(path):
    with pytest.raises(ConfigError, match="field path"):
        profile_named("etcd-restore", ignore=[path])


def test_an_unknown_profile_is_refused():
    with pytest.raises(ConfigError, match="no rule profile 'etc'"):
        profile_named("etc")


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("spec", ("spec", "replicas"), True),
        (".spec.replicas", ("spec", "replicas"), True),
        ("spec.replicas", ("spec",), False),
        ("spec.containers[*].image", ("spec", "containers", Element("name=web"), "image"), True),
        ("spec.containers[name=w*].image", ("spec", "containers", Element("name=web"), "image"), True),
        ("spec.containers[name=x*].image", ("spec", "containers", Element("name=web"), "image"), False),
        ("metadata.labels[example.com/a]", ("metadata", "labels", "example.com/a"), True),
        ("metadata.labels[example.com/*]", ("metadata", "labels", "example.com/a"), True),
        ('metadata.labels["a*"]', ("metadata", "labels", "ab"), False),
        ("metadata.*", ("metadata", "labels"), True),
    ],
)
def test_patterns(pattern, path, covered):
    assert parse_pattern(pattern).covers(path) is covered


# ---- autoscalers and pods --------------------------------------------------------------------------------


def autoscaler():
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return make("HorizontalPodAutoscaler", "web", api="autoscaling/v2", spec={"scaleTargetRef": target})


def test_replicas_that_an_autoscaler_chooses_are_explained():
    with_autoscaler = findings([deployment(), autoscaler()], [deployment(replicas=5), autoscaler()])
    assert with_autoscaler.findings == ()
    assert [item.rule for item in with_autoscaler.suppressed] == ["replicas chosen by an autoscaler"]
    assert changes(deployment(), deployment(replicas=5)) == {"spec.replicas": ("3", "5")}


def pod(name, owner="web-5d8", kind="ReplicaSet", namespace="shop"):
    owners = [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "o", "controller": True}]
    return make("Pod", name, namespace=namespace, metadata={"ownerReferences": owners})


def kinds(comparison):
    return sorted((str(finding.kind), finding.ref.name) for finding in comparison.findings)


def test_an_etcd_restore_must_bring_pods_back_by_name():
    assert kinds(findings([pod("web-a")], [pod("web-b")])) == [("extra", "web-b"), ("missing", "web-a")]


def test_elsewhere_another_pod_of_the_same_controller_will_do():
    comparison = findings([pod("web-a"), pod("web-b")], [pod("web-c")], SAME_CLUSTER)
    assert kinds(comparison) == [("missing", "web-b")]
    assert [item.rule for item in comparison.suppressed] == ["pod replaced by its controller"]


@pytest.mark.parametrize(
    "other",
    [
        pod("web-b", owner="shop-1"),
        pod("web-b", kind="Job"),
        pod("web-b", namespace="office"),
        make("Pod", "web-b"),
    ],
)
def test_a_pod_of_another_controller_is_no_replacement(other):
    assert ("missing", "web-a") in kinds(findings([pod("web-a")], [other], SAME_CLUSTER))


def test_a_pod_of_a_stateful_set_must_be_back_under_its_name():
    before, after = pod("db-0", owner="db", kind="StatefulSet"), pod("db-1", owner="db", kind="StatefulSet")
    assert ("missing", "db-0") in kinds(findings([before], [after], SAME_CLUSTER))


# ---- secrets ---------------------------------------------------------------------------------------------


def test_values_of_secrets_are_never_told():
    applied = json.dumps({"stringData": {"password": "hunter2"}})
    before = make("Secret", "db", data={"password": "aHVudGVyMg=="}, stringData={"password": "hunter2"})
    after = make(
        "Secret",
        "db",
        data={"password": "aHVudGVyMw==", "other": "aHVudGVyMg=="},
        metadata={"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        extra={"nested": ["hunter2"]},
    )
    comparison = findings([before], [after])
    told = repr(comparison)
    assert "hunter" not in told
    assert "aHVudGVy" not in told
    assert {change.path for change in comparison.findings[0].changes} == {
        "data.other",
        "data.password",
        "extra",
        "metadata.annotations",
        "stringData",
    }


def test_equal_values_of_secrets_have_equal_digests_under_one_key_only():
    before = make("Secret", "db", data={"a": "eA==", "b": "eQ=="})
    after = make("Secret", "db", data={"a": "eQ==", "b": "eA=="})
    found = changes(before, after)
    assert found["data.a"] == tuple(reversed(found["data.b"]))
    other = compare(objects(before), objects(after), profile=ETCD_RESTORE, digest_key=b"another")
    assert other.findings[0].changes[0].before != found["data.a"][0]


def test_the_name_and_labels_of_a_secret_are_told():
    after = make("Secret", "db", metadata={"labels": {"tier": "gold"}})
    assert changes(make("Secret", "db"), after) == {"metadata.labels": (None, '{"tier":"gold"}')}


def test_references_read_as_people_write_them():
    assert str(ObjectRef("Deployment", "shop", "web", "apps")) == "Deployment.apps shop/web"
    assert str(ObjectRef("Namespace", "", "shop")) == "Namespace shop"


FINISHED = [
    make("Job", "migrate", api="batch/v1", status={"completionTime": "2026-01-01T00:00:00Z"}),
    make("Pod", "migrate-x1", status={"phase": "Succeeded"}),
    make("Pod", "migrate-x0", status={"phase": "Failed"}),
]


@pytest.mark.parametrize("item", FINISHED, ids=lambda item: item["metadata"]["name"])
def test_finished_work_may_stay_away_after_a_velero_restore_alone(item):
    comparison = findings([item], [], VELERO_RESTORE)
    assert not comparison.findings
    assert [suppressed.rule for suppressed in comparison.suppressed] == ["finished work"]
    assert kinds(findings([item], [], ETCD_RESTORE)) == [("missing", item["metadata"]["name"])]


@pytest.mark.parametrize(
    "item",
    [
        make("Job", "migrate", api="batch/v1", status={"active": 1}),
        make("Pod", "web-1", status={"phase": "Running"}),
        make("ConfigMap", "c", status={"phase": "Succeeded"}),
    ],
    ids=lambda item: item["kind"],
)
def test_unfinished_work_may_not(item):
    assert kinds(findings([item], [], VELERO_RESTORE)) == [("missing", item["metadata"]["name"])]


def test_the_container_that_velero_lets_a_pod_wait_in_is_explained_and_no_other_one():
    waits = {"name": "restore-wait", "image": "velero/velero", "args": ["u-1"]}
    before = make("Pod", "web", spec={"containers": [{"name": "web"}]})
    after = make("Pod", "web", spec={"containers": [{"name": "web"}], "initContainers": [waits]})
    assert changes(before, after, VELERO_RESTORE) == {}
    assert list(changes(before, after, ETCD_RESTORE)) != []
    other = make("Pod", "web", spec={"containers": [{"name": "web"}], "initContainers": [waits, {"name": "miner"}]})
    assert any("miner" in path for path in changes(before, other, VELERO_RESTORE))
    own = make("Pod", "web", spec={"containers": [{"name": "web"}], "initContainers": [waits | {"image": "other"}]})
    assert any("restore-wait" in path for path in changes(own, after, VELERO_RESTORE)), "one that was there before"


def lease(holder, renewed):
    return make("Lease", "x", api="coordination.k8s.io/v1", spec={"holderIdentity": holder, "renewTime": renewed})


def test_a_lease_may_have_a_new_holder_who_renews_it_and_no_other_one():
    before, renewed = lease("one", "2026-01-01T00:00:00Z"), lease("two", "2026-01-01T00:00:09Z")
    assert changes(before, renewed) == {}
    assert list(changes(before, lease("two", "2026-01-01T00:00:00Z"))) == ["spec.holderIdentity"]
    assert list(changes(renewed, before)) == ["spec.holderIdentity", "spec.renewTime"]


def test_taints_of_the_node_controller_come_and_go_and_those_of_people_do_not():
    def node(*keys):
        return make(
            "Node", "n", namespace=None, spec={"x": 1, "taints": [{"key": key, "effect": "NoExecute"} for key in keys]}
        )

    assert changes(node(), node("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")) == {}
    assert list(changes(node(), node("node.kubernetes.io/out-of-service"))) == [
        "spec.taints[key=node.kubernetes.io/out-of-service,effect=NoExecute]"
    ]


# ---- rules that are switched off, and on ------------------------------------------------------------------


def test_what_a_rule_explains_counts_without_it():
    before, after = make(), make(uid="u-2", version="11")
    assert changes(before, after, SAME_CLUSTER) == {}
    found = changes(before, after, SAME_CLUSTER.without(["resource version"]))
    assert found == {"metadata.resourceVersion": ('"10"', '"11"')}


def test_finished_work_is_missed_without_its_rule():
    done = make("Pod", "done", status={"phase": "Succeeded"})
    assert findings([done], [], VELERO_RESTORE).findings == ()
    [missing] = findings([done], [], profile_named("velero-restore", without=["finished work"])).findings
    assert missing.kind is FindingKind.MISSING


def test_a_rule_that_a_profile_does_not_have_cannot_be_switched_off():
    with pytest.raises(ConfigError) as seen:
        profile_named("etcd-restore", without=["velero labels"])
    assert seen.value.code == "unknown-rule"
    assert "resource version" in seen.value.hint


def lost(kind, owner, *, finalizers=(), left=(), labels=None):
    api = {"Pod": "v1", "Job": "batch/v1"}[kind]
    reference = {"apiVersion": "batch/v1", "kind": owner, "name": "import", "uid": "o-1", "controller": True}
    before = {"finalizers": list(finalizers)} if finalizers else {}
    after = {"finalizers": list(left)} if left else {}
    restored = {"velero.io/restore-name": "r", "velero.io/backup-name": "b"} if labels is None else labels
    return (
        make(kind, "import-1", api=api, metadata={"ownerReferences": [reference], **before}),
        make(kind, "import-1", api=api, uid="u-2", metadata={"labels": restored, **after}),
    )


TRACKED = "batch.kubernetes.io/job-tracking"


@pytest.mark.parametrize(
    ("finding", "pair", "explained"),
    [
        ("job-runs-twice", lost("Pod", "Job", finalizers=[TRACKED]), True),
        ("job-runs-twice", lost("Pod", "Job", finalizers=[TRACKED, "a/b"], left=["a/b"]), True),
        ("job-without-owner", lost("Job", "CronJob"), True),
        ("job-runs-twice", lost("Pod", "Job", finalizers=[TRACKED, "a/b"]), False),
        ("job-runs-twice", lost("Pod", "ReplicaSet"), False),
        ("job-runs-twice", lost("Pod", "Job", labels={}), False),
        ("job-without-owner", lost("Job", "Workflow"), False),
        ("job-without-owner", lost("Pod", "Job"), False),
    ],
)
def test_owners_that_velero_drops_are_explained_only_for_who_tolerates_it(finding, pair, explained):
    before, after = pair
    assert any("ownerReferences" in path for path in changes(before, after, VELERO_RESTORE))
    tolerant = (*VELERO_RESTORE.rules, OWNERS_LOST[finding])
    profile = type(VELERO_RESTORE)(name="tolerant", identity="name", rules=tolerant, replaceable=True)
    assert (changes(before, after, profile) == {}) == explained


def stateful(**spec):
    return make("StatefulSet", "db", api="apps/v1", spec={"replicas": 1, **spec})


@pytest.mark.parametrize(
    ("before", "after", "explained"),
    [
        (stateful(), stateful(updateStrategy={"rollingUpdate": {"maxUnavailable": 1}}), True),
        (stateful(template={}), stateful(template={"creationTimestamp": None}), True),
        (stateful(template={"creationTimestamp": None}), stateful(template={}), True),
        (stateful(updateStrategy={}), stateful(), False),  # what an older version drops is lost
        (stateful(volumes=[{"name": "a"}]), stateful(volumes=[{"name": "a", "emptyDir": {}}]), True),
        (stateful(args=[{}, {}]), stateful(args=[{}, {"new": 1}]), True),
        (stateful(), stateful(replicas=2), False),
        (stateful(volumes=[]), stateful(volumes=[{"name": "a"}]), False),
        (stateful(), {**stateful(), "metadata": {**stateful()["metadata"], "labels": {"a": "b"}}}, False),
        (make("Thing", api="example.com/v1"), make("Thing", api="example.com/v1", spec={}), False),
    ],
)
def test_what_another_version_fills_in_is_explained_only_for_who_asks_and_only_then(before, after, explained):
    profile = dataclasses.replace(VELERO_RESTORE, rules=(*VELERO_RESTORE.rules, FILLED_IN))

    def found(profile, *, same_version):
        return compare(objects(before), objects(after), profile=profile, digest_key=b"k", same_version=same_version)

    assert bool(found(profile, same_version=False).findings) != explained
    assert found(profile, same_version=True).findings
    assert found(VELERO_RESTORE, same_version=False).findings
