from __future__ import annotations

import inspect

import boto3
import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from clusterguard.errors import (
    ConfigError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.stores.s3_errors import (
    _CLASSES,
    Answer,
    error_for_answer,
    error_for_exception,
    is_known,
    knows_code,
)

CLASSES = sorted(
    (
        error
        for _, error in inspect.getmembers(botocore.exceptions, inspect.isclass)
        if issubclass(error, (BotoCoreError, ClientError)) and error is not BotoCoreError
    ),
    key=lambda error: error.__name__,
)
MODELLED = sorted(
    shape.error_code for shape in boto3.client("s3", region_name="us-east-1").meta.service_model.error_shapes
)


def answer(code="", status=400, operation="PutObject"):
    return Answer(code=code, status=status, message="words of the server", operation=operation)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_class_of_botocore_has_a_meaning(error):
    assert is_known(error)


@pytest.mark.parametrize("code", MODELLED)
def test_every_error_code_that_botocore_models_has_a_meaning(code):
    assert knows_code(code)


def test_a_class_that_nobody_thought_of_is_noticed():
    class BrandNewError(BotoCoreError):
        pass

    assert not is_known(BrandNewError)
    assert type(error_for_exception(BrandNewError(), place="s3://b")) is StoreError
    assert not knows_code("BrandNew")


def test_the_table_has_no_class_that_is_gone():
    from urllib3.exceptions import HTTPError

    known = {error.__name__ for error in (*CLASSES, HTTPError, OSError, FileNotFoundError, PermissionError)}
    assert set(_CLASSES) - known == set()


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
    error = error_for_answer(answer(code, status), place="s3://b/k")
    assert type(error) is kind
    assert error.message.startswith("s3://b/k: PutObject: words of the server")
    assert str(status) in error.message
    assert (hint is None and error.hint is None) or hint in error.hint


def test_a_bare_404_means_a_missing_object_in_the_answer_to_a_head_alone():
    """Anything may answer 404 at a wrong endpoint; a delete must not take that for success."""
    assert type(error_for_answer(answer("404", 404, "HeadObject"), place="s3://b/k")) is ObjectNotFoundError
    assert type(error_for_answer(answer("404", 404, "DeleteObject"), place="s3://b/k")) is StoreError


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
    error = error_for_answer(answer("AccessDenied", 403, operation), place="s3://b")
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
        (botocore.exceptions.SSLError(endpoint_url="https://x", error="bad"), StoreError, "ca="),
        (botocore.exceptions.NoCredentialsError(), StoreError, "AWS_ACCESS_KEY_ID"),
        (botocore.exceptions.ProfileNotFound(profile="x"), ConfigError, "AWS"),
        (botocore.exceptions.FlexibleChecksumError(error_msg="x"), StoreUnavailableError, "damaged"),
        (ConnectionResetError("reset"), StoreUnavailableError, "network"),
        (OSError("odd"), StoreUnavailableError, "again"),
        (PermissionError(13, "denied", "~/.aws/config"), ConfigError, "AWS"),
    ],
)
def test_exceptions(error, kind, hint):
    ours = error_for_exception(error, place="s3://b/k")
    assert type(ours) is kind
    assert ours.message.startswith("s3://b/k: ")
    assert hint in ours.hint
