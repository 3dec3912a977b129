"""A body is read within bounds, whatever the server does."""

import time
from contextlib import contextmanager

import pytest
import urllib3

from clusterguard.response_body import BodyTooLargeError, BodyUnfinishedError, BoundedBody
from endless_server import Jumping, endless_server


@contextmanager
def answer(address, path="/"):
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", address + path, preload_content=False, timeout=30)
        try:
            yield response
        finally:
            response.close()


def read(body):
    return b"".join(iter(lambda: body.read(65_536), b""))


def test_what_ends_is_whole():
    with endless_server() as address, answer(address, "/end") as response:
        body = BoundedBody(response, deadline=time.monotonic() + 60, most_bytes=2)
        assert (read(body), read(body)) == (b"ok", b"")


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until it closes"])
def test_what_trickles_ends_with_its_time(chunked):
    with endless_server(chunked=chunked) as address, answer(address) as response:
        body = BoundedBody(response, deadline=30, clock=Jumping(1))
        with pytest.raises(BodyUnfinishedError):
            read(body)


def test_a_silent_server_is_not_waited_for_beyond_the_deadline():
    """The socket's own limit, 30 s here, is longer than what is left."""
    with endless_server(pause=60) as address, answer(address) as response:
        body = BoundedBody(response, deadline=time.monotonic() + 0.3)
        assert body.read(65_536)
        with pytest.raises(BodyUnfinishedError):
            body.read(65_536)


def test_what_pours_ends_with_its_bytes():
    with endless_server(piece=b"x" * 65_536, pause=0) as address, answer(address) as response:
        body = BoundedBody(response, deadline=time.monotonic() + 60, most_bytes=1_000_000)
        with pytest.raises(BodyTooLargeError):
            read(body)
