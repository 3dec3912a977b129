"""A thread counts as running until it has ended, whatever interrupts those who wait for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest

from clusterguard.stores.memory import MemoryStore
from clusterguard.stores.replicated import ReplicatedStore
from clusterguard.threads import Worker, interrupt_between_locks


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


@pytest.fixture
def handled_by():
    before = signal.getsignal(signal.SIGINT)

    def handle(whose):
        if whose == "ours":
            interrupt_between_locks(signal.SIGINT)
        else:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    yield handle
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("whose", "given_back"), [("ours", 1), ("Python's own", 0)])
def test_ctrl_c_comes_before_or_after_a_lock_is_taken_and_not_between(handled_by, whose, given_back):
    """Python's own handler raises within ``Condition.__enter__``: nobody would ever give the lock back."""
    handled_by(whose)
    condition, exits = threading.Condition(), []
    # Taking the lock is the last thing that __enter__ does, and this one is written in C: the frame is __enter__'s.
    press_ctrl_c = partial(os.kill, os.getpid(), signal.SIGINT)
    condition._lock = SimpleNamespace(__enter__=press_ctrl_c, __exit__=lambda *_: exits.append(1))
    with pytest.raises(KeyboardInterrupt), condition:
        time.sleep(10)
    assert len(exits) == given_back


@pytest.mark.parametrize(("whose", "known"), [("ours", 1), ("Python's own", 0)])
def test_ctrl_c_comes_before_or_after_a_pool_has_a_thread_and_not_between(handled_by, monkeypatch, whose, known):
    """A thread that its pool does not know is never told to end, and the end of the program waits for it."""
    handled_by(whose)
    pool, ended = ThreadPoolExecutor(1), threading.Event()
    starts = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    real_start = getattr(threading, starts)

    def start_and_press_ctrl_c(*args, **options):
        monkeypatch.undo()
        started = real_start(*args, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return started

    monkeypatch.setattr(threading, starts, start_and_press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(ended.set)
        time.sleep(10)
    assert ended.wait(10)
    assert len(pool._threads) == known
    pool._work_queue.put(None)  # what tells one to end that nobody knows
    pool.shutdown()


def test_ctrl_c_is_not_lost_in_a_finalizer(handled_by):
    class PressesCtrlC:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    handled_by("ours")
    with pytest.raises(KeyboardInterrupt):
        PressesCtrlC()
        time.sleep(10)


@pytest.mark.parametrize("whose", ["ours", "Python's own"])
def test_ctrl_c_reaches_whoever_waits_for_a_thread(handled_by, whose):
    handled_by(whose)
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(go.wait, 30)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            waiting.result()
        go.set()
        assert waiting.result(10)
