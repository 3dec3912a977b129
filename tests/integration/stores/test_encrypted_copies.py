"""Encrypted objects and the stock programs age and zstd; copies in real S3 servers, one of which goes away."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clusterguard.errors import ConfigError, StoreError, StoreUnavailableError
from clusterguard.process import run
from clusterguard.stores import LocalStore, ReplicatedStore
from clusterguard.stores.encryption import EncryptedStore, Encryption
from clusterguard.stores.encryption.compression import _zstd
from clusterguard.stores.transfer import digest_object
from clusterguard.testing import ObjectStoreContract
from s3_fault_proxy import Fault
from s3_gateway import BUCKET, CREDENTIALS, gateway

pytestmark = pytest.mark.programs

PART = 5 << 20
PASSPHRASE = "correct horse battery staple"
DATA = b"".join(f"/registry/pods/default/web-{number:07}".encode() for number in range(20_000)) + os.urandom(500_000)


@pytest.fixture(scope="session")
def age(toolchain):
    """The stock programs of age."""
    return toolchain.ensure("age", "age-keygen")


@pytest.fixture(scope="session")
def keys(age, tmp_path_factory):
    """Recipient and identity file of each kind, made by the programs of those who use them."""
    folder = tmp_path_factory.mktemp("keys")
    own = folder / "age"
    run([age["age-keygen"], "-o", own], timeout_seconds=10)
    made = {"age": (run([age["age-keygen"], "-y", own], timeout_seconds=10).stdout.strip(), own)}
    if shutil.which("ssh-keygen"):
        for kind in ("ed25519", "rsa"):
            ssh_key(folder / kind, kind)
            made[kind] = (" ".join((folder / f"{kind}.pub").read_text().split()), folder / kind)
    return made


def ssh_key(path, kind, password=""):
    run(["ssh-keygen", "-q", "-t", kind, "-N", password, "-f", path], timeout_seconds=60)


def put(store, key, data):
    with store.put(key) as writer:
        for at in range(0, len(data), 100_000):
            writer.write(data[at : at + 100_000])


def read(store, key):
    with store.get(key) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def unpacked(file):
    """What zstd finds in a file: the program, or where there is none its own library, all frames through."""
    if zstd := shutil.which("zstd"):
        return subprocess.run([zstd, "-q", "-d", "-c", file], check=True, capture_output=True).stdout
    return _zstd().decompress(file.read_bytes())


class TestStockPrograms:
    @pytest.mark.parametrize("kind", ["age", "ed25519", "rsa"])
    def test_they_open_what_was_encrypted_for_a_key(self, age, keys, kind, tmp_path):
        recipient, identity = keys.get(kind) or pytest.skip("no ssh-keygen on PATH")
        put(EncryptedStore(LocalStore(tmp_path), Encryption(recipients=(recipient,))), "NAME.db", DATA)
        run([age["age"], "-d", "-i", identity, "-o", tmp_path / "NAME.zst", tmp_path / "NAME.db.zst.age"],
            timeout_seconds=30)  # fmt: skip
        assert unpacked(tmp_path / "NAME.zst") == DATA

    @pytest.mark.parametrize("kind", ["age", "ed25519", "rsa"])
    def test_what_they_encrypted_for_a_key_is_opened(self, age, keys, kind, tmp_path):
        recipient, identity = keys.get(kind) or pytest.skip("no ssh-keygen on PATH")
        if zstd := shutil.which("zstd"):
            (tmp_path / "plain").write_bytes(DATA)
            run([zstd, "-q", "-19", tmp_path / "plain", "-o", tmp_path / "NAME.zst"], timeout_seconds=60)
        else:
            (tmp_path / "NAME.zst").write_bytes(_zstd().compress(DATA))
        run([age["age"], "-r", recipient, "-o", tmp_path / "NAME.db.zst.age", tmp_path / "NAME.zst"],
            timeout_seconds=30)  # fmt: skip
        store = EncryptedStore(LocalStore(tmp_path), Encryption(identities=(identity.read_text(),)))
        assert read(store, "NAME.db") == DATA

    def test_they_open_what_was_encrypted_with_a_passphrase(self, age, tmp_path):
        put(EncryptedStore(LocalStore(tmp_path), Encryption(passphrase=PASSPHRASE)), "NAME.db", DATA)
        assert b" 18\n" in (tmp_path / "NAME.db.zst.age").read_bytes()[:200], "the work factor of the age program"
        with_passphrase([age["age"], "-d", "-o", tmp_path / "NAME.zst", tmp_path / "NAME.db.zst.age"])
        assert unpacked(tmp_path / "NAME.zst") == DATA

    def test_what_they_encrypted_with_a_passphrase_is_opened(self, age, tmp_path):
        (tmp_path / "plain").write_bytes(DATA)
        with_passphrase([age["age"], "-p", "-o", tmp_path / "NAME.db.age", tmp_path / "plain"])
        store = EncryptedStore(LocalStore(tmp_path), Encryption(passphrase=PASSPHRASE))
        assert read(store, "NAME.db") == DATA

    def test_an_ssh_key_behind_a_passphrase_is_refused(self, tmp_path):
        if not shutil.which("ssh-keygen"):
            pytest.skip("no ssh-keygen on PATH")
        ssh_key(tmp_path / "key", "ed25519", "hunter2")
        with pytest.raises(ConfigError) as raised:
            Encryption(identities=((tmp_path / "key").read_text(),))
        assert "without a passphrase" in raised.value.hint


def with_passphrase(argv):
    """Run age as if at a terminal, which is the only place where it takes a passphrase from."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(argv[0], list(map(str, argv)))  # noqa: S606 - the child of a fork becomes age
    deadline, said, asked = time.monotonic() + 60, b"", 0
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                said += os.read(terminal, 1024)
            except OSError:  # how Linux says that the other side is closed
                break
        if said.count(b"assphrase") > asked:
            asked = said.count(b"assphrase")
            os.write(terminal, f"{PASSPHRASE}\n".encode())
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said


class TestEncryptedCopiesInS3(ObjectStoreContract):
    """One stream, compressed and encrypted once, into a bucket and a directory."""

    exact_sizes = False
    has_versions = False
    many = 23  # pages are the inner store's business

    @pytest.fixture
    def store(self, s3, prefix, keys, tmp_path):
        recipient, identity = keys["age"]
        copies = ReplicatedStore({"far": s3.store(prefix=prefix), "near": LocalStore(tmp_path)}, minimum=2)
        return EncryptedStore(copies, Encryption(recipients=(recipient,), identities=(identity.read_text(),)))


def test_two_buckets_and_a_directory_have_what_was_encrypted(s3, prefix, keys, tmp_path):
    """One stream in parts that all of them take, at paces of their own."""
    recipient, identity = keys["age"]
    near, far = s3.store(prefix=f"{prefix}/near"), s3.store(prefix=f"{prefix}/far", parts_in_flight=1)
    stores = {"near": near, "far": far, "local": LocalStore(tmp_path)}
    store = EncryptedStore(
        ReplicatedStore(stores, minimum=3),
        Encryption(recipients=(recipient,), identities=(identity.read_text(),), compression_level=None),
    )
    data = os.urandom(7 * PART + 12_345)
    put(store, "a.db", data)
    stored = store.stored("a.db")
    assert {digest_object(each, stored.key) for each in stores.values()} == {(stored.sha256, stored.size)}
    assert read(store, "a.db") == data


class TestServersThatFail:
    @pytest.fixture
    def near(self, s3, prefix):
        return s3.store(prefix=prefix)

    def test_one_that_is_killed_in_the_middle_is_left_out(self, versitygw, near, tmp_path):
        with killable(versitygw, tmp_path) as (far, kill):
            replicated = ReplicatedStore({"far": far, "near": near})
            with replicated.put("big.db") as writer:
                for number in range(60):
                    writer.write(bytes([number]) * (1 << 20))
                    if number == 20:
                        kill()
            assert near.stat("big.db").size == 60 << 20
            failure = replicated.failures["far"]
            assert isinstance(failure, StoreUnavailableError)
            put(replicated, "big.json", b"{}")
            assert replicated.failures["far"] is failure, "a store that is gone was waited for again"
            assert [info.key for info in replicated.list()] == ["big.db", "big.json"]
            replicated.delete("big.db")
            assert [info.key for info in near.list()] == ["big.json"]

    def test_both_wanted_and_one_killed_leaves_nothing_in_the_other(self, versitygw, near, tmp_path):
        with killable(versitygw, tmp_path) as (far, kill):
            replicated = ReplicatedStore({"far": far, "near": near}, minimum=2)
            with pytest.raises(StoreUnavailableError) as caught, replicated.put("big.db") as writer:
                for number in range(60):
                    writer.write(bytes(1 << 20))
                    if number == 20:
                        kill()
            assert (caught.value.code, caught.value.fields["left"]) == ("too-few-stores", 1)
            assert list(near.list()) == []
            assert near._client.list_multipart_uploads(Bucket=BUCKET, Prefix=near.prefix).get("Uploads", []) == []

    @pytest.mark.parametrize("fault", [Fault(status=403, code="AccessDenied"), Fault(status=507), Fault(damage=True)])
    def test_one_that_refuses_parts_is_left_out_soon(self, s3, near, faults, prefix, fault):
        faults.always(fault, when=lambda request: request.is_part)
        far = s3.behind(faults.endpoint).store(prefix=f"{prefix}-far", attempts=1)
        replicated = ReplicatedStore({"far": far, "near": near})
        with replicated.put("big.db") as writer:
            for _ in range(40):
                writer.write(bytes(1 << 20))
        assert near.stat("big.db").size == 40 << 20
        assert isinstance(replicated.failures["far"], StoreError)
        assert sum(request.is_part for request in faults.seen) < 8

    def test_one_that_stalls_for_ever_is_left_out_after_its_time(self, s3, near, faults, prefix):
        faults.always(Fault(stall=True), when=lambda request: request.is_part)
        far = s3.behind(faults.endpoint).store(prefix=f"{prefix}-far", attempts=1, read_timeout_seconds=1)
        replicated = ReplicatedStore({"far": far, "near": near})
        with replicated.put("big.db") as writer:
            for _ in range(40):
                writer.write(bytes(1 << 20))
        assert near.stat("big.db").size == 40 << 20
        assert isinstance(replicated.failures["far"], StoreUnavailableError)

    def test_a_connection_that_breaks_while_opening_is_gone_on_with(self, s3, near, faults, prefix, keys):
        recipient, identity = keys["age"]
        encryption = Encryption(recipients=(recipient,), identities=(identity.read_text(),))
        data = os.urandom(3 * PART)
        put(EncryptedStore(near, encryption), "a.db", data)
        faults.first(2, Fault(cut_after=1 << 20), when=lambda request: request.method == "GET")
        assert read(EncryptedStore(s3.behind(faults.endpoint).store(prefix=prefix), encryption), "a.db") == data

    def test_a_read_that_fails_for_good_is_no_short_object(self, s3, near, faults, prefix, keys):
        recipient, identity = keys["age"]
        encryption = Encryption(recipients=(recipient,), identities=(identity.read_text(),))
        put(EncryptedStore(near, encryption), "a.db", os.urandom(3 * PART))
        faults.always(Fault(cut_after=1 << 20), when=lambda request: request.method == "GET")
        before = our_threads()
        with pytest.raises(StoreUnavailableError):
            read(EncryptedStore(s3.behind(faults.endpoint).store(prefix=prefix, resumptions=1), encryption), "a.db")
        assert our_threads() <= before


def our_threads():
    # The server that breaks off has threads here, too, and ends them when it likes.
    return {thread for thread in threading.enumerate() if thread.name.startswith("clusterguard-")}


@contextlib.contextmanager
def killable(program, folder):
    """A server of its own, and the way to kill it at once."""
    with gateway(program, folder) as running:
        port = running.endpoint.rpartition(":")[2]
        processes = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
        (listener,) = [int(each.name) for each in processes if f"127.0.0.1:{port}" in arguments(each)]
        yield running.store(attempts=1), lambda: os.kill(listener, signal.SIGKILL)


def arguments(process):
    """The words that an S3 server was started with; of anything else none."""
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_text().split("\0")
        return words if words[0].endswith("versitygw") else []
    return []


# VmHWM is the peak of this very program; getrusage's maximum also counts what forked it.
SCRIPT = """
import os, sys
from clusterguard.stores import ReplicatedStore, open_store
from clusterguard.stores.encryption import Encryption, EncryptedStore

size, identity, recipient, *places = sys.argv[1:]
with open(identity) as file:
    encryption = Encryption(recipients=(recipient,), identities=(file.read(),))
store = EncryptedStore(ReplicatedStore({place: open_store(place) for place in places}, minimum=len(places)), encryption)
written = 0
with store.put("large.db") as writer:
    while written < int(size):
        piece = os.urandom(512 << 10) + bytes(512 << 10)
        writer.write(piece)
        written += len(piece)
read = 0
with store.get("large.db") as reader:
    while data := reader.read(1 << 20):
        read += len(data)
assert read == written
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_object(s3, prefix, keys, tmp_path):
    recipient, identity = keys["age"]
    places = [s3.store(prefix=f"{prefix}/{name}").url for name in ("near", "far")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(800 << 20), identity, recipient, *places],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
        },
    )
    assert int(done.stdout) < 150
