"""Which of our errors an error of boto3 is, and what to do about it."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from clusterguard.errors import ClusterGuardError, ConfigError, ObjectNotFoundError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy_boto3_s3 import S3Client

__all__ = ["BOTO_ERRORS", "explain", "required", "status_of", "translate", "translated"]

# botocore lets some errors of urllib3 (TLS in the middle of a body), of sockets and of its own files through.
BOTO_ERRORS: Final = (BotoCoreError, ClientError, HTTPError, OSError)


class _Meaning(NamedTuple):
    kind: type[ClusterGuardError]
    hint: str | None = None
    code: str | None = None


_LATER: Final = _Meaning(StoreUnavailableError, "the server cannot now; try again in a while")
_BROKEN: Final = _Meaning(StoreUnavailableError, "the connection broke; try again")
_UNREACHABLE: Final = _Meaning(StoreUnavailableError, "check the endpoint, the network and the proxy")
_DAMAGED: Final = _Meaning(StoreUnavailableError, "bytes were damaged on their way; try again")
_RIVAL: Final = _Meaning(StoreUnavailableError, "somebody else is writing that key; try again")
_WHO_WE_ARE: Final = (
    "check the credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE or profile=, or the machine's role"
)
_CREDENTIALS: Final = _Meaning(StoreError, _WHO_WE_ARE)
_CERTIFICATE: Final = _Meaning(
    StoreError, "if the server's certificate is from a CA of your own, name its certificate: ca=…"
)
_SETTINGS: Final = _Meaning(
    ConfigError, "check the store's location and the AWS configuration (AWS_* variables, ~/.aws)"
)
_FULL: Final = _Meaning(StoreError, "make room in the bucket, or raise its quota")
_PLAIN: Final = _Meaning(StoreError)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what compatible servers add: those that
# their status does not tell enough about.
_CODES_BY_MEANING: Final = (
    (_LATER, "OperationAborted RequestTimeout TemporaryRedirect Throttling"),
    (_DAMAGED, "BadDigest IncompleteBody XAmzContentChecksumMismatch XAmzContentSHA256Mismatch"),
    (_RIVAL, "ConditionalRequestConflict PreconditionFailed"),
    (_FULL, "EntityTooLarge QuotaExceeded XMinioStorageFull"),
    (_CREDENTIALS, "InvalidToken"),
    (
        _Meaning(StoreError, "name the bucket's own region: region=…"),
        "AuthorizationHeaderMalformed IllegalLocationConstraintException PermanentRedirect",
    ),
    (
        _Meaning(StoreError, f"the server does not know the access key; {_WHO_WE_ARE}", "unknown-access-key"),
        "InvalidAccessKeyId XAdminUserNotFound",
    ),
    (
        _Meaning(StoreError, f"the secret key does not belong to the access key; {_WHO_WE_ARE}", "wrong-secret-key"),
        "SignatureDoesNotMatch",
    ),
    (
        _Meaning(StoreError, "the session token has ended: sign in again, or renew AWS_SESSION_TOKEN", "expired-token"),
        "ExpiredToken",
    ),
    (
        _Meaning(StoreError, "set this machine's clock: it is more than 15 minutes off", "clock-skewed"),
        "RequestTimeTooSkewed",
    ),
    (_Meaning(ConfigError, "check the bucket's name in the store's location"), "InvalidBucketName"),
    (_Meaning(ConfigError, "prefix and key are 1024 bytes at most; shorten one of them"), "KeyTooLongError"),
    (_Meaning(StoreError, "create the bucket first, or check its name and the endpoint"), "NoSuchBucket"),
    (_Meaning(ObjectNotFoundError), "NoSuchKey"),
    (
        _Meaning(StoreError, "the object was archived; restore it to the bucket first"),
        "InvalidObjectState ObjectNotInActiveTierError",
    ),
    (
        _Meaning(
            StoreError, "the unfinished upload is gone: aborted by somebody, or by a lifecycle rule that is too short"
        ),
        "NoSuchUpload",
    ),
    (_Meaning(StoreError, "the server lacks something; checksum=when_required asks least of it"), "NotImplemented"),
    (
        _Meaning(StoreError, "on this server a key cannot be both an object and the beginning of another object's key"),
        "ObjectParentIsFile",
    ),
    (_Meaning(StoreError, "the object has more than 10,000 parts; use larger ones: part_size=…"), "TooManyParts"),
)
_CODES: Final = {code: meaning for meaning, codes in _CODES_BY_MEANING for code in codes.split()}

_STATUSES: Final[dict[int, _Meaning]] = {
    HTTPStatus.NOT_FOUND: _Meaning(StoreError, "check the endpoint: an S3 server says what it did not find"),
    HTTPStatus.INSUFFICIENT_STORAGE: _FULL,
    HTTPStatus.REQUEST_TIMEOUT: _LATER,
    HTTPStatus.TOO_MANY_REQUESTS: _LATER,
}

# In this order: the first base class that fits. botocore has dozens more; their names tell what they are about.
_CLASSES: Final[tuple[tuple[type[Exception], _Meaning], ...]] = (
    (boto.ConnectionError, _UNREACHABLE),
    (ConnectionError, _UNREACHABLE),
    (boto.ChecksumError, _DAMAGED),
    (boto.FlexibleChecksumError, _DAMAGED),
    (boto.CapacityNotAvailableError, _LATER),
    (boto.HTTPClientError, _BROKEN),
    (boto.IncompleteReadError, _BROKEN),
    (HTTPError, _BROKEN),
    (FileNotFoundError, _SETTINGS),
    (PermissionError, _SETTINGS),
    (OSError, _BROKEN),
)
_ABOUT_CREDENTIALS: Final = re.compile("Credential|Token|SSO|Login|MFA|Metadata")
_ABOUT_SETTINGS: Final = re.compile("Config|Endpoint|Region|Profile|Invalid|Unsupported|Validation")

_MAY_BE_A_REFUSAL: Final = {400, 401, 403, 404}

_PERMISSIONS: Final = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    # Without s3:ListBucket, S3 answers 403 where it would answer 404.
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    **dict.fromkeys(("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"), "s3:PutObject"),
}


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise what boto3 raises in the block as our own error about a place."""
    try:
        yield
    except BOTO_ERRORS as error:
        raise translate(error, place=place) from error


def translate(error: Exception, *, place: str) -> ClusterGuardError:
    """Return our error for one of boto3's about a place."""
    if isinstance(error, ClientError):
        return _of_answer(error, place)
    kind, hint, code = _meaning_of_class(error)
    return kind(f"{place}: {error}", hint=hint, code=code)


def explain(client: S3Client, error: Exception, *, bucket: str, key: str, place: str) -> ClusterGuardError:
    """Return our error as `translate` does, and where the server said no words, ask it something that it must answer.

    A HEAD is answered without a body: a missing bucket looks like a missing object, a wrong secret key like a missing
    permission. And a server that refuses an upload may hang up before it has read it, which leaves no answer at all.
    """
    meaning = translate(error, place=place)
    if not _is_wordless(error):
        return meaning
    try:
        client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except BOTO_ERRORS as told:
        if _says_more(told) or (status_of(told) is None and isinstance(meaning, ObjectNotFoundError)):
            return translate(told, place=f"s3://{bucket}")
    return meaning


def _says_more(error: Exception) -> bool:
    # Who may not list may still know that there is no such object.
    return isinstance(error, ClientError) and (status_of(error) != HTTPStatus.FORBIDDEN or _code_of(error) in _CODES)


def _is_wordless(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = status_of(error)
        return _code_of(error) == str(status) and status in _MAY_BE_A_REFUSAL
    return isinstance(error, boto.ConnectionClosedError) or (
        isinstance(error, boto.SSLError) and not _is_about_certificates(error)
    )


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that a server answered with; None where none answered."""
    if not isinstance(error, ClientError):
        return None
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def required(response: Mapping[str, Any], name: str, *, place: str) -> Any:  # noqa: ANN401 - botocore types it
    """Return what every S3 server tells: an answer without it is from something else, and proves nothing.

    Raises:
        StoreError: The answer lacks it.
    """
    if name not in response:
        raise StoreError(
            f"{place}: the server's answer lacks {name}, so it is no S3 server's", hint="check the endpoint"
        )
    return response[name]


def _of_answer(error: ClientError, place: str) -> ClusterGuardError:
    status, code = status_of(error) or 0, _code_of(error)
    message = error.response.get("Error", {}).get("Message", "no message")
    kind, hint, narrower = _meaning_of_answer(code, status, error.operation_name)
    if hint is None and status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        permission = _PERMISSIONS.get(error.operation_name, f"the one for {error.operation_name}")
        hint = f"allow these credentials {permission} on {place}"
    seen = f"{code} {status}" if code != str(status) else code
    return kind(f"{place}: {error.operation_name}: {message} ({seen})", hint=hint, code=narrower)


def _code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", status_of(error)))


def _meaning_of_answer(code: str, status: int, operation: str) -> _Meaning:
    # A HEAD has no body to tell what was not found. Any other 404 of unknown code may come from whatever answers
    # at a wrong endpoint, and says nothing about an object.
    if operation == "HeadObject" and code == str(HTTPStatus.NOT_FOUND.value):
        return _Meaning(ObjectNotFoundError)
    otherwise = _LATER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _PLAIN
    return _CODES.get(code) or _STATUSES.get(status, otherwise)


def _meaning_of_class(error: Exception) -> _Meaning:
    if isinstance(error, boto.SSLError):
        return _CERTIFICATE if _is_about_certificates(error) else _BROKEN
    known = next((meaning for base, meaning in _CLASSES if isinstance(error, base)), None)
    if known is not None:
        return known
    names = " ".join(base.__name__ for base in type(error).__mro__)
    if _ABOUT_CREDENTIALS.search(names):
        return _CREDENTIALS
    return _SETTINGS if _ABOUT_SETTINGS.search(names) else _PLAIN


def _is_about_certificates(error: boto.SSLError) -> bool:
    """Return whether TLS ended for a certificate: a server that hangs up in the middle is an SSLError of boto3, too."""
    causes, seen = [*error.kwargs.values()], []
    while causes:
        cause = causes.pop()
        if isinstance(cause, BaseException) and cause not in seen:
            seen.append(cause)
            causes += [cause.__cause__, cause.__context__, *cause.args]
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in seen)
