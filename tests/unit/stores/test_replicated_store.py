"""Copies in several stores: one fails, the others go on; nobody waits for ever, and nothing half is seen."""

from __future__ import annotations

import io
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, islice

import pytest

from clusterguard.errors import ConfigError, ObjectExistsError, ObjectNotFoundError, StoreError, StoreUnavailableError
from clusterguard.stores import LocalStore, MemoryStore, ReplicatedStore, parts
from clusterguard.stores.prefixed import PrefixedStore

MiB = 1 << 20


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert [each for each in threading.enumerate() if each not in before and "clusterguard-" in each.name] == []


class Failing(MemoryStore):
    """Fails at one moment of a put, and in other verbs when it is down."""

    def __init__(self, moment, error=None, *, after=2 * MiB):
        super().__init__()
        self.moment = moment
        self.error = error or StoreUnavailableError("the far store is gone", hint="wait for it")
        self.after = after

    @contextmanager
    def put(self, key, *, overwrite=False):
        if self.moment == "entry":
            raise self.error
        with super().put(key, overwrite=overwrite) as data:
            yield _Counting(data, self) if self.moment == "middle" else data
            if self.moment == "end":
                raise self.error

    def stat(self, key):
        if self.moment == "down":
            raise self.error
        return super().stat(key)

    def get(self, key):
        if self.moment == "down":
            raise self.error
        return super().get(key)

    def list(self, prefix=""):
        if self.moment == "down":
            raise self.error
        return super().list(prefix)

    def delete(self, key):
        if self.moment in {"down", "delete"}:
            raise self.error
        super().delete(key)


class _Counting:
    def __init__(self, data, store):
        self.data = data
        self.store = store

    def write(self, piece):
        self.data.write(piece)
        if self.data.tell() > self.store.after:
            raise self.store.error


class Slow(MemoryStore):
    """Takes its time, and counts what is waiting for it."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.taken = 0

    @contextmanager
    def put(self, key, *, overwrite=False):
        with super().put(key, overwrite=overwrite) as data:
            store = self

            class Writer:
                def write(self, piece):
                    store.go.wait(20)
                    store.taken += len(piece)
                    data.write(piece)

            yield Writer()


def put(store, key, data, *, overwrite=False, piece=100_000):
    with store.put(key, overwrite=overwrite) as writer:
        for at in range(0, len(data), piece):
            writer.write(data[at : at + piece])


def read(store, key):
    with store.get(key) as reader:
        return b"".join(iter(lambda: reader.read(MiB), b""))


def raising(error):
    raise error
    yield


DATA = bytes(range(256)) * (9 * MiB // 256) + b"end"


class TestOneStoreFails:
    @pytest.mark.parametrize("moment", ["entry", "middle", "end"])
    @pytest.mark.parametrize("order", [1, -1], ids=["last", "first"])
    def test_the_others_have_the_whole_object_and_its_failure_is_kept(self, moment, order):
        near, failing, far = MemoryStore(), Failing(moment), MemoryStore()
        stores = dict([("near", near), ("broken", failing), ("far", far)][::order])
        replicated = ReplicatedStore(stores)
        put(replicated, "a", DATA)
        assert read(near, "a") == read(far, "a") == DATA
        assert list(MemoryStore.list(failing)) == []
        assert dict(replicated.failures) == {"broken": failing.error}

    def test_it_is_left_out_of_the_next_put_too(self):
        """The record of a backup must not appear where its bytes did not."""
        failing = Failing("middle")
        replicated = ReplicatedStore({"near": MemoryStore(), "broken": failing})
        put(replicated, "a.db", DATA)
        failing.moment = None
        put(replicated, "a.json", b"{}")
        assert list(failing.list()) == []
        assert [info.key for info in replicated.list()] == ["a.db", "a.json"]

    @pytest.mark.parametrize("moment", ["entry", "middle", "end"])
    def test_with_too_few_left_nothing_is_stored_anywhere(self, moment):
        near, failing = MemoryStore(), Failing(moment)
        replicated = ReplicatedStore({"near": near, "broken": failing}, minimum=2)
        with pytest.raises(StoreUnavailableError) as raised:
            put(replicated, "a", DATA)
        assert (raised.value.code, raised.value.fields) == (
            "too-few-stores",
            {"minimum": 2, "left": 1, "failed": ["broken"]},
        )
        assert raised.value.hint == "wait for it"
        assert list(near.list()) == []
        assert "broken" in replicated.failures

    def test_with_none_left_all_are_named(self):
        stores = {"one": Failing("middle"), "two": Failing("end", StoreError("refused", hint="ask"))}
        with pytest.raises(StoreError) as raised:
            put(ReplicatedStore(stores), "a", DATA)
        assert (raised.value.code, raised.value.fields["failed"]) == ("too-few-stores", ["one", "two"])
        assert not raised.value.retryable
        with pytest.raises(StoreError) as caught:
            put(ReplicatedStore(stores), "a", DATA)
        assert caught.value.fields["left"] == 0

    def test_the_stream_ends_soon_after_the_last_store_failed(self):
        written = 0
        with pytest.raises(StoreError), ReplicatedStore({"one": Failing("middle")}).put("a") as writer:
            for _ in range(100):
                writer.write(bytes(MiB))
                written += 1
        assert written < 15

    def test_what_cannot_be_removed_again_is_told(self):
        near = Failing("delete", StoreError("no permission to delete"))
        replicated = ReplicatedStore({"near": near, "broken": Failing("end")}, minimum=2)
        with pytest.raises(StoreError) as caught:
            put(replicated, "a", b"x")
        assert (caught.value.code, caught.value.fields["minimum"]) == ("too-few-stores", 2)
        assert "could not be removed again: no permission" in replicated.failures["near"].message

    def test_a_store_that_is_set_up_wrongly_is_one_that_fails(self):
        replicated = ReplicatedStore(
            {"near": MemoryStore(), "broken": Failing("entry", ConfigError("no such profile", hint="h"))}
        )
        put(replicated, "a", DATA)
        assert isinstance(replicated.failures["broken"], StoreError)
        assert (replicated.failures["broken"].message, replicated.failures["broken"].hint) == ("no such profile", "h")

    def test_a_mistake_in_a_store_is_not_gone_on_after(self):
        near = MemoryStore()
        with pytest.raises(ZeroDivisionError):
            put(ReplicatedStore({"near": near, "broken": Failing("middle", ZeroDivisionError())}), "a", DATA)
        assert list(near.list()) == []


class TestTaken:
    @pytest.mark.parametrize("where", ["near", "far"])
    def test_a_key_that_is_taken_in_one_store_is_taken(self, where):
        """Otherwise one name would stand for two things."""
        stores = {"near": MemoryStore(), "far": MemoryStore()}
        put(stores[where], "a", b"old")
        replicated = ReplicatedStore(stores)
        with pytest.raises(ObjectExistsError):
            put(replicated, "a", b"new")
        assert sum(len(list(store.list())) for store in stores.values()) == 1
        assert not replicated.failures

    def test_a_key_that_was_taken_in_a_later_store_meanwhile_is_a_failure_of_that_store(self):
        near, far = MemoryStore(), MemoryStore()
        replicated = ReplicatedStore({"near": near, "far": far})
        with replicated.put("a") as writer:
            writer.write(b"new")
            put(far, "a", b"another")
        assert (read(near, "a"), read(far, "a")) == (b"new", b"another")
        assert isinstance(replicated.failures["far"], ObjectExistsError)


class TestPace:
    def test_the_slowest_store_sets_the_pace_and_little_waits_for_it(self):
        slow, fast = Slow(), MemoryStore()
        written = []

        def write():
            with ReplicatedStore({"slow": slow, "fast": fast}).put("a") as writer:
                for _ in range(40):
                    writer.write(bytes(MiB))
                    written.append(1)

        thread = threading.Thread(target=write)
        thread.start()
        deadline = time.monotonic() + 10
        while len(written) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert 4 <= len(written) <= 8
        slow.go.set()
        thread.join(20)
        assert slow.taken == 40 * MiB
        assert slow.stat("a").size == fast.stat("a").size == 40 * MiB

    def test_ctrl_c_leaves_nothing_anywhere(self, tmp_path):
        stores = {"near": LocalStore(tmp_path / "a"), "far": MemoryStore()}
        with pytest.raises(KeyboardInterrupt), ReplicatedStore(stores).put("a") as writer:
            writer.write(DATA)
            raise KeyboardInterrupt
        assert [list(store.list()) for store in stores.values()] == [[], []]
        assert list((tmp_path / "a" / ".clusterguard-partial").iterdir()) == []


class InParts(MemoryStore):
    """Keeps the parts that it is given until it may send them, as an upload does, and sends some at the end."""

    def __init__(self, *, part_size=MiB, fails=False):
        super().__init__()
        self.part_size = part_size
        self.fails = fails
        self.full = threading.Event()
        self.go = threading.Event()
        self.seen = []  # the buffers, by identity
        self.checksums = []

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with super().put(key, overwrite=overwrite, if_version=if_version) as data:
            store, held = self, []

            class Writer:
                def write_part(self, part):
                    store.seen.append(id(part.body))
                    store.checksums.append(part.checksum("CRC32"))
                    held.append(part)
                    if len(held) > 2:
                        store.full.set()
                        store.go.wait(20)
                        if store.fails:
                            raise StoreUnavailableError("gone")
                        send(held.pop(0))

            def send(part):
                data.write(part.body)
                part.let_go()

            yield Writer()
            for part in held:
                send(part)


class TestParts:
    BYTES = b"".join(bytes([number]) * MiB for number in range(40)) + b"end"

    def test_all_stores_send_the_same_bytes_and_nobody_changes_them_meanwhile(self):
        slow, fast = InParts(), InParts()
        fast.go.set()
        threading.Thread(target=lambda: slow.full.wait(20) and slow.go.set()).start()
        put(ReplicatedStore({"fast": fast, "slow": slow}), "a", self.BYTES, piece=65_552)
        assert read(fast, "a") == read(slow, "a") == self.BYTES
        assert fast.seen == slow.seen
        assert len(set(fast.seen)) <= 2 + 1 + 3 + 1 + 1  # held, asked for, on their way, being filled, and the last one

    def test_the_checksum_of_a_part_is_computed_once(self, monkeypatch):
        computed = []
        monkeypatch.setattr(parts, "checksum_of", lambda data, kind: computed.append(len(data)) or f"{len(computed)}")
        stores = {"near": InParts(), "far": InParts(), "local": MemoryStore()}
        stores["near"].go.set()
        stores["far"].go.set()
        put(ReplicatedStore(stores), "a", self.BYTES)
        assert computed == [MiB] * 40 + [3]
        assert stores["near"].checksums == stores["far"].checksums

    def test_a_store_that_keeps_its_parts_and_fails_spoils_none_of_the_others(self):
        failing, slow, plain = InParts(fails=True), InParts(), MemoryStore()
        failing.go.set()
        threading.Thread(target=lambda: slow.full.wait(20) and slow.go.set()).start()
        replicated = ReplicatedStore({"failing": failing, "slow": slow, "plain": plain})
        put(replicated, "a", self.BYTES, piece=300_000)
        assert list(replicated.failures) == ["failing"]
        assert read(slow, "a") == read(plain, "a") == self.BYTES

    def test_the_largest_part_that_a_store_wants_is_that_of_all(self):
        near, far = InParts(part_size=2 * MiB), MemoryStore()
        near.go.set()
        put(ReplicatedStore({"near": PrefixedStore(near, "x"), "far": far}), "a", self.BYTES)
        assert len(near.seen) == 21
        assert read(near, "x/a") == read(far, "a") == self.BYTES


class TestReading:
    def test_the_first_store_that_has_the_object_gives_it(self):
        near, far = MemoryStore(), MemoryStore()
        put(far, "a", b"far")
        replicated = ReplicatedStore({"near": near, "far": far})
        assert read(replicated, "a") == b"far"
        assert replicated.stat("a").size == 3
        put(near, "a", b"near!")
        assert read(replicated, "a") == b"near!"

    def test_a_store_that_is_down_is_passed_over(self):
        far = MemoryStore()
        put(far, "a", b"far")
        assert read(ReplicatedStore({"near": Failing("down"), "far": far}), "a") == b"far"

    @pytest.mark.parametrize("verb", ["stat", "get", "list"])
    def test_a_store_that_is_down_is_down_for_every_verb_and_named_once(self, verb):
        near, failing = MemoryStore(), Failing("down")
        replicated = ReplicatedStore({"broken": failing, "near": near})
        with suppress(ObjectNotFoundError):
            list(replicated.list()) if verb == "list" else replicated.get(
                "a"
            ).__enter__() if verb == "get" else replicated.stat("a")
        assert dict(replicated.failures) == {"broken": failing.error}
        failing.moment = None
        put(replicated, "a", b"x")
        assert read(replicated, "a") == b"x"
        replicated.delete("b")
        assert list(failing.list()) == [], "what is away does not come back in the middle"
        assert [info.key for info in near.list()] == ["a"]

    @pytest.mark.parametrize("minimum", [1, 2])
    def test_whether_an_object_is_missing_is_for_the_minimum_to_say(self, minimum):
        """Where too few could be asked, nobody knows that it is not there."""
        replicated = ReplicatedStore({"near": MemoryStore(), "far": Failing("down")}, minimum=minimum)
        with pytest.raises(ObjectNotFoundError if minimum == 1 else StoreUnavailableError):
            replicated.stat("a")
        with pytest.raises(ObjectNotFoundError):
            ReplicatedStore({"near": MemoryStore(), "far": MemoryStore()}, minimum=minimum).stat("a")

    def test_a_store_that_goes_away_in_the_middle_of_its_list_leaves_the_rest_of_the_others(self):
        near, far = MemoryStore(), MemoryStore()
        for key in "abcdef":
            put(near, key, b"")
            put(far, key, b"")
        far.list = lambda _prefix="": chain(islice(MemoryStore.list(far), 3), raising(StoreUnavailableError("gone")))
        replicated = ReplicatedStore({"far": far, "near": near})
        assert [info.key for info in replicated.list()] == list("abcdef")
        assert list(replicated.failures) == ["far"]

    def test_a_store_that_fails_at_a_question_during_a_put_gets_nothing_of_it(self):
        """Whoever asks while writing (is it there stored otherwise?) finds out first that a store is away."""
        near, failing = MemoryStore(), Failing(None)
        replicated = ReplicatedStore({"broken": failing, "near": near})
        with replicated.put("a") as writer:
            writer.write(b"x")
            failing.moment = "down"
            assert list(replicated.list()) == []
            failing.moment = None
        assert (read(near, "a"), list(failing.list())) == (b"x", [])
        assert list(replicated.failures) == ["broken"]

    def test_a_listing_has_what_any_store_has_or_fails(self):
        near, far = MemoryStore(), MemoryStore()
        for store, key in [(near, "a"), (far, "a"), (far, "b"), (near, "c")]:
            put(store, key, b"")
        assert [info.key for info in ReplicatedStore({"near": near, "far": far}).list()] == ["a", "b", "c"]
        with pytest.raises(StoreUnavailableError):
            list(ReplicatedStore({"near": near, "far": Failing("down")}, minimum=2).list())

    @pytest.mark.parametrize("minimum", [1, 2])
    def test_a_deletion_is_tried_everywhere_before_it_fails(self, minimum):
        near = MemoryStore()
        put(near, "a", b"")
        replicated = ReplicatedStore({"far": Failing("down"), "near": near}, minimum=minimum)
        with pytest.raises(StoreUnavailableError) if minimum == 2 else nullcontext():
            replicated.delete("a")
        assert list(near.list()) == []
        assert list(replicated.failures) == ["far"]

    def test_a_deletion_does_not_fail_for_a_store_that_was_left_out(self):
        near, failing = MemoryStore(), Failing("entry")
        replicated = ReplicatedStore({"near": near, "broken": failing})
        put(replicated, "a", b"")
        failing.moment = "down"
        replicated.delete("a")
        assert list(near.list()) == []


@pytest.mark.parametrize("minimum", [0, 3])
def test_a_minimum_that_cannot_be_meant_is_refused(minimum):
    with pytest.raises(ConfigError):
        ReplicatedStore({"near": MemoryStore(), "far": MemoryStore()}, minimum=minimum)
    with pytest.raises(ConfigError):
        ReplicatedStore({})


def test_pieces_of_every_kind_arrive_in_order():
    near = MemoryStore()
    with ReplicatedStore({"near": near}).put("a") as writer:
        wanted = io.BytesIO()
        for size in (0, 1, MiB - 1, 3 * MiB + 7, 5, MiB):
            piece = bytes([size % 251]) * size
            writer.write(bytearray(piece))
            wanted.write(piece)
    assert read(near, "a") == wanted.getvalue()
