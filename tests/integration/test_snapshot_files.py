"""Snapshot files of a real etcd: we read of them what etcd and etcdutl say, and damage is always found."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterguard.errors import ConfigError, SnapshotCorruptError, SnapshotError, SnapshotIncompleteError
from clusterguard.etcd.boltdb import BoltFile
from clusterguard.etcd.hashkv import hash_kv
from clusterguard.etcd.keyspace import Keyspace
from clusterguard.etcd.verification import check_structure, open_database, verify_file
from clusterguard.process import spawn, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterguard.toolchain import Toolchain

pytestmark = pytest.mark.programs

TRAILER = 32


@pytest.fixture(scope="session")
def programs(toolchain: Toolchain) -> dict[str, Path]:
    return toolchain.ensure("etcd", "etcdctl", "etcdutl")


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Etcd:
    """One real member, driven through its gateway."""

    programs: dict[str, Path]
    port: int
    log: Path
    token: str = ""

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            headers = {"Authorization": self.token} if self.token else {}
            connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        assert response.status == 200, f"{path}: {answer}"
        return answer

    def put(self, *keys: str, value: str = "v", lease: int = 0) -> int:
        puts = [
            {"requestPut": {"key": b64(key.encode()), "value": b64(value.encode()), "lease": str(lease)}}
            for key in keys
        ]
        return int(self.ask("kv/txn", {"success": puts})["header"]["revision"])

    def delete(self, first: str, end: str | None = None) -> int:
        body = {"key": b64(first.encode())}
        if end is not None:
            body["range_end"] = b64(end.encode())
        return int(self.ask("kv/deleterange", body)["header"]["revision"])

    def compact(self, revision: int) -> None:
        self.ask("kv/compaction", {"revision": str(revision), "physical": True})
        # "physical" waits for the deletions; the batch that holds them is written within 100 ms.
        self.ask("maintenance/defragment", {})

    def revision(self) -> int:
        return int(self.ask("maintenance/status", {})["header"]["revision"])

    def hash_kv(self, revision: int) -> tuple[int, int, int]:
        answer = self.ask("maintenance/hashkv", {"revision": str(revision)})
        return answer.get("hash", 0), int(answer["compact_revision"]), int(answer["hash_revision"])

    def save(self, path: Path, *credentials: str) -> Path:
        endpoint = f"http://127.0.0.1:{self.port}"
        run(self.programs["etcdctl"], "--endpoints", endpoint, *credentials, "snapshot", "save", path)
        return path


def run(*argv: object) -> str:
    done = subprocess.run([str(word) for word in argv], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def running(programs: dict[str, Path], data: Path) -> Iterator[Etcd]:
    client, peer = free_port(), free_port()
    urls = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    log = data.with_suffix(".log")
    argv = [programs["etcd"], "--name", "default", "--data-dir", data, "--log-level", "error"]
    argv += ["--listen-client-urls", urls[0], "--advertise-client-urls", urls[0]]
    argv += ["--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1]]
    argv += ["--initial-cluster", f"default={urls[1]}", "--unsafe-no-fsync"]
    child = spawn(argv, log=log)
    etcd = Etcd(programs, client, log)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, AssertionError):
                etcd.revision()
                break
            assert child.alive(), tail(log)
            assert time.monotonic() < deadline, tail(log)
            time.sleep(0.05)
        yield etcd
    finally:
        child.stop(grace_seconds=10)


def nothing(_: Etcd) -> None:
    """An etcd that nobody wrote to."""


def first_puts(etcd: Etcd) -> None:
    for index in range(40):
        etcd.put(f"/registry/pods/default/p{index:03}", value="x" * (index * 37 % 900))


def overwrites_and_deletions(etcd: Etcd) -> None:
    first_puts(etcd)
    for index in range(0, 40, 3):
        etcd.put(f"/registry/pods/default/p{index:03}", value="again")
    etcd.delete("/registry/pods/default/p01", "/registry/pods/default/p02")
    etcd.put("/registry/pods/default/p011", value="a second life")


def several_in_one_transaction(etcd: Etcd) -> None:
    for round_ in range(3):
        etcd.put(*[f"/registry/leases/l{index:02}" for index in range(20)], value=str(round_))
    etcd.delete("/registry/leases/l05")


def compacted(etcd: Etcd) -> None:
    overwrites_and_deletions(etcd)
    etcd.compact(etcd.revision())


def compacted_at_a_deletion(etcd: Etcd) -> None:
    overwrites_and_deletions(etcd)
    etcd.compact(etcd.delete("/registry/pods/default/p030"))


def compacted_in_the_middle(etcd: Etcd) -> None:
    overwrites_and_deletions(etcd)
    etcd.compact(45)


def compacted_then_changed(etcd: Etcd) -> None:
    compacted_at_a_deletion(etcd)
    for index in range(20, 40, 4):
        etcd.put(f"/registry/pods/default/p{index:03}", value="after the compaction")
    etcd.delete("/registry/pods/default/p021")
    etcd.put("/registry/pods/default/p021", value="back")
    etcd.put("/registry/pods/default/p030", value="back after the compaction")
    etcd.put("/registry/pods/default/new")


def compacted_twice(etcd: Etcd) -> None:
    compacted_then_changed(etcd)
    etcd.compact(etcd.revision() - 3)
    etcd.put("/registry/pods/default/new", "/registry/pods/default/newer")


def emptied_after_compaction(etcd: Etcd) -> None:
    compacted(etcd)
    etcd.delete("\0", "\0")


def emptied_then_compacted(etcd: Etcd) -> None:
    emptied_after_compaction(etcd)
    etcd.compact(etcd.revision())


def large(etcd: Etcd) -> None:
    """Overflow pages, a branch page, keys longer than 127 bytes."""
    for index in range(60):
        names = [f"/registry/configmaps/{'n' * (index % 150)}/c{index:03}-{part:02}" for part in range(40)]
        etcd.put(*names, value="y" * (20_000 if index % 20 == 0 else 50))
    etcd.compact(30)
    etcd.put("/registry/configmaps//c000-01", value="z" * 900_000)


HISTORIES: list[Callable[[Etcd], None]] = [
    nothing,
    first_puts,
    overwrites_and_deletions,
    several_in_one_transaction,
    compacted,
    compacted_at_a_deletion,
    compacted_in_the_middle,
    compacted_then_changed,
    compacted_twice,
    emptied_after_compaction,
    emptied_then_compacted,
    large,
]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
def test_a_snapshot_says_what_etcd_and_etcdutl_say(
    history: Callable[[Etcd], None], programs: dict[str, Path], tmp_path: Path
) -> None:
    with running(programs, tmp_path / "data") as etcd:
        history(etcd)
        path = etcd.save(tmp_path / "snapshot.db")
        evidence = verify_file(path)
        found = evidence.structure
        now = etcd.revision()
        oldest = max(1, found.facts.compacted)
        asked = sorted({oldest, min(oldest + 1, now), (oldest + now) // 2, max(oldest, now - 2), now})
        live = {revision: etcd.hash_kv(revision) for revision in asked}
        with open_database(path) as db:
            of_file = {revision: hash_kv(db, revision=revision) for revision in asked}

    # At the very revision of a compaction a member repeats the hash it took *before* that compaction, and
    # says so by an older compact_revision: no file can be compared with that.
    at_compaction = live.get(found.facts.compacted)
    if at_compaction is not None and at_compaction[1] < found.facts.compacted:
        del live[found.facts.compacted]
    ours = {r: (h.hash, h.compact_revision, h.hash_revision) for r, h in of_file.items() if r in live}
    assert ours == live
    assert live or now == found.facts.compacted
    assert found.hash_kv == of_file[now]
    status = json.loads(run(programs["etcdutl"], "snapshot", "status", path, "-w", "json"))
    assert (found.revision, found.total_keys) == (status["revision"], status["totalKey"])
    assert found.pages * found.page_size == status["totalSize"] == path.stat().st_size - TRAILER
    assert found.facts.storage_version == status["version"]
    assert evidence.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [member.name for member in found.facts.members] == ["default"]

    scratch = tmp_path / "scratch.db"
    for revision in asked:
        # It opens the file for writing, so every question gets a fresh copy.
        shutil.copy(path, scratch)
        offline = json.loads(run(programs["etcdutl"], "hashkv", scratch, "--rev", revision, "-w", "json"))
        assert offline["hash"] == of_file[revision].hash


def test_a_member_that_compacted_after_the_snapshot_can_still_be_compared(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    with running(programs, tmp_path / "data") as etcd:
        compacted_then_changed(etcd)
        path = etcd.save(tmp_path / "snapshot.db")
        saved_at = etcd.revision()
        etcd.compact(saved_at - 1)  # a deletion after the first compaction goes
        etcd.put("/registry/pods/default/p000", "/registry/pods/default/p033", value="after the snapshot")
        live = etcd.hash_kv(saved_at)
    with open_database(path) as db:
        assert hash_kv(db).hash != live[0]
        answer = hash_kv(db, revision=saved_at, compacted=live[1])
    assert (answer.hash, answer.compact_revision, answer.hash_revision) == live


def test_live_keys_are_what_a_client_gets(programs: dict[str, Path], tmp_path: Path) -> None:
    with running(programs, tmp_path / "data") as etcd:
        compacted_then_changed(etcd)
        etcd.put("compact_rev_key", "/other")
        answer = etcd.ask("kv/range", {"key": b64(b"/registry/"), "range_end": b64(b"/registry0")})
        path = etcd.save(tmp_path / "snapshot.db")
    expected = [
        (base64.b64decode(kv["key"]), int(kv["mod_revision"]), base64.b64decode(kv.get("value", "")))
        for kv in answer["kvs"]
    ]
    with open_database(path) as db:
        keyspace = Keyspace(db)
        live = keyspace.live()
        assert len(live) == len(expected) + 2
        for key, revision, value in expected:
            record = keyspace.record(live[key])
            assert (record.revision, keyspace.value(record)) == (revision, value)
            assert keyspace.history(key)[-1] == record


def test_the_small_buckets_are_read(programs: dict[str, Path], tmp_path: Path) -> None:
    with running(programs, tmp_path / "data") as etcd:
        member = int(etcd.ask("maintenance/status", {})["header"]["member_id"])
        lease = int(etcd.ask("lease/grant", {"TTL": "600"})["ID"])
        etcd.put("/registry/events/e1", lease=lease)
        etcd.ask("maintenance/alarm", {"action": "ACTIVATE", "memberID": str(member), "alarm": "CORRUPT"})
        etcd.ask("auth/user/add", {"name": "root", "password": "of this test"})
        etcd.ask("auth/user/grant", {"user": "root", "role": "root"})
        etcd.ask("auth/enable", {})
        path = etcd.save(tmp_path / "snapshot.db", "--user", "root:of this test")
    facts = verify_file(path).structure.facts
    assert facts.auth_enabled
    assert facts.leases == 1
    assert [(alarm.member_id, alarm.kind) for alarm in facts.alarms] == [(f"{member:x}", "CORRUPT")]
    assert [one.id for one in facts.members] == [f"{member:x}"]
    assert facts.members[0].client_urls == (f"http://127.0.0.1:{etcd.port}",)
    assert facts.consistent_index > 0
    assert facts.term > 0
    assert facts.cluster_version is not None


def test_a_restore_with_a_revision_bump_can_be_read_before_and_after_its_start(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    with running(programs, tmp_path / "data") as etcd:
        compacted_then_changed(etcd)
        path = etcd.save(tmp_path / "snapshot.db")
    before = verify_file(path).structure
    restored = tmp_path / "restored"
    bump = ["--bump-revision", "1000", "--mark-compacted"]
    run(programs["etcdutl"], "snapshot", "restore", path, "--data-dir", restored, *bump)

    # Not started yet: a compaction is scheduled that did not happen, so superseded records are still there.
    database = restored / "member" / "snap" / "db"
    with open_database(database) as db:
        waiting = check_structure(db)
        offline = hash_kv(db)
    assert waiting.facts.finished_compaction < waiting.facts.scheduled_compaction == before.revision + 1000
    assert waiting.revision == before.revision + 1000
    shutil.copy(database, tmp_path / "scratch.db")
    theirs = json.loads(run(programs["etcdutl"], "hashkv", tmp_path / "scratch.db", "-w", "json"))
    assert offline.hash == waiting.hash_kv.hash == theirs["hash"]

    with running(programs, restored) as etcd:
        etcd.put("/registry/pods/default/p033", value="after the restore")
        now = etcd.revision()
        live = etcd.hash_kv(now)
        again = verify_file(etcd.save(tmp_path / "again.db")).structure
        status = json.loads(run(programs["etcdutl"], "snapshot", "status", tmp_path / "again.db", "-w", "json"))
    assert (again.hash_kv.hash, again.hash_kv.compact_revision, again.hash_kv.hash_revision) == live
    assert (again.revision, again.total_keys) == (status["revision"], status["totalKey"])


def test_a_revision_the_file_does_not_hold_is_refused(intact: Path) -> None:
    with open_database(intact) as db:
        compaction = check_structure(db).facts.compacted
        current = hash_kv(db).hash_revision
        for revision in (0, compaction - 1, current + 1):
            with pytest.raises(ConfigError) as caught:
                hash_kv(db, revision=revision)
            assert (caught.value.code, caught.value.fields["revision"]) == ("revision-not-in-file", revision)


# --- Damage ---


@pytest.fixture(scope="session")
def intact(programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact")
    with running(programs, folder / "data") as etcd:
        compacted_then_changed(etcd)
        return etcd.save(folder / "snapshot.db")


@pytest.fixture
def victim(intact: Path, tmp_path: Path) -> Path:
    return shutil.copy(intact, tmp_path / "victim.db")


class Damaged:
    """One bit of a file, flipped for a while."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR)
        self.size = os.fstat(self._descriptor).st_size

    @contextlib.contextmanager
    def flipped(self, *bits: int) -> Iterator[None]:
        for bit in bits:
            self._flip(bit)
        try:
            yield
        finally:
            for bit in bits:
                self._flip(bit)

    def check_structure(self) -> None:
        check_structure(BoltFile(self._descriptor))

    def close(self) -> None:
        os.close(self._descriptor)

    def _flip(self, bit: int) -> None:
        at, mask = bit // 8, 1 << bit % 8
        os.pwrite(self._descriptor, bytes([os.pread(self._descriptor, 1, at)[0] ^ mask]), at)


@pytest.fixture
def damaged(victim: Path) -> Iterator[Damaged]:
    opened = Damaged(victim)
    yield opened
    opened.close()


def test_the_intact_snapshot_is_accepted(intact: Path) -> None:
    assert verify_file(intact).structure.total_keys > 0


def test_every_cut_at_a_block_or_beside_it_is_found(victim: Path) -> None:
    whole = victim.read_bytes()
    lengths = {
        near
        for block in range(0, len(whole), 512)
        for near in (block - 1, block, block + 1, block + TRAILER)
        if 0 <= near < len(whole)
    }
    for length in sorted(lengths, reverse=True):
        os.truncate(victim, length)
        # A cut that leaves a possible size is found by the digest alone.
        expected = SnapshotCorruptError if length % 512 == TRAILER and length > 512 else SnapshotIncompleteError
        with pytest.raises(expected) as caught:
            verify_file(victim)
        assert str(victim) in str(caught.value)
        assert caught.value.hint


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_anywhere_is_found(data: st.DataObject, intact: Path, tmp_path: Path) -> None:
    whole = intact.read_bytes()
    cut = tmp_path / "cut.db"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(SnapshotError):
        verify_file(cut)


def test_a_flipped_bit_in_every_stretch_of_the_file_is_found(damaged: Damaged, victim: Path) -> None:
    for step, bit in enumerate(range(0, damaged.size * 8, 8 * 61)):
        with damaged.flipped(bit + step % 8), pytest.raises(SnapshotCorruptError):
            verify_file(victim)
    verify_file(victim)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(data: st.DataObject, damaged: Damaged, victim: Path) -> None:
    bit = data.draw(st.integers(0, damaged.size * 8 - 1))
    with damaged.flipped(bit), pytest.raises(SnapshotCorruptError):
        verify_file(victim)


def test_the_structure_check_survives_a_flipped_bit_in_every_stretch(damaged: Damaged) -> None:
    """Without the digest's help it may miss a changed value, but it only ever answers with its own error."""
    found = missed = 0
    for step, bit in enumerate(range(0, (damaged.size - TRAILER) * 8, 8 * 13)):
        with damaged.flipped(bit + step % 8):
            try:
                damaged.check_structure()
                missed += 1
            except SnapshotCorruptError:
                found += 1
    assert found > 100
    assert missed > 100


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_structure_check_survives_many_flipped_bits(data: st.DataObject, damaged: Damaged) -> None:
    bits = st.integers(0, (damaged.size - TRAILER) * 8 - 1)
    with (
        damaged.flipped(*data.draw(st.sets(bits, min_size=1, max_size=40))),
        contextlib.suppress(SnapshotCorruptError),
    ):
        damaged.check_structure()
