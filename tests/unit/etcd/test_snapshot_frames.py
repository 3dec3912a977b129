"""The framing of the snapshot stream: whatever the pieces, the same bytes; whatever is no snapshot, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import SnapshotIncompleteError
from clusterguard.etcd.wire import SnapshotFrames

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, kind, content):
    head = varint(number << 3 | kind)
    if kind == VARINT:
        return head + varint(content)
    return head + (varint(len(content)) if kind == LENGTH_DELIMITED else b"") + content


def frame(message, *, compressed=0):
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def response(blob=b"", *, remaining=0, version="", extra=b""):
    """Write a SnapshotResponse as etcd does: what is empty or zero is left out."""
    message = field(1, LENGTH_DELIMITED, b"\x08\x01")
    message += field(2, VARINT, remaining) if remaining else b""
    message += field(3, LENGTH_DELIMITED, blob) if blob else b""
    message += field(4, LENGTH_DELIMITED, version.encode()) if version else b""
    return frame(message + extra)


def stream_of(*blobs, version=""):
    total = sum(map(len, blobs))
    frames = b""
    for blob in blobs:
        total -= len(blob)
        frames += response(blob, remaining=total, version=version)
    return frames


def received(*pieces):
    """Feed pieces to a fresh decoder; return it and the bytes it handed on."""
    got = bytearray()
    frames = SnapshotFrames(got.extend)
    for piece in pieces:
        frames.feed(piece)
    return frames, bytes(got)


@given(blobs=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6), data=st.data())
def test_any_pieces_give_the_same_bytes(blobs, data):
    stream = stream_of(*blobs, version="3.7.0")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    frames, got = received(*pieces)
    frames.finish()
    assert got == b"".join(blobs)
    assert (frames.received, frames.remaining, frames.version) == (len(got), 0, "3.7.0")


@given(blobs=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4), data=st.data())
def test_a_stream_that_ends_early_is_incomplete(blobs, data):
    stream = stream_of(*blobs)
    cut = data.draw(st.integers(0, len(stream) - 1))
    frames, got = received(stream[:cut])
    with pytest.raises(SnapshotIncompleteError):
        frames.finish()
    assert b"".join(blobs).startswith(got)


def test_the_progress_is_what_the_member_says():
    frames, _ = received(response(b"x" * 10, remaining=90))
    assert (frames.received, frames.remaining) == (10, 90)


def test_a_stream_that_ends_between_two_messages_is_incomplete():
    frames, _ = received(response(b"x" * 10, remaining=90))
    with pytest.raises(SnapshotIncompleteError) as caught:
        frames.finish()
    assert caught.value.fields == {"defect": "cut-off", "received": 10, "remaining": 90}


def test_nothing_at_all_is_incomplete():
    frames, _ = received()
    with pytest.raises(SnapshotIncompleteError) as caught:
        frames.finish()
    assert caught.value.fields == {"defect": "empty"}


def test_an_endless_stream_of_empty_blobs_is_refused():
    frames, _ = received(response(b"x", remaining=500))
    with pytest.raises(SnapshotIncompleteError, match="500 bytes still to come") as raised:
        for _ in range(1000):
            frames.feed(response(remaining=500))
    assert "its log and its disk" in raised.value.hint


def test_empty_blobs_now_and_then_are_no_reason_to_stop():
    frames, got = received(*[response(remaining=1), response(b"x", remaining=1)] * 200, response(b"y"))
    frames.finish()
    assert len(got) == 201


@pytest.mark.parametrize(
    ("stream", "seen"),
    [
        (frame(b"", compressed=1), "compressed"),
        (b"\0\x7f\xff\xff\xff", "2,147,483,647 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not an etcd snapshot"),
        (frame(b"\x1a\x7fshort"), "a broken message"),
        (frame(field(9, FIXED64, b"7 bytes")), "a broken message"),
        (frame(b"\x10" + b"\xff" * 11), "a number without an end"),
        (frame(b"\x10\x80"), "a number without an end"),
        (frame(b"\x0b\x0c"), "a broken message"),
    ],
    ids=["compressed", "oversized", "http", "short-blob", "short-fixed", "long-varint", "cut-varint", "group"],
)
def test_what_is_no_snapshot_stream_is_refused(stream, seen):
    with pytest.raises(SnapshotIncompleteError, match=seen):
        received(stream)


@given(st.binary(min_size=5, max_size=200))
def test_garbage_never_raises_anything_else(garbage):
    try:
        frames, _ = received(garbage)
        frames.finish()
    except SnapshotIncompleteError:
        pass


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(5, 5000), st.just(VARINT), st.integers(0, 2**64 - 1)),
            st.tuples(st.integers(5, 5000), st.just(LENGTH_DELIMITED), st.binary(max_size=200)),
            st.tuples(st.integers(5, 5000), st.just(FIXED64), st.binary(min_size=8, max_size=8)),
            st.tuples(st.integers(5, 5000), st.just(FIXED32), st.binary(min_size=4, max_size=4)),
        ),
        max_size=5,
    )
)
def test_fields_of_a_later_etcd_are_passed_over(unknown):
    extra = b"".join(field(*each) for each in unknown)
    frames, got = received(response(b"data", remaining=7, version="3.9.0", extra=extra))
    assert (got, frames.remaining, frames.version) == (b"data", 7, "3.9.0")


def test_an_error_of_whoever_takes_the_bytes_passes_through():
    def full(_):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        SnapshotFrames(full).feed(response(b"x"))
