"""Digest manifests: any change of a backup is found, wherever it happens."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from backup_builder import CONTENTS, FOLDER, LOG, METADATA, NAME, NOW, BackupBuilder, get, put
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError, ObjectExistsError, ObjectNotFoundError, StoreError
from clusterguard.stores.local import LocalStore
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.bucket import verify_backup
from clusterguard.velero.manifest import DigestManifest, ObjectDigest, load_manifest, manifest_key, record_manifest


@pytest.fixture
def store():
    return BackupBuilder().store()


@pytest.fixture
def vault(store):
    vault = MemoryStore()
    record_manifest(store, NAME, into=vault, now=NOW)
    return vault


def verify(store, vault):
    return verify_backup(store, NAME, now=NOW, manifest=load_manifest(vault, NAME))


def told(report):
    return [(one.subject, one.detail.partition(":")[0]) for one in report.findings if one.check == "digest manifest"]


def test_an_untouched_backup_matches_its_manifest(store, vault):
    report = verify(store, vault)
    assert report.ok, report.to_text()
    assert [check.name for check in report.unasked] == ["inventory"]
    assert [one.key for one in vault.list()] == ["clusterguard/manifests/nightly.json"]


def test_a_change_that_no_other_check_sees_is_found(store, vault):
    changed = bytearray(get(store, CONTENTS))
    changed[4] ^= 1  # the time in gzip's header
    put(store, CONTENTS, bytes(changed))
    report = verify(store, vault)
    assert [check.name for check in report.checks if check.ok is False] == ["digest manifest"]
    assert told(report) == [(CONTENTS, "its bytes were changed")]


def test_an_object_that_was_tampered_with_consistently_is_found(store, vault):
    builder = BackupBuilder()
    builder.members = [(path, data.replace(b"aHVudGVyMg==", b"ZXZpbGV2aWw=")) for path, data in builder.members]
    put(store, CONTENTS, builder.tarball())
    assert verify_backup(store, NAME, now=NOW).ok  # Velero's own files cannot tell
    assert [subject for subject, _ in told(verify(store, vault))] == [CONTENTS]


def test_lost_and_added_files_are_found(store, vault):
    store.delete(LOG)
    put(store, f"{FOLDER}/extra", b"x")
    assert told(verify(store, vault)) == [
        (f"{FOLDER}/extra", "it was not there when the manifest was recorded"),
        (LOG, "it was there when the manifest was recorded, and is gone"),
    ]


@given(data=st.data())
def test_a_flipped_bit_in_any_file_is_found(data):
    store, vault = BackupBuilder().store(), MemoryStore()
    record_manifest(store, NAME, into=vault, now=NOW)
    key = data.draw(st.sampled_from([one.key for one in store.list()]))
    damaged = bytearray(get(store, key))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    put(store, key, bytes(damaged))
    assert [subject for subject, _ in told(verify(store, vault))] == [key]


@given(data=st.data())
def test_a_file_cut_off_anywhere_is_found(data):
    store, vault = BackupBuilder().store(), MemoryStore()
    record_manifest(store, NAME, into=vault, now=NOW)
    key = data.draw(st.sampled_from([one.key for one in store.list()]))
    whole = get(store, key)
    put(store, key, whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert [subject for subject, _ in told(verify(store, vault))] == [key]


def test_a_copy_elsewhere_matches_the_manifest_too(store, vault):
    copy = MemoryStore()
    for one in store.list():
        put(copy, one.key, get(store, one.key))
    assert verify(copy, vault).ok


def test_the_manifest_of_another_backup_is_not_taken(store, vault):
    put(vault, manifest_key("weekly"), get(vault, manifest_key(NAME)))
    with pytest.raises(StoreError) as caught:
        load_manifest(vault, "weekly")
    assert (caught.value.code, caught.value.fields) == ("manifest-unreadable", {"backup": NAME})
    manifest = DigestManifest(backup="weekly", recorded=NOW, store="memory:", objects={})
    report = verify_backup(store, NAME, now=NOW, manifest=manifest)
    assert [check.name for check in report.checks if check.ok is False] == ["digest manifest"]


# ---- recording -------------------------------------------------------------------------------------------


def test_a_manifest_is_not_replaced_unless_that_is_asked_for(store, vault):
    with pytest.raises(ObjectExistsError):
        record_manifest(store, NAME, into=vault, now=NOW)
    later = NOW + timedelta(days=1)
    record_manifest(store, NAME, into=vault, now=later, overwrite=True)
    assert load_manifest(vault, NAME).recorded == later


def test_no_manifest_appears_when_the_backup_cannot_be_read(store):
    vault = MemoryStore()
    with pytest.raises(ObjectNotFoundError, match="no backup 'weekly'"):
        record_manifest(store, "weekly", into=vault, now=NOW)
    assert list(vault.list()) == []
    with pytest.raises(ObjectNotFoundError):
        load_manifest(vault, "weekly")


def test_manifests_are_not_written_where_velero_writes(store, tmp_path):
    with pytest.raises(ConfigError) as caught:
        record_manifest(store, NAME, into=store, now=NOW)
    assert caught.value.code == "inside-velero-location"
    location = LocalStore(tmp_path / "velero")
    put(location, METADATA, b"{}")
    for inside in (tmp_path / "velero", tmp_path / "velero" / "below"):
        with pytest.raises(ConfigError) as caught:
            record_manifest(location, NAME, into=LocalStore(inside), now=NOW)
        assert caught.value.code == "inside-velero-location"
    for outside in (tmp_path / "velero-manifests", tmp_path / "other", tmp_path):
        record_manifest(location, NAME, into=LocalStore(outside), now=NOW, overwrite=True)


def test_the_time_is_in_utc():
    for wrong in (datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=1)))):  # noqa: DTZ001 - the wrong one
        with pytest.raises(ConfigError, match="not in UTC"):
            DigestManifest(backup=NAME, recorded=wrong, store="memory:", objects={})


def test_progress_is_told_to_the_end(store):
    seen = []
    record_manifest(store, NAME, into=MemoryStore(), now=NOW, progress=seen.append)
    assert seen[-1].finished
    assert seen[-1].done == seen[-1].total == sum(one.size for one in store.list())


# ---- the file --------------------------------------------------------------------------------------------


@given(
    objects=st.dictionaries(
        st.text(min_size=1).filter(lambda text: text.isprintable()),
        st.builds(ObjectDigest, st.integers(0, 2**53), st.text("0123456789abcdef", min_size=64, max_size=64)),
    ),
    recorded=st.datetimes(timezones=st.just(UTC)),
)
def test_a_manifest_comes_back_as_it_was(objects, recorded):
    manifest = DigestManifest(backup=NAME, recorded=recorded, store="s3://bucket/prefix", objects=objects)
    assert DigestManifest.from_json(manifest.to_json()) == manifest


@given(data=st.data())
def test_a_manifest_with_any_changed_value_is_refused(data):
    manifest = DigestManifest(backup=NAME, recorded=NOW, store="memory:", objects={"a": ObjectDigest(1, "0" * 64)})
    document = json.loads(manifest.to_json())
    key = data.draw(st.sampled_from(sorted(document)))
    other = st.sampled_from([None, 2, "x", {}, {"a": {"size": 2, "sha256": "0" * 64}}])
    document[key] = data.draw(other)
    with pytest.raises(StoreError) as caught:
        DigestManifest.from_json(json.dumps(document))
    assert caught.value.code == "manifest-unreadable"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_refused(data):
    with pytest.raises(StoreError):
        DigestManifest.from_json(data)


def test_a_manifest_of_a_later_release_says_so():
    document = {"kind": "clusterguard-backup-manifest", "format": 2}
    with pytest.raises(StoreError) as caught:
        DigestManifest.from_json(json.dumps(document))
    assert (caught.value.code, "format is 2" in caught.value.message) == ("manifest-unreadable", True)
