"""A thread counts as running until it has ended, whatever interrupts those who wait for it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from clusterguard.stores.memory import MemoryStore
from clusterguard.stores.replicated import ReplicatedStore
from clusterguard.threads import Worker


@pytest.fixture
def interrupt():
    """Send this process SIGINT in a moment, as Ctrl-C does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    yield timer.start
    timer.cancel()
    signal.signal(signal.SIGINT, before)


def test_a_worker_that_was_waited_for_in_vain_is_still_running(interrupt):
    go, done = threading.Event(), []
    worker = Worker(lambda: go.wait(30) and done.append(True), name="slow")
    worker.start()
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        worker.join()
    assert worker.is_alive()
    threading.Timer(0.1, go.set).start()
    worker.join()
    assert (done, worker.is_alive()) == ([True], False)


class SlowToPublish(MemoryStore):
    """Publishes an object only once it may."""

    def __init__(self):
        super().__init__()
        self.go, self.published = threading.Event(), threading.Event()

    def put(self, key, **options):
        inner = super().put(key, **options)
        store = self

        class Slow:
            def __enter__(self):
                return inner.__enter__()

            def __exit__(self, *error):
                store.go.wait(30)
                ended = inner.__exit__(*error)
                store.published.set()
                return ended

        return Slow()


def test_an_object_that_is_published_after_ctrl_c_is_removed_again(interrupt):
    """Its put was given up, and whoever gave it up removes what belongs to it."""
    slow = SlowToPublish()
    threading.Timer(0.6, slow.go.set).start()
    interrupt()
    with pytest.raises(KeyboardInterrupt), ReplicatedStore({"slow": slow}, minimum=1).put("record") as writer:
        writer.write(b"x")
    assert slow.published.wait(10)
    assert list(slow.list()) == []
