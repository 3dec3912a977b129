from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from bolt_pages import etcd_image, key_value, revision_key, with_trailer
from clusterguard.errors import (
    ConfigError,
    ObjectExistsError,
    ObjectNotFoundError,
    SnapshotCorruptError,
    SnapshotError,
    StoreError,
    WrongKeyError,
)
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.adoption import verify_snapshot
from clusterguard.etcd.opening import open_snapshot
from clusterguard.etcd.verification import verify_file
from clusterguard.stores import open_store
from clusterguard.stores.encryption import Encryption, new_key_pair
from clusterguard.stores.local import LocalStore
from lzw_stream import lzw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterguard.stores.base import ObjectInfo

ROWS = [(revision_key(n), key_value(b"k%d" % n, n, n, 1, b"v" * 900)) for n in range(2, 62)]
IMAGE = etcd_image(ROWS)
SNAPSHOT = with_trailer(IMAGE)
IDENTITY, RECIPIENT = new_key_pair()
KEYS = Encryption(identities=(IDENTITY,))


def encrypted(data: bytes, encryption: Encryption) -> bytes:
    sink = io.BytesIO()
    with encryption.encrypting(sink) as writer:
        writer.write(data)
    return sink.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return sink.getvalue()


def tarred(data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        member = tarfile.TarInfo("etcd.db")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


WRAPPED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "plain": (SNAPSHOT, ()),
    "gzip": (gzip.compress(SNAPSHOT), ("gzip",)),
    "gzip in two members": (gzip.compress(SNAPSHOT[:5000]) + gzip.compress(SNAPSHOT[5000:]), ("gzip",)),
    "gzip, padded": (gzip.compress(SNAPSHOT) + b"\0" * 512, ("gzip",)),
    "zlib": (zlib.compress(SNAPSHOT), ("zlib",)),
    "lzw": (lzw(SNAPSHOT), ("lzw",)),
    "zip": (zipped(("etcd-snapshot-server-1-1700000000", SNAPSHOT)), ("zip",)),
    "zstd": (encrypted(SNAPSHOT, Encryption()), ("zstd",)),
    "age": (encrypted(SNAPSHOT, Encryption(recipients=(RECIPIENT,), compression_level=None)), ("age",)),
    "zstd in age": (encrypted(SNAPSHOT, Encryption(recipients=(RECIPIENT,))), ("age", "zstd")),
    "gzip in zip": (zipped(("a.gz", gzip.compress(SNAPSHOT))), ("zip", "gzip")),
}


CHANGES = b'[{"etcdEvent":{"kv":{"key":"azE=","mod_revision":63}},"time":"2026-03-02T00:05:00Z"}]' + bytes(range(32))


@pytest.mark.parametrize("wrapped", [bytes, gzip.compress, zlib.compress, lzw])
def test_changes_alone_are_refused_by_a_code_of_their_own(wrapped: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SnapshotCorruptError) as raised, open_snapshot(io.BytesIO(wrapped(CHANGES))):
        pass
    assert raised.value.code == "incremental-snapshot"


@pytest.mark.parametrize("wrapped", [bytes, lzw])
def test_of_a_folder_with_later_changes_the_full_snapshot_is_taken_and_they_are_named(
    tmp_path: Path, wrapped: Callable[[bytes], bytes]
) -> None:
    full, changes = "Full-00000000-00000061-1772323200", "Incr-00000062-00000063-1772323500"
    for day, (name, data) in enumerate([(full, SNAPSHOT), (changes, CHANGES)], start=1):
        (tmp_path / name).write_bytes(wrapped(data))
        at(tmp_path / name, day)
    with open_snapshot(tmp_path) as opened:
        assert opened.origin.endswith(full)
        assert opened.passed_over == (changes,)


def test_a_stream_that_only_begins_like_lzw_is_not_a_snapshot() -> None:
    for data in (lzw(b"not a database" * 100), b"\x00\x01" + bytes(5000)):
        with pytest.raises(SnapshotCorruptError) as raised, open_snapshot(io.BytesIO(data)):
            pass
        assert raised.value.code == "not-a-snapshot"


def at(path: Path, day: int) -> None:
    moment = datetime(2026, 3, day, tzinfo=UTC).timestamp()
    os.utime(path, (moment, moment))


@pytest.mark.parametrize("case", WRAPPED)
def test_a_snapshot_is_found_in_whatever_it_is_wrapped_in(tmp_path: Path, case: str) -> None:
    data, wrappings = WRAPPED[case]
    (tmp_path / "a").write_bytes(data)
    with open_snapshot(tmp_path / "a", encryption=KEYS) as opened:
        assert opened.path.read_bytes() == SNAPSHOT
        assert (opened.wrappings, opened.has_trailer) == (wrappings, True)
        assert (opened.path == tmp_path / "a") == (not wrappings)  # what need not be unpacked is not copied
        assert verify_file(opened.path).sha256 == hashlib.sha256(SNAPSHOT).hexdigest()
    with open_snapshot(io.BytesIO(data), encryption=KEYS) as opened:
        assert opened.path.read_bytes() == SNAPSHOT


@pytest.mark.parametrize("case", [name for name in WRAPPED if name not in {"plain", "gzip, padded"}])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_what_is_cut_off_is_never_a_snapshot(case: str, kept: float) -> None:
    data, _ = WRAPPED[case]
    with pytest.raises((SnapshotError, WrongKeyError)) as raised:
        verify_snapshot(io.BytesIO(data[: int(len(data) * kept)]), encryption=KEYS)
    assert raised.value.code in {"archive-damaged", "not-a-snapshot", "snapshot-incomplete", "snapshot-corrupt"}


def spoiled(data: bytes) -> bytes:
    """Return a zip whose only member is damaged at its beginning."""
    return data[:36] + bytes(byte ^ 0xFF for byte in data[36:80]) + data[80:]


NOT_SNAPSHOTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not-a-snapshot"),
    "SQLite": (b"SQLite format 3\0" + bytes(4096), "not-a-snapshot"),
    "armor": (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "not-a-snapshot"),
    "JSON": (b'{"format": 1}', "not-a-snapshot"),
    "XML": (b"<Error><Code>AccessDenied</Code></Error>", "not-a-snapshot"),
    "zeros": (bytes(100_000), "not-a-snapshot"),
    "tar": (tarred(SNAPSHOT), "not-a-snapshot"),
    "JSON in gzip": (gzip.compress(b'{"kind": "List"}'), "not-a-snapshot"),
    "a zip of two": (zipped(("a.db", SNAPSHOT), ("b.db", SNAPSHOT)), "archive-members"),
    "a zip of none": (zipped(), "not-a-snapshot"),
    "a zip cut off": (zipped(("a", SNAPSHOT))[:-30], "archive-damaged"),
    "a zip with damaged bzip2": (spoiled(zipped(("a", SNAPSHOT), method=zipfile.ZIP_BZIP2)), "archive-damaged"),
    "a zip with damaged LZMA": (spoiled(zipped(("a", SNAPSHOT), method=zipfile.ZIP_LZMA)), "archive-damaged"),
    "five layers": (
        gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(SNAPSHOT))))),
        "not-a-snapshot",
    ),
}


@pytest.mark.parametrize("case", NOT_SNAPSHOTS)
def test_what_is_not_a_snapshot_is_refused(case: str) -> None:
    data, code = NOT_SNAPSHOTS[case]
    with pytest.raises(SnapshotCorruptError) as raised, open_snapshot(io.BytesIO(data)):
        pass
    assert (raised.value.code, bool(raised.value.hint)) == (code, True)


def test_no_more_comes_out_of_an_archive_than_its_database_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterguard.etcd.opening._GROWTH", 1 << 20)
    with open_snapshot(io.BytesIO(gzip.compress(IMAGE + bytes(1 << 20)))) as opened:
        assert opened.path.stat().st_size == len(IMAGE) + (1 << 20)  # bbolt makes files longer than what they hold
    with (
        pytest.raises(SnapshotCorruptError) as raised,
        open_snapshot(io.BytesIO(gzip.compress(IMAGE + bytes((1 << 20) + 1)))),
    ):
        pass
    assert (raised.value.code, raised.value.fields["declared"]) == ("archive-too-large", len(IMAGE))


@pytest.mark.parametrize(
    "encryption",
    [None, Encryption(identities=(new_key_pair()[0],)), Encryption(passphrase="no")],
    ids=["none", "key", "passphrase"],
)
def test_the_wrong_key_is_named_as_such(encryption: Encryption | None) -> None:
    with pytest.raises(WrongKeyError), open_snapshot(io.BytesIO(WRAPPED["zstd in age"][0]), encryption=encryption):
        pass


def test_a_copied_database_is_verified_and_said_to_have_no_trailer(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(IMAGE)
    report = verify_snapshot(tmp_path / "db")
    assert report.ok
    assert [remark.code for remark in report.remarks] == ["no-trailer"]
    assert [remark.code for remark in verify_snapshot(io.BytesIO(SNAPSHOT)).remarks] == []
    (tmp_path / "db").write_bytes(IMAGE[:-4096])
    with pytest.raises(SnapshotCorruptError):
        verify_snapshot(tmp_path / "db")


class TestOfAFolder:
    def test_the_newest_is_taken(self, tmp_path: Path) -> None:
        for day, name in enumerate(("etcd-1.db", "etcd-2.zip", "etcd-3.db"), start=1):
            (tmp_path / name).write_bytes(WRAPPED["zip"][0] if name.endswith("zip") else SNAPSHOT)
            at(tmp_path / name, day)
        with open_snapshot(tmp_path) as opened:
            assert opened.origin.endswith(": etcd-3.db")
            assert opened.modified == datetime(2026, 3, 3, tzinfo=UTC)
        with open_snapshot(f"file://{tmp_path}", at=datetime(2026, 3, 2, tzinfo=UTC)) as opened:
            assert (opened.origin.rpartition(": ")[2], opened.wrappings) == ("etcd-2.zip", ("zip",))

    def test_one_of_it_is_taken_by_its_location(self, tmp_path: Path) -> None:
        (tmp_path / "a.db").write_bytes(SNAPSHOT)
        with open_snapshot(f"file://{tmp_path}/a.db") as opened:
            assert opened.path.read_bytes() == SNAPSHOT
        with pytest.raises(ConfigError), open_snapshot(tmp_path / "a.db", at=datetime(2026, 3, 2, tzinfo=UTC)):
            pass

    def test_newer_objects_of_another_kind_are_named(self, tmp_path: Path) -> None:
        others = {
            "Full-1.gz": gzip.compress(SNAPSHOT),
            "Incr-2.gz": gzip.compress(b"[{}]"),
            "resources.tar.gz": tarred(b""),
        }
        for day, (name, data) in enumerate(others.items(), start=1):
            (tmp_path / name).write_bytes(data)
            at(tmp_path / name, day)
        report = verify_snapshot(tmp_path)
        assert report.snapshot.name.endswith(": Full-1.gz")
        assert {remark.code for remark in report.remarks} == {"newer-objects"}

    def test_what_k3s_notes_of_a_snapshot_under_its_name_is_none(self, tmp_path: Path) -> None:
        name = "etcd-snapshot-server-1-1700000000"
        for day, key in enumerate((name, f".metadata/{name}", f"other/.metadata/{name}"), start=1):
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(b'{"a": "b"}' if ".metadata" in key else SNAPSHOT)
            at(tmp_path / key, day)
        with open_snapshot(tmp_path) as opened:
            assert (opened.origin.rpartition(": ")[2], opened.passed_over) == (name, ())

    @pytest.mark.parametrize("broken", [b"", b"{}", gzip.compress(b"no snapshot")], ids=["empty", "JSON", "gzip"])
    def test_a_broken_newest_one_is_not_hidden_by_the_one_before_it(self, tmp_path: Path, broken: bytes) -> None:
        (tmp_path / "etcd-1.db").write_bytes(SNAPSHOT)
        (tmp_path / "etcd-2.db").write_bytes(broken)
        at(tmp_path / "etcd-1.db", 1)
        at(tmp_path / "etcd-2.db", 2)
        with pytest.raises(SnapshotCorruptError) as raised, open_snapshot(tmp_path):
            pass
        assert (raised.value.code, raised.value.fields["broken"]) == ("not-a-snapshot", ["etcd-2.db"])
        with open_snapshot(tmp_path, at=datetime(2026, 3, 1, tzinfo=UTC)) as opened:
            assert opened.path.read_bytes() == SNAPSHOT

    def test_of_several_of_one_time_the_last_name_is_the_newest(self, tmp_path: Path) -> None:
        for day in ("01", "03", "02"):
            (tmp_path / f"etcd-202603{day}.db").write_bytes(SNAPSHOT)
            at(tmp_path / f"etcd-202603{day}.db", 1)
        with open_snapshot(tmp_path) as opened:
            assert opened.origin.endswith(": etcd-20260303.db")

    @pytest.mark.parametrize(
        ("newest", "older"),
        [("snap-cd34ef.db", "snap-ab12cd.db"), ("tue/snapshot.db", "mon/snapshot.db"), ("b.snap", "a.db")],
    )
    def test_an_empty_newest_one_is_refused_whatever_its_name(self, tmp_path: Path, newest: str, older: str) -> None:
        for day, (name, data) in enumerate({older: SNAPSHOT, newest: b""}.items(), start=1):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
            at(tmp_path / name, day)
        with pytest.raises(SnapshotCorruptError) as raised, open_snapshot(tmp_path):
            pass
        assert raised.value.fields["broken"] == [newest]

    def test_links_out_of_the_folder_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere.db").write_bytes(SNAPSHOT)
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "etcd-1.db").write_bytes(SNAPSHOT)
        (folder / "latest.db").symlink_to("etcd-1.db")
        (folder / "etcd-2.db").symlink_to(tmp_path / "elsewhere.db")
        with open_snapshot(folder) as opened:
            assert (opened.origin.rpartition(": ")[2], opened.passed_over) == ("etcd-1.db", ("etcd-2.db",))

    def test_who_may_only_look_below_a_prefix_gets_the_newest_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "etcd").mkdir()
        (tmp_path / "etcd" / "a.db").write_bytes(SNAPSHOT)

        def refuse(store: LocalStore, key: str) -> ObjectInfo:
            raise StoreError(f"{store.url}: {key}: 403 Forbidden")

        monkeypatch.setattr(LocalStore, "stat", refuse)
        with open_snapshot(f"file://{tmp_path}/etcd") as opened:
            assert opened.origin.endswith(": a.db")
        with pytest.raises(StoreError, match="403"), open_snapshot(f"file://{tmp_path}/none"):
            pass

    def test_nothing_there_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("none")
        for location in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ObjectNotFoundError), open_snapshot(location):
                pass


class TestAdopt:
    @pytest.mark.parametrize("case", WRAPPED)
    def test_it_becomes_a_snapshot_like_any_other(self, tmp_path: Path, case: str) -> None:
        (tmp_path / "etcd-snapshot-1700000000").write_bytes(WRAPPED[case][0])
        snapshotter = EtcdSnapshotter(store=open_store(tmp_path / "store"))
        snapshot = snapshotter.adopt(tmp_path / "etcd-snapshot-1700000000", encryption=KEYS)
        assert snapshot.name == "etcd-snapshot-1700000000"
        assert (snapshot.revision, snapshot.total_keys, snapshot.size) == (61, 60, len(SNAPSHOT))
        assert snapshot.etcd_version == ""
        assert [each.name for each in snapshotter.list()] == [snapshot.name]
        assert snapshotter.verify(snapshot.name).ok
        with pytest.raises(ObjectExistsError):
            snapshotter.adopt(tmp_path / "etcd-snapshot-1700000000", encryption=KEYS)

    def test_a_copied_database_gets_a_trailer_and_a_remark(self, tmp_path: Path) -> None:
        (tmp_path / "db").write_bytes(IMAGE)
        snapshotter = EtcdSnapshotter(store=open_store(tmp_path / "store"))
        snapshot = snapshotter.adopt(tmp_path / "db", "copied")
        assert (tmp_path / "store" / "copied.db").read_bytes() == SNAPSHOT
        report = snapshotter.verify("copied")
        assert (report.ok, [each.code for each in report.remarks]) == (True, ["no-trailer"])
        assert json.loads(snapshot.to_json())["remarks"][0]["code"] == "no-trailer"

    @pytest.mark.parametrize(
        "spoil", [lambda data: data[:-1], lambda data: data[:9000] + b"x" + data[9001:], lambda _: b"none"]
    )
    def test_what_is_not_intact_is_not_stored(self, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
        (tmp_path / "a.db").write_bytes(spoil(SNAPSHOT))
        with pytest.raises(SnapshotError):
            EtcdSnapshotter(store=open_store(tmp_path / "store")).adopt(tmp_path / "a.db")
        assert not list(tmp_path.glob("store/*"))
