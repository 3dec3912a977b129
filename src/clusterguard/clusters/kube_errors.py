"""What an answer of the API server, or the lack of one, means as an error of ours: one table for the whole project."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ClusterUnreachableError,
    ConflictError,
    ForbiddenError,
    ResourceNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.clusters.kube_discovery import Json

__all__ = ["is_status", "not_kubernetes", "status_error", "transport_error"]

_ELSEWHERE = "an API server does not redirect; is the kubeconfig's server the right one?"
_STATUS: Mapping[int, tuple[type[ClusterError], str | None]] = {
    301: (ClusterError, _ELSEWHERE),
    302: (ClusterError, _ELSEWHERE),
    307: (ClusterError, _ELSEWHERE),
    308: (ClusterError, _ELSEWHERE),
    401: (ClusterError, "the credentials of the kubeconfig are missing, expired or unknown here"),
    403: (ForbiddenError, "grant that user the verb on that resource (RBAC), or use another context"),
    404: (ResourceNotFoundError, None),
    409: (ConflictError, None),
    410: (ConflictError, "the server forgot that moment; list again"),
    429: (ClusterUnreachableError, "the server is busy; try again"),
    500: (ClusterUnreachableError, None),
    502: (ClusterUnreachableError, None),
    503: (ClusterUnreachableError, None),
    504: (ClusterUnreachableError, None),
}


def status_error(status: int, body: bytes, what: str, decoded: Json | None = None) -> ClusterGuardError:
    """Return the error that an answer means."""
    message, reason = _explanation(body, decoded)
    text = f"{what}: {status} {reason}: {message}" if reason else f"{what}: {status}: {message}"
    error, hint = _STATUS.get(status, (ClusterError, None))
    if status == HTTPStatus.FORBIDDEN and " cannot " not in message:
        hint = None  # an admission plugin refused the object, not RBAC the user; the message says why
    return error(text, hint=hint)


def _explanation(body: bytes, decoded: Json | None) -> tuple[str, str]:
    if decoded is None:
        try:
            decoded = orjson.loads(body)
        except orjson.JSONDecodeError:
            decoded = None
    if isinstance(decoded, dict) and decoded.get("kind") == "Status":
        return str(decoded.get("message") or "no message"), str(decoded.get("reason") or "")
    return body[:2000].decode(errors="replace").strip() or "no message", ""


def is_status(body: bytes) -> bool:
    """Return whether an answer is the API server's own word, not that of whom it asked for us."""
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(decoded, dict) and (decoded.get("kind"), decoded.get("apiVersion")) == ("Status", "v1")


def transport_error(error: Exception, what: str) -> ClusterGuardError:
    """Return the error of a request that got no answer."""
    import ssl

    cause = _root_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ClusterError(
            f"{what}: its certificate is not trusted: {cause.verify_message}",
            code="untrusted-certificate",
            hint="is certificate-authority-data of the kubeconfig that of this cluster?",
        )
    if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
        return ClusterError(f"{what}: the server refused our client certificate: {cause.reason}")
    if isinstance(cause, TimeoutError) or "Timeout" in type(error).__name__:
        return ClusterUnreachableError(f"{what}: no answer in time")
    reason = getattr(cause, "strerror", None) or cause
    return ClusterUnreachableError(f"{what}: {reason}", hint="is the API server running, and is this its address?")


def _root_cause(error: BaseException) -> BaseException:
    # urllib3 wraps in three ways: by reason, by the last argument, by chaining.
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in reversed(error.args) if isinstance(part, BaseException)), error.__cause__)
        if inner is None or inner is error:
            return error
        error = inner


def not_kubernetes(body: bytes) -> ClusterError:
    """Return the error of an answer that no API server gives."""
    seen = body[:80].decode(errors="replace")
    return ClusterError(
        f"the answer is not a JSON object but {seen!r}",
        hint="does the kubeconfig's server lead to an API server?",
    )
