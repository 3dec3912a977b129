"""The table: the state of every row, and what the whole of it comes to."""

import json

import pytest
from coverage_objects import (
    ACCOUNT,
    CONFIG,
    DEFINITION,
    MENU,
    NAMESPACE,
    NOW,
    OLD,
    TAKEN,
    WORLD,
    YOUNG,
    claimed,
    etcd,
    found,
    hours,
    thing,
    velero,
    with_claims,
)

from clusterguard.coverage.found import Kind, Unread
from clusterguard.coverage.proofs import Proof
from clusterguard.coverage.sources import NotCounted
from clusterguard.coverage.table import coverage_of
from clusterguard.coverage.takes import Reason
from clusterguard.model.inventory import Scope

SHOP = {NAMESPACE: [thing("shop", "")], CONFIG: [thing()]}
EVERYTHING = {"includeClusterResources": True}


def namespaces(cluster, *sources, proofs=(), **more):
    found_rows = coverage_of(cluster, sources, proofs, **more).namespaces
    return {each.name: each for each in found_rows}


def proof(*, at=TAKEN, of="schedule nightly", **scope):
    return Proof(drill="shop", at=at, scope=Scope(**scope), of=frozenset({of} if of else ()))


def test_a_namespace_that_a_backup_has_is_protected():
    row = namespaces(found(SHOP), velero())["shop"]
    assert (row.state, row.objects, row.protected, row.by) == ("protected", 2, 2, ("schedule nightly",))
    assert not coverage_of(found(SHOP), [velero()]).uncovered


def test_without_a_backup_nothing_is():
    row = namespaces(found(SHOP))["shop"]
    assert (row.state, row.reasons) == ("unprotected", {Reason.NO_BACKUP: 2})
    assert coverage_of(found(SHOP), []).uncovered


def test_one_object_that_is_left_out_is_enough_to_be_told():
    kept_out = thing("two", **{"velero.io/exclude-from-backup": "true"})
    table = coverage_of(found({**SHOP, CONFIG: [thing(), kept_out]}), [velero()])
    [row] = table.namespaces
    assert (row.state, row.protected, row.reasons) == ("partly", 2, {Reason.EXCLUDED_BY_LABEL: 1})
    assert table.uncovered
    assert [(each.kind, each.objects, each.examples) for each in table.left_out] == [("ConfigMap", 1, ("shop/two",))]


def test_examples_are_of_what_is_not_excused():
    gone = [thing(f"a-{number}", rule="ended pods", **{"velero.io/exclude-from-backup": "true"}) for number in range(5)]
    kept_out = thing("z", **{"velero.io/exclude-from-backup": "true"})
    [left] = coverage_of(found({CONFIG: [*gone, kept_out]}), [velero()]).left_out
    assert (left.objects, left.excused, left.examples) == (6, 5, ("shop/z",))
    [only] = coverage_of(found({CONFIG: gone}), [velero()]).left_out
    assert only.examples == ("shop/a-0", "shop/a-1", "shop/a-2")


def test_two_sources_make_up_for_each_other():
    cluster = found({**SHOP, WORLD: [thing("one", "")]})
    assert coverage_of(cluster, [velero()]).uncovered
    table = coverage_of(cluster, [velero(), etcd()])
    assert not table.uncovered
    assert [(each.kind, each.objects, each.elsewhere) for each in table.left_out] == [("World.example.com", 1, 1)]


def test_objects_that_came_after_the_backup_are_counted():
    row = namespaces(found({**SHOP, CONFIG: [thing(), thing("two", created=YOUNG)]}), velero())["shop"]
    assert (row.state, row.newer) == ("protected", 1)


def test_a_new_namespace_is_in_no_backup():
    row = namespaces(found({NAMESPACE: [thing("new", "", created=YOUNG)]}), velero(), etcd())["new"]
    assert (row.state, row.reasons) == ("unprotected", {Reason.NEWER: 1})


def test_namespaces_of_the_cluster_itself_are_excused_and_told():
    cluster = found({NAMESPACE: [thing("kube-system", "")], CONFIG: [thing(namespace="kube-system")]})
    table = coverage_of(cluster, [])
    assert ([each.state for each in table.namespaces], table.excused) == (["excused"], {"ignored namespaces": 2})
    assert not table.uncovered
    assert coverage_of(cluster, [], ignore=()).uncovered


def test_an_ignored_namespace_excuses_nothing_elsewhere():
    rows = namespaces(found({**SHOP, NAMESPACE: [thing("shop", ""), thing("lab", "")]}), ignore={"lab"})
    assert {name: row.state for name, row in rows.items()} == {"lab": "excused", "shop": "unprotected"}


def test_what_comes_back_by_itself_need_not_be_in_a_backup():
    own = thing("default", rule="untouched default service accounts")
    table = coverage_of(found({ACCOUNT: [own]}), [etcd()])
    assert {each.name: each.state for each in table.kinds}["ServiceAccount"] == "excused"
    assert table.excused == {"untouched default service accounts": 1}


def test_a_definition_has_a_row_of_its_own():
    cluster = found({**SHOP, DEFINITION: [thing("menus.example.com", ""), thing("worlds.example.com", "")],
                     MENU: [thing()]})  # fmt: skip
    table = coverage_of(cluster, [velero()])
    assert {each.name: each.state for each in table.definitions} == {
        "menus.example.com": "protected",
        "worlds.example.com": "unprotected",
    }
    assert table.uncovered


# ---- proofs --------------------------------------------------------------------------------------------------


def test_what_a_drill_restored_is_proven():
    row = namespaces(found(SHOP), velero(), proofs=[proof(namespaces=("shop",))])["shop"]
    assert (row.state, row.proven, row.proven_at) == ("proven", 2, TAKEN)


def test_the_newest_proof_of_an_object_and_the_oldest_of_a_row_count():
    older, newer = proof(at=TAKEN - hours(48)), proof(at=TAKEN, kinds=("ConfigMap",))
    row = namespaces(found(SHOP), velero(), proofs=[older, newer])["shop"]
    assert (row.state, row.proven_at) == ("proven", TAKEN - hours(48))


@pytest.mark.parametrize(
    ("source", "given"),
    [
        (velero(), proof(namespaces=("other",))),
        (velero(), proof(namespaces=("shop",), kinds=("Secret",))),
        (velero(), proof(of="policy prod/etcd")),
        (etcd(), proof(of="schedule nightly")),
        (velero(), proof(at=TAKEN - hours(24 * 600))),
    ],
    ids=["other namespace", "other kind", "other source", "other source, too", "before there was any of it"],
)
def test_a_proof_of_something_else_proves_nothing(source, given):
    row = namespaces(found(SHOP), source, proofs=[given])["shop"]
    assert (row.state, row.proven_at) == ("protected", None)


def test_what_is_proven_and_in_no_backup_that_counts_is_not_protected():
    assert namespaces(found(SHOP), proofs=[proof(of="")])["shop"].state == "unprotected"


def test_part_of_it_proven_is_not_all_of_it():
    row = namespaces(found(SHOP), velero(), proofs=[proof(namespaces=("shop",), kinds=("ConfigMap",))])["shop"]
    assert (row.state, row.proven, row.protected) == ("protected", 1, 2)


def test_objects_are_told_apart_by_labels_where_a_scope_does():
    cluster = found({**SHOP, CONFIG: [thing("a", tier="data"), thing("b", tier="web")]})
    row = namespaces(cluster, velero(), proofs=[proof(namespaces=("shop",), selector="tier=data")])["shop"]
    assert row.proven == 1


# ---- what could not be looked at -----------------------------------------------------------------------------


def test_a_kind_that_may_not_be_read_is_unknown_everywhere():
    table = coverage_of(found(SHOP, unread=(Unread("Secret", "forbidden"),)), [velero(), etcd()])
    assert {each.name: each.state for each in table.kinds}["Secret"] == "unknown"
    assert [(each.state, each.unread) for each in table.namespaces] == [("unknown", ("Secret",))]
    assert table.to_dict()["verdict"] == "unknown"


def test_a_kind_that_may_not_be_read_in_one_namespace_is_unknown_there():
    both = {**SHOP, NAMESPACE: [thing("shop", ""), thing("lab", "")]}
    table = coverage_of(found(both, unread=(Unread("Secret", "forbidden", "lab"),)), [velero()])
    assert {each.name: each.state for each in table.namespaces} == {"lab": "unknown", "shop": "protected"}


def test_anything_else_that_could_not_be_seen_makes_the_verdict_unknown():
    table = coverage_of(found(SHOP), [velero()], unread=[Unread("policy prod", "no location can be read")])
    assert table.to_dict()["verdict"] == "unknown"


# ---- the whole -----------------------------------------------------------------------------------------------


def test_a_volume_without_its_data_is_not_covered():
    table = coverage_of(with_claims(claimed(source="hostPath"), things=SHOP), [velero()])
    assert {each.state for each in table.namespaces} == {"protected"}
    assert table.uncovered


def test_the_json_is_stable():
    cluster = with_claims(claimed(), things=SHOP, not_listed={"Event": "events"})
    refused = [NotCounted("backup x", "backup-failed", "it failed")]
    table = coverage_of(cluster, [velero(), etcd()], [proof()], not_counted=refused)
    document = json.loads(json.dumps(table.to_dict()))
    assert list(document) == [
        "format", "cluster", "at", "verdict", "sources", "proofs", "notCounted", "namespaces", "kinds", "definitions",
        "volumes", "leftOut", "excused", "notListed", "unread",
    ]  # fmt: skip
    assert document["format"] == 1
    assert document["at"] == "2030-01-02T12:00:00Z"
    assert document["verdict"] == "uncovered"
    assert document["sources"][1] == {
        "name": "policy prod/etcd", "engine": "etcd", "backup": "etcd-1", "taken": "2030-01-02T02:00:00Z",
    }  # fmt: skip
    assert document["notCounted"] == [{"name": "backup x", "code": "backup-failed", "detail": "it failed"}]
    assert document["namespaces"] == [
        {
            "name": "shop", "state": "proven", "objects": 3, "protected": 3, "newer": 0, "excused": 0, "proven": 3,
            "provenAt": "2030-01-02T02:00:00Z", "by": ["policy prod/etcd", "schedule nightly"], "reasons": {},
            "unread": [],
        }
    ]  # fmt: skip
    assert document["volumes"] == [
        {
            "name": "shop/data", "namespace": "shop", "source": "csi", "state": "unprotected", "by": [], "method": "",
            "reason": "not-recorded", "detail": "0 of 0 snapshots are complete",
        }
    ]  # fmt: skip


def test_the_covered_verdict_needs_everything():
    assert coverage_of(found(SHOP), [velero()]).to_dict()["verdict"] == "covered"


def test_thousands_of_objects_are_judged_by_what_tells_them_apart():
    many = {NAMESPACE: [thing(f"n-{number}", "") for number in range(50)]}
    many |= {
        Kind(f"Kind{kind}", f"kind{kind}s", namespaced=True): [
            thing(f"o-{number}", f"n-{number % 50}", created=OLD) for number in range(1000)
        ]
        for kind in range(10)
    }
    table = coverage_of(found(many), [velero(**EVERYTHING)])
    assert (len(table.namespaces), len(table.kinds)) == (50, 11)
    assert sum(each.protected for each in table.namespaces) == 10_050
    assert table.at == NOW
