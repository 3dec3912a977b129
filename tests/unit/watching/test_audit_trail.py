"""The audit trail: nothing that was written can be changed unseen."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from watched import NOW, report, step

from clusterguard.errors import ObjectCorruptError, StoreError
from clusterguard.policies.watching import audit
from clusterguard.policies.watching.audit import AuditTrail, events_of
from clusterguard.policies.watching.chain import AuditEvent, ChainLink, Segment, chained, check_trail, events_in
from clusterguard.stores import LocalStore, MemoryStore

FOLDER = ".clusterguard/audit/"


def event(number=0, **changes):
    settings = {
        "time": NOW + timedelta(seconds=number),
        "actor": "root",
        "host": "cp-1",
        "run": "r1",
        "policy": "prod",
        "verb": "backup",
        "outcome": "ok",
        "detail": f"number {number}",
    }
    return AuditEvent(**{**settings, **changes})


def a_trail(*lengths):
    """Return the segments of a trail with so many lines each, and its head."""
    segments, link = [], ChainLink()
    for number, length in enumerate(lengths, start=1):
        data, link = chained([event(number * 100 + each) for each in range(length)], after=link)
        segments.append(Segment(key=f"{number:012d}.jsonl", number=number, data=data))
    return segments, link.hash


def lines_of(segment):
    return segment.data.splitlines(keepends=True)


def with_lines(segment, lines):
    return Segment(key=segment.key, number=segment.number, data=b"".join(lines))


def problems(segments, expected_head=""):
    return [str(each) for each in check_trail(segments, expected_head=expected_head).findings]


# ---- what lies there -----------------------------------------------------------------------------------------


def test_a_line_can_be_checked_without_us():
    (segment,), head = a_trail(2)
    first, second = (json.loads(line) for line in lines_of(segment))
    for line in (first, second):
        body = {name: value for name, value in line.items() if name != "hash"}
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(canonical).hexdigest() == line["hash"]
    assert (first["seq"], first["prev"]) == (1, "")
    assert (second["seq"], second["prev"]) == (2, first["hash"])
    assert head == second["hash"]


def test_an_event_is_all_there():
    told = event(source="etcd", location="far", backup="b1", digest="ab", size=7, policy_digest="cd", detail="größer\n")
    data, _ = chained([told], after=ChainLink())
    assert list(events_in(Segment(key="1", number=1, data=data))) == [told]


def test_text_that_is_no_text_costs_no_event():
    data, link = chained([event(detail="half a letter: \udcff")], after=ChainLink())
    assert check_trail([Segment(key="1", number=1, data=data)], expected_head=link.hash).ok


def test_a_whole_trail_is_sound():
    segments, head = a_trail(3, 1, 4)
    found = check_trail(segments, expected_head=head)
    assert (found.ok, found.lines, found.segments, found.head, found.since_head) == (True, 8, 3, head, 0)
    assert (found.first, found.last) == (NOW + timedelta(seconds=100), NOW + timedelta(seconds=303))


def test_lines_after_an_expected_head_are_fine():
    segments, _ = a_trail(3, 2)
    early = json.loads(lines_of(segments[0])[-1])["hash"]
    found = check_trail(segments, expected_head=early)
    assert (found.ok, found.since_head) == (True, 2)


# ---- what is found -------------------------------------------------------------------------------------------


def test_a_changed_line_is_found():
    segments, _ = a_trail(3)
    lines = lines_of(segments[0])
    lines[1] = lines[1].replace(b'"ok"', b'"no"')
    found = ["000000000001.jsonl:2: changed: its content does not have the hash that it bears"]
    assert problems([with_lines(segments[0], lines)]) == found


def test_a_line_written_anew_with_its_hash_is_found_by_the_next():
    segments, _ = a_trail(3)
    first = json.loads(lines_of(segments[0])[0])
    forged, _ = chained([event(outcome="failed")] + [event(each) for each in range(2)], after=ChainLink())
    lines = [forged.splitlines(keepends=True)[0], *lines_of(segments[0])[1:]]
    found = problems([with_lines(segments[0], lines)])
    assert len(found) == 1
    assert found[0].startswith("000000000001.jsonl:2: not the line before it: it follows " + first["hash"])


def test_a_removed_line_is_found():
    segments, _ = a_trail(3)
    lines = lines_of(segments[0])
    found = problems([with_lines(segments[0], [lines[0], lines[2]])])
    assert found[0] == "000000000001.jsonl:2: removed: line 2 is not there before it"


def test_an_inserted_line_is_found():
    segments, _ = a_trail(2)
    lines = lines_of(segments[0])
    found = problems([with_lines(segments[0], [lines[0], b'{"verb":"backup"}\n', lines[1]])])
    assert found[0].startswith("000000000001.jsonl:2: changed: ")
    assert len(found) == 1  # and the line after it still follows the one before


def test_a_line_twice_is_found():
    segments, _ = a_trail(2)
    lines = lines_of(segments[0])
    found = problems([with_lines(segments[0], [lines[0], lines[0], lines[1]])])
    assert found == ["000000000001.jsonl:2: inserted or reordered: it is line 1 of segment 1, number 1 of the trail"]


def test_two_lines_that_changed_places_are_found():
    segments, _ = a_trail(4)
    one, two, three, four = lines_of(segments[0])
    found = problems([with_lines(segments[0], [one, three, two, four])])
    assert found == [
        "000000000001.jsonl:2: removed: line 2 is not there before it",
        "000000000001.jsonl:3: inserted or reordered: it is line 2 of segment 1, number 2 of the trail",
    ]


def test_a_missing_segment_is_found():
    segments, _ = a_trail(1, 2, 3)
    found = check_trail([segments[0], segments[2]]).findings
    assert (found[0].problem, found[0].detail, found[0].seq) == ("missing segment", "segment 2 is not there", 2)


def test_missing_first_segments_are_found():
    segments, _ = a_trail(1, 2, 3)
    assert problems(segments[2:])[0] == "missing segment: segments 1 to 2 are not there"


def test_two_segments_that_changed_names_are_found():
    segments, head = a_trail(1, 2)
    swapped = [
        Segment(key=segments[0].key, number=1, data=segments[1].data),
        Segment(key=segments[1].key, number=2, data=segments[0].data),
    ]
    assert problems(swapped, head)


def test_a_segment_cut_between_two_lines_is_found_without_any_other_knowledge():
    segments, _ = a_trail(1, 3)
    cut = with_lines(segments[1], lines_of(segments[1])[:2])
    assert problems([segments[0], cut]) == ["000000000002.jsonl: cut segment: 2 of its 3 lines are left"]


def test_a_segment_cut_within_a_line_is_found():
    segments, _ = a_trail(2)
    cut = Segment(key=segments[0].key, number=1, data=segments[0].data[:-1])
    assert problems([cut]) == ["000000000001.jsonl:2: cut segment: the line has no end"]


def test_an_emptied_segment_is_found():
    segments, _ = a_trail(1, 1)
    assert problems([segments[0], with_lines(segments[1], [])]) == ["000000000002.jsonl: cut segment: it is empty"]


def test_an_object_that_is_no_segment_is_told():
    segments, _ = a_trail(1)
    other = Segment(key="notes.txt", number=None, data=b"hello")
    assert problems([*segments, other]) == ["notes.txt: foreign object: no segment bears such a name"]


def test_a_cut_tail_is_found_by_a_head_that_was_kept():
    segments, head = a_trail(1, 2)
    assert check_trail(segments[:1]).ok  # nobody can know
    found = check_trail(segments[:1], expected_head=head).findings
    assert [each.problem for each in found] == ["head not found"]


def test_a_trail_written_anew_is_found_by_a_head_that_was_kept():
    _, head = a_trail(1, 2)
    data, _ = chained([event(outcome="ok", detail="nothing happened")], after=ChainLink())
    found = check_trail([Segment(key="1", number=1, data=data)], expected_head=head)
    assert [each.problem for each in found.findings] == ["head not found"]


def test_an_emptied_trail_is_found_by_a_head_that_was_kept():
    assert not check_trail([], expected_head="ab" * 32).ok


# ---- the law -------------------------------------------------------------------------------------------------

SEGMENTS, HEAD = a_trail(3, 1, 4, 2)
WHOLE = [(each.number, each.data) for each in SEGMENTS]


def flip(segments, draw):
    index = draw(st.integers(0, len(segments) - 1))
    data = bytearray(segments[index].data)
    data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    segments[index] = Segment(key=segments[index].key, number=segments[index].number, data=bytes(data))


def cut(segments, draw):
    index = draw(st.integers(0, len(segments) - 1))
    data = segments[index].data
    segments[index] = Segment(
        key=segments[index].key, number=segments[index].number, data=data[: draw(st.integers(0, len(data) - 1))]
    )


def shuffle_lines(segments, draw):
    everything = [line for each in segments for line in lines_of(each)]
    moved = draw(st.permutations(everything))
    for index, each in enumerate(segments):
        count = len(lines_of(each))
        segments[index], moved = with_lines(each, moved[:count]), moved[count:]


def drop_line(segments, draw):
    index = draw(st.integers(0, len(segments) - 1))
    lines = lines_of(segments[index])
    lines.pop(draw(st.integers(0, len(lines) - 1)))
    segments[index] = with_lines(segments[index], lines)


def add_line(segments, draw):
    index = draw(st.integers(0, len(segments) - 1))
    lines = lines_of(segments[index])
    other = draw(st.sampled_from([b"\n", b"{}\n", b"x", lines[0], lines[-1]]))
    lines.insert(draw(st.integers(0, len(lines))), other)
    segments[index] = with_lines(segments[index], lines)


def drop_segment(segments, draw):
    segments.pop(draw(st.integers(0, len(segments) - 1)))


def rename(segments, draw):
    one, two = (draw(st.integers(0, len(segments) - 1)) for _ in range(2))
    first, second = segments[one], segments[two]
    segments[one] = Segment(key=first.key, number=first.number, data=second.data)
    segments[two] = Segment(key=second.key, number=second.number, data=first.data)


def copy_segment(segments, draw):
    source = draw(st.sampled_from(segments))
    number = segments[-1].number + draw(st.integers(1, 2))
    segments.append(Segment(key=f"{number:012d}.jsonl", number=number, data=source.data))


def forge(segments, draw):
    """Write one line anew, with a hash that fits it."""
    index = draw(st.integers(0, len(segments) - 1))
    lines = lines_of(segments[index])
    number = draw(st.integers(0, len(lines) - 1))
    body = json.loads(lines[number])
    body.pop("hash")
    body["detail"] = draw(st.text("ab", max_size=3))
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    lines[number] = json.dumps({**body, "hash": digest}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    segments[index] = with_lines(segments[index], lines)


CHANGES = [flip, cut, shuffle_lines, drop_line, add_line, drop_segment, rename, copy_segment, forge]


@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.__name__)
@given(st.data())
def test_any_single_change_is_found(change, data):
    segments = list(SEGMENTS)
    change(segments, data.draw)
    assume([(each.number, each.data) for each in segments] != WHOLE)
    assert not check_trail(segments, expected_head=HEAD).ok


@given(st.lists(st.integers(1, 5), max_size=6))
def test_what_was_written_is_sound(lengths):
    segments, head = a_trail(*lengths)
    assert check_trail(segments, expected_head=head).ok


# ---- in a store ----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def keys(store):
    return [info.key for info in store.list(FOLDER)]


def test_each_run_adds_a_segment(store):
    trail = AuditTrail(store)
    assert trail.head() == ""
    first = trail.append([event(1), event(2)], run="r1")
    second = trail.append([event(3)], run="r2")
    assert keys(store) == [f"{FOLDER}000000000001.jsonl", f"{FOLDER}000000000002.jsonl"]
    assert trail.head() == second != first
    found = trail.verify(first)
    assert (found.ok, found.lines, found.since_head) == (True, 3, 1)


def test_a_head_that_was_once_read_is_there_until_it_is_cut_off(store):
    trail = AuditTrail(store)
    heads = [trail.append([event(number)], run="r1") for number in range(3)]
    assert all(trail.has(head) for head in heads)
    store.delete(f"{FOLDER}000000000003.jsonl")
    trail.append([event(detail=f"not {heads[2]}")], run="r2")  # and a line that speaks of it is not that line
    assert [trail.has(head) for head in heads] == [True, True, False]


def test_nothing_to_say_adds_nothing(store):
    trail = AuditTrail(store)
    head = trail.append([event()], run="r1")
    assert trail.append([], run="r2") == head
    assert len(keys(store)) == 1


def test_writers_at_the_same_time_follow_each_other(store):
    failures = []

    def write(number):
        try:
            for each in range(5):
                AuditTrail(store).append([event(each), event(each + 1)], run=f"r{number}")
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
    assert failures == []
    found = AuditTrail(store).verify()
    assert (found.ok, found.lines, found.segments) == (True, 60, 30)


def test_nothing_follows_an_end_that_is_not_whole(store):
    trail = AuditTrail(store)
    trail.append([event()], run="r1")
    with store.put(f"{FOLDER}000000000001.jsonl", overwrite=True) as writer:
        writer.write(b"{}\n")
    with pytest.raises(StoreError, match="nothing can follow it") as raised:
        trail.append([event()], run="r2")
    assert "clusterguard audit verify" in raised.value.hint


def test_other_objects_in_the_folder_are_told_and_do_no_harm(store):
    trail = AuditTrail(store)
    trail.append([event()], run="r1")
    with store.put(f"{FOLDER}zzz.txt") as writer:
        writer.write(b"hello")
    trail.append([event()], run="r2")
    assert [each.problem for each in trail.verify().findings] == ["foreign object"]


class Sparse(MemoryStore):
    """Says that some objects are huge, and counts what is read of them."""

    def __init__(self, *huge):
        super().__init__()
        self.huge = huge
        self.read = []

    def list(self, prefix=""):
        for info in super().list(prefix):
            yield replace(info, size=5 << 40) if info.key in self.huge else info

    def get(self, key):
        self.read.append(key)
        return super().get(key)


@pytest.mark.parametrize("name", ["dump.tar", "000000000002.jsonl"])
def test_what_is_no_segment_is_named_and_not_read(name):
    store = Sparse(FOLDER + name)
    trail = AuditTrail(store)
    trail.append([event()], run="r1")
    with store.put(FOLDER + name) as writer:
        writer.write(b"whatever")
    [finding] = trail.verify().findings
    assert (finding.problem, finding.key) == ("foreign object", FOLDER + name)
    assert FOLDER + name not in store.read
    if name.endswith(".jsonl"):
        with pytest.raises(StoreError):
            trail.append([event()], run="r2")
        assert FOLDER + name not in store.read


def test_a_segment_that_grew_since_it_was_listed_is_not_read_whole(monkeypatch):
    monkeypatch.setattr(audit, "_LARGEST_SEGMENT", 2 << 20)
    store = MemoryStore()
    trail = AuditTrail(store)
    trail.append([event()], run="r1")
    listed = list(store.list())
    store.list = lambda _prefix="": iter(listed)
    with store.put(listed[0].key, overwrite=True) as writer:
        writer.write(bytes(10 << 20))
    with pytest.raises(ObjectCorruptError):
        trail.verify()


def test_a_run_with_very_many_steps_fits_into_segments_that_are_read(monkeypatch):
    monkeypatch.setattr(audit, "_MOST_EVENTS", 100)
    store = MemoryStore()
    trail = AuditTrail(store)
    trail.append([event()], run="r1")
    head = trail.append([event(number) for number in range(250)], run="r2")
    found = trail.verify(head)
    assert (found.ok, found.segments, found.lines, found.head) == (True, 4, 251, head)


def test_the_largest_run_of_the_longest_words_is_smaller_than_the_bound():
    [written] = events_of(report(step(detail="\x01" * 1_000_000)), actor="a" * 200, host="h" * 255)
    data, _ = chained([written], after=ChainLink(seq=10**12, hash="0" * 64, segment=10**12))
    assert len(data) * audit._MOST_EVENTS < audit._LARGEST_SEGMENT


def test_a_store_that_always_says_taken_is_given_up():
    class Taken(MemoryStore):
        def list(self, prefix=""):
            return iter(())

    store = Taken()
    AuditTrail(store).append([event()], run="r1")
    with pytest.raises(StoreError) as caught:
        AuditTrail(store).append([event()], run="r2")
    assert (caught.value.code, caught.value.fields) == ("audit-contended", {"attempts": 100})


def test_a_run_becomes_events():
    run = report(
        step(source="etcd", backup="b1", digest="ab", size=3, detail="revision 7"),
        step("delete", "failed", source="etcd", location="far", backup="b0", detail="locked"),
    )
    first, second = events_of(run, actor="root", policy_digest="cd", host="cp-1")
    assert first == AuditEvent(
        time=NOW,
        actor="root",
        host="cp-1",
        run=run.run,
        policy="prod",
        policy_digest="cd",
        verb="backup",
        outcome="ok",
        source="etcd",
        backup="b1",
        digest="ab",
        size=3,
        detail="revision 7",
    )
    assert str(second) == "delete etcd/b0 in far failed: locked"


def test_a_thousand_runs_are_checked():
    segments, head = a_trail(*[10] * 1000)
    assert check_trail(segments, expected_head=head).ok


def test_times_are_utc_wherever_they_come_from():
    data, _ = chained([event(time=datetime.fromisoformat("2026-11-22T10:00:00+02:00"))], after=ChainLink())
    assert json.loads(data)["time"] == "2026-11-22T08:00:00Z"
    assert next(events_in(Segment(key="1", number=1, data=data))).time == datetime(2026, 11, 22, 8, tzinfo=UTC)
