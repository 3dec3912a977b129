from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import SnapshotCorruptError, SnapshotIncompleteError
from clusterguard.etcd.integrity import TrailerChecker

BODY = bytes(range(256)) * 4
WHOLE = BODY + hashlib.sha256(BODY).digest()


def judge(data: bytes, sizes: list[int] | None = None):
    checker = TrailerChecker()
    at = 0
    for size in sizes or []:
        checker.update(data[at : at + size])
        at += size
    checker.update(data[at:])
    return checker.finish()


@given(st.lists(st.integers(0, 80), max_size=60))
def test_pieces_of_any_size_give_the_digest_of_the_whole(sizes: list[int]) -> None:
    found = judge(WHOLE, sizes)
    assert found.size == len(WHOLE)
    assert found.sha256 == hashlib.sha256(WHOLE).hexdigest()


def test_a_buffer_may_be_reused_after_each_piece() -> None:
    checker = TrailerChecker()
    buffer = bytearray(100)
    for at in range(0, len(WHOLE), 100):
        piece = WHOLE[at : at + 100]
        buffer[: len(piece)] = piece
        checker.update(memoryview(buffer)[: len(piece)])
    assert checker.finish().sha256 == hashlib.sha256(WHOLE).hexdigest()


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    for length in range(len(WHOLE)):
        possible = length % 512 == 32 and length > 512
        with pytest.raises(SnapshotCorruptError if possible else SnapshotIncompleteError):
            judge(WHOLE[:length])


@given(st.integers(0, len(WHOLE) * 8 - 1), st.lists(st.integers(0, 200), max_size=20))
def test_a_flipped_bit_anywhere_is_refused(bit: int, sizes: list[int]) -> None:
    damaged = bytearray(WHOLE)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SnapshotCorruptError, match="the trailer says"):
        judge(bytes(damaged), sizes)


def test_an_empty_stream_and_a_missing_trailer_are_told_apart() -> None:
    with pytest.raises(SnapshotIncompleteError) as caught:
        judge(b"")
    assert caught.value.fields == {"defect": "empty"}
    with pytest.raises(SnapshotIncompleteError) as caught:
        judge(BODY)
    assert caught.value.fields == {"defect": "trailer-missing", "size": 1024}
    assert "member/snap/db" in (caught.value.hint or "")
    with pytest.raises(SnapshotIncompleteError, match="32 bytes are not"):
        judge(b"x" * 32)
