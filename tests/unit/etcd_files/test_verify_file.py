from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from bolt_pages import HEADER, etcd_image, key_value, revision_key, with_trailer
from clusterguard.errors import SnapshotCorruptError, SnapshotIncompleteError, StoreError
from clusterguard.etcd.verification import check_structure, open_database, verify_file

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.model.progress import Progress

ROWS = [(revision_key(n), key_value(b"k%d" % n, n, n, 1, b"v")) for n in range(2, 22)]
IMAGE = etcd_image(ROWS)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot.db"
    path.write_bytes(with_trailer(IMAGE))
    return path


def test_the_evidence_of_an_intact_file(snapshot: Path) -> None:
    evidence = verify_file(snapshot)
    assert evidence.size == len(IMAGE) + 32
    assert evidence.sha256 == hashlib.sha256(snapshot.read_bytes()).hexdigest()
    assert (evidence.structure.revision, evidence.structure.total_keys) == (21, 20)


def test_the_recorded_digest_is_compared(snapshot: Path) -> None:
    digest = verify_file(snapshot).sha256
    verify_file(snapshot, expected_sha256=digest.upper())
    with pytest.raises(SnapshotCorruptError) as caught:
        verify_file(snapshot, expected_sha256="0" * 64)
    assert caught.value.fields == {"defect": "other-snapshot", "computed": digest, "recorded": "0" * 64}


def test_changed_bytes_are_told_from_a_database_that_was_sent_broken(snapshot: Path) -> None:
    broken = bytearray(IMAGE)
    broken[3 * 4096 : 3 * 4096 + 8] = HEADER.pack(4, 0, 0, 0)[:8]
    snapshot.write_bytes(bytes(broken) + with_trailer(IMAGE)[-32:])
    with pytest.raises(SnapshotCorruptError) as caught:
        verify_file(snapshot)
    assert (caught.value.fields["defect"], caught.value.fields["page"]) == ("trailer", 3)
    snapshot.write_bytes(with_trailer(bytes(broken)))
    with pytest.raises(SnapshotCorruptError) as caught:
        verify_file(snapshot)
    assert caught.value.fields == {"defect": "page", "page": 3}


def test_a_file_without_its_trailer_opens_but_does_not_verify(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(IMAGE)
    with open_database(path) as db:
        assert db.meta.page_size == 4096
    with pytest.raises(SnapshotIncompleteError) as caught:
        verify_file(path)
    assert caught.value.fields == {"defect": "trailer-missing", "size": len(IMAGE)}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        verify_file(tmp_path / "missing.db")
    assert (caught.value.code, caught.value.fields) == ("file-unreadable", {"errno": errno.ENOENT})
    assert caught.value.hint
    with pytest.raises(StoreError) as caught:
        verify_file(tmp_path)
    assert (caught.value.code, caught.value.fields) == ("file-unreadable", {"errno": errno.EISDIR})


def test_a_disk_that_fails_while_reading_says_nothing_about_the_snapshot(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for call in ("preadv", "pread"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(StoreError) as caught:
                verify_file(snapshot)
            assert (caught.value.code, caught.value.fields) == ("file-unreadable", {"errno": errno.EIO})


def test_a_file_that_shrinks_while_it_is_read(snapshot: Path) -> None:
    with open_database(snapshot) as db:
        os.truncate(snapshot, 4096 * 3)
        with pytest.raises(SnapshotCorruptError) as caught:
            check_structure(db)
        assert caught.value.fields == {"defect": "cut-off"}


def test_progress_ends_with_the_whole_file(snapshot: Path) -> None:
    moments: list[Progress] = []
    verify_file(snapshot, progress=moments.append)
    assert [(moment.done, moment.total, moment.finished) for moment in moments] == [
        (len(IMAGE) + 32, len(IMAGE) + 32, True)
    ]


@pytest.mark.timeout(30)
def test_an_interrupted_walk_stops_the_hashing_too(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    # A file without end: only being told to stop ends the hashing.
    monkeypatch.setattr(os, "preadv", lambda _descriptor, buffers, _offset: len(buffers[0]))
    monkeypatch.setattr("clusterguard.etcd.verification.check_structure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        verify_file(snapshot)
