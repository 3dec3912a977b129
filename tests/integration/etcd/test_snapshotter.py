"""Saving snapshots of a real member into a store, and proving them."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from etcd_proxy import end_of_stream

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import (
    ConfigError,
    EtcdAuthError,
    EtcdUnavailableError,
    ObjectExistsError,
    ObjectNotFoundError,
    ScratchError,
    SnapshotCorruptError,
    SnapshotIncompleteError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.member import EtcdMember
from clusterguard.process import run
from clusterguard.stores import LocalStore, PrefixedStore
from clusterguard.stores.memory import MemoryStore
from etcd_member import free_port, member

pytestmark = pytest.mark.programs

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


@pytest.fixture
def local(tmp_path):
    return LocalStore(tmp_path / "store")


def keys(store):
    return [info.key for info in store.list()]


def read(store, key):
    with store.get(key) as reader:
        return reader.read()


def outcomes(report):
    return {check.name: check.ok for check in report.checks}


# ---- save


def test_a_saved_snapshot_is_described_and_proven(plain, store):
    told = []
    snapshotter = EtcdSnapshotter(store=store, access=plain.access, now=lambda: NOW, progress=told.append)
    snapshot = snapshotter.save()
    assert snapshot.name == "etcd-20300131T120000Z"
    assert keys(store) == [f"{snapshot.name}.db", f"{snapshot.name}.json"]
    assert snapshot.revision == plain.revision()
    assert (snapshot.total_keys, snapshot.member_name, snapshot.endpoint) == (30, "m1", plain.endpoint)
    assert snapshot.size == store.stat(snapshot.key).size
    assert snapshot.etcd_version.startswith("3.")
    assert snapshot.hash_kv == plain.hash_kv(snapshot.revision)
    assert (told[-1].done, told[-1].total, told[-1].finished) == (snapshot.size, snapshot.size, True)
    assert [snapshot] == list(snapshotter.list())
    report = snapshotter.verify(snapshot.name)
    assert outcomes(report) == {"bytes": True, "structure": True, "record": True, "live HashKV": True}
    report.raise_for_findings()


def test_etcdutl_reads_what_was_saved(plain, local, toolchain):
    snapshot = EtcdSnapshotter(store=local, access=plain.access).save("s")
    etcdutl = toolchain.ensure("etcdutl")["etcdutl"]
    path = local.local_path(snapshot.key)
    status = json.loads(run([etcdutl, "snapshot", "status", path, "-w", "json"], timeout_seconds=30).stdout)
    assert (status["revision"], status["totalKey"]) == (snapshot.revision, snapshot.total_keys)


def test_a_member_with_client_certificates_is_saved(secured, local):
    snapshotter = EtcdSnapshotter(store=local, access=secured.access)
    assert snapshotter.verify(snapshotter.save("s").name).ok


def test_an_empty_etcd_is_saved(etcd_program, tmp_path, local):
    with member(etcd_program, tmp_path / "etcd") as empty:
        snapshotter = EtcdSnapshotter(store=local, access=empty.access)
        snapshot = snapshotter.save("s")
        assert (snapshot.revision, snapshot.total_keys) == (0, 0)
        assert outcomes(snapshotter.verify("s"))["record"]


def test_a_deletion_compacted_right_away_is_saved_and_proven(etcd_program, tmp_path, local):
    with member(etcd_program, tmp_path / "etcd") as etcd:
        etcd.put("/a")
        etcd.put("/b")
        etcd.compact(etcd.delete("/b"))
        etcd.ask("maintenance/defragment", {})
        snapshotter = EtcdSnapshotter(store=local, access=etcd.access)
        snapshot = snapshotter.save("s")
        assert (snapshot.total_keys, snapshot.hash_revision) == (1, etcd.revision())
        # etcd keeps the hash that it computed for a compaction, and answers with that one at its revision.
        expected = {"bytes": True, "structure": True, "record": True, "live HashKV": None}
        assert outcomes(snapshotter.verify("s")) == expected


def test_a_snapshot_saved_while_others_write_is_proven(plain, local):
    stop = threading.Event()

    def write():
        for index in itertools.count():
            if stop.is_set():
                return
            plain.put(f"/registry/leases/l{index % 50:02}", value=b"y" * 300)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        snapshotter = EtcdSnapshotter(store=local, access=plain.access)
        reports = [snapshotter.verify(snapshotter.save(f"s{number}").name) for number in range(5)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert all(all(outcomes(report).values()) for report in reports)
    assert len({report.snapshot.revision for report in reports}) == 5


def remarks(snapshot):
    return [remark.code for remark in snapshot.remarks]


def test_a_dead_member_is_passed_over_and_named(plain, local):
    dead = f"http://127.0.0.1:{free_port()}"
    access = replace(plain.access, endpoints=(dead, plain.endpoint))
    snapshotter = EtcdSnapshotter(store=local, access=access)
    snapshot = snapshotter.save("s")
    assert (snapshot.endpoint, remarks(snapshot)) == (plain.endpoint, ["member-unasked"])
    assert dead in snapshot.remarks[0].detail
    assert snapshotter.find("s").remarks == snapshot.remarks
    live = snapshotter.verify("s").checks[-1]
    assert (live.name, live.ok, len(live.unasked)) == ("live HashKV", True, 1)
    assert dead in live.unasked[0]
    assert dead in live.detail


def test_a_learner_alone_is_saved_from_and_told(etcd_program, tmp_path, local):
    with member(etcd_program, tmp_path / "voter") as voter:
        voter.put("/a", "/b")
        with member(etcd_program, tmp_path / "learner", add_to=voter) as learner:
            snapshotter = EtcdSnapshotter(store=local, access=learner.access)
            snapshot = snapshotter.save("s")
            assert (snapshot.revision, snapshot.total_keys, snapshot.member_name) == (2, 2, "learner")
            assert remarks(snapshot) == ["learner", "hash-of-file"]
            report = snapshotter.verify("s")
            assert (report.ok, outcomes(report)["live HashKV"]) == (True, None)
            both = replace(voter.access, endpoints=(learner.endpoint, voter.endpoint))
            snapshotter = EtcdSnapshotter(store=local, access=both)
            assert (snapshotter.save("t").member_name, remarks(snapshotter.find("t"))) == ("m1", [])
            live = snapshotter.verify("s").checks[-1]
            assert (live.ok, len(live.unasked)) == (True, 1)
            assert learner.endpoint in live.unasked[0]


def test_an_alarm_and_authentication_are_told(etcd_program, tmp_path, local):
    with member(etcd_program, tmp_path / "etcd") as etcd:
        etcd.put("/a")
        etcd.ask("auth/user/add", {"name": "root", "password": "root-password"})
        etcd.ask("auth/role/add", {"name": "root"})
        etcd.ask("auth/user/grant", {"user": "root", "role": "root"})
        identity = f"{int(etcd.ask('maintenance/status', {})['header']['member_id']):x}"
        etcd.ask("maintenance/alarm", {"action": "ACTIVATE", "memberID": int(identity, 16), "alarm": "NOSPACE"})
        etcd.ask("auth/enable", {})
        access = replace(etcd.access, username="root", password="root-password")
        snapshot = EtcdSnapshotter(store=local, access=access).save("s")
        assert remarks(snapshot) == ["alarm-nospace", "authentication-on"]
        assert remarks(EtcdSnapshotter(store=local, access=access).verify("s")) == remarks(snapshot)
        assert identity in snapshot.remarks[0].detail
        with EtcdMember(access, etcd.endpoint) as one:
            assert one.alarms() == one.disarm() == (f"NOSPACE on {identity}",)
            assert one.alarms() == ()
            assert one.authentication() is True
        with EtcdMember(etcd.access, etcd.endpoint) as nobody:
            assert nobody.authentication() is True


def test_a_snapshot_of_an_empty_etcd_is_told(etcd_program, tmp_path, local):
    with member(etcd_program, tmp_path / "etcd") as etcd, EtcdMember(etcd.access, etcd.endpoint) as one:
        snapshotter = EtcdSnapshotter(store=local, access=etcd.access)
        assert remarks(snapshotter.save("s")) == remarks(snapshotter.verify("s")) == ["no-keys"]
        assert one.authentication() is False


def test_a_chosen_member_is_not_replaced_by_another(plain, local):
    dead = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EtcdUnavailableError, match=dead):
        EtcdSnapshotter(store=local, access=plain.access, endpoint=dead).save("s")
    assert keys(local) == []


def test_where_no_member_can_be_saved_from_each_is_named_and_a_refusal_counts_more(secured, local):
    dead = secured.endpoint.replace(str(secured.port), str(free_port()))
    access = replace(secured.access, endpoints=(dead, secured.endpoint), cert=None, key=None)
    with pytest.raises(EtcdAuthError) as raised:
        EtcdSnapshotter(store=local, access=access).save("s")
    assert dead in raised.value.message
    assert secured.endpoint in raised.value.message
    assert "certificate" in raised.value.hint


def test_without_any_endpoint_there_is_a_word_for_it(local):
    with pytest.raises(ConfigError) as caught:
        EtcdSnapshotter(store=local, access=EtcdAccess(endpoints=())).save("s")
    assert caught.value.code == "no-endpoints"
    with pytest.raises(ConfigError, match="no etcd to save from"):
        EtcdSnapshotter(store=local).save("s")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "../x", "a" * 129, "ä", "a~b"])
def test_names_that_are_no_keys_are_refused(plain, local, name):
    with pytest.raises(ConfigError, match="cannot name a snapshot"):
        EtcdSnapshotter(store=local, access=plain.access).find(name)


def test_a_member_that_lost_its_quorum_is_still_saved(etcd_program, tmp_path, local, monkeypatch):
    with member(etcd_program, tmp_path / "etcd") as etcd:
        etcd.put("/registry/pods/default/web")
        etcd.ask("cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{free_port()}"]})  # it never comes
        while etcd.ask("maintenance/status", {}).get("leader", "0") != "0":
            time.sleep(0.05)
        snapshotter = EtcdSnapshotter(store=local, access=etcd.access)
        with monkeypatch.context() as patch:
            patch.setattr("clusterguard.etcd.verification.verify_file", pytest.fail)  # the slow way round
            snapshot = snapshotter.save("s")
        assert (snapshot.total_keys, snapshot.member_name, remarks(snapshot)) == (1, "m1", ["no-leader"])
        assert outcomes(snapshotter.verify("s"))["live HashKV"]


# ---- names and leftovers


def test_a_taken_name_is_refused_and_what_has_it_stays(plain, store):
    snapshotter = EtcdSnapshotter(store=store, access=plain.access)
    first = snapshotter.save("nightly")
    with pytest.raises(ObjectExistsError, match="'nightly'"):
        snapshotter.save("nightly")
    assert snapshotter.find("nightly") == first
    assert snapshotter.verify("nightly").ok


def test_bytes_without_a_record_are_neither_replaced_nor_removed(plain, store):
    """etcdctl may have saved them; and whoever was killed between bytes and record cannot prove that they are its."""
    theirs = b"saved by etcdctl"
    with store.put("nightly.db") as writer:
        writer.write(theirs)
    snapshotter = EtcdSnapshotter(store=store, access=plain.access)
    assert snapshotter.list() == ()
    for call in (snapshotter.save, snapshotter.delete):
        with pytest.raises(ObjectExistsError) as raised:
            call("nightly")
        assert raised.value.hint
    with store.get("nightly.db") as reader:
        assert reader.read() == theirs
    assert keys(store) == ["nightly.db"]


@pytest.mark.parametrize("text", [b"{}", b"not JSON", b'{"name": "nightly"}'])
def test_what_a_foreign_record_names_is_not_deleted(plain, store, text):
    for key in ("nightly.json", "nightly.db"):
        with store.put(key) as writer:
            writer.write(text)
    with pytest.raises(SnapshotCorruptError):
        EtcdSnapshotter(store=store, access=plain.access).delete("nightly")
    assert keys(store) == ["nightly.db", "nightly.json"]


@pytest.mark.parametrize("first_began_first", [True, False])
def test_of_two_saves_under_one_name_one_wins_and_is_whole(plain, first_began_first):
    class Slow(MemoryStore):
        """Lets somebody else save under the same name before the first bytes, or before the record."""

        def __init__(self):
            super().__init__()
            self.rival = None

        @contextlib.contextmanager
        def put(self, key, *, overwrite=False):
            with super().put(key, overwrite=overwrite) as writer:
                yield writer
                suffix = ".json" if first_began_first else ".db"
                rival, self.rival = (self.rival, None) if key.endswith(suffix) else (None, self.rival)
                if rival is not None:
                    rival()

    store = Slow()
    snapshotter = EtcdSnapshotter(store=store, access=plain.access)
    ended = []

    def rival():
        with contextlib.suppress(ObjectExistsError):
            ended.append(snapshotter.save("nightly"))

    store.rival = rival
    with contextlib.suppress(ObjectExistsError):
        ended.append(snapshotter.save("nightly"))
    assert len(ended) == 1
    assert snapshotter.verify("nightly").ok
    assert len(keys(store)) == 2


def test_a_deleted_snapshot_is_gone_and_deleting_again_is_no_error(plain, store):
    snapshotter = EtcdSnapshotter(store=store, access=plain.access)
    snapshotter.save("s")
    snapshotter.delete("s")
    snapshotter.delete("s")
    assert keys(store) == []


def test_snapshots_are_listed_oldest_first_and_other_objects_are_passed_over(plain, local):
    times = iter([datetime(2030, 1, 2, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)])
    snapshotter = EtcdSnapshotter(store=local, access=plain.access, now=lambda: next(times))
    snapshotter.save("later")
    snapshotter.save("earlier")
    for key in ("notes.txt", "elsewhere/notes.json"):
        with local.put(key) as writer:
            writer.write(b"{}")
    assert [each.name for each in snapshotter.list()] == ["earlier", "later"]
    assert snapshotter.list().unreadable == {}


# ---- harm on the way


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95, 1.0])
def test_a_cut_stream_leaves_nothing(plain, store, faulty, part):
    snapshotter = EtcdSnapshotter(store=store, access=faulty.access)
    keys_there = snapshotter.save("probe").total_keys
    snapshotter.delete("probe")
    faulty.cut_after = int(end_of_stream(faulty.sent) * part) - 90
    with pytest.raises((SnapshotIncompleteError, EtcdUnavailableError)):
        snapshotter.save("s")
    assert keys(store) == []
    faulty.reset()
    assert snapshotter.save("s").total_keys == keys_there


def test_a_changed_byte_leaves_nothing(store, faulty):
    def harm(_, piece):
        return piece.replace(b"THE-MARKER-BYTES", b"THE-MARKER-BITES")

    faulty.harm = harm
    with pytest.raises(SnapshotCorruptError, match="the trailer says"):
        EtcdSnapshotter(store=store, access=faulty.access).save("s")
    assert keys(store) == []


@pytest.mark.parametrize("answers", [True, False])
def test_a_record_that_was_stored_although_no_answer_came_keeps_its_bytes(plain, answers):
    class LosesTheAnswer(MemoryStore):
        lost = False

        @contextlib.contextmanager
        def put(self, key, *, overwrite=False, if_version=None):
            with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
                yield writer
            if key.endswith(".json"):
                self.lost = True
                raise StoreUnavailableError("the connection broke")

        def get(self, key):
            if self.lost and not answers:
                raise StoreUnavailableError("nor is there any answer later")
            return super().get(key)

    store = LosesTheAnswer()
    snapshotter = EtcdSnapshotter(store=store, access=plain.access)
    with pytest.raises(StoreUnavailableError, match="the connection broke"):
        snapshotter.save("s")
    store.lost = False
    assert snapshotter.verify("s").ok


@pytest.mark.parametrize("suffix", [".db", ".json"])
@pytest.mark.parametrize("error", [StoreError("the bucket is full"), KeyboardInterrupt()], ids=["store", "ctrl-c"])
def test_a_store_that_fails_in_the_middle_is_left_empty(plain, suffix, error):
    class Writer:
        def __init__(self, inner):
            self.inner = inner

        def write(self, data):
            raise error

    class Store(MemoryStore):
        @contextlib.contextmanager
        def put(self, key, *, overwrite=False):
            with super().put(key, overwrite=overwrite) as writer:
                yield Writer(writer) if key.endswith(suffix) else writer

    store = Store()
    with pytest.raises(type(error)) as raised:
        EtcdSnapshotter(store=store, access=plain.access).save("s")
    assert raised.value is error
    assert keys(store) == []


def test_whole_bytes_that_are_no_database_are_not_kept(plain, store, monkeypatch):
    def broken(_):
        raise SnapshotCorruptError("page 3 is no page")

    monkeypatch.setattr("clusterguard.etcd.snapshotter._contents", broken)
    with pytest.raises(SnapshotCorruptError, match="page 3"):
        EtcdSnapshotter(store=store, access=plain.access).save("s")
    assert keys(store) == []


def test_a_full_disk_is_told_and_leaves_nothing(plain, tmp_path):
    code = """
        import resource, signal, sys
        from pathlib import Path
        from clusterguard.clusters.base import EtcdAccess
        from clusterguard.errors import StoreError
        from clusterguard.etcd import EtcdSnapshotter
        from clusterguard.stores import LocalStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        store = LocalStore(Path(sys.argv[2]))
        try:
            EtcdSnapshotter(store=store, access=EtcdAccess(endpoints=(sys.argv[1],))).save("s")
        except StoreError as error:
            print(error.message, "->", error.hint)
    """
    said = python(code, plain.endpoint, tmp_path / "store").communicate(timeout=60)[0]
    assert "File too large -> make room" in said
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_scratch_folder_that_is_not_there_is_told(plain, tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        EtcdSnapshotter(store=MemoryStore(), access=plain.access, scratch=tmp_path / "nowhere").save("s")


def test_without_room_in_the_scratch_folder_nothing_is_begun(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    store = MemoryStore()
    with pytest.raises(ScratchError) as raised:
        EtcdSnapshotter(store=store, access=plain.access, scratch=tmp_path).save("s")
    assert raised.value.fields["needed"] > raised.value.fields["free"] == 10_000
    assert keys(store) == []


@pytest.mark.parametrize("verb", ["save", "verify"])
def test_a_scratch_folder_that_fills_meanwhile_is_told_and_leaves_nothing(plain, tmp_path, verb):
    code = """
        import resource, sys
        from pathlib import Path
        from clusterguard.clusters.base import EtcdAccess
        from clusterguard.errors import ScratchError
        from clusterguard.etcd import EtcdSnapshotter
        from clusterguard.stores import MemoryStore
        store, access = MemoryStore(), EtcdAccess(endpoints=(sys.argv[1],))
        snapshotter = EtcdSnapshotter(store=store, access=access, scratch=Path(sys.argv[2]))
        if sys.argv[3] == "verify":
            snapshotter.save("s")
        before = [info.key for info in store.list()]
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            getattr(snapshotter, sys.argv[3])("s")
        except ScratchError as error:
            assert [info.key for info in store.list()] == before
            print(error.code)
    """
    said = python(code, plain.endpoint, tmp_path, verb).communicate(timeout=60)[0]
    assert said == "scratch-full\n"
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_directory_needs_no_scratch_folder(plain, tmp_path):
    store = PrefixedStore(PrefixedStore(LocalStore(tmp_path), "nightly"), "etcd")
    snapshotter = EtcdSnapshotter(store=store, access=plain.access, scratch=tmp_path / "nowhere")
    assert snapshotter.verify(snapshotter.save("s").name).ok
    assert (tmp_path / "nightly" / "etcd" / "s.db").is_file()


def test_a_wrong_identity_is_told_before_anything_is_written(secured, store):
    with pytest.raises(EtcdAuthError):
        EtcdSnapshotter(store=store, access=replace(secured.access, cert=None, key=None)).save("s")
    assert keys(store) == []


# ---- killed


def python(code, *arguments, **options):
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)


SAVING = """
    import itertools, sys
    from pathlib import Path
    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import LocalStore
    snapshotter = EtcdSnapshotter(store=LocalStore(Path(sys.argv[2])), access=EtcdAccess(endpoints=(sys.argv[1],)))
    snapshotter.save(f"{sys.argv[3]}-first")
    print("ready", flush=True)
    for number in itertools.count():
        snapshotter.save(f"{sys.argv[3]}-{number}")
"""


def test_a_save_killed_at_any_moment_leaves_whole_snapshots_only(plain, local, tmp_path):
    chance = random.Random(3)  # noqa: S311 - moments, not secrets
    snapshotter = EtcdSnapshotter(store=local, access=plain.access)
    for round_ in range(6):
        process = python(SAVING, plain.endpoint, tmp_path / "store", f"r{round_}")
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.communicate()
        for snapshot in snapshotter.list():
            assert outcomes(snapshotter.verify(snapshot.name))["bytes"]
    assert snapshotter.list()
    # The very names that a kill may have hit are free, but for bytes whose record is missing.
    taken = {key.rpartition(".")[0] for key in keys(local)}
    for round_ in range(6):
        number = next(number for number in itertools.count() if f"r{round_}-{number}" not in taken)
        assert snapshotter.verify(snapshotter.save(f"r{round_}-{number}").name).ok


KILLED_AT = """
    import os, signal, sys
    from pathlib import Path
    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import LocalStore
    left = int(sys.argv[3])
    def counted(name):
        real = getattr(os, name)
        def call(*arguments, **options):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, name, call)
    for name in ("link", "replace", "fsync", "open", "mkdir", "unlink"):
        counted(name)
    snapshotter = EtcdSnapshotter(store=LocalStore(Path(sys.argv[2])), access=EtcdAccess(endpoints=(sys.argv[1],)))
    snapshotter.save("s")
"""


def test_a_save_killed_between_any_two_system_calls_leaves_nothing_or_all(plain, tmp_path):
    seen = set()
    for number in range(40):
        folder = tmp_path / str(number)
        process = python(KILLED_AT, plain.endpoint, folder, number)
        process.communicate(timeout=60)
        snapshotter = EtcdSnapshotter(store=LocalStore(folder), access=plain.access)
        there = [snapshot.name for snapshot in snapshotter.list()]
        seen.add((process.returncode, *there))
        if there:
            assert outcomes(snapshotter.verify("s"))["bytes"]
        elif (folder / "s.db").exists():
            with pytest.raises(ObjectExistsError):
                snapshotter.save("s")
            seen.add("bytes without a record")
        else:
            snapshotter.save("s")
        if process.returncode == 0:
            break
    assert process.returncode == 0, "it never came to its end"
    assert {(-signal.SIGKILL,), "bytes without a record"} <= seen


# ---- verify


@pytest.fixture
def saved(plain, local):
    """A snapshotter whose store holds two snapshots, and the folder of that store."""
    snapshotter = EtcdSnapshotter(store=local, access=plain.access)
    snapshotter.save("a")
    plain.put("/registry/pods/default/late")
    snapshotter.save("b")
    return snapshotter, local.local_path("a.db").parent


def change_record(folder, **values):
    file = folder / "a.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_missing_bytes_are_a_finding(saved):
    snapshotter, folder = saved
    (folder / "a.db").unlink()
    report = snapshotter.verify("a")
    assert outcomes(report) == {"bytes": False}
    with pytest.raises(SnapshotCorruptError, match="NOT INTACT"):
        report.raise_for_findings()


@pytest.mark.parametrize("kept", [0, 100, 512, 20_480, -1, -32, -33])
def test_truncated_bytes_are_a_finding(saved, kept):
    snapshotter, folder = saved
    whole = (folder / "a.db").read_bytes()
    (folder / "a.db").write_bytes(whole[:kept])
    assert outcomes(snapshotter.verify("a")) == {"bytes": False}


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_flipped_bit_is_a_finding(saved, part):
    snapshotter, folder = saved
    data = bytearray((folder / "a.db").read_bytes())
    data[int(len(data) * part)] ^= 1
    (folder / "a.db").write_bytes(data)
    assert outcomes(snapshotter.verify("a")) == {"bytes": False}


def test_another_intact_snapshot_in_its_place_is_a_finding(saved):
    snapshotter, folder = saved
    (folder / "a.db").write_bytes((folder / "b.db").read_bytes())
    report = snapshotter.verify("a")
    assert outcomes(report) == {"bytes": False}
    assert "was recorded" in report.checks[0].detail


@pytest.mark.parametrize(
    ("field", "seen"), [("revision", "revision 1 "), ("total_keys", "live keys 1 "), ("hash_kv", "HashKV 1 ")]
)
def test_a_record_that_lies_is_a_finding(saved, field, seen):
    snapshotter, folder = saved
    change_record(folder, **{field: 1})
    report = snapshotter.verify("a")
    assert (outcomes(report)["bytes"], outcomes(report)["record"], report.ok) == (True, False, False)
    assert f"{seen}was recorded" in next(check.detail for check in report.checks if check.name == "record")


def test_an_etcd_that_is_down_proves_nothing_and_harms_nothing(saved, local):
    _, _ = saved
    access = EtcdAccess(endpoints=(f"http://127.0.0.1:{free_port()}",))
    report = EtcdSnapshotter(store=local, access=access).verify("a")
    assert (outcomes(report)["live HashKV"], report.ok) == (None, True)
    assert access.endpoints[0] in report.unasked[0].detail


def test_without_an_etcd_the_bytes_are_proven_all_the_same(saved, local):
    report = EtcdSnapshotter(store=local).verify("a")
    assert (report.ok, [check.name for check in report.unasked]) == (True, ["live HashKV"])


def test_an_etcd_that_has_compacted_since_is_told(etcd_program, tmp_path, local):
    with member(etcd_program, tmp_path / "etcd") as etcd:
        etcd.put("/a")
        snapshotter = EtcdSnapshotter(store=local, access=etcd.access)
        snapshotter.save("s")
        etcd.put("/b")
        etcd.compact(etcd.put("/c"))
        report = snapshotter.verify("s")
    assert (outcomes(report)["live HashKV"], report.ok) == (None, True)
    assert "compacted" in report.unasked[0].detail


def test_another_cluster_is_a_finding(saved, local, etcd_program, tmp_path):
    snapshotter, _ = saved
    revision = snapshotter.find("a").revision
    with member(etcd_program, tmp_path / "other") as other:
        while other.revision() < revision:
            other.put("/registry/pods/default/else")
        report = EtcdSnapshotter(store=local, access=other.access).verify("a")
    assert (outcomes(report)["bytes"], outcomes(report)["live HashKV"], report.ok) == (True, False, False)
    assert "not the same data" in report.checks[-1].detail


def test_an_unknown_name_is_told(saved):
    with pytest.raises(ObjectNotFoundError, match="no snapshot 'z'"):
        saved[0].verify("z")


# ---- memory


MEASURED = """
    import sys
    from pathlib import Path
    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import LocalStore
    snapshotter = EtcdSnapshotter(store=LocalStore(Path(sys.argv[2])), access=EtcdAccess(endpoints=(sys.argv[1],)))
    snapshotter.save("s")
    # Not ru_maxrss: across fork and exec that one keeps the peak of whoever started this process.
    print(next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_snapshot(etcd_program, tmp_path):
    with member(etcd_program, tmp_path / "etcd") as etcd:

        def peak(name):
            said = python(MEASURED, etcd.endpoint, tmp_path / name).communicate(timeout=60)[0]
            return int(said) / 1024, (tmp_path / name / "s.db").stat().st_size / 1e6

        small_mib, _ = peak("small")
        for number in range(40):
            etcd.put(f"/big/{number}", value=random.Random(number).randbytes(1_000_000))  # noqa: S311 - ballast
        large_mib, megabytes = peak("large")
    assert megabytes > 40
    assert large_mib < small_mib + 20
    assert large_mib < 100
