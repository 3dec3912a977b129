"""Whole drills whose checks are attacked, on a cluster in memory."""

import copy

import pytest

from clusterguard.drills import Verdict, runner
from clusterguard.drills.cleanup import clean_up
from clusterguard.drills.run import DrillRun, DrillSettings
from clusterguard.drills.verdict import Mutation
from clusterguard.errors import ClusterUnreachableError, ConflictError

PAGE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}}
WEAK = {"assert": {"resource": PAGE | {"data": {"page": "open"}}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in {"_PAUSE_SECONDS": 0, "_SETTLED_SECONDS": 0.3, "_POLL_SECONDS": 0.01}.items():
        monkeypatch.setattr(f"clusterguard.drills.mutation.{name}", seconds)


@pytest.fixture
def attack(run, spec):
    """Run a drill with such checks and attack it."""

    def attack(*verify, minimum=100, **settings):
        spec["setup"][0]["apply"]["manifest"].append(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "web", "namespace": "shop"},
                "data": {"a": "YWI="},
            }
        )
        spec["verify"] = list(verify)
        return run(spec, mutate=minimum, **settings)

    return attack


def outcomes(result):
    return {(each.defect, each.target): each.outcome for each in result.mutation.tried}


def test_a_drill_that_compares_everything_finds_every_defect(attack, cluster):
    result = attack({"restored": {}})
    assert (result.verdict, result.mutation.score, result.mutation.stopped) == (Verdict.PASS, 100, "")
    found = {name for name, outcome in outcomes(result).items() if outcome == "found"}
    assert {("config-cut", "ConfigMap shop/web"), ("secret-changed", "Secret shop/web")} <= found
    assert "defects" in {phase.name for phase in result.phases}


def test_a_defect_that_would_come_back_as_another_object_is_told_and_does_not_count(attack):
    result = attack({"restored": {}})
    assert outcomes(result)["object-left-out", "ConfigMap shop/web"] == "notApplied"
    assert result.mutation.counted == len(result.mutation.with_outcome("found"))


def test_what_was_written_after_the_backup_must_not_be_there(attack):
    result = attack({"restored": {}})
    (later,) = (each for each in result.mutation.tried if each.defect == "later-state")
    assert (later.outcome, later.detail.partition(":")[0]) == ("found", "markers")


def test_a_drill_that_looks_at_one_field_misses_the_others(attack):
    result = attack(WEAK)
    assert (result.verdict, result.code) == (Verdict.FAIL, "defects-missed")
    assert outcomes(result)["config-cut", "ConfigMap shop/web"] == "found"
    missed = {each.defect: each for each in result.mutation.with_outcome("missed")}
    assert "restored" in missed["secret-changed"].detail
    assert 0 < result.mutation.score < 100


def test_a_lower_score_may_be_asked_for(attack):
    result = attack(WEAK, minimum=10)
    assert (result.verdict, result.mutation.minimum) == (Verdict.PASS, 10)
    assert result.mutation.score < 100


def test_the_result_as_data_has_the_score_and_what_was_tried(attack):
    data = attack(WEAK, minimum=0).to_dict()["mutation"]
    assert data["found"] < data["counted"] == sum(each["outcome"] != "notApplied" for each in data["tried"])
    assert data["score"] == round(100 * data["found"] / data["counted"], 3)


@pytest.mark.parametrize("settings", [{"omit_restore": True}, {"mutate": None}])
def test_a_drill_that_proved_nothing_or_was_not_asked_is_not_attacked(run, spec, settings):
    assert run(spec, **{"mutate": 100, **settings}).mutation is None


def test_nothing_of_it_stays(attack, api, monkeypatch):
    noted = []

    def note(_):
        plain = copy.deepcopy({key: item for key, item in api.objects.items() if key[0] != "Lease"})
        for item in plain.values():
            del item["metadata"]["resourceVersion"]
        noted.append(plain)

    *others, mutate = runner._PHASES
    monkeypatch.setattr(runner, "_PHASES", (*others, note, mutate, note))
    assert attack({"restored": {}}).verdict is Verdict.PASS
    before, after = noted
    assert after == before


# ---- what cannot be undone, or cannot be told ---------------------------------------------------------------


def refuse_the_second(api, verb, kind):
    """Let the API take a change, and refuse to take it back."""
    replace, done = getattr(api, verb), []

    def once(item, **more):
        if item["kind"] == kind:
            if done:
                raise ConflictError("a webhook denied the request")
            done.append(item)
        return replace(item, **more)

    setattr(api, verb, once)


def test_a_defect_that_cannot_be_undone_ends_the_drill_and_says_where_it_is(attack, api):
    refuse_the_second(api, "replace", "Secret")
    result = attack({"restored": {}}, keep="always")
    assert (result.verdict, result.code) == (Verdict.ERROR, "defect-not-undone")
    assert "Secret shop/web" in result.reason
    assert result.mutation.stopped
    assert not result.mutation.enough


def test_a_cluster_with_a_defect_in_it_is_not_kept(load, spec):
    run = DrillRun(drill=load(spec), settings=DrillSettings(keep="always"))
    run.touched, run.spoiled = True, {"main"}
    clean_up(run)
    assert not run.keep_clusters


def test_checks_that_are_red_without_a_defect_are_no_finding(attack, cluster):
    """Green while the drill looks, and red from then on: whatever is put there, red says nothing of it."""
    looks = []

    def flaky(api):
        listed = api.list_pages

        def list_pages(resource, *given, **more):
            if resource.kind == "Secret":
                looks.append(resource)
                if len(looks) > 2:  # the watch, and the look that all hold together
                    api.objects.pop(("Secret", "shop", "web"), None)
            return listed(resource, *given, **more)

        api.list_pages = list_pages

    cluster.restored = flaky
    result = attack({"restored": {}})
    assert (result.verdict, result.code) == (Verdict.ERROR, "checks-not-steady")
    assert result.mutation.tried == ()


def silent_after_a_defect(api, looks):
    """Let the API answer no list while a Secret has a defect, for that many looks."""
    listed, replaced, left = api.list_pages, api.replace, []

    def replace(item, **more):
        if item["kind"] == "Secret":
            left[:] = [None] * (looks if not left and looks else 0)
        return replaced(item, **more)

    def list_pages(resource, *given, **more):
        if left:
            left.pop()
            raise ClusterUnreachableError("no answer")
        return listed(resource, *given, **more)

    api.replace, api.list_pages = replace, list_pages


def test_an_outage_that_passes_finds_no_defect(attack, api):
    """Only looking again tells that this drill does not see the Secret."""
    silent_after_a_defect(api, 2)
    result = attack(WEAK)
    assert outcomes(result)["secret-changed", "Secret shop/web"] == "missed"


def test_a_request_that_fails_once_finds_no_defect(attack, api):
    """To this check a list that fails looks like an object that is not ready."""
    failing = []

    def replace(item, **more):
        failing[:] = ["Deployment"] * (item["kind"] == "Secret")
        return replaced(item, **more)

    def list_pages(resource, *given, **more):
        if resource.kind in failing:
            failing.clear()
            raise ClusterUnreachableError("no answer")
        return listed(resource, *given, **more)

    replaced, listed = api.replace, api.list_pages
    api.replace, api.list_pages = replace, list_pages
    result = attack({"empty": {"kinds": ["Deployment"], "namespaces": ["shop"]}}, WEAK)
    assert outcomes(result)["secret-changed", "Secret shop/web"] == "missed"


def test_an_api_server_that_does_not_answer_shows_nothing(attack, api, monkeypatch):
    """Whatever a check makes of it: here each says that what it asks for is not there."""
    broken = []

    def replace(item, **more):
        broken[:] = [item] if item["kind"] == "Secret" else []
        return replaced(item, **more)

    def version():
        if broken:
            raise ClusterUnreachableError("no answer")
        return "v1.36.3"

    replaced, api.server_version = api.replace, version
    api.replace = replace
    result = attack({"restored": {}})
    assert (result.verdict, result.code) == (Verdict.ERROR, "checks-not-steady")
    assert "found" not in {each.outcome for each in result.mutation.tried if each.defect == "secret-changed"}


def test_an_outage_that_lasts_is_no_score(attack, api):
    silent_after_a_defect(api, 10**6)
    result = attack({"restored": {}})
    assert (result.verdict, result.code) == (Verdict.ERROR, "checks-not-steady")
    assert "found" not in {each.outcome for each in result.mutation.tried if each.defect == "secret-changed"}


def test_where_no_defect_can_be_put_anywhere_nothing_is_shown():
    assert not Mutation(tried=(), minimum=0).enough
    assert Mutation(tried=(), minimum=0).score is None
