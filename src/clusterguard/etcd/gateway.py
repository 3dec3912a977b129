"""etcd's JSON gateway: status, hashes, alarms, members. The only user of etcd3gw and of requests under it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import requests
from etcd3gw import Etcd3Client, exceptions

from clusterguard.errors import ConfigError, EtcdAuthError, EtcdError, EtcdUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.clusters.base import EtcdAccess

__all__ = ["EtcdGateway", "LiveHash", "MemberStatus"]

_TIMEOUT_SECONDS = 10.0
# etcd names its gateway /v3 since 3.4, the oldest version whose snapshots carry what we check.
_API_PATH = "/v3/"
_DEFAULT_PORT = 2379
_ALERT_SECONDS = 1.0
_EXPIRED = "invalid auth token"
_ALL_KEYS = "AA=="  # one zero byte in base64: as key and end it means "from the first key to the last"
# gRPC status codes, as the gateway repeats them in its JSON errors.
_UNAUTHENTICATED, _PERMISSION_DENIED, _UNAVAILABLE, _OUT_OF_RANGE = 16, 7, 14, 11


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """What one member says about itself.

    Attributes:
        endpoint: The URL that was asked.
        version: etcd's version, such as ``3.6.5``.
        storage_version: Of its database, or ``""`` before 3.6.
        cluster_id: Hexadecimal, as etcdctl prints it.
        member_id: Likewise.
        revision: Its current revision.
        db_size: Bytes of its database file.
        db_size_in_use: Bytes of it that hold data.
        leader: ID of the leader it follows, ``"0"`` when it has none.
        is_learner: Whether it does not vote.
        errors: Alarms and complaints, verbatim.
    """

    endpoint: str
    version: str
    storage_version: str
    cluster_id: str
    member_id: str
    revision: int
    db_size: int
    db_size_in_use: int
    leader: str
    is_learner: bool
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHash:
    """A member's HashKV.

    Attributes:
        hash: CRC-32C over its keys at the revision.
        hash_revision: The revision it was computed at.
        compact_revision: The member's compaction revision; hashes compare only where these are equal.
    """

    hash: int
    hash_revision: int
    compact_revision: int


class EtcdGateway:
    """Speaks to one member."""

    def __init__(self, access: EtcdAccess, endpoint: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self._access = access
        protocol, host, port = _parts(endpoint)
        session = requests.Session()
        # With its environment trusted, requests lets REQUESTS_CA_BUNDLE override the CA given here.
        session.trust_env = False
        if access.ca is not None:
            session.verify = str(access.ca)
        if access.cert is not None and access.key is not None:
            session.cert = (str(access.cert), str(access.key))
        self._session = session
        self._client = Etcd3Client(
            host=host,
            port=port,
            protocol=protocol,
            timeout=timeout_seconds,
            api_path=_API_PATH,
            session=session,
        )

    def status(self) -> MemberStatus:
        """Ask the member how it is.

        Raises:
            EtcdUnavailableError: It does not answer.
            EtcdAuthError: It refuses us.
        """
        answer = self._post("maintenance/status", {})
        header = answer["header"]
        return MemberStatus(
            endpoint=self.endpoint,
            version=answer.get("version", ""),
            storage_version=answer.get("storageVersion", ""),
            cluster_id=f"{int(header['cluster_id']):x}",
            member_id=f"{int(header['member_id']):x}",
            revision=int(header.get("revision", 0)),
            db_size=int(answer.get("dbSize", 0)),
            db_size_in_use=int(answer.get("dbSizeInUse", 0)),
            leader=f"{int(answer.get('leader', 0)):x}",
            is_learner=bool(answer.get("isLearner", False)),
            errors=tuple(answer.get("errors", ())),
        )

    def hash_kv(self, revision: int) -> LiveHash:
        """Ask for HashKV at a revision.

        Raises:
            EtcdError: That revision is compacted away, or not reached yet.
        """
        answer = self._post("maintenance/hashkv", {"revision": str(revision)})
        return LiveHash(
            hash=int(answer.get("hash", 0)),
            # Told since 3.6; an older member that answers at all answers at the revision asked for.
            hash_revision=int(answer.get("hash_revision", revision)),
            compact_revision=int(answer.get("compact_revision", 0)),
        )

    def count_keys(self, revision: int) -> int:
        """Return how many keys are live at a revision; etcd answers from its index, without reading values.

        Raises:
            EtcdError: That revision is compacted away.
        """
        # Serializable: what this member holds at that revision, without asking a quorum that may be lost.
        body = {
            "key": _ALL_KEYS,
            "range_end": _ALL_KEYS,
            "revision": str(revision),
            "count_only": True,
            "serializable": True,
        }
        return int(self._post("kv/range", body).get("count", 0))

    def alarms(self) -> tuple[str, ...]:
        """Return raised alarms, such as ``NOSPACE on 8e9e05c52164694d``."""
        answer = self._post("maintenance/alarm", {"action": "GET"})
        return tuple(
            f"{alarm.get('alarm', 'NONE')} on {int(alarm.get('memberID', 0)):x}" for alarm in answer.get("alarms", ())
        )

    def member_name(self, member_id: str) -> str:
        """Return the name of a member as this one knows it, or ``""`` when it does not."""
        for member in self._post("cluster/member/list", {"linearizable": False}).get("members", ()):
            if f"{int(member['ID']):x}" == member_id:
                return str(member.get("name", ""))
        return ""

    def token(self) -> str | None:
        """Return a fresh token for the configured user, or None where none is configured.

        Raises:
            EtcdAuthError: User or password are wrong, or authentication is off.
        """
        if self._access.username is None:
            return None
        body = {"name": self._access.username, "password": self._access.password or ""}
        return str(self._send("auth/authenticate", body)["token"])

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        if self._access.username is None:
            return self._send(path, body)
        if "Authorization" in self._session.headers:
            with contextlib.suppress(_TokenExpiredError):
                return self._send(path, body)
        self._session.headers["Authorization"] = self.token() or ""
        return self._send(path, body)

    def _send(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        try:
            answer = self._client.post(self._client.get_url(path), json=body)
        except exceptions.ConnectionTimeoutError as error:
            raise EtcdUnavailableError(f"{self.endpoint}: no answer in time", hint=_REACH_HINT) from error
        except exceptions.ConnectionFailedError as error:
            raise self._connection_error(error.__context__ or error) from error
        except exceptions.Etcd3Exception as error:
            raise self._etcd_error(error) from error
        except requests.JSONDecodeError as error:
            raise EtcdError(f"{self.endpoint}: its answer to {path} is no JSON", hint=_REACH_HINT) from error
        except requests.RequestException as error:
            raise EtcdUnavailableError(f"{self.endpoint}: {error}", hint=_REACH_HINT) from error
        except OSError as error:
            # requests raises a bare OSError when a certificate file cannot be read.
            raise ConfigError(f"{self.endpoint}: {error}", hint="check the certificate files") from error
        if not isinstance(answer, dict) or "header" not in answer:
            raise EtcdError(f"{self.endpoint}: its answer to {path} is not etcd's", hint=_REACH_HINT)
        return answer

    def _connection_error(self, error: BaseException) -> EtcdError:
        reason = _innermost(str(error))
        if isinstance(error, requests.exceptions.SSLError):
            return EtcdAuthError(
                f"{self.endpoint}: TLS failed: {self._alert() or reason}",
                hint="check the CA, and that the client certificate is signed by etcd's own CA",
            )
        return EtcdUnavailableError(f"{self.endpoint}: {reason}", hint=_REACH_HINT)

    def _alert(self) -> str | None:
        """Connect once more and only listen: behind a request the member's reason to refuse us gets lost."""
        _, host, port = _parts(self.endpoint)
        try:
            context = ssl.create_default_context(cafile=self._access.ca)
            if self._access.cert is not None:
                context.load_cert_chain(self._access.cert, self._access.key)
            with (
                socket.create_connection((host, port), timeout=_ALERT_SECONDS) as connection,
                context.wrap_socket(connection, server_hostname=host) as secured,
            ):
                secured.recv(1)
        except ssl.SSLError as error:
            return error.reason and error.reason.replace("_", " ").lower()
        except OSError:
            return None
        return None

    def _etcd_error(self, error: exceptions.Etcd3Exception) -> EtcdError:
        detail = getattr(error, "detail_text", None) or str(error)
        code, message = _decode_error(detail)
        text = f"{self.endpoint}: {message}"
        if _EXPIRED in message:
            return _TokenExpiredError(text, hint="save again; etcd's --auth-token-ttl says how long a token holds")
        if code in (_UNAUTHENTICATED, _PERMISSION_DENIED) or "auth" in message.lower():
            return EtcdAuthError(
                text,
                hint="the maintenance calls need etcd's root role; give a user and password that have it",
            )
        if code == _UNAVAILABLE:
            return EtcdUnavailableError(text, hint=_REACH_HINT)
        if code == _OUT_OF_RANGE:
            return EtcdError(text, hint="that revision was compacted away or is not reached yet")
        return EtcdError(text)


class _TokenExpiredError(EtcdAuthError):
    """The token was given out by this member, or by its leader, and has run out since."""


_ENDPOINT_HINT = "write it like https://127.0.0.1:2379"
_REACH_HINT = "is etcd running there, and is this the client port?"


def _parts(endpoint: str) -> tuple[str, str, int]:
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ConfigError(f"{endpoint!r} is no etcd endpoint: {error}", hint=_ENDPOINT_HINT) from error
    if url.scheme not in ("http", "https") or not host or url.path.strip("/") or "@" in url.netloc:
        raise ConfigError(f"{_without_user(endpoint)!r} is no etcd endpoint", hint=_ENDPOINT_HINT)
    return url.scheme, host, port or _DEFAULT_PORT


def _without_user(endpoint: str) -> str:
    return re.sub(r"//.*@", "//…@", endpoint)


def _decode_error(detail: str) -> tuple[int, str]:
    try:
        decoded = json.loads(detail)
    except ValueError:
        return 0, detail.strip()[:500]
    return int(decoded.get("code", 0)), str(decoded.get("message") or decoded.get("error") or detail)


def _innermost(text: str) -> str:
    """urllib3 wraps the reason in layers of repr; its last layer is what a reader needs."""
    return text.rsplit(": ", 1)[-1].strip("'\")(") or text
