"""A real S3 server behind a network that goes wrong."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest

from clusterguard.errors import (
    ConfigError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.stores import open_store
from clusterguard.stores.s3 import S3Credentials
from s3_fault_proxy import Fault
from s3_gateway import BUCKET, CREDENTIALS, free_port

pytestmark = pytest.mark.programs

PART = 5 << 20
LARGE = 3 * PART + 7


def put(store, key, data, *, overwrite=False):
    with store.put(key, overwrite=overwrite) as writer:
        writer.write(data)


def get(store, key, size=1 << 20):
    with store.get(key) as reader:
        return b"".join(iter(lambda: reader.read(size), b""))


def publishes(request):
    """Whether a request makes an object appear."""
    return request.is_join or (request.method == "PUT" and not request.is_part)


def raises_if(error, wanted):
    return pytest.raises(error) if wanted else nullcontext()


@pytest.fixture
def direct(s3, prefix):
    """The store without anything in between."""
    return s3.store(prefix=prefix)


@pytest.fixture
def store(s3, faults, prefix):
    """The same store, seen through the proxy."""
    return s3.behind(faults.endpoint).store(prefix=prefix, attempts=2)


@pytest.fixture
def uploads(direct, prefix):
    """Ask for the unfinished uploads below the prefix."""

    def ask():
        found = direct._client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    return ask


VERBS = {
    "put": lambda store: put(store, "new", b"small"),
    "put large": lambda store: put(store, "new", bytes(LARGE)),
    "overwrite": lambda store: put(store, "old", b"small", overwrite=True),
    "get": lambda store: get(store, "old"),
    "stat": lambda store: store.stat("old"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("old"),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


class TestBusyServer:
    @every_verb
    @pytest.mark.parametrize("status", [500, 503])
    def test_a_refusal_is_survived(self, store, direct, faults, verb, status):
        put(direct, "old", b"old")
        faults.first(1, Fault(status=status, code="SlowDown" if status == 503 else "InternalError"))
        verb(store)

    @every_verb
    def test_more_are_an_error_after_a_bounded_number_of_requests(self, store, direct, faults, verb):
        put(direct, "old", b"old")
        faults.always(Fault(status=503, code="SlowDown"))
        with pytest.raises(StoreUnavailableError, match=r"\b503\b") as raised:
            verb(store)
        assert raised.value.retryable
        assert len(faults.seen) <= 2 * 2  # attempts; twice where a put asks whether its work was done
        assert [info.key for info in direct.list()] == ["old"]
        assert get(direct, "old") == b"old"

    def test_a_part_that_fails_for_good_ends_the_upload_early(self, store, direct, faults, uploads):
        """Nobody streams a database to the end for a part that was lost at its beginning."""
        faults.always(Fault(status=500), when=lambda request: request.is_part)
        written = 0
        with pytest.raises(StoreUnavailableError), store.put("new") as writer:
            for _ in range(40):
                writer.write(bytes(PART))
                written += PART
        assert written < 10 * PART
        assert list(direct.list()) == []
        assert uploads() == []

    def test_a_failed_write_cannot_be_talked_over(self, store, direct, faults, uploads):
        faults.always(Fault(status=500), when=lambda request: request.is_part)
        failures = 0
        with pytest.raises(StoreUnavailableError), store.put("new") as writer:
            for _ in range(12):
                try:
                    writer.write(bytes(PART))
                except StoreError:
                    failures += 1
        assert failures > 1
        assert list(direct.list()) == []
        assert uploads() == []

    def test_an_upload_that_cannot_be_given_up_is_told(self, store, faults, caplog):
        faults.always(Fault(status=503), when=lambda request: request.is_part or request.method == "DELETE")
        with pytest.raises(StoreUnavailableError):
            put(store, "new", bytes(LARGE))
        assert "lifecycle rule" in caplog.text


class TestLostAnswers:
    """A request did its work and nobody heard: sent again, it must not take its object for a rival's."""

    @pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
    def test_an_object_that_was_made_is_made(self, store, direct, faults, size, overwrite):
        faults.first(1, Fault(lose_answer=True), when=publishes)
        put(store, "new", b"n" * size, overwrite=overwrite)
        assert sum(map(publishes, faults.seen)) == 2
        assert get(direct, "new") == b"n" * size

    @pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
    def test_a_version_that_was_replaced_is_replaced(self, store, direct, faults, size):
        put(direct, "same", b"old")
        seen = direct.stat("same").version
        faults.first(1, Fault(lose_answer=True), when=publishes)
        with store.put("same", if_version=seen) as writer:
            writer.write(b"n" * size)
        assert sum(map(publishes, faults.seen)) == 2
        assert get(direct, "same") == b"n" * size

    @pytest.mark.parametrize("fate", ["replaced", "deleted"])
    def test_a_version_that_a_rival_replaced_is_told_although_no_answer_came(self, store, direct, faults, fate):
        put(direct, "same", b"old")
        seen = direct.stat("same").version
        with pytest.raises(ObjectChangedError), store.put("same", if_version=seen) as writer:
            writer.write(b"new")
            put(direct, "same", b"rival", overwrite=True) if fate == "replaced" else direct.delete("same")
            faults.always(Fault(lose_answer=True), when=publishes)
        assert [get(direct, info.key) for info in direct.list()] == ([b"rival"] if fate == "replaced" else [])

    def test_nobody_knows_what_came_of_a_replacement_without_any_answer(self, store, direct, faults):
        put(direct, "same", b"old")
        seen = direct.stat("same").version
        faults.always(Fault(status=503), when=publishes)
        with pytest.raises(StoreUnavailableError), store.put("same", if_version=seen) as writer:
            writer.write(b"new")
        assert direct.stat("same").version == seen

    @pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
    def test_a_rivals_object_is_a_rivals(self, store, direct, faults, size):
        with pytest.raises(ObjectExistsError), store.put("new") as writer:
            writer.write(b"n" * size)
            put(direct, "new", b"rival")
            faults.first(1, Fault(status=500), when=publishes)
        assert get(direct, "new") == b"rival"

    def test_a_lost_part_is_sent_again(self, store, direct, faults):
        data = os.urandom(LARGE)
        faults.first(1, Fault(lose_answer=True), when=lambda request: request.is_part)
        put(store, "new", data)
        assert get(direct, "new") == data


class TestBrokenReads:
    @pytest.fixture
    def data(self, direct):
        data = os.urandom(LARGE)
        put(direct, "large", data)
        return data

    @pytest.mark.parametrize("size", [4096, 1 << 20, LARGE * 2, -1])
    def test_a_read_goes_on_where_the_connection_broke(self, store, faults, data, size):
        faults.first(5, Fault(cut_after=(1 << 20) + 11), when=lambda request: request.method == "GET")
        with store.get("large") as reader:
            assert (reader.read() if size < 0 else b"".join(iter(lambda: reader.read(size), b""))) == data
        reads = [request.headers for request in faults.seen if request.method == "GET"]
        assert len(reads) == 6
        assert all(headers["If-Match"] and headers["Range"].startswith("bytes=") for headers in reads[1:])

    @pytest.mark.parametrize("after", [0, 1, LARGE - 1])
    def test_a_cut_anywhere(self, store, faults, data, after):
        faults.first(1, Fault(cut_after=after), when=lambda request: request.method == "GET")
        assert get(store, "large") == data

    def test_a_silent_server_is_not_waited_for_for_ever(self, s3, faults, prefix, data):
        store = s3.behind(faults.endpoint).store(prefix=prefix, read_timeout_seconds=0.3)
        faults.first(1, Fault(cut_after=1 << 20, stall=True), when=lambda request: request.method == "GET")
        assert get(store, "large") == data
        assert len([request for request in faults.seen if request.method == "GET"]) == 2

    def test_the_number_of_attempts_is_bounded(self, s3, faults, prefix, data):
        store = s3.behind(faults.endpoint).store(prefix=prefix, resumptions=2)
        faults.always(Fault(cut_after=1 << 20), when=lambda request: request.method == "GET")
        with pytest.raises(StoreUnavailableError) as caught:
            get(store, "large")
        assert (caught.value.code, caught.value.fields) == ("object-cut-off", {"read": 3145728, "size": LARGE})
        assert len(faults.seen) == 3

    @pytest.mark.parametrize("size", [LARGE, LARGE + 1], ids=["same size", "another size"])
    def test_an_object_replaced_meanwhile_is_noticed(self, store, direct, faults, data, size):
        faults.first(1, Fault(cut_after=1 << 20), when=lambda request: request.method == "GET")
        with store.get("large") as reader:
            reader.read(1000)
            put(direct, "large", bytes(size), overwrite=True)
            with pytest.raises(StoreUnavailableError, match="was replaced"):
                while reader.read(1 << 20):
                    pass

    def test_an_object_deleted_meanwhile_is_noticed(self, store, direct, faults, data):
        faults.first(1, Fault(cut_after=1 << 20), when=lambda request: request.method == "GET")
        with store.get("large") as reader:
            reader.read(1000)
            direct.delete("large")
            with pytest.raises(ObjectNotFoundError):
                while reader.read(1 << 20):
                    pass

    def test_a_server_that_ignores_ranges_is_noticed(self, store, faults, data):
        """The answer 200 holds the object from its beginning, not the rest."""
        answers = iter([Fault(cut_after=1 << 20), Fault(status=200)])
        faults.decide = lambda request: next(answers, None) if request.method == "GET" else None
        with pytest.raises(StoreUnavailableError, match="was replaced"):
            get(store, "large")


class TestDamage:
    @pytest.mark.parametrize("size", [100, LARGE], ids=["small", "large"])
    def test_damaged_bytes_are_not_stored(self, store, direct, faults, size):
        faults.always(Fault(damage=True), when=lambda request: request.method == "PUT")
        with pytest.raises(StoreError):
            put(store, "new", b"n" * size)
        assert list(direct.list()) == []

    @pytest.mark.parametrize("size", [100, LARGE], ids=["small", "large"])
    def test_damaged_bytes_are_noticed_at_the_end_of_a_read(self, store, direct, faults, size):
        put(direct, "old", b"o" * size)
        faults.always(Fault(damage=True), when=lambda request: request.method == "GET")
        with pytest.raises(StoreUnavailableError, match="checksum") as raised:
            get(store, "old")
        assert "damaged" in raised.value.hint


class TestConditionalWrites:
    @pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
    def test_the_request_that_makes_the_object_carries_the_condition(self, store, faults, size):
        put(store, "new", bytes(size))
        put(store, "new", bytes(size), overwrite=True)
        seen = store.stat("new").version
        with store.put("new", if_version=seen) as writer:
            writer.write(b"n" * size)
        sent = [request.headers for request in faults.seen if publishes(request)]
        conditions = [headers.get("If-None-Match") or headers.get("If-Match") for headers in sent]
        # Of a large object, CreateMultipartUpload is a POST without an upload's id: it publishes nothing.
        assert conditions == ["*", None, seen]

    @pytest.fixture
    def old_fashioned(self, faults):
        """A server that has no conditional writes and says so."""
        faults.always(Fault(status=501, code="NotImplemented"), when=lambda request: "If-None-Match" in request.headers)

    @pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
    def test_without_them_the_key_is_asked_for_and_a_warning_says_so(self, store, direct, old_fashioned, caplog, size):
        put(store, "new", b"n" * size)
        assert get(direct, "new") == b"n" * size
        assert "no conditional writes" in caplog.text

    @pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
    def test_without_them_a_taken_key_is_still_refused(self, store, direct, old_fashioned, uploads, size):
        with pytest.raises(ObjectExistsError), store.put("new") as writer:
            writer.write(b"n" * size)
            put(direct, "new", b"first")
        assert get(direct, "new") == b"first"
        assert uploads() == []

    def test_without_them_and_without_an_answer_nothing_is_overwritten(self, store, direct, faults):
        """Whether the key is free cannot be told: that is no reason to write."""
        with pytest.raises(StoreUnavailableError), store.put("new") as writer:
            writer.write(b"mine")
            put(direct, "new", b"first")
            faults.decide = lambda request: Fault(status=501 if request.method == "PUT" else 503)
        assert get(direct, "new") == b"first"

    @pytest.mark.parametrize("changed", [False, True])
    def test_without_conditions_the_version_is_looked_at_right_before(self, store, direct, faults, changed, caplog):
        put(direct, "same", b"old")
        seen = direct.stat("same").version
        if changed:
            put(direct, "same", b"rival", overwrite=True)
        faults.always(Fault(status=501), when=lambda request: publishes(request) and "If-Match" in request.headers)
        with raises_if(ObjectChangedError, changed), store.put("same", if_version=seen) as writer:
            writer.write(b"new")
        assert get(direct, "same") == (b"rival" if changed else b"new")
        assert "no conditional writes" in caplog.text

    def test_a_version_that_is_none_is_no_condition(self, store, direct, faults):
        """Some servers take an empty condition for no condition."""
        put(direct, "same", b"old")
        with pytest.raises(ObjectChangedError), store.put("same", if_version="") as writer:
            writer.write(b"new")
        assert not any(map(publishes, faults.seen))
        assert get(direct, "same") == b"old"

    def test_a_conflict_with_nobody_may_be_tried_again(self, store, faults):
        faults.always(Fault(status=409, code="ConditionalRequestConflict"), when=publishes)
        with pytest.raises(StoreUnavailableError, match="ConditionalRequestConflict"):
            put(store, "new", b"")

    def test_a_conflict_with_a_winner_is_a_taken_key(self, store, direct, faults):
        with pytest.raises(ObjectExistsError), store.put("new"):
            put(direct, "new", b"first")
            faults.always(Fault(status=409, code="ConditionalRequestConflict"), when=publishes)


class TestRequests:
    def test_a_small_object_is_one_put(self, store, faults):
        put(store, "new", bytes(PART - 1), overwrite=True)
        assert [request.method for request in faults.seen] == ["PUT"]

    def test_parts_are_sent_while_the_caller_writes_but_not_too_many(self, s3, faults, prefix):
        store = s3.behind(faults.endpoint).store(prefix=prefix, parts_in_flight=2)
        put(store, "new", bytes(8 * PART), overwrite=True)
        assert sum(request.is_part for request in faults.seen) == 8
        assert faults.most_parts == 2


class TestRefusals:
    @pytest.mark.parametrize(
        "credentials",
        [
            S3Credentials(access_key=CREDENTIALS.access_key, secret_key="wrong-secret"),
            S3Credentials(access_key="nobody", secret_key="wrong-secret"),
        ],
        ids=["secret", "user"],
    )
    @every_verb
    def test_wrong_credentials(self, s3, direct, prefix, verb, credentials):
        put(direct, "old", b"old")
        with pytest.raises(StoreError) as raised:
            verb(s3.store(prefix=prefix, credentials=credentials))
        assert not raised.value.retryable
        assert f"s3://{BUCKET}" in raised.value.message
        assert "credentials" in raised.value.hint
        assert "wrong-secret" not in f"{raised.value.message} {raised.value.hint}"
        assert [info.key for info in direct.list()] == ["old"]

    @every_verb
    def test_a_missing_bucket(self, s3, verb):
        with pytest.raises(StoreError) as raised:
            verb(s3.store(bucket="no-such-bucket"))
        assert type(raised.value) is StoreError
        assert "s3://no-such-bucket" in raised.value.message
        assert "create the bucket" in raised.value.hint

    def test_no_credentials_at_all(self, s3, prefix, monkeypatch, tmp_path):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(StoreError, match="credentials") as raised:
            s3.store(prefix=prefix, credentials=None).stat("a")
        assert "AWS_ACCESS_KEY_ID" in raised.value.hint

    def test_an_unknown_profile(self):
        with pytest.raises(ConfigError, match="nobodys-profile"):
            open_store(f"s3://{BUCKET}?profile=nobodys-profile").stat("a")

    def test_a_ca_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match=r"ca\.pem") as raised:
            open_store(f"s3://{BUCKET}?ca={tmp_path}/ca.pem").stat("a")
        assert "PEM" in raised.value.hint

    def test_a_key_below_an_object(self, direct):
        put(direct, "a", b"1")
        with pytest.raises(StoreError) as raised:
            put(direct, "a/b", b"2")
        assert "beginning of another" in raised.value.hint

    def test_folders_of_a_console_are_no_objects(self, direct, prefix):
        put(direct, "real", b"1")
        direct._client.put_object(Bucket=BUCKET, Key=f"{prefix}/folder/", Body=b"")
        assert [info.key for info in direct.list()] == ["real"]


class TestNobodyThere:
    """Every verb ends within a bounded time when the server does not answer."""

    @every_verb
    def test_a_closed_port(self, s3, prefix, verb):
        with pytest.raises(StoreUnavailableError) as raised:
            verb(s3.behind(f"http://127.0.0.1:{free_port()}").store(prefix=prefix))
        assert "check the endpoint" in raised.value.hint

    def test_a_host_that_drops_everything(self, s3, prefix):
        with deaf_port() as port:
            store = s3.behind(f"http://127.0.0.1:{port}").store(prefix=prefix, connect_timeout_seconds=0.2)
            with pytest.raises(StoreUnavailableError):
                store.stat("a")

    @pytest.mark.parametrize("name", ["put", "get", "stat", "list", "delete"])
    def test_a_server_that_never_answers(self, s3, prefix, faults, name):
        faults.always(Fault(stall=True))
        store = s3.behind(faults.endpoint).store(prefix=prefix, read_timeout_seconds=0.2)
        with pytest.raises(StoreUnavailableError):
            VERBS[name](store)


@contextmanager
def deaf_port():
    """A port whose queue of connections is full: the kernel drops what else comes, as a firewall would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


class TestWrongServer:
    """Something answers at the endpoint, but it is no S3 server."""

    @every_verb
    def test_that_finds_nothing_is_not_taken_for_an_empty_store(self, store, faults, verb):
        faults.always(Fault(status=404, code=""))
        with pytest.raises(StoreError) as raised:
            verb(store)
        assert not isinstance(raised.value, ObjectNotFoundError)

    @pytest.mark.parametrize("name", [name for name in VERBS if name != "delete"])
    def test_that_agrees_to_everything_is_not_believed(self, store, faults, name):
        """A backup that a login page took with 200 is no backup."""
        faults.always(Fault(status=200, code=""))
        with pytest.raises(StoreError, match="no S3 server") as raised:
            VERBS[name](store)
        assert "check the endpoint" in raised.value.hint


class TestInterruption:
    def test_ctrl_c_leaves_neither_object_nor_parts(self, direct, uploads):
        with pytest.raises(KeyboardInterrupt), direct.put("new") as writer:
            writer.write(bytes(LARGE))
            assert uploads() != []
            raise KeyboardInterrupt
        assert list(direct.list()) == []
        assert uploads() == []

    def test_a_killed_writer_leaves_no_object(self, s3, direct, prefix, uploads):
        script = (
            "import sys\n"
            "from clusterguard.stores import open_store\n"
            "with open_store(sys.argv[1]).put('killed') as writer:\n"
            "    writer.write(bytes(30 << 20))\n"
            "    print('writing', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        environment = {
            "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
        }
        with subprocess.Popen(
            [sys.executable, "-c", script, s3.store(prefix=prefix).url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        ) as process:
            assert process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        assert list(direct.list()) == []
        assert uploads() == [f"{prefix}/killed"], "it was in the middle of an upload"
        put(direct, "killed", b"the next one")
        assert get(direct, "killed") == b"the next one"


def test_no_secret_is_logged(direct, caplog):
    """Even at the level DEBUG of our own loggers."""
    with caplog.at_level(logging.DEBUG, logger="clusterguard"):
        put(direct, "a", bytes(LARGE))
        get(direct, "a")
    assert CREDENTIALS.secret_key not in caplog.text
    assert CREDENTIALS.secret_key not in repr(CREDENTIALS)
    assert CREDENTIALS.secret_key not in direct.url
