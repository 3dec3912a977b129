"""What is told of a snapshot beside that it is whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterguard.etcd.member import MemberStatus
from clusterguard.etcd.mvcc import Alarm, StoreFacts
from clusterguard.etcd.remarks import of_database, of_members

STATUS = MemberStatus(
    endpoint="https://10.0.0.1:2379",
    version="3.7.3",
    storage_version="3.7.0",
    cluster_id="a",
    member_id="b",
    revision=100_000,
    db_size=1,
    db_size_in_use=1,
    leader="b",
    is_learner=False,
    raft_index=200_000,
    applied_index=200_000,
    errors=(),
)
OTHER = replace(STATUS, endpoint="https://10.0.0.2:2379", member_id="c")
FACTS = StoreFacts(
    finished_compaction=0,
    scheduled_compaction=0,
    storage_version="3.7.0",
    cluster_version="3.7.0",
    consistent_index=1,
    term=1,
    members=(),
    alarms=(),
    leases=0,
    auth_enabled=False,
)


def told(remarks):
    return [(remark.code, remark.warning) for remark in remarks]


def test_a_healthy_member_of_a_healthy_cluster_gives_no_remarks():
    assert told(of_members(STATUS, [OTHER, replace(OTHER, revision=99_000)], [])) == []
    assert told(of_database(FACTS, keys=1)) == []


def test_a_database_without_a_key_is_a_warning():
    assert told(of_database(FACTS, keys=0)) == [("no-keys", True)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"is_learner": True}, "learner"),
        ({"leader": "0"}, "no-leader"),
        ({"applied_index": 190_000}, "behind"),
    ],
)
def test_what_is_wrong_with_the_member_is_a_warning(change, code):
    assert told(of_members(replace(STATUS, **change), [OTHER], [])) == [(code, True)]


def test_a_follower_far_behind_is_named_although_it_was_not_saved_from():
    lagging = replace(OTHER, revision=90_000)
    (remark,) = of_members(STATUS, [lagging], [])
    assert (remark.code, remark.warning) == ("behind", True)
    assert lagging.endpoint in remark.detail
    assert "10,000" in remark.detail


def test_members_that_gave_no_answer_are_named():
    (remark,) = of_members(STATUS, [], ["https://10.0.0.3:2379: connection refused"])
    assert (remark.code, remark.warning) == ("member-unasked", False)
    assert "https://10.0.0.3:2379" in remark.detail


def test_members_that_nobody_named_and_that_are_out_of_reach_are_one_note():
    (remark,) = of_members(STATUS, [], [], ["m2", "m3"])
    assert (remark.code, remark.warning) == ("members-unreached", False)
    assert "m2, m3" in remark.detail


def test_what_a_restore_brings_back_is_told():
    alarms = (Alarm(member_id="8e9e", kind="NOSPACE"), Alarm(member_id="8e9e", kind="CORRUPT"))
    facts = replace(FACTS, alarms=alarms, auth_enabled=True)
    assert told(of_database(facts, keys=1)) == [
        ("alarm-nospace", True),
        ("alarm-corrupt", True),
        ("authentication-on", False),
    ]
