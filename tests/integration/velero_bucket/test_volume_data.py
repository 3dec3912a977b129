"""The data of volumes, read in the bucket by the real kopia program, and damaged in every way."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.errors import BackupCorruptError, StoreUnavailableError
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.repository import opened_repository
from clusterguard.velero.stored_volumes import StoredVolume
from clusterguard.velero.volume_data import DataCheck, check_volume_data
from kopia_repository import Repository
from s3_gateway import gateway

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

FOLDER = "kopia/shop/"
LARGE = 9 << 20  # several contents, since kopia cuts files at about 4 MB
REPOSITORY_FORMAT = "kopia.repository"


@dataclass(frozen=True)
class Made:
    """A repository that two backups share.

    Attributes:
        program: kopia.
        before: Its blobs when there was the first backup alone.
        blobs: Its blobs with both.
        maintained: The same after a full maintenance, which wrote other blobs in their place.
        first: The volume in the first backup.
        second: The volume in the second one, which has one file more.
        entries: Files, folders and links in the first one, and bytes.
    """

    program: Path
    before: dict[str, bytes]
    blobs: dict[str, bytes]
    maintained: dict[str, bytes]
    first: StoredVolume
    second: StoredVolume
    entries: tuple[int, int]

    def only_second(self):
        """Return the packs that the second backup brought."""
        return [name for name in self.blobs if name not in self.before and name.startswith("p")]


@pytest.fixture(scope="module")
def made(kopia, tmp_path_factory):
    program = kopia
    folder = tmp_path_factory.mktemp("kopia")
    data = folder / "data"
    (data / "orders" / "empty").mkdir(parents=True)
    (data / "large").write_bytes(os.urandom(LARGE))
    (data / "orders" / "copy").write_bytes((data / "large").read_bytes())
    (data / "orders" / "a name\nof two lines").write_bytes(b"x" * 1000)
    (data / "nothing").write_bytes(b"")
    (data / "link").symlink_to("large")
    repository = Repository(program, folder / "repository").create()
    first, size = repository.snapshot(data, tags=["backup-uid:one"])
    before = repository.blobs()
    (data / "new").write_bytes(os.urandom(200_000))
    second, larger = repository.snapshot(data, tags=["backup-uid:two"])
    blobs = repository.blobs()
    # With the reader's safety of hours, nothing would be removed as long as this test runs.
    repository.kopia("snapshot", "delete", first, "--delete")
    repository.kopia("maintenance", "run", "--full", "--safety=none")
    repository.kopia("content", "rewrite", "--pack-prefix=p", "--safety=none")
    repository.kopia("maintenance", "run", "--full", "--safety=none")
    volume = StoredVolume(
        name="shop/data",
        repository=FOLDER,
        uploader="kopia",
        snapshot=first,
        size=size,
        tags={"backup-uid": "one"},
    )
    return Made(
        program=program,
        before=before,
        blobs=blobs,
        maintained=repository.blobs(),
        first=volume,
        second=replace(volume, snapshot=second, size=larger, tags={"backup-uid": "two"}),
        entries=(7, 2 * LARGE + 1000),
    )


def store_of(blobs, store=None):
    store = MemoryStore() if store is None else store
    for name, data in blobs.items():
        with store.put(FOLDER + name) as writer:
            writer.write(data)
    return store


def look(made, blobs, *volumes, store=None, **options):
    check = DataCheck(program=lambda: made.program, **options)
    return check_volume_data(store or store_of(blobs), volumes or (made.first,), check)


def codes(found):
    return [code for _, _, code in found.flaws]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_an_intact_volume_is_read_whole_and_told_as_it_is(made):
    found = look(made, made.blobs)
    assert found.flaws == []
    assert (found.entries, found.size) == made.entries
    assert found.read == LARGE + 1000 + len("large")  # equal files are one object, and a link's target is one, too
    assert found.fetched >= found.read


def test_a_share_is_read_and_no_more(made):
    found = look(made, made.blobs, share=0.1, choose=random.Random(3))  # noqa: S311 - which bytes are looked at is no secret
    assert found.flaws == []
    assert 0 < found.read < LARGE
    assert found.fetched < LARGE


def test_backups_that_share_a_repository_are_told_apart(made):
    blobs = {name: flipped(data) if name in made.only_second() else data for name, data in made.blobs.items()}
    assert codes(look(made, blobs, made.first)) == []
    assert codes(look(made, blobs, made.second)) == ["volume-data-damaged"]


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_a_flipped_byte_is_found_in_what_is_read_and_a_missing_blob_always(made, share):
    packs = [name for name in made.before if name.startswith("p")]
    damaged = {name: flipped(data) if name in packs else data for name, data in made.blobs.items()}
    assert codes(look(made, damaged)) == ["volume-data-damaged"]
    missing = {name: data for name, data in made.blobs.items() if name not in packs}
    found = look(made, missing, share=share)
    assert codes(found) == ["volume-blob-missing"]
    assert packs[0] in found.flaws[0][1]


def half(data):
    return data[: len(data) // 2]


def with_another_letter(data):
    """Base64 stays base64: after a flipped bit it may not, which is another damage."""
    middle = len(data) // 2
    return data[:middle] + (b"B" if data[middle : middle + 1] == b"A" else b"A") + data[middle + 1 :]


def changed(blobs, kind, change):
    return {name: change(data) if name.startswith(kind) else data for name, data in blobs.items()}


def without(blobs, kind):
    return {name: data for name, data in blobs.items() if not name.startswith(kind)}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda blobs: changed(blobs, "p", half), "volume-blob-cut"),
        (lambda blobs: changed(blobs, "x", half), "volume-index-damaged"),
        (lambda blobs: changed(blobs, "x", flipped), "volume-index-damaged"),
        (lambda blobs: without(blobs, "x"), "volume-index-old"),
        (lambda blobs: without(blobs, "q"), "volume-blob-missing"),
        (lambda blobs: changed(blobs, REPOSITORY_FORMAT, half), "volume-repository-damaged"),
        (lambda blobs: changed(blobs, REPOSITORY_FORMAT, with_another_letter), "volume-password-wrong"),
        (lambda blobs: without(blobs, REPOSITORY_FORMAT), "volume-repository-missing"),
    ],
)
def test_each_kind_of_damage_has_a_code(made, damage, code):
    assert code in codes(look(made, damage(made.before)))


def test_an_index_from_before_the_backup_is_told_from_a_snapshot_that_is_gone(made):
    old = {name: data for name, data in made.blobs.items() if not name.startswith("x") or name in made.before}
    # In the order in which they were written: the newest are the packs of the second backup.
    assert codes(look(made, old, made.second)) == ["volume-index-old"]
    assert codes(look(made, made.blobs, replace(made.second, snapshot="0" * 32))) == ["volume-snapshot-missing"]
    assert codes(look(made, made.blobs, replace(made.second, snapshot=""))) == ["volume-snapshot-missing"]


def test_another_password_is_told_and_shown_nowhere(made, caplog):
    found = look(made, made.blobs, password="quite-another-one")
    assert codes(found) == ["volume-password-wrong"]
    assert "quite-another-one" not in f"{found}{caplog.text}"


def test_records_that_say_otherwise_than_the_snapshot_are_found(made):
    other = replace(made.first, size=5, tags={"backup-uid": "two"})
    assert sorted(codes(look(made, made.blobs, other))) == ["volume-size-differs", "volume-snapshot-foreign"]


class Maintained(MemoryStore):
    """A bucket in which maintenance replaces blobs as soon as one of a kind is read."""

    def __init__(self, before, after, *, again):
        super().__init__()
        store_of(before, self)
        self._before, self._after, self._again = before, after, again
        self._swapping = threading.Lock()  # kopia reads several blobs at a time

    def get(self, key):
        with self._swapping:
            if self._after and key.startswith(f"{FOLDER}p"):
                for old in self._before:
                    self.delete(FOLDER + old)
                store_of(self._after, self)
                self._before, self._after = self._after, self._before if self._again else {}
        return super().get(key)


def test_a_repository_that_is_maintained_while_it_is_read_is_read_again(made):
    assert made.maintained.keys().isdisjoint(name for name in made.blobs if name.startswith("p"))
    store = Maintained(made.blobs, made.maintained, again=False)
    assert look(made, {}, made.second, store=store).flaws == []
    restless = Maintained(made.blobs, made.maintained, again=True)
    assert codes(look(made, {}, made.second, store=restless))[0] == "volume-repository-changing"


class Failing(MemoryStore):
    def get(self, key):
        if key.startswith(f"{FOLDER}p"):
            raise StoreUnavailableError("the bucket went away")
        return super().get(key)


def test_a_bucket_that_goes_away_says_nothing_about_the_data(made):
    store = Failing()
    store_of(made.blobs, store)
    with pytest.raises(StoreUnavailableError):
        look(made, {}, store=store)


def state_of(folder: Path) -> dict[str, Any]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(folder.rglob("*"))}


def test_nothing_is_written_into_the_bucket(made, toolchain, tmp_path):
    with gateway(toolchain.ensure("versitygw")["versitygw"], tmp_path) as server:
        store = server.store(prefix="velero")
        store_of(made.blobs, store)
        before = state_of(server.directory)
        assert look(made, {}, made.first, made.second, store=store).flaws == []
        with opened_repository(made.program, store, FOLDER, password="static-passw0rd") as repository:
            with pytest.raises(BackupCorruptError):
                repository._run("snapshot", "delete", made.first.snapshot, "--delete")
            assert repository.gateway.bytes_read
            assert repository.gateway.refused == []  # kopia did not even try: it was told that it may only read
        assert state_of(server.directory) == before
