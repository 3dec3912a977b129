"""The scratch file between a fast stream and a slow store."""

from __future__ import annotations

import errno
import threading

import pytest

from clusterguard.errors import ConfigError, ScratchError, StoreError
from clusterguard.etcd.spool import Spool


class Collector:
    """A follower that takes bytes only while its gate is open."""

    def __init__(self, *, gate_open=True):
        self.got = bytearray()
        self.gate = threading.Event()
        self.writes = 0
        if gate_open:
            self.gate.set()

    def write(self, data):
        assert self.gate.wait(10)
        self.writes += 1
        self.got += data


class Broken:
    def __init__(self):
        self.met = threading.Event()

    def write(self, data):
        self.met.set()
        raise StoreError("the bucket is gone")


def test_the_follower_gets_every_byte_in_order():
    collector = Collector()
    pieces = [bytes([number % 251]) * (number * 1013 % 70_000) for number in range(200)]
    with Spool(collector) as spool:
        for piece in pieces:
            spool.write(piece)
        spool.finish()
        assert spool.path.read_bytes() == b"".join(pieces)
    assert collector.got == b"".join(pieces)


def test_a_slow_follower_does_not_slow_the_stream():
    collector = Collector(gate_open=False)
    with Spool(collector) as spool:
        for _ in range(64):
            spool.write(b"x" * 100_000)  # returns although nobody takes anything yet
        assert not collector.got
        collector.gate.set()
        spool.finish()
    assert len(collector.got) == 6_400_000


def test_a_failing_follower_is_told_to_whoever_writes():
    broken = Broken()
    with pytest.raises(StoreError, match="the bucket is gone"), Spool(broken) as spool:
        spool.write(b"first")
        assert broken.met.wait(10)
        while True:
            spool.write(b"more")


def test_a_failing_follower_is_told_at_the_end():
    with pytest.raises(StoreError, match="the bucket is gone"), Spool(Broken()) as spool:
        spool.write(b"all of it")
        spool.finish()


def test_a_broken_stream_stops_the_follower_before_it_has_caught_up():
    collector = Collector(gate_open=False)

    def stream():
        with Spool(collector) as spool:
            spool.write(b"x" * (64 << 20))
            threading.Timer(0.05, collector.gate.set).start()
            raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        stream()
    assert collector.writes <= 2


def test_a_scratch_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"), Spool(Collector(), scratch=tmp_path / "nowhere"):
        pass


def test_a_full_scratch_disk_is_no_failure_of_the_store(tmp_path, largest_file):
    collector = Collector()
    with largest_file(1 << 20), pytest.raises(ScratchError) as raised, Spool(collector, scratch=tmp_path) as spool:
        for _ in range(4):
            spool.write(bytes(1 << 19))
    assert raised.value.__cause__.errno == errno.EFBIG
    assert len(collector.got) <= 1 << 20


def test_without_room_for_what_is_expected_nothing_is_begun(tmp_path):
    collector = Collector()
    with pytest.raises(ScratchError), Spool(collector, scratch=tmp_path, needed=1 << 60):
        pytest.fail("it began")
    assert not collector.writes


def test_nothing_is_left_in_the_scratch_folder(tmp_path):
    with Spool(Collector(), scratch=tmp_path) as spool:
        spool.write(b"x")
        assert not list(tmp_path.iterdir())  # the file has no name, so even kill -9 leaves nothing
        spool.finish()
    assert not list(tmp_path.iterdir())
