"""One member of etcd: status, hashes, alarms, and the snapshot stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from clusterguard.errors import ConfigError, EtcdAuthError, EtcdError, EtcdUnavailableError, SnapshotIncompleteError
from clusterguard.etcd import rpc
from clusterguard.etcd.grpc import REACH_HINT, GrpcChannel, NotGrpcError, UnansweredError
from clusterguard.etcd.rpc import BrokenAnswerError, RpcError
from clusterguard.etcd.wire import SnapshotFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd.gateway import JsonGateway
    from clusterguard.etcd.rpc import Call

__all__ = ["NO_LEADER", "EtcdMember", "ListedMember", "LiveHash", "MemberStatus", "StoredValue"]

_T = TypeVar("_T")

_TIMEOUT_SECONDS = 10.0
_STALL_SECONDS = 30.0
_DEFAULT_PORT = 2379
_ALL_KEYS = b"\0"  # as key and end it means "from the first key to the last"
NO_LEADER = "0"
"""The leader of a member that follows none."""
# gRPC status codes.
_PERMISSION_DENIED, _OUT_OF_RANGE, _UNAVAILABLE, _UNAUTHENTICATED = 7, 11, 14, 16
# What etcd's own client takes as a reason to log in again: the token ran out, or rights or authentication changed.
_LOG_IN_AGAIN: Final = ("invalid auth token", "revision of auth store is old", "user name is empty")


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
        raft_index: The newest entry of the log that it knows to be committed.
        applied_index: The newest one that is in its database.
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
    raft_index: int
    applied_index: int
    errors: tuple[str, ...]

    @property
    def has_leader(self) -> bool:
        """Whether it follows a leader, so that it hears of changes."""
        return self.leader != NO_LEADER


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHash:
    """A member's HashKV.

    Attributes:
        hash: CRC-32C over its keys at the revision.
        hash_revision: The revision it was computed at.
        compact_revision: The compaction it presupposes, -1 for none; hashes compare only where these are equal.
    """

    hash: int
    hash_revision: int
    compact_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """What lies under a key, and the revision of its newest change."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMember:
    """A member as the cluster lists it, whether it runs or not.

    Attributes:
        id: Hexadecimal, as etcdctl prints it.
        name: ``""`` until it has started once.
        peer_urls: Where the other members reach it.
        client_urls: None until it has started once.
        is_learner: Whether it does not vote.
    """

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


class EtcdMember:
    """Speaks to one member: over gRPC, or through etcd's JSON gateway where that alone answers.

    Args:
        access: Certificates, user and password; its endpoints are not used.
        endpoint: The member's client URL.
        timeout_seconds: For each call and its whole answer.

    Raises:
        ConfigError: It is not an endpoint.
    """

    def __init__(self, access: EtcdAccess, endpoint: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self._access = access
        self._url = _url(endpoint)
        self._timeout_seconds = timeout_seconds
        self._grpc = GrpcChannel(access, self._url, timeout_seconds=timeout_seconds)
        self._gateway: JsonGateway | None = None
        self._token: str | None = None

    def status(self) -> MemberStatus:
        """Ask the member how it is.

        Raises:
            EtcdUnavailableError: It does not answer.
            EtcdAuthError: It refuses us.
            EtcdError: It is kine, which speaks etcd's API and gives no snapshots.
        """
        answer = self._ask(rpc.STATUS)
        header = answer["header"]
        # kine answers with a header of zeros; an etcd always has a cluster id.
        if not header["cluster_id"]:
            raise EtcdError(
                f"{self.endpoint}: this is not etcd, but kine or another program with its API",
                hint=_KINE_HINT,
                code="kine",
            )
        return MemberStatus(
            endpoint=self.endpoint,
            version=answer["version"],
            storage_version=answer["storageVersion"],
            cluster_id=f"{header['cluster_id']:x}",
            member_id=f"{header['member_id']:x}",
            revision=header["revision"],
            db_size=answer["dbSize"],
            db_size_in_use=answer["dbSizeInUse"],
            leader=f"{answer['leader']:x}",
            is_learner=answer["isLearner"],
            raft_index=answer["raftIndex"],
            applied_index=answer["raftAppliedIndex"],
            errors=answer["errors"],
        )

    def hash_kv(self, revision: int) -> LiveHash:
        """Ask for HashKV at a revision.

        Raises:
            EtcdError: That revision is compacted away, or not reached yet.
        """
        answer = self._ask(rpc.HASH_KV, revision=revision)
        return LiveHash(
            hash=answer["hash"],
            # Told since 3.6; an older member that answers at all answers at the revision asked for.
            hash_revision=answer["hash_revision"] or revision,
            compact_revision=answer["compact_revision"],
        )

    def count_keys(self, revision: int) -> int:
        """Return how many keys are live at a revision; etcd answers from its index, without reading values.

        Raises:
            EtcdError: That revision is compacted away.
        """
        # Serializable: what this member holds at that revision, without asking a quorum that may be lost.
        every = {"key": _ALL_KEYS, "range_end": _ALL_KEYS}
        return int(self._ask(rpc.RANGE, **every, revision=revision, count_only=True, serializable=True)["count"])

    def stored(self, key: bytes) -> StoredValue | None:
        """Return what a majority of the members has under a key, or None where there is nothing."""
        found = self._ask(rpc.RANGE, key=key)["kvs"]
        return StoredValue(value=found[0]["value"], revision=found[0]["mod_revision"]) if found else None

    def replace(self, key: bytes, value: bytes | None, *, revision: int) -> bool:
        """Put a value under a key, or remove it for None, if its newest change still is that of a revision.

        Args:
            key: Of etcd, such as ``/registry/configmaps/shop/web``.
            value: All of it.
            revision: As `stored` told; 0 means that there is no such key.

        Returns:
            Whether that was so, and it was replaced.
        """
        unchanged = {"result": "EQUAL", "target": "MOD", "key": key, "mod_revision": revision}
        change: dict[str, object] = (
            {"request_delete_range": {"key": key}} if value is None else {"request_put": {"key": key, "value": value}}
        )
        return bool(self._ask(rpc.TXN, compare=(unchanged,), success=(change,))["succeeded"])

    def alarms(self) -> tuple[str, ...]:
        """Return raised alarms, such as ``NOSPACE on 8e9e05c52164694d``."""
        alarms = self._ask(rpc.ALARM, action="GET")["alarms"]
        return tuple(f"{alarm['alarm']} on {alarm['memberID']:x}" for alarm in alarms)

    def disarm(self, *, of: Callable[[str], bool] = lambda _: True) -> tuple[str, ...]:
        """Disarm every alarm that is raised; return them as `alarms` does.

        One whose cause lasts, such as a database beyond its quota, is raised again by the next write.

        Args:
            of: Whether those of a member are meant, by its ID.
        """
        disarmed = tuple(alarm for alarm in self.alarms() if of(alarm.partition(" on ")[2]))
        for alarm in disarmed:
            kind, _, member_id = alarm.partition(" on ")
            self._ask(rpc.ALARM, action="DEACTIVATE", memberID=int(member_id, 16), alarm=kind)
        return disarmed

    def listed(self, *, linearizable: bool = True) -> tuple[ListedMember, ...]:
        """Return the members of its cluster, as a majority of them knows it, or else as it knows it by itself.

        Raises:
            EtcdError: There is no majority, and one was asked for.
        """
        return tuple(
            ListedMember(
                id=f"{each['ID']:x}",
                name=each["name"],
                peer_urls=each["peerURLs"],
                client_urls=each["clientURLs"],
                is_learner=each["isLearner"],
            )
            for each in self._ask(rpc.MEMBER_LIST, linearizable=linearizable)["members"]
        )

    def remove(self, member_id: str) -> None:
        """Remove a member from the cluster for good; its id, as `listed` tells it, never comes back."""
        self._ask(rpc.MEMBER_REMOVE, ID=int(member_id, 16))

    def add(self, peer_url: str) -> None:
        """Add a voting member, which is then to be started with an empty data directory.

        Raises:
            EtcdError: The members that are there are not healthy enough, or have not been for five seconds.
        """
        self._ask(rpc.MEMBER_ADD, peerURLs=(peer_url,))

    def authentication(self) -> bool | None:
        """Return whether clients need to log in; None where the member cannot tell, as before etcd 3.5."""
        try:
            return bool(self._ask(rpc.AUTH_STATUS)["enabled"])
        except EtcdAuthError:
            return True  # where it is on, only root may ask
        except EtcdError:
            return None

    def stream_snapshot(
        self,
        take: Callable[[memoryview], object],
        *,
        stall_seconds: float = _STALL_SECONDS,
        watch: Callable[[SnapshotFrames], object] = lambda _: None,
    ) -> SnapshotFrames:
        """Ask for a snapshot and hand every byte of it to ``take``, trailer included.

        Args:
            take: Called with each piece, at most 32 KiB, in order. The buffer is reused after it returns.
            stall_seconds: How long the stream may stand still; there is no limit on its whole duration.
            watch: Called now and then with the state so far, for progress.

        Raises:
            EtcdUnavailableError: Nobody answers there.
            EtcdAuthError: The member refuses our certificate, user or password.
            SnapshotIncompleteError: The stream was cut or stood still.
        """

        def stream(token: str | None) -> SnapshotFrames:
            frames = SnapshotFrames(take)
            try:
                self._grpc.stream(
                    rpc.SNAPSHOT, frames.feed, token=token, stall_seconds=stall_seconds, watch=lambda: watch(frames)
                )
            except (RpcError, EtcdUnavailableError) as error:
                raise self._broken_off(error, frames) from error
            frames.finish()
            return frames

        try:
            return self._logged_in(stream)
        except (NotGrpcError, UnansweredError) as error:
            if self._gateway is None or not _answers(self._gateway):
                raise
            raise EtcdError(
                f"{self.endpoint}: only etcd's JSON gateway answers there, and a snapshot needs gRPC",
                hint="name the port of --listen-client-urls, or let the proxy on the way pass HTTP/2",
                code="etcd-not-grpc",
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._grpc.close()
        if self._gateway is not None:
            self._gateway.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- calls ---------------------------------------------------------------------------------------------

    def _ask(self, call: Call, **request: object) -> dict[str, Any]:
        return self._logged_in(lambda token: self._call(call, request, token))

    def _logged_in(self, act: Callable[[str | None], _T]) -> _T:
        """Act with a token, and once more with a new one where it has run out."""
        if self._access.username is None:
            return act(None)
        if self._token is not None:
            try:
                return act(self._token)
            # A token ends (etcd's --auth-token-ttl), and what is done with it may take longer.
            except _LogInAgainError:
                pass
        self._token = self._log_in()
        return act(self._token)

    def _log_in(self) -> str:
        """Return a new token; ``""`` where authentication is off, as it may be after a restore."""
        request: dict[str, object] = {"name": self._access.username, "password": self._access.password or ""}
        try:
            return str(self._call(rpc.AUTHENTICATE, request, None)["token"])
        except _AuthenticationOffError:
            return ""

    def _call(self, call: Call, request: dict[str, object], token: str | None) -> dict[str, Any]:
        try:
            if self._gateway is None:
                try:
                    return self._grpc.call(call, request, token=token)
                except (NotGrpcError, UnansweredError) as error:
                    # Remembered: where only the gateway gets through, every further call would first fail by gRPC.
                    self._gateway = self._found_gateway(error)
            return self._gateway.call(call, request, token=token)
        except RpcError as error:
            raise self._refused(error) from error
        except BrokenAnswerError as error:
            message = f"{self.endpoint}: its answer to {call.path} cannot be read: {error}"
            raise EtcdError(message, hint=REACH_HINT) from error

    def _found_gateway(self, not_grpc: NotGrpcError | UnansweredError) -> JsonGateway:
        """Return the JSON gateway, if that is what answers there."""
        from clusterguard.etcd.gateway import JsonGateway

        gateway = JsonGateway(self._access, self._url, timeout_seconds=self._timeout_seconds)
        if not _answers(gateway):
            gateway.close()
            raise not_grpc
        return gateway

    def _broken_off(
        self, error: RpcError | EtcdUnavailableError, frames: SnapshotFrames
    ) -> EtcdError | SnapshotIncompleteError:
        """Return what to say of a stream that ended early: before its first message, the member refused it."""
        if frames.remaining is None:
            return self._refused(error) if isinstance(error, RpcError) else error
        said = f"{self.endpoint}: the member said: {error}" if isinstance(error, RpcError) else error.message
        return SnapshotIncompleteError(
            f"{said}; {frames.received:,} bytes had come, {frames.remaining:,} were still to come",
            hint="nothing was stored; run it again",
        )

    def _refused(self, error: RpcError) -> EtcdError:
        kind, hint, code = _meaning(error)
        if self._access.username is not None and any(each in error.message for each in _LOG_IN_AGAIN):
            kind, hint = _LogInAgainError, "run it again; etcd's --auth-token-ttl says how long a token holds"
        return kind(f"{self.endpoint}: {error.message}", hint=hint, code=code)


def _answers(gateway: JsonGateway) -> bool:
    try:
        gateway.call(rpc.STATUS, {}, token=None)
    except RpcError:
        return True  # a refusal is an answer, too
    except (BrokenAnswerError, EtcdUnavailableError):
        return False
    return True


class _LogInAgainError(EtcdAuthError):
    """The token was given out by this member, or by its leader, and does not hold any more."""

    code = EtcdAuthError.code


class _AuthenticationOffError(EtcdAuthError):
    """There is nothing to log in to."""

    code = EtcdAuthError.code


class _Meaning(NamedTuple):
    kind: type[EtcdError]
    hint: str | None = None
    code: str | None = None


def _meaning(error: RpcError) -> _Meaning:
    """Return what a refusal is called here, and what to do. Versions differ in their codes, hardly in their words."""
    for words, meaning in _WORDS.items():
        if words in error.message:
            return meaning
    if error.code in (_UNAUTHENTICATED, _PERMISSION_DENIED) or "auth" in error.message.lower():
        return _Meaning(
            EtcdAuthError,
            "snapshots and the other maintenance calls need etcd's root role: give a user and password that have it",
        )
    if error.code == _UNAVAILABLE:
        return _Meaning(EtcdUnavailableError, REACH_HINT)
    if error.code == _OUT_OF_RANGE:
        return _Meaning(EtcdError, "that revision was compacted away or is not reached yet")
    return _Meaning(EtcdError)


_OFF = _Meaning(_AuthenticationOffError, "leave user and password out")
_WORDS: Final[Mapping[str, _Meaning]] = {
    "authentication is not enabled": _OFF,
    "unknown service etcdserverpb.Auth": _OFF,
    "user name is empty": _Meaning(
        EtcdAuthError,
        "etcd's authentication is on: give a user with its root role and the password, or a client certificate whose "
        "common name is such a user",
    ),
    "invalid user ID or password": _Meaning(EtcdAuthError, "check the user and the password"),
    "not supported for learner": _Meaning(
        EtcdError,
        "a learner hands out its status and a snapshot, and nothing else: ask a voting member",
        "etcd-learner",
    ),
}
_KINE_HINT = (
    "kine, as k3s has it, keeps the cluster in a SQL database and has no snapshots: back up its database, and use "
    "Velero for what is in the cluster"
)
_ENDPOINT_HINT = "write it like https://127.0.0.1:2379"


def _url(endpoint: str) -> str:
    """Return the URL of an endpoint, with its port.

    Raises:
        ConfigError: It is not an endpoint.
    """
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ConfigError(
            f"{endpoint!r} is not a valid etcd endpoint: {error}", code="invalid-endpoint", hint=_ENDPOINT_HINT
        ) from error
    if url.scheme not in ("http", "https") or not host or url.path.strip("/") or "@" in url.netloc:
        raise ConfigError(
            f"{_without_user(endpoint)!r} is not a valid etcd endpoint", code="invalid-endpoint", hint=_ENDPOINT_HINT
        )
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port or _DEFAULT_PORT}"


def _without_user(endpoint: str) -> str:
    return re.sub(r"//.*@", "//…@", endpoint)
