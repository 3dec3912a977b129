"""What earlier releases stored is read, and what this one stores is what they read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterguard.errors import ConfigError
from clusterguard.policies.copies.catalog import Catalog
from clusterguard.policies.copies.locations import VeleroRecord
from clusterguard.policies.fleet.results import ClusterResult
from clusterguard.policies.watching.chain import ChainLink, Segment, chained, check_trail, events_in

STORED = Path(__file__).parents[2] / "golden" / "stored"
READERS = {
    "catalog.json": Catalog.from_json,
    "velero-record.json": VeleroRecord.from_json,
    "velero-record-volumes.json": VeleroRecord.from_json,
    "fleet-result.json": ClusterResult.from_json,
}


@pytest.mark.parametrize("name", READERS)
def test_a_record_of_an_earlier_release_is_read_and_written_as_it_was(name):
    text = (STORED / name).read_bytes()

    assert json.loads(READERS[name](text).to_json()) == json.loads(text)


@pytest.mark.parametrize("name", READERS)
def test_a_record_of_a_later_release_is_not_taken_for_a_damaged_one(name):
    later = {**json.loads((STORED / name).read_bytes()), "format": 3}

    with pytest.raises(ConfigError) as caught:
        READERS[name](json.dumps(later).encode())

    assert caught.value.hint == "a later release wrote it: use that one"


def test_what_was_not_known_of_a_copy_is_not_known_after_reading():
    etcd, shop = Catalog.from_json((STORED / "catalog.json").read_bytes()).entries.values()

    assert (etcd.encrypted, etcd.depth, etcd.revision, etcd.unread) == (True, "contents", 311, "503 Slow Down")
    assert (shop.verified, shop.depth, shop.revision, shop.sound) == (None, None, None, False)


def test_a_trail_of_an_earlier_release_is_continued_byte_by_byte():
    data = (STORED / "audit-segment.jsonl").read_bytes()
    events = tuple(events_in(Segment(key="k", number=3, data=data)))

    again, _ = chained(events, after=ChainLink(seq=4, hash="12" * 32, segment=2))

    assert again == data
    assert [each.verb for each in events] == ["backup", "heartbeat"]
    assert {each.problem for each in check_trail([Segment(key="k", number=3, data=data)]).findings} == {
        "missing segment",
        "removed",
    }
