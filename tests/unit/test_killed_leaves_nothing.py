"""Processes that hold secrets are killed at random moments: nothing of that lies below the temporary folder, and what
had to have a name elsewhere is gone after the next start."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest

SECRET = "c2VjcmV0IG9mIHRoZSBjbHVzdGVy"  # base64, so that a kubeconfig can hold it
DECODED = b"secret of the cluster"

KUBECONFIG = """
    import json
    from clusterguard.clusters.kube import KubeClient
    user = {"client-certificate-data": SECRET, "client-key-data": SECRET}
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": SECRET}
    (work / "kubeconfig").write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
    }))

    def once():
        with KubeClient.from_kubeconfig(work / "kubeconfig") as client:
            assert open(client.connection().key).read().encode() == DECODED
            time.sleep(0.02)
"""
CREDENTIAL_PLUGIN = """
    import json
    from clusterguard.clusters.kube import KubeClient
    status = {"clientCertificateData": DECODED.decode(), "clientKeyData": DECODED.decode()}
    version = "client.authentication.k8s.io/v1"
    (work / "credential").write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    plugin = {"apiVersion": version, "command": "cat", "args": [str(work / "credential")], "interactiveMode": "Never"}
    (work / "kubeconfig").write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"exec": plugin}}],
    }))

    def once():
        with KubeClient.from_kubeconfig(work / "kubeconfig") as client:
            assert open(client.connection().key).read().encode() == DECODED
            time.sleep(0.02)
"""
ETCD_CLIENT_KEY = """
    from clusterguard.clusters.existing import ExistingCluster
    from clusterguard.errors import ClusterError

    class Node:
        name = "cp-1"
        def read(self, path):
            return DECODED
        def run(self, argv, **_):
            raise ClusterError("no manifest here")

    def once():
        with ExistingCluster(kubeconfig=work / "none", nodes=[Node()], endpoints=("https://10.0.0.7:2379",)) as cluster:
            assert cluster.etcd.key.read_bytes() == DECODED
            time.sleep(0.02)
"""
VELERO_CREDENTIALS = """
    from clusterguard.velero.install import InstallOptions, render
    program = work / "velero"
    program.write_text('#!/bin/sh\\nsleep 0.05\\necho \\'{"items": []}\\'\\n')
    program.chmod(0o700)

    options = InstallOptions(provider="aws", plugins=("p:1",), bucket="b", credentials=DECODED.decode())

    def once():
        render(options, velero=program)
"""
OPENED_SNAPSHOT = """
    import pyrage
    from clusterguard.stores import LocalStore, local_copy
    from clusterguard.stores.encryption import Encryption, EncryptedStore
    identity = pyrage.x25519.Identity.generate()
    encryption = Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),))
    store = EncryptedStore(LocalStore(work / "store"), encryption)
    with store.put("s.db", overwrite=True) as writer:
        for _ in range(200):
            writer.write(DECODED * 1000)

    def once():
        with local_copy(store, "s.db") as path:
            assert path.read_bytes() == DECODED * 200_000
"""
DRILL = """
    from clusterguard.drills.run import DrillRun

    def once():
        run = DrillRun(drill=None)
        for number in range(20):
            (run.folder / f"{number}.db").write_bytes(DECODED * 1000)
        run.close()
"""
WORK = {
    "kubeconfig": KUBECONFIG,
    "credential plugin": CREDENTIAL_PLUGIN,
    "etcd's client key": ETCD_CLIENT_KEY,
    "Velero's credentials": VELERO_CREDENTIALS,
    "opened snapshot": OPENED_SNAPSHOT,
    "drill": DRILL,
}

BEGIN = """
    import sys
    import time
    from pathlib import Path
    SECRET, DECODED = {secret!r}, {decoded!r}
    work, temporary = Path(sys.argv[1]), Path(sys.argv[2])
"""
AGAIN = """
    once()
    print("ready", flush=True)
    while True:
        once()
"""


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("code", WORK.values(), ids=WORK)
def test_killed_at_any_moment(tmp_path, moments, code, count):
    work, temporary, state = (tmp_path / name for name in ("work", "tmp", "state"))
    for folder in (work, temporary, state):
        folder.mkdir()
    environ = {**os.environ, "TMPDIR": str(temporary), "XDG_STATE_HOME": str(state)}
    begin = BEGIN.format(secret=SECRET, decoded=DECODED)
    argv = [sys.executable, "-c", "".join(map(textwrap.dedent, (begin, code, AGAIN))), work, temporary]
    for _ in range(count):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ) as process:
            assert process.stdout.readline() == b"ready\n"
            with suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0, 0.2))
            process.kill()
        assert holding_the_secret(temporary) == []
    sweep = "from clusterguard.scratch import private_folder\nwith private_folder(): pass"
    subprocess.run([sys.executable, "-c", sweep], check=True, env=environ)
    assert holding_the_secret(state) == []


def holding_the_secret(folder):
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and (DECODED in (data := path.read_bytes()) or SECRET.encode() in data):
                found.append(path)
    return found
