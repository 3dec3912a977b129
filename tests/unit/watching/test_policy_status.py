"""What a policy's status says, and that it is never green for want of knowledge."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watched import (
    DAY,
    DUE,
    HOUR,
    NOW,
    a_policy,
    all_well,
    catalog,
    entry,
    nightly,
    proof_of,
    run_of,
    status,
    texts,
)

from clusterguard.errors import StoreUnavailableError
from clusterguard.policies.copies.catalog import Leftover
from clusterguard.policies.policy import EtcdSource, Location, Schedule, Source

DOWN = StoreUnavailableError("the bucket did not answer", hint="look at the network")


# ---- all is well ---------------------------------------------------------------------------------------------


def test_a_policy_that_is_kept_is_protected():
    found = status()
    assert (found.verdict, found.reasons) == ("protected", ())


def test_a_source_says_what_is_there():
    source = status().sources[0]
    assert source.newest == "etcd-20261122T020000Z"
    assert source.newest_at == DUE
    assert (source.verified_copies, source.required_copies, source.verified_in) == (2, 2, ("near", "far"))
    assert (source.backups, source.newest_bytes) == (30, 1000)  # each counted once, whatever the copies
    assert source.last_success == DUE + timedelta(minutes=2)
    assert source.age == NOW - source.last_success
    assert (source.next_due, source.overdue, source.missed) == (DUE + DAY, False, 0)


def test_a_location_says_what_is_there():
    near = status().locations[0]
    assert (near.reachable, near.backups, near.size) == (True, 30, 30_000)
    assert (near.oldest, near.newest) == (DUE - 29 * DAY, DUE)
    assert (near.unverified, near.damaged, near.missing, near.in_future) == (0, 0, (), 0)


def test_a_proof_says_what_it_proved():
    proof = status().proofs[0]
    assert (proof.last_proven, proof.age, proof.overdue) == (NOW - 2 * DAY, 2 * DAY, False)
    assert (proof.rto_seconds, proof.rpo_seconds, proof.backup) == (93.0, 3600.0, "etcd-20261120T020000Z")


# ---- nothing is green by accident ----------------------------------------------------------------------------


def test_without_any_look_nothing_is_known():
    found = status({})
    assert found.verdict == "not protected"
    assert "no location can be read, so nothing is known" in texts(found)
    assert "near: it cannot be read: it was not looked at" in texts(found)


def test_with_all_locations_down_nothing_is_known():
    found = status({"near": DOWN, "far": DOWN})
    assert found.verdict == "not protected"


def test_an_empty_location_protects_nothing():
    found = status({name: catalog(name, runs=(), proofs=(), updated=None) for name in ("near", "far")})
    assert found.verdict == "not protected"
    assert found.sources[0].overdue
    assert "etcd: there is no backup of it in any location that can be read" in texts(found, "not protected")
    assert "weekly: no restore of etcd was ever proven" in texts(found, "at risk")


def test_a_location_that_is_down_is_a_risk_and_says_why():
    found = status({**all_well(), "far": DOWN})
    assert found.verdict == "at risk"
    assert "far: it cannot be read: the bucket did not answer" in texts(found)
    assert found.locations[1].error == "the bucket did not answer"
    assert found.locations[1].hint == "look at the network"
    assert found.sources[0].verified_copies == 1


def test_a_location_that_is_down_is_a_risk_even_where_the_others_have_enough():
    found = status({**all_well(), "far": DOWN}, a_policy(copies=1))
    assert texts(found, "at risk") == ["far: it cannot be read: the bucket did not answer"]


def test_the_catalog_of_another_policy_is_none_of_ours():
    found = status({**all_well(), "far": catalog("far", *nightly(), policy="staging")})
    assert "far: it cannot be read: its catalog is of policy 'staging', not of 'prod'" in texts(found, "at risk")


def test_backups_that_nobody_read_back_protect_nothing():
    found = status(all_well(verified=None, depth=None))
    assert "etcd: no copy of any backup was read back whole" in texts(found, "not protected")
    assert found.sources[0].restorable == ""


def test_copies_that_could_not_be_read_the_last_time_are_noted_and_count_as_before():
    found = status({**all_well(), "far": catalog("far", *nightly(unread="503 Slow Down"))})
    assert (found.verdict, found.sources[0].verified_copies) == ("protected", 2)
    assert texts(found, "note") == ["far: 30 copies could not be read the last time: 503 Slow Down"]
    far = found.to_dict()["locations"][1]
    assert (far["unread"], far["unreadReason"], far["damaged"]) == (30, "503 Slow Down", 0)


def test_a_new_copy_that_could_not_be_read_back_is_not_damaged_and_not_verified():
    newest = entry(verified=None, depth=None, unread="no room")
    found = status({**all_well(), "far": catalog("far", *nightly()[1:], newest)})
    assert (found.verdict, found.sources[0].verified_copies) == ("at risk", 1)
    assert (found.locations[1].unverified, found.locations[1].unread, found.locations[1].damaged) == (1, 1, 0)


def test_what_broke_off_is_noted_with_its_size():
    half = Leftover(source="etcd", name="etcd-20261120T020000Z", keys=("x.db",), size=5 << 20, modified=NOW - DAY)
    found = status({**all_well(), "far": catalog("far", *nightly(), leftovers=(half,))})
    assert (found.verdict, [each.severity for each in found.reasons]) == ("protected", ["note"])
    assert "5.0 MiB" in texts(found)[0]
    far = found.to_dict()["locations"][1]
    assert (far["leftovers"], far["leftoverBytes"]) == (1, 5 << 20)


def test_damaged_copies_count_for_nothing():
    found = status(all_well(problem="other bytes than were written"))
    assert found.verdict == "not protected"
    assert found.locations[0].damaged == 30


def test_one_verified_copy_too_few_is_a_risk():
    found = status({**all_well(), "far": catalog("far", *nightly()[1:], entry(verified=None))})
    wanted = "etcd: the newest backup, etcd-20261122T020000Z, has 1 of the 2 verified copies that are wanted"
    assert texts(found, "at risk") == [wanted]


def test_a_location_without_the_newest_is_behind():
    found = status({**all_well(), "far": catalog("far", *nightly()[1:])}, a_policy(copies=1))
    assert found.locations[1].missing == ("etcd",)
    assert texts(found, "at risk") == ["far: the newest backup of etcd is not there"]


def test_a_damaged_old_copy_is_a_risk_and_is_named():
    spoiled = replace(nightly()[7], problem="3 bytes differ")
    found = status({**all_well(), "far": catalog("far", *nightly(), spoiled)})
    assert texts(found, "at risk") == ["far: 1 copy is damaged: etcd/etcd-20261115T020000Z"]


def test_without_a_schedule_nobody_can_tell_what_is_overdue():
    found = status(policy=a_policy(schedule=None))
    assert found.verdict == "at risk"
    assert "the policy has no schedule" in texts(found)[0]
    assert found.sources[0].next_due is None


def test_a_source_that_nothing_proves_is_noted():
    found = status(policy=a_policy(proofs=()))
    assert found.verdict == "protected"
    assert texts(found, "note") == ["etcd: nothing proves that it restores"]


def test_what_the_catalog_was_mended_of_is_a_risk():
    found = status(
        {**all_well(), "far": catalog("far", *nightly(), notes=("etcd/x: gone, and not removed by any run",))}
    )
    assert texts(found, "at risk") == ["far: etcd/x: gone, and not removed by any run"]


# ---- overdue -------------------------------------------------------------------------------------------------


def after_a_success_at(moment):
    entries = [entry(moment - number * DAY) for number in range(3)]
    return {name: catalog(name, *entries, runs=(run_of(at=moment),)) for name in ("near", "far")}


def test_within_the_grace_nothing_is_overdue():
    found = status(after_a_success_at(DUE - DAY), now=DUE + timedelta(minutes=59))
    assert (found.sources[0].overdue, found.verdict) == (False, "protected")


def test_after_the_grace_it_is():
    found = status(after_a_success_at(DUE - DAY), now=DUE + timedelta(minutes=61))
    source = found.sources[0]
    assert (source.overdue, source.overdue_since, source.missed) == (True, DUE, 1)
    assert texts(found, "at risk") == ["etcd: a backup was due since 2026-11-22 02:00 UTC and not made"]


def test_two_in_a_row_are_no_protection():
    found = status(after_a_success_at(DUE - 2 * DAY), now=DUE + timedelta(hours=2))
    assert found.sources[0].missed == 2
    assert found.verdict == "not protected"


def test_a_run_that_another_clock_began_a_moment_early_is_the_one_that_was_due():
    assert not status(after_a_success_at(DUE - timedelta(seconds=30))).sources[0].overdue


def test_days_are_those_of_the_schedule_s_time_zone():
    berlin = a_policy(schedule=Schedule(cron="30 0 * * *", time_zone="Europe/Berlin"))
    moment = DUE.replace(day=21, hour=23, minute=30)  # half past midnight on the 22nd, in Berlin
    found = status(after_a_success_at(moment), berlin)
    assert not found.sources[0].overdue
    assert [str(each.day) for each in found.sources[0].days if each.backups] == [
        "2026-11-20",
        "2026-11-21",
        "2026-11-22",
    ]


def test_a_backup_whose_run_never_succeeded_is_not_enough():
    failed = run_of(outcome="failed", detail="1 of 2 copies", last_success=None)
    found = status({name: catalog(name, *nightly(), runs=(failed,)) for name in ("near", "far")})
    assert "etcd: no run of it ever succeeded" in texts(found, "not protected")
    assert "etcd: the last run failed: 1 of 2 copies" in texts(found, "at risk")


def test_a_run_with_a_warning_is_a_risk():
    warned = run_of(outcome="warning", detail="far was down")
    found = status({name: catalog(name, *nightly(), runs=(warned,)) for name in ("near", "far")})
    assert texts(found, "at risk") == ["etcd: the last run was not all well: far was down"]


def test_what_any_location_knows_of_a_run_counts():
    behind = catalog("far", *nightly(), runs=(run_of(at=DUE - 3 * DAY),))
    assert status({**all_well(), "far": behind}).sources[0].last_success == DUE + timedelta(minutes=2)


def test_a_second_source_is_judged_by_itself():
    policy = a_policy(
        sources=(
            Source(name="etcd", etcd=EtcdSource(cluster="context:prod")),
            Source(name="other", etcd=EtcdSource(cluster="context:prod")),
        )
    )
    found = status(policy=policy)
    assert [each.overdue for each in found.sources] == [False, True]
    assert found.verdict == "not protected"
    assert texts(found)[0].startswith("other: ")


# ---- clocks --------------------------------------------------------------------------------------------------


def test_what_is_from_the_future_makes_nothing_fresh():
    ahead = NOW + 30 * DAY
    late = [entry(DUE - 5 * DAY), entry(ahead)]
    runs = (run_of(at=ahead, last_success=ahead),)
    found = status({name: catalog(name, *late, runs=runs) for name in ("near", "far")})
    assert found.sources[0].newest_at == DUE - 5 * DAY
    assert found.sources[0].last_success is None
    assert found.verdict == "not protected"
    assert "near: 2 entries are from the future: a clock was wrong" in texts(found, "at risk")


def test_a_proof_from_the_future_proves_nothing():
    ahead = proof_of(at=NOW + DAY)
    found = status({name: catalog(name, *nightly(), proofs=(ahead,)) for name in ("near", "far")})
    assert found.proofs[0].overdue
    assert found.verdict == "at risk"


def test_a_verification_from_the_future_verified_nothing():
    found = status(all_well(verified=NOW + DAY))
    assert found.sources[0].verified_copies == 0
    assert found.verdict == "not protected"


def test_clocks_that_are_a_little_apart_are_fine():
    found = status({name: catalog(name, *nightly(), updated=NOW + timedelta(minutes=4)) for name in ("near", "far")})
    assert found.verdict == "protected"


# ---- verification and proofs ---------------------------------------------------------------------------------


def test_copies_due_to_be_read_again_are_noted():
    found = status(aged(8))
    assert found.verdict == "protected"
    assert texts(found, "note")[0] == "near: 29 copies are due to be read back"


def test_copies_unread_for_twice_as_long_are_a_risk():
    found = status(aged(15))
    assert found.locations[0].verification_long_overdue == 29
    assert found.verdict == "at risk"


def aged(days):
    entries = [entry(), *(replace(each, verified=NOW - days * DAY) for each in nightly()[1:])]
    return {name: catalog(name, *entries) for name in ("near", "far")}


def test_copies_never_read_back_are_noted():
    old = replace(nightly()[3], verified=None, depth=None)
    found = status({**all_well(), "far": catalog("far", *nightly(), old)})
    assert texts(found, "note") == ["far: 1 copy was never read back"]


def with_proof(**changes):
    return {name: catalog(name, *nightly(), proofs=(proof_of(**changes),)) for name in ("near", "far")}


def test_a_proof_that_failed_means_no_protection():
    found = status(with_proof(outcome="not proven", detail="2 ConfigMaps are missing"))
    assert texts(found, "not protected") == [
        "weekly: the last proof failed: etcd did not come back: 2 ConfigMaps are missing"
    ]


def test_a_proof_that_could_not_tell_is_a_risk():
    found = status(with_proof(outcome="error", detail="no Docker"))
    assert texts(found, "at risk") == ["weekly: the last proof could not tell: no Docker"]


def test_a_proof_that_is_too_old_is_overdue():
    found = status(with_proof(at=NOW - 8 * DAY))
    assert texts(found, "at risk") == ["weekly: a restore of etcd was last proven 8 days ago"]


# ---- the calendar --------------------------------------------------------------------------------------------


def test_the_calendar_has_thirty_days_and_today_is_last():
    days = status().sources[0].days
    assert len(days) == 30
    assert str(days[-1].day) == "2026-11-22"
    assert {each.state for each in days} == {"verified"}


def test_the_calendar_tells_what_became_of_each_day():
    near = [
        entry(DUE - 3 * DAY),
        entry(DUE - 4 * DAY, verified=None),
        entry(DUE - 5 * DAY, problem="cut"),
    ]
    found = status({"near": catalog("near", *near, runs=(run_of(at=DUE - 3 * DAY),))}, a_policy(copies=1))
    assert [each.state for each in found.sources[0].days[-7:]] == [
        "none",  # thinned out, or never made: nobody knows any more
        "damaged",
        "unverified",
        "verified",
        "missed",
        "missed",
        "missed",
    ]


# ---- laws ----------------------------------------------------------------------------------------------------

spoilers = st.sampled_from(
    [
        lambda catalogs: {**catalogs, "near": DOWN},
        lambda catalogs: {name: each for name, each in catalogs.items() if name != "far"},
        lambda catalogs: {
            name: each if each is DOWN else each.without(list(each.entries)) for name, each in catalogs.items()
        },
        lambda catalogs: {name: each if each is DOWN else replace(each, runs={}) for name, each in catalogs.items()},
        lambda catalogs: {name: each if each is DOWN else replace(each, proofs={}) for name, each in catalogs.items()},
    ]
)
RANK = {"protected": 0, "at risk": 1, "not protected": 2}


@given(st.lists(spoilers, max_size=4))
def test_knowing_less_never_makes_it_greener(spoiled):
    catalogs, before = all_well(), "protected"
    for spoil in spoiled:
        catalogs = spoil(catalogs)
        verdict = status(catalogs).verdict
        assert RANK[verdict] >= RANK[before]
        before = verdict
    assert not spoiled or before != "protected"


@given(st.timedeltas(min_value=timedelta(0), max_value=400 * DAY))
def test_letting_time_pass_never_makes_it_greener(later):
    first, second = status(now=NOW), status(now=NOW + later)
    assert RANK[second.verdict] >= RANK[first.verdict]
    assert second.sources[0].missed >= first.sources[0].missed


@given(st.lists(st.integers(0, 60), unique=True, max_size=20), st.integers(1, 3))
def test_green_needs_what_the_policy_says(days, copies):
    entries = [entry(DUE - number * DAY) for number in days]
    catalogs = {name: catalog(name, *entries) for name in ("near", "far")}
    found = status(catalogs, a_policy(copies=copies))
    if found.verdict == "protected":
        assert all(each.verified_copies >= copies and each.restorable for each in found.sources)


def test_reasons_come_worst_first():
    found = status({"near": catalog("near", *nightly(), runs=(run_of(at=DUE - 9 * DAY),), proofs=()), "far": DOWN})
    ranks = [RANK.get(each.severity, -1) for each in found.reasons]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) > 1


# ---- the rest ------------------------------------------------------------------------------------------------


def test_it_is_plain_data_in_json():
    document = json.loads(json.dumps(status().to_dict()))
    assert document["verdict"] == "protected"
    assert document["sources"][0]["newestAt"] == "2026-11-22T02:00:00Z"
    assert document["sources"][0]["age"] == 5 * 3600 + 58 * 60
    assert document["proofs"][0]["rtoSeconds"] == 93.0


def test_ten_thousand_backups_in_three_locations_are_counted():
    policy = a_policy(
        locations=tuple(Location(name=name, url=f"/{name}") for name in "abc"), schedule=Schedule(cron="0 * * * *")
    )
    entries = [entry(DUE - number * HOUR) for number in range(10_000)]
    catalogs = {name: catalog(name, *entries) for name in "abc"}
    found = status(catalogs, policy)
    assert found.sources[0].backups == 10_000


def test_a_year_of_silence_is_counted_up_to_a_limit():
    found = status(after_a_success_at(DUE - 365 * DAY), a_policy(schedule=Schedule(cron="* * * * *")))
    assert found.sources[0].missed == 1000


def test_a_location_of_no_time_zone_is_refused():
    with pytest.raises((TypeError, ValueError)):
        status(now=NOW.replace(tzinfo=None))
