"""Which of the laws of stores other S3 servers keep, over http and over TLS: the table of docs/reference/stores.md."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_s3_contract import certificate

from clusterguard.errors import StoreError
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import Location
from clusterguard.policies.runs.lock import locked
from clusterguard.stores import S3Credentials
from clusterguard.stores.s3 import S3Store
from clusterguard.testing import ObjectStoreContract
from s3_gateway import free_port, gateway

pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(900)]

KEYS = S3Credentials(access_key="S3RVER", secret_key="S3RVER")
SMALL, LARGE = 3, 17 << 20
DOCS = Path(__file__).parents[3] / "docs/reference/stores.md"

contract = ObjectStoreContract()


def one_of_large_wins(store):
    """Of writers that all wait before the last request, exactly one is told that it stored its object."""
    together = threading.Barrier(4, timeout=60)

    def write(number):
        with store.put("contended") as writer:
            writer.write(bytes([number]) * ((5 << 20) + 1))
            together.wait()

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(write, number) for number in range(4)]
    won = [number for number, each in enumerate(done) if each.exception() is None]
    assert len(won) == 1
    with store.get("contended") as reader:
        assert set(reader.read()) == set(won)


LAWS = {
    "small objects": lambda store: contract.test_gives_back_what_was_put(store, b"small"),
    "multipart": contract.test_gives_back_a_large_object_written_in_odd_pieces,
    "taken key": lambda store: contract.test_a_key_taken_meanwhile_is_refused_at_the_end(store, SMALL),
    "taken key, multipart": lambda store: contract.test_a_key_taken_meanwhile_is_refused_at_the_end(store, LARGE),
    "one writer wins": contract.test_of_many_writers_of_one_key_one_wins,
    "one writer wins, multipart": one_of_large_wins,
    "version": lambda store: contract.test_a_version_is_replaced_once(store, SMALL),
    "one replaces": contract.test_of_many_writers_that_name_one_version_one_wins,
    "abandoned put": lambda store: contract.test_an_exception_leaves_the_old_object(store, LARGE),
    "order": contract.test_lists_in_the_order_of_keys,
    "pages": contract.test_lists_more_than_a_page,
}
RACES = {
    "one writer wins",
    "one writer wins, multipart",
    "one replaces",
}  # a server without the law may keep it by luck


def installed(folder, name, *command):
    """Return a program from a registry, installed below a folder that tests share; skip where that cannot be."""
    program = folder / name
    if not program.exists():
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=600)
        if done.returncode or not program.exists():
            pytest.skip(f"NOT RUN: {name} cannot be installed: {done.stderr[-300:]}")
    return program


@contextmanager
def served(command, folder, *, tls):
    """Run a server on loopback; give its URL."""
    port = free_port()
    with (folder / "server.log").open("wb") as log, subprocess.Popen(command(port), stdout=log, stderr=log) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, (folder / "server.log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        finally:
            process.terminate()


def moto(folder, files):
    """`moto_server`: mocks in Python, the usual stand-in for S3 in tests."""
    home = folder.parent / "moto"
    program = home / "bin/moto_server"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    program = installed(home / "bin", "moto_server", home / "bin/pip", "install", "-q", "moto[server]==5.2.5")
    secure = ["-c", files[0], "-k", files[1]] if files else []
    return lambda port: [program, "-H", "127.0.0.1", "-p", str(port), *secure]


def s3rver(folder, files):
    """`s3rver`: a folder as a bucket, in JavaScript."""
    if shutil.which("npm") is None:
        pytest.skip("NOT RUN: s3rver needs npm")
    home = folder.parent / "s3rver"
    program = installed(
        home / "node_modules/.bin", "s3rver", "npm", "install", "--silent", "--prefix", home, "s3rver@3.7.1"
    )
    secure = ["--cert", files[0], "--key", files[1]] if files else []
    data = folder / uuid.uuid4().hex
    data.mkdir()
    return lambda port: [program, "-d", data, "-a", "127.0.0.1", "-p", str(port), "--silent", *secure]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def store_at(request, tls, tmp_path, tmp_path_factory):
    """Give what opens a store below a prefix of a server that runs."""
    name, scheme = request.param
    files = tls[1] if scheme == "https" else None
    trusted = {"ca_file": tls[0]} if files else {}
    if name == "versitygw":
        with gateway(request.getfixturevalue("versitygw"), tmp_path, tls=files) as server:
            yield lambda prefix: server.store(prefix=prefix, **trusted)
        return
    shared = tmp_path_factory.getbasetemp() / "servers" / "data"
    shared.mkdir(parents=True, exist_ok=True)
    command = {"moto": moto, "s3rver": s3rver}[name](shared, files)
    with served(command, tmp_path, tls=files) as endpoint:
        settings = {"bucket": "backups", "endpoint": endpoint, "region": "us-east-1", "path_style": True}
        settings["connect_timeout_seconds"] = 30  # a busy machine is no law that is not kept
        S3Store(**settings, **trusted, credentials=KEYS).create_bucket()
        yield lambda prefix: S3Store(**settings, **trusted, credentials=KEYS, prefix=prefix)


def keeps(law, store):
    """Return whether a server keeps a law, with an error of ours at worst."""
    try:
        LAWS[law](store)
    except (AssertionError, StoreError, pytest.fail.Exception):
        return False
    return True


def documented(server):
    """Return the laws that the documentation says a server keeps, and those that it does not."""
    [head] = re.findall(r"^\| law +\|(.*)\|$", DOCS.read_text(), re.MULTILINE)
    column = [each.strip().strip("`") for each in head.split("|")].index(server)
    rows = {law: re.findall(rf"^\| {re.escape(law)} +\|(.*)\|$", DOCS.read_text(), re.MULTILINE) for law in LAWS}
    return {law: row.split("|")[column].strip() == "yes" for law, [row] in rows.items()}


every_server = pytest.mark.parametrize(
    "store_at",
    [(name, scheme) for name in ("versitygw", "moto", "s3rver") for scheme in ("http", "https")],
    indirect=True,
    ids="-".join,
)


@every_server
def test_it_keeps_the_laws_that_the_documentation_says(store_at, request):
    found = {law: keeps(law, store_at(f"law/{number}")) for number, law in enumerate(LAWS)}
    told = documented(request.node.callspec.params["store_at"][0])
    told |= {law: found[law] for law in RACES if not told[law]}
    assert found == told


@every_server
def test_the_lock_of_a_run_tells_of_a_server_that_lets_several_writers_win(store_at, request):
    name = request.node.callspec.params["store_at"][0]
    root = store_at("lock")
    here = StorageLocation(policy="nightly", location=Location(name="here", url=root.url), root=root)
    with locked([here], run="only") as lock:
        told = {location: warning.code for location, warning in lock.warnings.items()}
    assert told == ({} if documented(name)["one replaces"] else {"here": "lock-not-exclusive"})
