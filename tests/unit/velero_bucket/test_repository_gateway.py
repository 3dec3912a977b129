"""The gateway through which kopia reads: what it gives, and what it never does."""

from __future__ import annotations

import http.client
from contextlib import contextmanager

import pytest

from clusterguard.errors import StoreUnavailableError
from clusterguard.stores.local import LocalStore
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.repository_gateway import BUCKET, serving

CONTENT = bytes(range(256)) * 20


class Ranged(MemoryStore):
    """A store that gives parts of objects."""

    def get_range(self, key, first, size):
        @contextmanager
        def part():
            with self.get(key) as reader:
                reader.read(first)

                class Rest:
                    left = size

                    def read(self, wanted, /):
                        data = reader.read(min(wanted, self.left))
                        self.left -= len(data)
                        return data

                yield Rest()

        return part()


@pytest.fixture(params=["memory", "folder", "ranges"])
def store(request, tmp_path):
    made = {"memory": MemoryStore, "folder": lambda: LocalStore(tmp_path / "store"), "ranges": Ranged}[request.param]()
    for key in ("kopia/shop/p1", "kopia/shop/q2", "kopia/other/p3"):
        with made.put(key) as writer:
            writer.write(CONTENT)
    return made


def ask(gateway, method, path, *, key=None, **headers):
    connection = http.client.HTTPConnection(gateway.address, timeout=10)
    signed = f"AWS4-HMAC-SHA256 Credential={key or gateway.access_key}/20300101/us-east-1/s3/aws4_request"
    connection.request(method, path, headers={"Authorization": signed, **headers})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body, response.headers


@pytest.mark.parametrize(
    ("span", "expected", "told"),
    [
        ("bytes=0-9", CONTENT[:10], "bytes 0-9/5120"),
        ("bytes=300-", CONTENT[300:], "bytes 300-5119/5120"),
        ("bytes=5000-9999", CONTENT[5000:], "bytes 5000-5119/5120"),
    ],
)
def test_parts_of_objects_are_given_from_any_store(store, span, expected, told):
    with serving(store, "kopia/shop/") as gateway:
        for _ in range(2):  # the second time from what was kept
            status, body, headers = ask(gateway, "GET", f"/{BUCKET}/p1", Range=span)
            assert (status, body, headers["Content-Range"]) == (206, expected, told)
        assert gateway.bytes_read == 2 * len(expected)
        assert ask(gateway, "GET", f"/{BUCKET}/p1")[1] == CONTENT
        assert ask(gateway, "HEAD", f"/{BUCKET}/p1")[2]["Content-Length"] == str(len(CONTENT))
        assert ask(gateway, "GET", f"/{BUCKET}/p1", Range="bytes=5120-")[0] == 416


def test_what_is_wanted_whole_is_read_at_once(tmp_path):
    class Counting(Ranged):
        reads = 0

        def get(self, key):
            self.reads += 1
            return super().get(key)

    store = Counting()
    with store.put("kopia/shop/p1") as writer:
        writer.write(CONTENT)
    with serving(store, "kopia/shop/", scratch=tmp_path, whole=True) as gateway:
        for first in range(10):
            assert ask(gateway, "GET", f"/{BUCKET}/p1", Range=f"bytes={first}-{first}")[1] == CONTENT[first : first + 1]
    assert store.reads == 1


def test_only_the_folder_is_there(store):
    with serving(store, "kopia/shop/") as gateway:
        listed = ask(gateway, "GET", f"/{BUCKET}/?list-type=2&prefix=")[1].decode()
        assert ("<Key>p1</Key>" in listed, "<Key>q2</Key>" in listed, "p3" in listed) == (True, True, False)
        assert "<Key>p1</Key>" not in ask(gateway, "GET", f"/{BUCKET}/?list-type=2&prefix=q")[1].decode()
        for path in ("../other/p3", "%2e%2e/other/p3", "p3"):
            assert ask(gateway, "GET", f"/{BUCKET}/{path}")[0] == 404
        assert gateway.missing == {"p3"}


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_change_is_refused_and_counted(store, method):
    before = list(store.list())
    with serving(store, "kopia/shop/") as gateway:
        assert ask(gateway, method, f"/{BUCKET}/p1")[0] == 403
        assert gateway.refused == [f"{method} /{BUCKET}/p1"]
    assert list(store.list()) == before


def test_who_does_not_know_the_key_reads_nothing(store):
    with serving(store, "kopia/shop/") as gateway:
        assert ask(gateway, "GET", f"/{BUCKET}/p1", key="0" * 32)[0] == 403
        assert gateway.bytes_read == 0


def test_an_error_of_the_store_is_kept_and_ends_all_answers():
    class Away(MemoryStore):
        def get(self, key):
            raise StoreUnavailableError("it went away")

    store = Away()
    with store.put("kopia/shop/p1") as writer:
        writer.write(CONTENT)
    with serving(store, "kopia/shop/") as gateway:
        assert ask(gateway, "GET", f"/{BUCKET}/p1")[0] == 404
        assert isinstance(gateway.failure, StoreUnavailableError)
        assert ask(gateway, "HEAD", f"/{BUCKET}/p1")[0] == 404


def test_files_of_large_objects_are_let_go(tmp_path):
    store = MemoryStore()
    for number in range(40):
        with store.put(f"kopia/shop/p{number}") as writer:
            writer.write(CONTENT)
    with serving(store, "kopia/shop/", scratch=tmp_path) as gateway:
        for number in range(40):
            assert ask(gateway, "GET", f"/{BUCKET}/p{number}", Range="bytes=1-2")[1] == CONTENT[1:3]
        assert len(gateway._kept) < 40
    assert not list(tmp_path.iterdir())
