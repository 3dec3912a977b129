"""Which of our errors an error of boto3 is: tables of names, so that this module needs no boto3."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from clusterguard.errors import (
    ClusterGuardError,
    ConfigError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Answer", "error_for_answer", "error_for_exception", "is_known", "knows_code"]


@dataclass(frozen=True, slots=True)
class _Meaning:
    error: type[ClusterGuardError]
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An error that an S3 server answered with.

    Attributes:
        code: S3's error code; servers answer HEAD without one, and botocore then gives the status as text.
        status: The HTTP status.
        message: The server's own words.
        operation: Such as ``PutObject``.
    """

    code: str
    status: int
    message: str
    operation: str


_LATER = _Meaning(StoreUnavailableError, "the server cannot now; try again in a while")
_DAMAGED = _Meaning(StoreUnavailableError, "bytes were damaged on their way; try again")
_NO_OBJECT = _Meaning(ObjectNotFoundError)
_CREDENTIALS = _Meaning(
    StoreError,
    "check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or profile=, or the role"
    " of this machine",
)
_SETTINGS = _Meaning(ConfigError, "check the store's location and the AWS configuration (AWS_* variables, ~/.aws)")
_INSTALLATION = _Meaning(StoreError, "boto3 and botocore do not fit together or with this program; reinstall them")
_PLAIN = _Meaning(StoreError)
_NOWHERE = _Meaning(StoreError, "check the endpoint: an S3 server says what it did not find")
_DENIED = _Meaning(StoreError)  # its hint names the permission, which depends on the operation
_FULL = _Meaning(StoreError, "make room in the bucket, or raise its quota")
_REGION = _Meaning(StoreError, "name the bucket's own region: region=…")

# A HEAD has no body to tell what was not found. Any other 404 of unknown code may come from whatever answers
# at a wrong endpoint, and says nothing about an object.
_NOT_FOUND = str(HTTPStatus.NOT_FOUND.value)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what compatible servers add.
_CODES = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AuthorizationHeaderMalformed": _REGION,
    "BadDigest": _DAMAGED,
    "BucketAlreadyExists": _PLAIN,
    "BucketAlreadyOwnedByYou": _PLAIN,
    "ConditionalRequestConflict": _Meaning(StoreUnavailableError, "somebody else is writing that key; try again"),
    "EncryptionTypeMismatch": _PLAIN,
    "EntityTooLarge": _FULL,
    "ExpiredToken": _CREDENTIALS,
    "Forbidden": _DENIED,
    "IdempotencyParameterMismatch": _PLAIN,
    "IllegalLocationConstraintException": _REGION,
    "IncompleteBody": _DAMAGED,
    "InsufficientStorage": _FULL,
    "InternalError": _LATER,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidBucketName": _Meaning(ConfigError, "check the bucket's name in the store's location"),
    "InvalidObjectState": _Meaning(StoreError, "the object was archived; restore it to the bucket first"),
    "InvalidRequest": _PLAIN,
    "InvalidToken": _CREDENTIALS,
    "InvalidWriteOffset": _PLAIN,
    "KeyTooLongError": _Meaning(ConfigError, "prefix and key are 1024 bytes at most; shorten one of them"),
    "NoSuchBucket": _Meaning(StoreError, "create the bucket first, or check its name and the endpoint"),
    "NoSuchKey": _NO_OBJECT,
    "NoSuchUpload": _Meaning(
        StoreError,
        "the unfinished upload is gone: aborted by somebody, or by a lifecycle rule that is too short",
    ),
    "NotImplemented": _Meaning(StoreError, "the server lacks something; checksum=when_required asks least of it"),
    "ObjectAlreadyInActiveTierError": _PLAIN,
    "ObjectNotInActiveTierError": _Meaning(StoreError, "the object was archived; restore it to the bucket first"),
    "ObjectParentIsFile": _Meaning(
        StoreError, "on this server a key cannot be both an object and the beginning of another object's key"
    ),
    "OperationAborted": _LATER,
    "PermanentRedirect": _REGION,
    "PreconditionFailed": _Meaning(StoreUnavailableError, "somebody else is writing that key; try again"),
    "QuotaExceeded": _FULL,
    "RequestTimeTooSkewed": _Meaning(StoreError, "set this machine's clock: it is more than 15 minutes off"),
    "RequestTimeout": _LATER,
    "ServiceUnavailable": _LATER,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "SlowDown": _LATER,
    "TemporaryRedirect": _LATER,
    "Throttling": _LATER,
    "TooManyParts": _Meaning(StoreError, "the object has more than 10,000 parts; use larger ones: part_size=…"),
    "XAdminUserNotFound": _CREDENTIALS,
    "XAmzContentChecksumMismatch": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "XMinioStorageFull": _FULL,
    # Errors of calls that we never make, which botocore has classes for.
    "AnnotationLimitExceeded": _PLAIN,
    "AnnotationNameTooLong": _PLAIN,
    "InvalidAnnotationName": _PLAIN,
    "InvalidPrefix": _PLAIN,
    "NoSuchAnnotation": _PLAIN,
    "UnsupportedMediaType": _PLAIN,
}

# A class that is not here means what its nearest base class means.
_CLASSES = {
    # Nobody answered, or not to the end.
    "CapacityNotAvailableError": _LATER,
    "ChecksumError": _DAMAGED,
    "ConnectionError": _Meaning(StoreUnavailableError, "check the endpoint, the network and the proxy"),
    "FlexibleChecksumError": _DAMAGED,
    "HTTPClientError": _Meaning(StoreUnavailableError, "the connection broke; try again"),
    "HTTPError": _Meaning(StoreUnavailableError, "the connection broke; try again"),
    "IncompleteReadError": _Meaning(StoreUnavailableError, "the connection broke; try again"),
    "OSError": _Meaning(StoreUnavailableError, "the connection broke; try again"),
    "SSLError": _Meaning(
        StoreError, "if the server's certificate is from a CA of your own, name its certificate: ca=…"
    ),
    # Who we are.
    "CredentialRetrievalError": _CREDENTIALS,
    "LoginError": _CREDENTIALS,
    "MetadataRetrievalError": _CREDENTIALS,
    "NoAuthTokenError": _CREDENTIALS,
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "RefreshWithMFAUnsupportedError": _CREDENTIALS,
    "SSOError": _CREDENTIALS,
    "TokenRetrievalError": _CREDENTIALS,
    "UnknownCredentialError": _CREDENTIALS,
    "UnknownTokenProviderError": _CREDENTIALS,
    # What was asked for.
    "BaseEndpointResolverError": _SETTINGS,
    "ConfigNotFound": _SETTINGS,
    "ConfigParseError": _SETTINGS,
    "EndpointProviderError": _SETTINGS,
    "FileNotFoundError": _SETTINGS,
    "InvalidChecksumConfigError": _SETTINGS,
    "InvalidConfigError": _SETTINGS,
    "InvalidDNSNameError": _SETTINGS,
    "InvalidDefaultsMode": _SETTINGS,
    "InvalidEndpointConfigurationError": _SETTINGS,
    "InvalidEndpointDiscoveryConfigurationError": _SETTINGS,
    "InvalidExpressionError": _SETTINGS,
    "InvalidHostLabelError": _SETTINGS,
    "InvalidIMDSEndpointError": _SETTINGS,
    "InvalidIMDSEndpointModeError": _SETTINGS,
    "InvalidProxiesConfigError": _SETTINGS,
    "InvalidRetryConfigurationError": _SETTINGS,
    "InvalidS3AddressingStyleError": _SETTINGS,
    "InvalidS3UsEast1RegionalEndpointConfigError": _SETTINGS,
    "InvalidSTSRegionalEndpointsConfigError": _SETTINGS,
    "ParamValidationError": _SETTINGS,
    "PermissionError": _SETTINGS,
    "ProfileNotFound": _SETTINGS,
    "ServiceNotInRegionError": _SETTINGS,
    "UnknownRegionError": _SETTINGS,
    "UnsupportedOutpostResourceError": _SETTINGS,
    "UnsupportedS3AccesspointConfigurationError": _SETTINGS,
    "UnsupportedS3ArnError": _SETTINGS,
    "UnsupportedS3ConfigurationError": _SETTINGS,
    "UnsupportedS3ControlArnError": _SETTINGS,
    "UnsupportedS3ControlConfigurationError": _SETTINGS,
    "ValidationError": _SETTINGS,
    # The SDK itself.
    "ApiVersionNotFoundError": _INSTALLATION,
    "AwsChunkedWrapperError": _INSTALLATION,
    "ClientError": _PLAIN,
    "DataNotFoundError": _INSTALLATION,
    "MD5UnavailableError": _INSTALLATION,
    "MissingDependencyException": _INSTALLATION,
    "MissingParametersError": _INSTALLATION,
    "OperationNotPageableError": _INSTALLATION,
    "PaginationError": _INSTALLATION,
    "StubResponseError": _INSTALLATION,
    "UnknownClientMethodError": _INSTALLATION,
    "UnknownServiceStyle": _INSTALLATION,
    "UnknownSignatureVersionError": _INSTALLATION,
    "UnseekableStreamError": _INSTALLATION,
    "UnsupportedServiceProtocolsError": _INSTALLATION,
    "UnsupportedSignatureVersionError": _INSTALLATION,
    "WaiterConfigError": _INSTALLATION,
    "WaiterError": _INSTALLATION,
}

_PERMISSIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    # Without s3:ListBucket, S3 answers 403 where it would answer 404.
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}


def error_for_answer(answer: Answer, *, place: str) -> ClusterGuardError:
    """Return our error for what a server answered about a place."""
    meaning = _CODES.get(answer.code) or _meaning_of_status(answer.status)
    if answer.operation == "HeadObject" and answer.code == _NOT_FOUND:
        meaning = _NO_OBJECT
    hint = meaning.hint
    if meaning is _DENIED:
        permission = _PERMISSIONS.get(answer.operation, f"the one for {answer.operation}")
        hint = f"allow these credentials {permission} on {place}"
    seen = f"{answer.code} {answer.status}" if answer.code != str(answer.status) else answer.code
    return meaning.error(f"{place}: {answer.operation}: {answer.message} ({seen})", hint=hint)


def error_for_exception(error: Exception, *, place: str) -> ClusterGuardError:
    """Return our error for an exception in which no server answered."""
    meaning = _meaning_of_class(error.__class__.__mro__) or _PLAIN
    return meaning.error(f"{place}: {error}", hint=meaning.hint)


def is_known(error: type[Exception]) -> bool:
    """Return whether the tables say what this class means."""
    return _meaning_of_class(error.__mro__) is not None


def knows_code(code: str) -> bool:
    """Return whether the tables say what this error code means."""
    return code in _CODES


def _meaning_of_class(lineage: Sequence[type]) -> _Meaning | None:
    return next((_CLASSES[base.__name__] for base in lineage if base.__name__ in _CLASSES), None)


def _meaning_of_status(status: int) -> _Meaning:
    if status == HTTPStatus.NOT_FOUND:
        return _NOWHERE
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return _DENIED
    if status == HTTPStatus.INSUFFICIENT_STORAGE:
        return _FULL
    if status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}:
        return _LATER
    return _LATER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _PLAIN
