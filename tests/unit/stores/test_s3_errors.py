"""Which of our errors an error of boto3 is."""

from __future__ import annotations

import inspect
import ssl

import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from clusterguard.errors import (
    ClusterGuardError,
    ConfigError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.stores.s3_errors import translate


def answer(code="", status=400, operation="PutObject"):
    told = {"Code": code, "Message": "words of the server"}
    return ClientError({"Error": told, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


def test_every_class_of_botocore_is_one_of_ours_and_those_about_credentials_or_settings_have_a_hint():
    """The table lists a few; whatever else there is, now or in a later release, is mapped by its bases or its name."""
    for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass):
        if issubclass(kind, BotoCoreError):
            error = kind.__new__(kind)
            error.kwargs = {}
            ours = translate(error, place="s3://b")
            assert isinstance(ours, ClusterGuardError)
            if "Credentials" in kind.__name__ or "Config" in kind.__name__:
                assert "AWS" in ours.hint, kind

    class BrandNewError(BotoCoreError):
        pass

    assert type(translate(BrandNewError(), place="s3://b")) is StoreError


@pytest.mark.parametrize(
    ("code", "status", "kind", "hint"),
    [
        ("NoSuchKey", 404, ObjectNotFoundError, None),
        ("404", 404, StoreError, "check the endpoint"),
        ("Unheard", 404, StoreError, "check the endpoint"),
        ("NoSuchBucket", 404, StoreError, "create the bucket"),
        ("AccessDenied", 403, StoreError, "allow these credentials s3:PutObject on s3://b/k"),
        ("403", 403, StoreError, "s3:PutObject"),
        ("InvalidAccessKeyId", 403, StoreError, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, StoreError, "AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", 403, StoreError, "clock"),
        ("PermanentRedirect", 301, StoreError, "region"),
        ("SlowDown", 503, StoreUnavailableError, "again"),
        ("503", 503, StoreUnavailableError, "again"),
        ("Unheard", 500, StoreUnavailableError, "again"),
        ("Unheard", 429, StoreUnavailableError, "again"),
        ("Unheard", 418, StoreError, None),
        ("InvalidBucketName", 400, ConfigError, "name"),
        ("BadDigest", 400, StoreUnavailableError, "damaged"),
        ("507", 507, StoreError, "room"),
    ],
)
def test_answers(code, status, kind, hint):
    error = translate(answer(code, status), place="s3://b/k")
    assert type(error) is kind
    assert error.message.startswith("s3://b/k: PutObject: words of the server")
    assert str(status) in error.message
    assert (hint is None and error.hint is None) or hint in error.hint


def test_a_bare_404_means_a_missing_object_in_the_answer_to_a_head_alone():
    """Anything may answer 404 at a wrong endpoint; a delete must not take that for success."""
    assert type(translate(answer("404", 404, "HeadObject"), place="s3://b/k")) is ObjectNotFoundError
    assert type(translate(answer("404", 404, "DeleteObject"), place="s3://b/k")) is StoreError


@pytest.mark.parametrize(
    ("operation", "permission"),
    [
        ("HeadObject", "s3:ListBucket"),
        ("DeleteObject", "s3:DeleteObject"),
        ("ListObjectsV2", "s3:ListBucket"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_a_denied_operation_names_the_permission_it_needs(operation, permission):
    error = translate(answer("AccessDenied", 403, operation), place="s3://b")
    assert permission in error.hint


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (
            botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"),
            StoreUnavailableError,
            "endpoint",
        ),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), StoreUnavailableError, "again"),
        (
            botocore.exceptions.SSLError(
                endpoint_url="https://x", error=ssl.SSLCertVerificationError(1, "self-signed")
            ),
            StoreError,
            "ca=",
        ),
        (
            botocore.exceptions.SSLError(endpoint_url="https://x", error=ssl.SSLEOFError(8, "EOF")),
            StoreUnavailableError,
            "again",
        ),
        (botocore.exceptions.NoCredentialsError(), StoreError, "AWS_ACCESS_KEY_ID"),
        (botocore.exceptions.ProfileNotFound(profile="x"), ConfigError, "AWS"),
        (botocore.exceptions.FlexibleChecksumError(error_msg="x"), StoreUnavailableError, "damaged"),
        (ConnectionResetError("reset"), StoreUnavailableError, "network"),
        (OSError("odd"), StoreUnavailableError, "again"),
        (PermissionError(13, "denied", "~/.aws/config"), ConfigError, "AWS"),
    ],
)
def test_exceptions(error, kind, hint):
    ours = translate(error, place="s3://b/k")
    assert type(ours) is kind
    assert ours.message.startswith("s3://b/k: ")
    assert hint in ours.hint
