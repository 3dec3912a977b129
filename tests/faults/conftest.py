from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import table
from grpc_proxy import grpc_proxy
from restores import restorable_cluster
from worlds import CANARY, CANARY_KEY, Services, World, build_template
from zygote import Zygote

from clusterguard.stores.encryption import new_key_pair
from etcd_member import member
from s3_fault_proxy import fault_proxy
from s3_gateway import gateway

SMALL_DISK_MEGABYTES = 24


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory):
    """A disk that is full soon, or None for a user who may not mount one; gone with this process, however that ends."""
    folder = tmp_path_factory.mktemp("small-disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MEGABYTES}m,mode=0700", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    disk = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    subprocess.run(["umount", "-l", folder], check=True)  # the open folder keeps it
    yield Path(f"/proc/{os.getpid()}/fd/{disk}")
    os.close(disk)


@pytest.fixture(scope="session")
def zygote():
    running = Zygote()
    yield running
    running.close()


@pytest.fixture(scope="session")
def services(toolchain, tmp_path_factory, small_disk, zygote):
    programs = toolchain.ensure("etcd", "versitygw")
    keys = tmp_path_factory.mktemp("keys")
    identity, recipient = new_key_pair()
    (keys / "identity.txt").write_text(identity + "\n")
    (keys / "identity.txt").chmod(0o600)
    (keys / "recipients.txt").write_text(recipient + "\n")
    with (
        member(programs["etcd"], tmp_path_factory.mktemp("etcd") / "member") as etcd,
        gateway(programs["versitygw"], tmp_path_factory.mktemp("s3")) as server,
        fault_proxy(server.endpoint) as s3,
        grpc_proxy(etcd.port) as calls,
    ):
        etcd.put(CANARY_KEY, value=CANARY)
        for number in range(20):
            etcd.put(f"/registry/configmaps/default/filler-{number}", value=os.urandom(12_000))
        yield Services(member=etcd, gateway=server, s3=s3, etcd=calls, zygote=zygote, keys=keys, small=small_disk)


@pytest.fixture(scope="session")
def template(services, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # whatever it sets ends here, not with the session
        return build_template(services, tmp_path_factory.mktemp("template") / "world", patch)


@pytest.fixture
def world(services, template, tmp_path):
    made = World.of(services, template, tmp_path / "world")
    yield made
    services.calm()
    made.close()


@pytest.fixture(scope="session")
def restorable(services, toolchain, tmp_path_factory):
    with restorable_cluster(services, toolchain, tmp_path_factory.mktemp("restores")) as made:
        yield made


def pytest_terminal_summary(terminalreporter):
    """Print the counts, and write them down where that is asked for."""
    reports = [each for key in ("passed", "failed") for each in terminalreporter.stats.get(key, ())]
    cells, kills = table.results_of(reports)
    if not cells and not kills:
        return
    terminalreporter.section("faults")
    for line in table.summary(cells, kills):
        terminalreporter.line(line)
    if os.environ.get("CLUSTERGUARD_FAULT_TABLE"):
        table.write(cells, kills)
