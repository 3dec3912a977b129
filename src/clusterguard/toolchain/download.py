"""Release files over HTTP: resumable, and not believed before the checksum is. The only user of requests."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from clusterguard.errors import ChecksumMismatchError, ToolchainError
from clusterguard.model.progress import Progress, ProgressSink
from clusterguard.response_body import BodyTooLargeError, BodyUnfinishedError, BoundedBody
from clusterguard.retrying import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterguard.toolchain.releases import Asset

__all__ = ["DownloadError", "Downloader"]

_CHUNK_BYTES = 1 << 16  # a chunk is lost when the transfer is cut inside it
_MOST_BYTES = 1 << 31
_TRY_AGAIN = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class DownloadError(ToolchainError):
    """A release file cannot be had from its site; another source may still have the program."""


class _CutError(DownloadError):
    """The transfer ended early, or the site asked for patience: going on from there may help."""

    retryable = True


@dataclass(slots=True, kw_only=True)
class Downloader:
    """Fetches release files; remembers which sites could not be reached, and asks them no more.

    Attributes:
        progress: Called with the bytes received.
        mirror: Address to put in front of ``host/path`` of every file, such as ``https://mirror.corp/get``.
        policy: How often a transfer that was cut goes on.
        connect_seconds: How long a site may take to accept the connection.
        read_seconds: How long it may pause in the middle.
        whole_seconds: How long one attempt at a file may take.
        clock: Seconds that only grow.
    """

    progress: ProgressSink
    mirror: str | None = None
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    connect_seconds: float = 4
    read_seconds: float = 20
    whole_seconds: float = 3600
    clock: Callable[[], float] = time.monotonic
    _unreachable: dict[str, str] = field(default_factory=dict)

    def fetch(self, asset: Asset, part: Path) -> None:
        """Complete the file ``part`` so that it has the pinned checksum.

        What is there already from a cut download is kept and only the rest is fetched.

        Raises:
            ChecksumMismatchError: The site's bytes are not the pinned ones; they were discarded.
            DownloadError: The site cannot be reached or does not give the file.
            ToolchainError: The bytes cannot be written here.
        """
        resumed = part.exists()
        self._receive_all(asset, part)
        if resumed and _sha256(part) != asset.sha256:
            # What was left here may be what is wrong, after a power cut say; the site deserves a second look.
            part.unlink()
            self._receive_all(asset, part)
        seen = _sha256(part)
        if seen != asset.sha256:
            part.unlink()
            raise ChecksumMismatchError(
                f"{asset.filename}: the download has SHA-256 {seen}, but {asset.sha256} is pinned;"
                f" it was discarded ({self._address(asset)})",
                fields={"file": asset.filename, "computed": seen, "pinned": asset.sha256},
                hint="something between here and the release site changes files: find out what"
                " before trusting this network; a newer clusterguard may pin a newer release",
            )

    def _receive_all(self, asset: Asset, part: Path) -> None:
        address = self._address(asset)
        site = urlsplit(address).netloc
        if site in self._unreachable:
            raise DownloadError(f"{site} {self._unreachable[site]}")
        try:
            self.policy.run(lambda: self._receive(asset, address, part))
        except _CutError:
            self._unreachable[site] = "keeps breaking off"
            raise
        except requests.RequestException as error:
            self._unreachable[site] = _reason(error)
            raise DownloadError(f"{site} {self._unreachable[site]}", code="site-unreachable") from error
        except OSError as error:
            raise ToolchainError(
                f"{asset.filename}: cannot be written to {part.parent}: {error.strerror}",
                hint="make room there, or point XDG_CACHE_HOME to another place",
            ) from error

    def _receive(self, asset: Asset, address: str, part: Path) -> None:
        """Append what is still missing; the checksum decides afterwards whether it is right."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        timeout, hooks = (self.connect_seconds, self.read_seconds), {"response": _close_redirect}
        with requests.get(address, headers=headers, stream=True, timeout=timeout, hooks=hooks) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            self._refuse_errors(response, asset)
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            with part.open("ab" if have else "wb") as file:
                self._copy(response, file.write, task=f"downloading {asset.filename}", have=have)

    def _copy(self, response: requests.Response, write: Callable[[bytes], object], *, task: str, have: int) -> None:
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        deadline = self.clock() + self.whole_seconds
        body = BoundedBody(response.raw, deadline=deadline, most_bytes=_MOST_BYTES, clock=self.clock)
        try:
            while chunk := body.read(_CHUNK_BYTES):
                write(chunk)
                have += len(chunk)
                self.progress(Progress(task=task, done=have, total=total, unit="bytes"))
        except BodyTooLargeError as error:
            raise DownloadError(f"{task}: {error}, which no release file is") from error
        except (BodyUnfinishedError, HTTPError) as error:
            raise _CutError(f"{task}: cut after {have} of {total or 'unknown'} bytes") from error
        if total is not None and have != total:
            raise _CutError(f"{task}: ended after {have} of {total} bytes")
        self.progress(Progress(task=task, done=have, total=total, unit="bytes", finished=True))

    def _refuse_errors(self, response: requests.Response, asset: Asset) -> None:
        status = response.status_code
        if status in _TRY_AGAIN:
            raise _CutError(f"{asset.filename}: {_site(response)} answered {status} {response.reason}")
        if status == HTTPStatus.FORBIDDEN:
            # Company gateways answer so for whole sites: the next file would fare no better.
            self._unreachable[urlsplit(self._address(asset)).netloc] = f"answered {status} {response.reason}"
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise DownloadError(f"{asset.filename}: {_site(response)} answered {status} {response.reason}")

    def _address(self, asset: Asset) -> str:
        if self.mirror is None:
            return asset.url
        return f"{self.mirror.rstrip('/')}/{asset.url.partition('://')[2]}"


def _close_redirect(response: requests.Response, **_: object) -> None:
    """Leave the body of a redirect alone, which requests would read to its end, wherever that is."""
    if response.is_redirect:
        response.close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _site(response: requests.Response) -> str:
    return urlsplit(response.url).netloc


def _reason(error: requests.RequestException) -> str:
    """Say in a few words why a site cannot be reached; the exception's own text names five classes."""
    if isinstance(error, requests.Timeout):
        return "did not answer in time"
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return f"cannot be reached: {text}"
