"""The checks of ``verify``, on a cluster in memory."""

import threading
import time
from types import SimpleNamespace

import pytest

from clusterguard.drills import Verdict, checks
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import ClusterUnreachableError, ForbiddenError


def config_map(name, labels=None, **data):
    metadata = {"name": name, "namespace": "shop", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def wanted(**more):
    resource = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "labels": {"app": "web"}}}
    return resource | more


@pytest.fixture
def check(run, spec, cluster):
    """Run one check after a restore that brings back two labelled ConfigMaps; return what it said, and of what."""

    def check(verb, action, *, items=None):
        items = items or [config_map("a", {"app": "web"}, color="blue"), config_map("b", {"app": "web"}, color="red")]
        spec["setup"][0]["apply"]["manifest"] += items
        spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
        spec["verify"] = [{verb: action}]
        spec["prove"] = False
        result = run(spec)
        return result, next(step for step in result.steps if step.phase == "verify" and step.title == verb)

    return check


# ---- assert ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "color", "ok", "told"),
    [
        ("all", "blue", False, "1 of 2 ConfigMap match"),
        ("any", "blue", True, "1 of 2 ConfigMap match"),
        ("any", "green", False, "0 of 2 ConfigMap match"),
    ],
)
def test_all_must_match_unless_one_is_enough(check, match, color, ok, told):
    result, step = check("assert", {"resource": wanted(data={"color": color}), "match": match})
    assert (step.verdict is Verdict.PASS, step.detail) == (ok, told)
    assert ok or "data.color" in result.diff


@pytest.mark.parametrize(
    ("count", "ok"), [(2, True), (1, False), (">=2", True), (">2", False), ("<3", True), ("!=2", False), ("<=1", False)]
)
def test_how_many_there_must_be(check, count, ok):
    _, step = check("assert", {"resource": wanted(), "count": count})
    assert (step.verdict is Verdict.PASS) == ok
    assert ok or step.detail.startswith("2 ConfigMap found")


def test_finding_no_object_is_a_failure(check):
    _, step = check("assert", {"resource": wanted(metadata={"namespace": "shop", "labels": {"app": "nothing"}})})
    assert (step.verdict, step.detail) == (Verdict.FAIL, "0 ConfigMap found, at least 1 expected")


def test_one_object_by_its_name(check):
    named = wanted(metadata={"name": "b", "namespace": "shop"}, data={"color": "red"})
    assert check("assert", {"resource": named})[1].verdict is Verdict.PASS


# ---- absent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "ok"),
    [({"name": "a"}, False), ({"name": "c"}, True), ({"selector": "app=web"}, False), ({"selector": "app=no"}, True)],
)
def test_what_must_not_be_there(check, which, ok):
    _, step = check("absent", {"kind": "ConfigMap", "namespace": "shop", **which})
    assert (step.verdict is Verdict.PASS) == ok
    assert ok or "a" in step.detail


# ---- restored --------------------------------------------------------------------------------------------


@pytest.fixture
def half_restored(run, spec, cluster):
    """Run a drill whose restore loses one object, changes another and leaves one too many."""

    def half_restored(**action):
        spec["setup"][0]["apply"]["manifest"] += [config_map("a", color="blue"), config_map("b")]

        def afterwards(api):
            del api.objects["ConfigMap", "shop", "b"]
            api.item("ConfigMap", "a")["data"]["color"] = "pink"
            api.create(config_map("c"))

        cluster.restored = afterwards
        spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
        spec["verify"] = [{"restored": action}]
        return run(spec)

    return half_restored


@pytest.mark.parametrize(
    ("action", "ok"),
    [
        ({}, False),
        ({"missing": 1, "changed": 1}, True),
        ({"missing": "<=1", "changed": "<2"}, True),
        ({"missing": 1, "changed": 0}, False),
        ({"missing": "<1", "changed": 1}, False),
        ({"missing": 2, "changed": 1}, False),  # "exactly two" is not "at most two"
        ({"missing": ">=1", "changed": "!=0"}, True),
        ({"missing": 1, "changed": 1, "extra": 0}, False),
        ({"missing": 1, "changed": 1, "extra": 1}, True),
        ({"missing": "<0", "changed": 1}, False),  # which nothing can hold
        ({"missing": 1, "ignore": ["data.color"]}, True),
    ],
)
def test_how_much_may_differ(half_restored, action, ok):
    result = half_restored(**action)
    assert (result.verdict is Verdict.PASS) == ok, result.reason
    assert ok or "restored" in result.reason


def test_the_diff_names_object_and_field(half_restored):
    result = half_restored(extra=0)
    for part in ("ConfigMap shop/a", "data.color", "pink", "ConfigMap shop/b", "ConfigMap shop/c"):
        assert part in result.diff.replace("\n", " "), part


@pytest.mark.parametrize(("action", "ok"), [({}, False), ({"identity": "uid"}, False), ({"identity": "name"}, True)])
def test_etcd_brings_back_the_very_same_objects_unless_the_drill_asks_for_less(run, spec, cluster, action, ok):
    def made_anew(api):
        api.item("ConfigMap", "web")["metadata"]["uid"] = "another"

    cluster.restored = made_anew
    spec["verify"] = [{"restored": action}]
    assert (run(spec).verdict is Verdict.PASS) == ok


def test_what_rules_explain_is_counted(run, spec, cluster):
    def rewritten(api):
        api.item("ConfigMap", "web")["metadata"]["resourceVersion"] = "999"

    cluster.restored = rewritten
    assert run(spec).suppressed == {"resource version": 1}


# ---- together --------------------------------------------------------------------------------------------


def test_checks_must_hold_together_and_not_one_after_the_other(run, spec, cluster, api):
    """The one holds until the other does: at no time has the cluster recovered."""
    original, looks = api.get, []

    def first_gone_again(resource, name, namespace=None):
        looks.append(name)
        gone = name == "first" and looks.count(name) > 1
        return original(resource, "nothing" if gone else name, namespace)

    def begin(_):
        api.get = first_gone_again

    spec["setup"][0]["apply"]["manifest"] += [config_map("first"), config_map("second")]
    spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
    cluster.restored = begin
    spec["verify"] = [
        {"assert": {"resource": wanted(metadata={"name": name, "namespace": "shop"})}, "timeout": "100ms"}
        for name in ("first", "second")
    ]
    result = run(spec)
    assert result.verdict is Verdict.FAIL
    assert "0 ConfigMap found" in result.reason


def test_a_check_that_is_red_for_a_moment_has_until_its_time_is_over(run, spec, cluster, api):
    original, looks = api.get, []

    def once_gone(resource, name, namespace=None):
        if name == "web":
            looks.append(name)
            if len(looks) == 2:  # the look that asks whether all hold together
                name = "nothing"
        return original(resource, name, namespace)

    def begin(_):
        api.get = once_gone

    cluster.restored = begin
    spec["verify"] = [{"assert": {"resource": wanted(metadata={"name": "web", "namespace": "shop"})}}]
    result = run(spec)
    assert result.verdict is Verdict.PASS, result.reason
    assert len(looks) >= 4


def test_an_api_server_that_does_not_answer_is_red_and_not_broken(run, spec, cluster, api):
    original, looks = api.get, []

    def away(resource, name, namespace=None):
        looks.append(name)
        if len(looks) < 4:
            raise ClusterUnreachableError("connection refused")
        return original(resource, name, namespace)

    def begin(_):
        api.get = away

    cluster.restored = begin
    spec["verify"] = [{"assert": {"resource": wanted(metadata={"name": "web", "namespace": "shop"})}, "timeout": "5s"}]
    assert run(spec, longest_wait=None).verdict is Verdict.PASS


@pytest.mark.parametrize(("takes", "looks"), [(100, 2), (20, 13)])
def test_a_look_that_would_be_cut_off_does_not_hide_what_the_one_before_it_saw(monkeypatch, takes, looks):
    now, seen = [0.0], []

    def look(*_):
        now[0] += takes
        seen.append(now[0])
        return CheckResult(ok=False, summary=f"1 changed at {now[0]}")

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checks, "_look", look)
    run = SimpleNamespace(restored_at={}, wait_of=lambda _: 250)
    [result] = checks.watch_all(run, [SimpleNamespace(cluster="main")], sleep=lambda _: None)
    assert (len(seen), result.summary) == (looks, f"1 changed at {float(looks * takes)}")


def test_a_silent_api_server_keeps_no_check_from_the_others(monkeypatch):
    """Without its etcd it answers each of them after seconds: one after the other they would take them all."""
    both_look = threading.Barrier(2, timeout=60)

    def look(_, step, __):
        both_look.wait()
        return CheckResult(ok=step == "second", summary=step)

    monkeypatch.setattr(checks, "_look", look)
    assert [result.ok for result in checks.look_at_all(None, ["first", "second"])] == [False, True]


# ---- empty -----------------------------------------------------------------------------------------------


def test_empty_is_red_where_anything_of_the_scope_is_there_and_green_where_nothing_is(run, spec, api):
    spec["restore"] = [{"patch": {"kind": "Namespace", "name": "other", "patch": {"metadata": {"labels": {"a": "b"}}}}}]
    spec["setup"][0]["apply"]["manifest"].append(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
    )
    spec |= {"canary": False, "prove": False, "verify": [{"empty": {}}]}
    result = run(spec)
    assert result.verdict is Verdict.FAIL
    step = next(step for step in result.steps if step.title == "empty")
    assert (step.verdict, "1 object(s) there: Namespace shop" in step.detail) == (Verdict.FAIL, True)

    api.objects.clear()
    spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
    result = run(spec)
    assert result.verdict is Verdict.PASS, result


@pytest.mark.parametrize(
    ("scope", "ok"),
    [
        ({"namespaces": ["shop"], "kinds": ["Secret"]}, True),
        ({"namespaces": ["shop"], "selector": "app=other"}, True),
        ({"namespaces": ["elsewhere"]}, True),
        ({"kinds": ["Menu.example.com"]}, True),
        ({"namespaces": ["shop"], "kinds": ["ConfigMap"]}, False),
        ({"namespaces": ["sh*"], "selector": "app=web"}, False),
        ({"namespaces": ["shop"], "exclude": ["ConfigMap"]}, False),
    ],
)
def test_empty_looks_at_its_own_scope_and_not_at_markers(check, scope, ok):
    _, step = check("empty", scope)
    assert step.verdict is (Verdict.PASS if ok else Verdict.FAIL), step


def test_what_is_still_being_deleted_is_there(check):
    item = config_map("slow", {"app": "slow"})
    item["metadata"] |= {"deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": ["example.com/slow"]}
    _, step = check("empty", {"namespaces": ["shop"], "selector": "app=slow"}, items=[item])
    assert (step.verdict, step.detail) == (Verdict.FAIL, "1 object(s) still there, being deleted")


def test_a_kind_that_cannot_be_listed_is_not_taken_for_absent(check, api):
    api.errors["list", "Job"] = ForbiddenError("jobs are forbidden")
    _, step = check("empty", {"namespaces": ["elsewhere"]})
    assert (step.verdict, "Job.batch could not be listed" in step.detail) == (Verdict.FAIL, True)


def test_a_misspelt_kind_is_an_error_and_not_an_absence(run, spec):
    spec |= {"verify": [{"empty": {"kinds": ["Depolyment"]}}], "prove": False}
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.ERROR, "resource-not-found")


# ---- restored, without rules -------------------------------------------------------------------------------


@pytest.mark.parametrize(("rules", "verdict"), [([], Verdict.PASS), (["resource version"], Verdict.FAIL)])
def test_what_a_rule_explains_counts_once_it_is_switched_off(run, spec, cluster, rules, verdict):
    def written_again(api):
        api.objects["ConfigMap", "shop", "web"]["metadata"]["resourceVersion"] = "999"

    cluster.restored = written_again
    spec["verify"] = [{"restored": {"withoutRules": rules}}]
    result = run(spec)
    assert result.verdict is verdict, result
    assert ("resource version" in result.suppressed) == (verdict is Verdict.PASS)
    assert ("metadata.resourceVersion" in result.diff) == (verdict is Verdict.FAIL)
