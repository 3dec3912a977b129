"""Work on a stream in a thread of its own: all of it, in order, within bounds, and no failure is lost."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.etcd import behind
from clusterguard.etcd.behind import WorkBehind

NAME = "clusterguard-save"


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    monkeypatch.setattr(behind, "_BUFFER_BYTES", 8)


def is_running():
    return NAME in {thread.name for thread in threading.enumerate()}


@given(st.lists(st.binary(max_size=40)))
def test_every_byte_is_worked_on_in_its_order(pieces):
    seen = bytearray()
    with WorkBehind(seen.extend, name=NAME) as work:
        for piece in pieces:
            work.write(memoryview(piece))
        work.finish()
        assert seen == b"".join(pieces)
    assert not is_running()


def test_no_more_is_held_than_there_are_buffers():
    given_bytes, worked_on, held = 0, 0, []

    def count(piece):
        nonlocal worked_on
        held.append(given_bytes - worked_on)
        worked_on += len(piece)

    with WorkBehind(count, name=NAME) as work:
        for _ in range(500):
            work.write(memoryview(b"12345678"))
            given_bytes += 8
        work.finish()
    assert worked_on == 4000
    assert max(held) <= 8 * behind._BUFFERS


@pytest.mark.parametrize("failure", [OSError("no space left"), KeyboardInterrupt()], ids=["disk", "interrupt"])
def test_a_failure_comes_out_as_it_was_and_nothing_is_worked_on_after_it(failure):
    calls = []

    def fail(piece):
        calls.append(bytes(piece))
        raise failure

    with pytest.raises(type(failure)) as raised, WorkBehind(fail, name=NAME) as work:
        for _ in range(100):
            work.write(memoryview(b"12345678"))
    assert raised.value is failure
    assert calls == [b"12345678"]
    assert not is_running()


def test_a_failure_on_the_last_bytes_comes_out_at_the_end():
    def fail(_):
        raise OSError("no space left")

    with WorkBehind(fail, name=NAME) as work:
        work.write(memoryview(b"123"))
        with pytest.raises(OSError, match="no space"):
            work.finish()


def test_what_was_not_finished_is_dropped_and_the_thread_ends():
    seen = []
    with pytest.raises(KeyError), WorkBehind(lambda piece: seen.append(bytes(piece)), name=NAME) as work:
        work.write(memoryview(b"123"))
        raise KeyError("the stream was cut")
    assert seen == []
    assert not is_running()
