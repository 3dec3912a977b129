"""What an S3 store says before it speaks to a server."""

from __future__ import annotations

import base64
import zlib
from datetime import UTC, datetime

import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError, StoreError, StoreUnavailableError
from clusterguard.stores import ObjectStore, S3Credentials, S3Store
from clusterguard.stores.s3_checksums import checksum_of, crc32_of_parts


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


@pytest.mark.parametrize("prefix", ["a//b", "a/./b", "../b", "."])
def test_a_prefix_that_servers_read_differently_is_refused(prefix):
    with pytest.raises(ConfigError) as raised:
        S3Store(bucket="bucket", prefix=prefix)
    assert (raised.value.code, raised.value.fields) == ("prefix-ambiguous", {"prefix": prefix})


def test_credentials_do_not_show():
    credentials = S3Credentials(access_key="AKIA", secret_key="hunter2", session_token="hunter3")
    store = S3Store(bucket="bucket", credentials=credentials)
    assert "hunter" not in f"{credentials!r} {credentials} {store.url} {store!r}"


CREDENTIALS = S3Credentials(access_key="AKIA", secret_key="hunter2")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def server():
    """A store, and what answers in the place of its server."""
    store = S3Store(bucket="bucket", region="us-east-1", endpoint="https://s3.example", credentials=CREDENTIALS)
    with Stubber(store._client) as stub:
        yield store, stub


def put(store, data=b"bytes", **options):
    with store.put("key", overwrite=True, **options) as writer:
        writer.write(data)


class TestWhatTheServerStored:
    def test_other_bytes_than_were_written_are_no_success_and_are_removed(self, server):
        """s3rver stores the framing of a chunked upload, and says that all is well."""
        store, stub = server
        stub.add_response("put_object", {"ETag": "e"})
        stub.add_response("head_object", {"ETag": "e", "ContentLength": 46, "LastModified": NOW})
        stub.add_response("delete_object", {})
        with pytest.raises(StoreError) as raised:
            put(store)
        assert (raised.value.code, raised.value.fields) == ("stored-otherwise", {"written": 5, "stored": 46})
        stub.assert_no_pending_responses()

    def test_an_etag_without_quotes_is_the_same_one(self, server):
        """rclone quotes it in headers, and not in the answer to CompleteMultipartUpload nor in listings."""
        store, stub = server
        head = {"ETag": '"e"', "ContentLength": 46, "LastModified": NOW}
        stub.add_response("put_object", {"ETag": "e"})
        stub.add_response("head_object", head)
        stub.add_response("delete_object", {})
        with pytest.raises(StoreError) as raised:
            put(store)
        assert raised.value.code == "stored-otherwise"
        contents = [{"Key": "key", "Size": 46, "LastModified": NOW, "ETag": "e"}]
        stub.add_response("list_objects_v2", {"IsTruncated": False, "Contents": contents})
        stub.add_response("head_object", head)
        assert next(store.list()).version == store.stat("key").version == '"e"'

    def test_who_confirms_the_checksum_is_not_asked_for_the_size(self, server):
        store, stub = server
        checksum = base64.b64encode(zlib.crc32(b"bytes").to_bytes(4, "big")).decode()
        expected = {"ChecksumCRC32": checksum, **dict.fromkeys(("Bucket", "Key", "Body", "Metadata"), ANY)}
        stub.add_response("put_object", {"ETag": "e", "ChecksumCRC32": checksum}, expected)
        put(store)
        stub.assert_no_pending_responses()

    def test_what_a_rival_stored_meanwhile_says_nothing_about_ours(self, server):
        store, stub = server
        stub.add_response("put_object", {"ETag": "ours"})
        stub.add_response("head_object", {"ETag": "theirs", "ContentLength": 46, "LastModified": NOW})
        put(store)


class TestListings:
    @pytest.mark.parametrize("keys", [["a", "b", "a2"], ["a", "a"], ["b", "a"]], ids=["back", "twice", "first"])
    def test_one_that_goes_back_may_lack_keys_as_well(self, server, keys):
        store, stub = server
        contents = [{"Key": key, "Size": 1, "LastModified": NOW} for key in keys]
        stub.add_response("list_objects_v2", {"IsTruncated": False, "Contents": contents})
        with pytest.raises(StoreError) as raised:
            list(store.list())
        assert raised.value.code == "listing-disordered"


class TestFailedDeletions:
    """rclone fails to delete what is a folder of other keys: no object, so there was nothing to delete."""

    def failed(self, stub, status=500):
        stub.add_client_error("delete_object", "InternalError", http_status_code=status)

    def missing(self, stub):
        stub.add_client_error("head_object", "404", http_status_code=404)

    def test_what_is_not_there_is_gone(self, server):
        store, stub = server
        self.failed(stub)
        self.missing(stub)
        stub.add_response("list_objects_v2", {"IsTruncated": False})
        store.delete("key")
        stub.assert_no_pending_responses()

    def test_what_is_there_is_not(self, server):
        store, stub = server
        self.failed(stub)
        stub.add_response("head_object", {"ETag": "e", "ContentLength": 1, "LastModified": NOW})
        with pytest.raises(StoreUnavailableError):
            store.delete("key")

    def test_nor_is_what_a_missing_bucket_does_not_have(self, server):
        store, stub = server
        self.failed(stub)
        self.missing(stub)
        stub.add_client_error("list_objects_v2", "NoSuchBucket", http_status_code=404)
        with pytest.raises(StoreUnavailableError):
            store.delete("key")

    def test_a_refusal_is_not_asked_about(self, server):
        store, stub = server
        self.failed(stub, 404)
        with pytest.raises(StoreError):
            store.delete("key")
        stub.assert_no_pending_responses()


class TestWordlessAnswers:
    @pytest.mark.parametrize(
        ("told", "status", "code", "hint"),
        [
            ("InvalidAccessKeyId", 403, "unknown-access-key", "AWS_ACCESS_KEY_ID"),
            ("SignatureDoesNotMatch", 403, "wrong-secret-key", "AWS_SECRET_ACCESS_KEY"),
            ("ExpiredToken", 400, "expired-token", "AWS_SESSION_TOKEN"),
            ("RequestTimeTooSkewed", 403, "clock-skewed", "clock"),
            ("AccessDenied", 403, "store", "s3:GetObject and s3:ListBucket"),
        ],
    )
    def test_a_refusal_without_a_body_is_asked_about_again(self, server, told, status, code, hint):
        store, stub = server
        stub.add_client_error("head_object", str(status), http_status_code=status)
        stub.add_client_error("list_objects_v2", told, http_status_code=status)
        with pytest.raises(StoreError) as raised:
            store.stat("key")
        assert raised.value.code == code
        assert hint in raised.value.hint


class TestSettingsOfAws:
    """What the environment or a profile says holds unless the location says otherwise."""

    @pytest.fixture
    def profile(self, monkeypatch, tmp_path):
        (tmp_path / "config").write_text("[profile old]\nrequest_checksum_calculation = when_required\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    @pytest.mark.parametrize(
        ("variable", "settings", "sent"),
        [
            ("", {}, "CRC32"),
            ("when_required", {}, "when_required"),
            ("when_supported", {}, "CRC32"),
            ("when_required", {"checksum": "SHA256"}, "SHA256"),
            ("", {"profile": "old"}, "when_required"),
        ],
    )
    def test_the_checksum(self, monkeypatch, profile, variable, settings, sent):
        if variable:
            monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", variable)
        assert S3Store(bucket="bucket", region="us-east-1", **settings)._sent_checksum == sent

    def test_server_side_encryption_is_asked_for_with_each_object(self):
        store = S3Store(
            bucket="bucket", region="us-east-1", credentials=CREDENTIALS, sse="aws:kms", sse_key="alias/backups"
        )
        asked = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/backups"}
        others = dict.fromkeys(("Bucket", "Key", "Metadata"), ANY)
        with Stubber(store._client) as stub:
            stub.add_response("put_object", {"ETag": "e"}, asked | others | {"Body": ANY, "ChecksumCRC32": ANY})
            stub.add_response("head_object", {"ETag": "e", "ContentLength": 5, "LastModified": NOW})
            put(store)
            begin = asked | others | {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
            stub.add_response("create_multipart_upload", {"UploadId": "u"}, begin)
            stub.add_client_error("upload_part", "AccessDenied", http_status_code=403)
            stub.add_response("abort_multipart_upload", {})
            with pytest.raises(StoreError):
                put(store, bytes((5 << 20) + 1), if_version=None)


@given(parts=st.lists(st.binary(max_size=300), max_size=5))
def test_the_checksum_of_parts_is_that_of_their_bytes(parts):
    each = [(checksum_of(part, "CRC32"), len(part)) for part in parts]
    assert crc32_of_parts(each) == checksum_of(b"".join(parts), "CRC32")
