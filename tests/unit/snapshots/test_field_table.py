"""The table of kinds is whole: everything in it can be read, and nothing that a kind needs is missing."""

from __future__ import annotations

import pytest

from clusterguard.snapshots.fields import NEWEST_MINOR, Op, field_table

LETTERS = set("sbiyTUQOJW")


@pytest.fixture(scope="module")
def table():
    return field_table()


def reached(table):
    """Return every message that a kind is made of."""
    pending, found = [table.kind(*kind) for kind in table.kinds], set()
    while pending:
        message = pending.pop()
        if message not in found:
            found.add(message)
            pending += [rule.message for rule in message.rules.values() if rule.message]
    return found


def test_every_kind_is_made_of_messages_and_types_that_the_decoder_knows(table):
    messages = reached(table)
    kinds = {rule.kind for message in messages for rule in message.rules.values() if not rule.message}
    assert kinds == LETTERS
    assert len(messages) > 1000


def test_every_kind_has_metadata_as_its_first_field(table):
    for kind in table.kinds:
        rule = table.kind(*kind).rules[1 << 3 | 2]
        assert (rule.op, rule.name, rule.message.name) == (Op.MESSAGE, "metadata", "meta/v1.ObjectMeta")


def test_what_is_not_a_kind_is_not_found(table):
    assert table.kind("v1", "Nonsense") is None


def test_an_older_server_writes_what_it_did_not_leave_out_yet():
    metadata = {minor: field_table(minor).message("meta/v1.ObjectMeta").empty() for minor in (33, 34, NEWEST_MINOR)}
    assert metadata == {33: {"creationTimestamp": None}, 34: {}, NEWEST_MINOR: {}}


def test_a_field_that_came_later_is_read_but_not_made_up():
    device = {minor: field_table(minor).message("resource/v1alpha3.DeviceTaintRule") for minor in (34, 35)}
    assert [("status" in each.empty()) for each in device.values()] == [False, True]
    assert 3 << 3 | 2 in device[34].rules
