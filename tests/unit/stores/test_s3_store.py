"""What an S3 store says before it speaks to a server."""

from __future__ import annotations

import pytest

from clusterguard.errors import ConfigError
from clusterguard.stores import ObjectStore, S3Credentials, S3Store


def test_nothing_is_connected_to_or_read_before_the_first_verb(monkeypatch):
    monkeypatch.setattr("boto3.session.Session", pytest.fail)
    store = S3Store(bucket="bucket", prefix="/a/b/", endpoint="https://nowhere.example", profile="nobody")
    assert isinstance(store, ObjectStore)
    assert store.url == "s3://bucket/a/b?endpoint=https://nowhere.example&profile=nobody"


@pytest.mark.parametrize(
    ("settings", "seen", "hint"),
    [
        ({"part_size": (5 << 20) - 1}, "smaller than S3 allows", "5 MiB"),
        ({"checksum": "MD5"}, "'MD5'", "CRC32, SHA256, when_required"),
        ({"endpoint": "https://me:hunter2@s3.example"}, "user or a password", "usual chain"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, seen, hint):
    with pytest.raises(ConfigError) as raised:
        S3Store(bucket="bucket", **settings)
    assert seen in raised.value.message
    assert hint in raised.value.hint
    assert "hunter2" not in f"{raised.value.message} {raised.value.hint}"


def test_credentials_do_not_show():
    credentials = S3Credentials(access_key="AKIA", secret_key="hunter2", session_token="hunter3")
    store = S3Store(bucket="bucket", credentials=credentials)
    assert "hunter" not in f"{credentials!r} {credentials} {store.url} {store!r}"
