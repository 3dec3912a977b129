"""The dead man's switch: another service's clock, reset by every run, which alarms when none comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.policies.copies.encryption import read_secret
from clusterguard.policies.report import reported
from clusterguard.policies.watching.addresses import unlogged
from clusterguard.retrying import RetryPolicy
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from clusterguard.policies.policy import Heartbeat
    from clusterguard.policies.report import StepReport

__all__ = ["PingKind", "beat"]

PingKind: TypeAlias = Literal["start", "success", "failure"]

_SUFFIXES: Final[Mapping[PingKind, str]] = {"start": "/start", "success": "", "failure": "/fail"}
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 10.0
_MOST_REDIRECTS: Final = 5
_LONGEST_BODY: Final = 10_000  # bytes that such services keep of it
_SERVER_ERROR: Final = 500


class _NotHeardError(ClusterGuardError):
    """The service did not take it; the text has no address in it."""

    def __init__(self, seen: str, *, again: bool) -> None:
        super().__init__(seen)
        self.again = again


def beat(
    heartbeat: Heartbeat,
    ping: PingKind,
    *,
    environ: Mapping[str, str],
    body: str = "",
    retries: RetryPolicy | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> StepReport:
    """Tell the service that a run began, succeeded or failed, and report whether it heard.

    One that does not answer is a warning: the backup counts all the same, and the service alarms by itself.

    - ``body``: what the service is to keep with it; cut off after 10,000 bytes.
    - ``retries``: how often to try; by default three times within a few seconds.
    """
    policy = retries or RetryPolicy(attempts=3, first_wait_seconds=0.5)

    def send() -> None:
        try:
            url = _address(heartbeat, ping, environ)
            data = body.encode("utf-8", errors="replace")[:_LONGEST_BODY]
            policy.run(
                lambda: _post(url, data), retryable=lambda error: isinstance(error, _NotHeardError) and error.again
            )
        except ConfigError as error:
            raise ClusterGuardError(f"the heartbeat was not sent: {error.message}", hint=error.hint) from error
        except _NotHeardError as error:
            raise ClusterGuardError(
                f"the heartbeat's service did not receive the {ping} ping: {error.message}",
                hint=f"check the address in {heartbeat.url}, and whether it can be reached from here",
            ) from error

    return reported("heartbeat", ping, send, now=now)


def _address(heartbeat: Heartbeat, ping: PingKind, environ: Mapping[str, str]) -> str:
    url = urlsplit(read_secret(heartbeat.url, environ, what="the address"))
    if url.scheme not in {"http", "https"} or not url.netloc:
        raise ConfigError(
            f"{heartbeat.url} holds no http or https address", hint="write one like https://hc-ping.com/…"
        )
    return url._replace(path=url.path.rstrip("/") + _SUFFIXES[ping]).geturl()


def _post(url: str, data: bytes) -> None:
    import requests  # slow to load, and not every policy has a heartbeat

    with unlogged(), requests.Session() as session:
        session.max_redirects = _MOST_REDIRECTS
        try:
            answer = session.post(
                url,
                data=data,
                headers={"Content-Type": "text/plain; charset=utf-8"},
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                # The status says all: a body may never end, and requests would read that of a redirect, too.
                stream=True,
                hooks={"response": lambda answer, **_: answer.close()},
                proxies={"no_proxy": "*"} if is_loopback(url) else None,
            )
        except requests.RequestException as error:
            # Its text has the address in it, and so has its cause.
            raise _NotHeardError(_in_words(error), again=True) from None
    if not answer.ok:
        raise _NotHeardError(f"it answered {answer.status_code}", again=answer.status_code >= _SERVER_ERROR)


def _in_words(error: requests.RequestException) -> str:
    import requests

    match error:
        case requests.exceptions.SSLError():
            return "its certificate is not trusted"
        case requests.Timeout():
            return "it did not answer in time"
        case requests.ConnectionError():
            return "no connection to it"
        case _:
            return "the request could not be made"
