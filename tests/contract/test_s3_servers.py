"""The two throwaway S3 servers: what a drill relies on holds for both, as a process and in a container."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from clusterguard.drills.servers.container_s3 import ContainerS3Server, _lives
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import ProvisioningError, StoreError, StoreUnavailableError
from clusterguard.process import ProcessRecord, run

_BUCKET = "drill-backups"


def put(store, key, data=b"bytes"):
    with store.put(key) as writer:
        writer.write(data)


def read(store, key):
    with store.get(key) as reader:
        return reader.read()


class ThrowawayS3Contract:
    """Every implementation of `ThrowawayS3Server` passes these; a subclass gives ``new``, which makes one."""

    @pytest.fixture
    def server(self, new):
        with new() as server:
            server.create_bucket(_BUCKET)
            yield server

    def test_what_is_put_can_be_read(self, server):
        put(server.store(_BUCKET), "a/b")
        assert read(server.store(_BUCKET), "a/b") == b"bytes"
        assert read(server.store(_BUCKET, "a"), "b") == b"bytes"

    def test_a_bucket_may_be_made_twice(self, server):
        put(server.store(_BUCKET), "a")
        server.create_bucket(_BUCKET)
        assert read(server.store(_BUCKET), "a") == b"bytes"

    def test_it_listens_on_loopback_alone(self, server):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.endpoint)

    def test_cut_off_nobody_reaches_it_and_afterwards_it_has_everything_at_the_same_address(self, server):
        store, endpoint = server.store(_BUCKET), server.endpoint
        put(store, "a")
        server.stop()
        server.stop()
        with pytest.raises(StoreUnavailableError):
            list(store.list())
        server.start()
        assert server.endpoint == endpoint
        assert read(store, "a") == b"bytes"

    def test_nobody_else_is_let_in(self, server, new):
        with new() as other:
            stranger = replace(server.store(_BUCKET), credentials=other.credentials)
            with pytest.raises(StoreError):
                list(stranger.list())

    def test_velero_is_told_the_very_same_keys(self, server):
        keys = server.credentials
        lines = ["[default]", f"aws_access_key_id={keys.access_key}", f"aws_secret_access_key={keys.secret_key}"]
        assert server.credentials_file().splitlines() == lines

    def test_two_are_two(self, server, new):
        put(server.store(_BUCKET), "a")
        with new() as other:
            other.create_bucket(_BUCKET)
            assert list(other.store(_BUCKET).list()) == []


@pytest.mark.programs
class TestLocalS3Server(ThrowawayS3Contract):
    @pytest.fixture
    def new(self, tmp_path):
        from clusterguard.toolchain import from_environment

        program = from_environment(os.environ).ensure("versitygw")["versitygw"]
        folders = iter(range(9))
        return lambda: LocalS3Server(program=program, folder=tmp_path / str(next(folders)))

    def test_pods_do_not_reach_it(self, server):
        assert server.endpoint_for_pods is None


@pytest.mark.kind
class TestContainerS3Server(ThrowawayS3Contract):
    @pytest.fixture
    def new(self):
        from clusterguard.clusters.kind import Docker

        try:
            Docker().require()
        except ProvisioningError as error:
            pytest.skip(f"NOT RUN: {error}")
        return lambda: ContainerS3Server(network="bridge")

    def test_pods_reach_it_by_its_name(self, server):
        assert server.endpoint_for_pods == f"http://{server.name}:7070"

    def test_nothing_of_it_is_left(self, new):
        with new() as server:
            pass
        server.remove()
        assert _containers(server.name) == ""

    def test_keys_are_on_no_command_line_and_in_no_error(self, new, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "clusterguard.drills.servers.container_s3.run", lambda argv, **_: seen.append(argv) or run(argv, **_)
        )
        with new() as server:
            secret = server.credentials.secret_key
        assert seen
        assert not any(secret in word for argv in seen for word in argv)

    def test_a_server_of_a_run_that_was_killed_is_removed_by_the_next_one(self, new):
        script = (
            "from clusterguard.drills.servers.container_s3 import ContainerS3Server\n"
            "import os, sys\n"
            "server = ContainerS3Server(network='bridge').start()\n"
            "print(server.name, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        killed = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
        )
        name = killed.stdout.strip()
        assert _containers(name) == name
        with new() as mine:
            assert _containers(name) == ""
            assert _containers(mine.name) == mine.name

    def test_an_image_that_is_not_there_is_told_with_the_variable_that_names_another(self):
        server = ContainerS3Server(network="bridge", image="localhost:1/no-such-image:v0")
        with pytest.raises(ProvisioningError, match="no-such-image") as raised:
            server.__enter__()
        assert "CLUSTERGUARD_S3_IMAGE" in raised.value.hint
        assert _containers(server.name) == ""


def _containers(name):
    return run(
        ["docker", "ps", "--all", f"--filter=name={name}", "--format={{.Names}}"], timeout_seconds=30
    ).stdout.strip()


def test_a_server_lives_as_long_as_the_process_that_made_it():
    me = ProcessRecord.of(os.getpid())
    here = f"{me.boot_id}@{me.pid_namespace}"
    assert _lives(f"{me.pid}@{me.started}@{here}")
    assert _lives(f"{me.pid}@{me.started}"), "as an older release wrote it"
    assert not _lives(f"{me.pid}@{me.started - 1}@{here}")
    assert _lives(f"{me.pid}@{me.started - 1}@{me.boot_id}@pid:[1]"), "another container's, on the same docker"
    assert _lives("somebody else's")


def test_without_docker_it_is_told(tmp_path):
    server = ContainerS3Server(network="kind", docker=str(tmp_path / "docker"))
    with pytest.raises(ProvisioningError, match="no such program"):
        server.__enter__()
