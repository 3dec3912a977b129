"""LZW as gardener's snapshots have it: what Go's own readers and writers agree on, and every length of the table."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterguard.etcd.lzw import LzwReader, begins_with_clear, first_bytes
from lzw_stream import lzw


def read(data: bytes) -> bytes:
    return LzwReader(io.BytesIO(data)).read()


@pytest.mark.parametrize(
    ("stream", "plain"),
    [
        pytest.param("0101", b"", id="empty"),
        pytest.param("549e0829f2448a9327540412 34b8b0e0c1840101", b"TOBEORNOTTOBEORTOBEORNOT", id="no clear code"),
        # The example of the specification of GIF.
        pytest.param("0051fc1b2870a0c1830101", b"\x28" + b"\xff" * 3 + b"\x28" + b"\xff" * 10, id="repeats at once"),
    ],
)
def test_known_streams(stream: str, plain: bytes) -> None:
    assert read(bytes.fromhex(stream)) == plain


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="ab", max_size=3000).map(str.encode))
def test_what_was_written_is_read(data: bytes) -> None:
    assert read(lzw(data)) == data


@pytest.mark.parametrize("alphabet", [1, 2, 7, 256])
def test_the_table_is_filled_and_cleared_many_times(alphabet: int) -> None:
    chosen = random.Random(alphabet)  # noqa: S311 - the same in every run
    data = bytes(chosen.randrange(alphabet) for _ in range(60_000))
    reader = LzwReader(io.BytesIO(lzw(data)))
    assert b"".join(iter(lambda: reader.read(777), b"")) == data


def test_a_table_that_is_full_and_not_cleared_stays_as_it_is() -> None:
    """Go's writer clears it; others may go on with codes of 12 bits."""
    bits = count = 0
    width, size = 9, 258
    for step in range(5000):
        bits |= (step % 256) << count
        count += width
        size += step > 0 and size < 4096
        width = min(12, max(width, size.bit_length()))
    bits |= 257 << count
    data = bits.to_bytes((count + width + 7) // 8, "little")
    assert read(data) == bytes(step % 256 for step in range(5000))


@pytest.mark.parametrize("kept", [0, 1, 5, 19])
def test_a_stream_that_is_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        read(lzw(b"TOBEORNOTTOBEORTOBEORNOT")[:kept])


def test_a_code_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="code 300"):
        read((256 | 65 << 9 | 300 << 18 | 257 << 27).to_bytes(5, "little"))
    with pytest.raises(ValueError, match="code 258"):
        read((256 | 258 << 9 | 257 << 18).to_bytes(4, "little"))


def test_the_beginning_is_told_without_the_rest() -> None:
    stream = lzw(bytes(range(256)) * 100)
    assert begins_with_clear(stream)
    assert not begins_with_clear(bytes(100))
    assert first_bytes(stream[:200]).startswith(bytes(range(100)))
    assert first_bytes(b"\x00") == b""
