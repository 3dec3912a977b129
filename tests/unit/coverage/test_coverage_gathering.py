"""What is read of Velero, policies, drill files and evidence, and whose it is."""

import hashlib
import json
from datetime import timedelta

import pytest
from coverage_objects import NOW, TAKEN, backup, files, location, schedule, upload

from clusterguard.coverage.gathering import drill_facts, of_this_cluster, runs_in, seen_of_policies, velero_seen
from clusterguard.drills import load_drill
from clusterguard.errors import ResourceNotFoundError
from clusterguard.policies.policy import EtcdSource, Location, Policy, Source, VeleroSource
from clusterguard.policies.watching.verdict import LocationStatus, PolicyStatus
from clusterguard.stores import MemoryStore

# ---- Velero --------------------------------------------------------------------------------------------------


class Objects:
    """Velero's objects, and a ConfigMap with rules."""

    namespace = "velero"

    def __init__(self, *items, missing=(), rules=None):
        self.items, self.missing, self.rules, self.api = items, missing, rules, self

    def missing_definitions(self):
        return tuple(f"{each}.velero.io" for each in self.missing)

    def list(self, kind):
        assert kind.plural not in self.missing
        return [each for each in self.items if isinstance(each, kind)]

    def resource(self, kind, *, api_version):
        return kind

    def get(self, _kind, name, namespace):
        if self.rules is None:
            raise ResourceNotFoundError(f"no ConfigMap {namespace}/{name}")
        return {"data": self.rules}


def labelled(transfer, name="nightly-1"):
    transfer.labels["velero.io/backup-name"] = name
    return transfer


def test_everything_that_decides_is_read():
    seen = velero_seen(Objects(backup(), schedule(), location(), labelled(files()), labelled(upload(), "other")))
    assert [len(each) for each in (seen.backups, seen.schedules, seen.locations)] == [1, 1, 1]
    assert {name: len(each) for name, each in seen.transfers.items()} == {"nightly-1": 1, "other": 1}


def test_a_cluster_without_velero_has_none():
    assert velero_seen(Objects(missing=["backups", "schedules"])) is None


def test_an_older_velero_without_data_uploads_is_read_all_the_same():
    assert velero_seen(Objects(backup(), missing=["datauploads"])).backups


@pytest.mark.parametrize(
    ("rules", "keys"),
    [
        ({"x": "version: v1\nvolumePolicies: []\n"}, ["version", "volumePolicies"]),
        ({"x": "- a list"}, None),
        ({"x": "a: ["}, None),
        ({}, None),
        ({"a": "version: v1", "b": "version: v1"}, None),
        (None, None),
    ],
)
def test_rules_are_read_as_far_as_they_can_be(rules, keys):
    made = backup(spec={"resourcePolicy": {"kind": "configmap", "name": "rules"}})
    assert velero_seen(Objects(made, rules=rules)).rules == {"rules": keys}


# ---- policies ------------------------------------------------------------------------------------------------


def policy(*clusters, endpoints=False):
    given = [EtcdSource(endpoints=("https://e:2379",))] if endpoints else []
    given += [EtcdSource(cluster=each) for each in clusters]
    sources = tuple(Source(name=f"s{number}", etcd=each) for number, each in enumerate(given))
    return Policy(name="prod", sources=sources, locations=(Location(name="a", url="file:///backups"),))


@pytest.mark.parametrize(
    ("made", "ours"),
    [
        (policy("context:prod"), [True]),
        (policy("context:prod", "context:test"), [True, False]),
        (policy("context:test"), [False]),
        (policy("kubeconfig:/etc/kubernetes/admin.conf"), [True]),
        (policy("kubeconfig:/a", "kubeconfig:/b"), [False, False]),
        (policy("kubeconfig:/a", "context:prod"), [False, True]),
        (policy(endpoints=True), [True]),
        (policy("context:test", endpoints=True), [False, False]),
    ],
)
def test_a_source_is_of_this_cluster_or_is_not(made, ours):
    assert [of_this_cluster(each, made, "context:prod") for each in made.sources] == ours


def look(made, *, error=""):
    where = (LocationStatus(name="a", url="u", error=error),)
    return made, PolicyStatus(policy="prod", at=NOW, sources=(), locations=where, proofs=(), reasons=())


def test_sources_of_other_clusters_are_told_and_left_out():
    [(kept, _)], refused, unread = seen_of_policies([look(policy("context:prod", "context:test"))], "context:prod")
    assert [each.name for each in kept.sources] == ["s0"]
    assert [(each.name, each.code) for each in refused] == [("policy prod/s1", "other-cluster")]
    assert unread == []


def test_a_policy_none_of_whose_locations_can_be_read_is_told():
    _, _, unread = seen_of_policies([look(policy("context:prod"), error="gone")], "context:prod")
    assert [each.what for each in unread] == ["policy prod"]


def test_of_a_policy_of_another_cluster_nothing_needs_to_be_read():
    assert seen_of_policies([look(policy("context:test"), error="gone")], "context:prod")[2] == []


def test_backups_by_velero_are_judged_in_the_cluster_itself():
    made = Policy(
        name="prod",
        sources=(Source(name="shop", velero=VeleroSource(cluster="context:prod", bucket="s3://b/p")),),
        locations=(Location(name="a", url="file:///backups"),),
    )
    assert seen_of_policies([look(made, error="gone")], "context:prod")[2] == []


# ---- drills --------------------------------------------------------------------------------------------------

OWN = "  backup: [{etcdSnapshot: {name: s}}]\n  fault: [{delete: {kind: Pod, namespace: shop, all: true}}]\n"
STORED = "  backup: [{storedBackup: {name: s, policy: prod.yaml, source: s0}}]\n"
VELERO = "  backup: [{storedBackup: {name: s, velero: {schedule: nightly}}}]\n"
RESTORED, READY = "[{restored: {}}]", "[{ready: {kind: Pod, namespace: shop, count: 1}}]"


def drill(folder, backup_and_fault, *, clusters="", verify=RESTORED, restore="etcdRestore"):
    file = folder / "shop.drill.yaml"
    file.write_text(
        "apiVersion: clusterguard.dev/v1alpha1\nkind: Drill\nmetadata: {name: shop}\nspec:\n"
        f"  scope: {{namespaces: [shop]}}\n{clusters}{backup_and_fault}"
        f"  restore: [{{{restore}: {{from: s}}}}]\n  verify: {verify}\n"
    )
    return load_drill(file)


def facts(made, *policies):
    return drill_facts(made, cluster="context:prod", policies=policies)


@pytest.mark.parametrize(
    ("clusters", "of"),
    [
        ("", "stand-in"),
        ("  clusters: {main: {embedded: {}}}\n", "stand-in"),
        ("  clusters: {main: {context: test}}\n", "stand-in"),
        ("  clusters: {main: {context: prod}}\n", "cluster"),
    ],
)
def test_whose_state_a_drill_of_its_own_backup_restores(tmp_path, clusters, of):
    assert facts(drill(tmp_path, OWN, clusters=clusters)).of == of


def test_a_drill_of_a_policys_snapshot_is_of_the_cluster_that_the_policy_backs_up(tmp_path):
    made = drill(tmp_path, STORED)
    path = str(tmp_path / "prod.yaml")
    ours = policy("context:prod").model_copy(update={"path": path})
    assert (facts(made, ours).of, facts(made, ours).sources) == ("policy", {"policy prod/s0"})
    for other in (
        ours.model_copy(update={"path": str(tmp_path / "other.yaml")}),
        ours.model_copy(update={"sources": ()}),
        ours.model_copy(update={"path": ""}),
    ):
        assert facts(made, other).of == "stand-in"
    assert facts(made).of == "stand-in"


def test_what_else_a_drill_says(tmp_path):
    made = drill(tmp_path, VELERO, restore="veleroRestore")
    found = facts(made)
    assert (found.of, found.compares, found.scope.namespaces) == ("velero", True, ("shop",))
    assert found.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    for verify in (READY, '[{restored: {missing: "<= 5"}}]', '[{restored: {changed: "<= 5"}}]'):
        assert not facts(drill(tmp_path, OWN, verify=verify)).compares


# ---- evidence ------------------------------------------------------------------------------------------------


def keep(store, number, *, drill="shop", verdict="PASS", started=TAKEN, materials=True, stored=()):
    run = {"drill": drill, "runId": f"{number:08x}", "verdict": verdict, "started": started.isoformat()}
    documents = {"result.json": {**run, "stored": list(stored), "providers": {}}}
    if materials:
        documents["materials.json"] = {"drill": {"sha256": f"digest-{number}"}} if materials is True else materials
    for name, document in documents.items():
        with store.put(f"{drill}-{number:08x}/{name}") as writer:
            writer.write(json.dumps(document).encode())


def test_the_last_run_of_each_drill_counts_whatever_became_of_it():
    store = MemoryStore()
    keep(store, 1, started=TAKEN - timedelta(days=1), stored=["nightly-0"])
    keep(store, 2, verdict="FAIL")
    keep(store, 3, drill="other", stored=["nightly-1"])
    keep(store, 4, drill="somebody-elses")
    runs = runs_in(store, {"shop", "other"})
    assert {name: (run.verdict, run.sha256, run.stored) for name, run in runs.items()} == {
        "shop": ("FAIL", "digest-2", ()),
        "other": ("PASS", "digest-3", ("nightly-1",)),
    }


@pytest.mark.parametrize("materials", [None, {"drill": {}}, {"drill": "x"}, []], ids=str)
def test_a_bundle_that_does_not_say_what_ran_has_no_digest(materials):
    store = MemoryStore()
    keep(store, 1, materials=materials)
    assert runs_in(store, {"shop"})["shop"].sha256 == ""


def test_a_folder_without_evidence_has_no_runs():
    assert runs_in(MemoryStore(), {"shop"}) == {}
