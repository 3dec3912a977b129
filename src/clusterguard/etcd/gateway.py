"""etcd's JSON gateway, the second way to a member. The only user of etcd3gw and of requests under it.

It is used where it alone answers: behind a proxy that passes only HTTP/1.1, or on a port that etcd was given with
``--listen-client-http-urls``.
"""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from etcd3gw import Etcd3Client, exceptions

from clusterguard.errors import ConfigError, EtcdUnavailableError
from clusterguard.etcd.rpc import BrokenAnswerError, RpcError, from_json, to_json
from clusterguard.response_body import BodyTooLargeError, BodyUnfinishedError, BoundedBody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd.rpc import Call

__all__ = ["JsonGateway"]

# etcd names its gateway /v3 since 3.4, the oldest version whose snapshots carry what we check.
_API_PATH = "/v3/"
_LARGEST_ANSWER = 8 * 1024 * 1024  # twice that of gRPC: base64 and names of fields


class JsonGateway:
    """Calls one member by JSON.

    Args:
        access: Certificates; its endpoints are not used.
        endpoint: The member's client URL.
        timeout_seconds: For connecting, and for the whole answer.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        access: EtcdAccess,
        endpoint: str,
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        session = requests.Session()
        # With its environment trusted, requests lets REQUESTS_CA_BUNDLE override the CA given here.
        session.trust_env = False
        session.hooks["response"].append(self._bound)
        if access.ca is not None:
            session.verify = str(access.ca)
        if access.cert is not None and access.key is not None:
            session.cert = (str(access.cert), str(access.key))
        self._session = session
        url: Any = urlsplit(endpoint)  # EtcdMember has checked it, and has added the port
        self._client = Etcd3Client(
            host=url.hostname,
            port=url.port,
            protocol=url.scheme,
            timeout=timeout_seconds,
            api_path=_API_PATH,
            session=session,
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def call(self, call: Call, request: Mapping[str, object], *, token: str | None) -> dict[str, Any]:
        """Return the answer to one call.

        Raises:
            RpcError: The member refuses.
            BrokenAnswerError: What it answers is no such answer.
            EtcdUnavailableError: Nobody answers there in time.
            ConfigError: A certificate file cannot be read.
        """
        headers = {"Authorization": token} if token else {}
        try:
            answer = self._client.post(self._client.get_url(call.path), json=to_json(request), headers=headers)
        except (exceptions.ConnectionTimeoutError, exceptions.ConnectionFailedError) as error:
            raise EtcdUnavailableError(f"{self._endpoint}: {error}") from error
        except exceptions.Etcd3Exception as error:
            raise _refusal(error, call) from error
        except requests.JSONDecodeError as error:
            raise BrokenAnswerError("it is not JSON") from error
        except BodyTooLargeError as error:
            raise BrokenAnswerError(str(error)) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, BodyUnfinishedError) as error:
            raise EtcdUnavailableError(f"{self._endpoint}: {error}") from error
        except OSError as error:
            # requests raises a bare OSError when a certificate file cannot be read.
            raise ConfigError(f"{self._endpoint}: {error}", hint="check the certificate files") from error
        return from_json(call.response, answer)

    def _bound(self, response: requests.Response, **_: object) -> None:
        """Read the answer within limits, in the place of requests, which has none for the whole of it."""
        deadline = self._clock() + self._timeout_seconds
        body = BoundedBody(response.raw, deadline=deadline, most_bytes=_LARGEST_ANSWER, clock=self._clock)
        content = body.readall()
        response.raw.release_conn()
        response.raw = io.BytesIO(content)


def _refusal(error: exceptions.Etcd3Exception, call: Call) -> RpcError | BrokenAnswerError:
    detail = getattr(error, "detail_text", None) or str(error)
    try:
        decoded = json.loads(detail)
        return RpcError(int(decoded["code"]), str(decoded.get("message") or decoded["error"]))
    except (ValueError, KeyError, TypeError):
        if detail.strip() == "Not Found":  # as gateways before 3.5.10 say of HashKV
            return BrokenAnswerError(f"this release of etcd has no {call.path} in its JSON gateway")
        return BrokenAnswerError(" ".join(detail.split())[:200])
