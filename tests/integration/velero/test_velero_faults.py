"""What is told when Velero's server, or the bucket, dies at the wrong moment."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest
from velero_names import unique

from clusterguard.errors import (
    BackupFailedError,
    LocationUnavailableError,
    RestoreFailedError,
    VeleroUnavailableError,
    WaitTimeoutError,
)
from clusterguard.velero import VeleroClient
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.outcome import Rule
from clusterguard.velero.phases import BackupPhase, RestorePhase
from clusterguard.velero.resources import Backup, DownloadRequest, Restore

pytestmark = [pytest.mark.programs, pytest.mark.slow]


@pytest.fixture
def hasty(velero, api):
    """A client that soon asks whether the server lives, and soon believes that it does not."""
    return VeleroClient(api=api, request_seconds=1, silence_seconds=0.5)


@pytest.fixture
def dead_server(server, velero, hasty):
    """The server is killed when the test says so, and works again afterwards."""
    yield server.kill
    if not server.process.alive():
        server.start()
    velero.status(timeout_seconds=30)
    velero.locations.require_available(fresh=True)


@contextmanager
def standing_still(s3):
    """Let the S3 server accept connections and answer none."""
    os.kill(s3._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(s3._process.pid, signal.SIGCONT)


def in_progress(velero, run):
    velero.objects.wait(
        type(run),
        run.name,
        until=lambda seen: seen.phase == "InProgress",
        what=f"{run.name} to begin",
        timeout_seconds=10,
    )


def test_a_server_killed_in_the_middle_of_a_backup_is_noticed(velero, hasty, shop, s3, server, dead_server):
    with standing_still(s3):
        backup = velero.back_up(unique("killed"), BackupOptions(included_namespaces=(shop,)), wait=False)
        in_progress(velero, backup)
        dead_server()
        with pytest.raises(VeleroUnavailableError) as caught:
            hasty.wait(backup)
        assert caught.value.fields["last_seen"].startswith("InProgress")
    server.start()
    ended = velero.wait(velero.backup(backup.name), timeout_seconds=30)
    assert ended.phase == BackupPhase.FAILED
    outcome = velero.outcome(ended)
    assert [finding.rule for finding in outcome.findings] == [Rule.FAILED]
    with pytest.raises(BackupFailedError, match="InProgress"):
        outcome.raise_for_findings()


def test_a_server_killed_in_the_middle_of_a_restore_is_noticed(velero, hasty, shop, s3, server, dead_server):
    backup = velero.back_up(unique("to-restore"), BackupOptions(included_namespaces=(shop,)))
    with standing_still(s3):
        restore = velero.restore(backup.name, wait=False)
        in_progress(velero, restore)
        dead_server()
        with pytest.raises(VeleroUnavailableError) as caught:
            hasty.wait(restore)
        assert caught.value.fields["last_seen"].startswith("InProgress")
    server.start()
    ended = velero.wait(velero.get_restore(restore.name), timeout_seconds=30)
    assert ended.phase == RestorePhase.FAILED
    with pytest.raises(RestoreFailedError):
        velero.outcome(ended).raise_for_findings()


def test_a_backup_that_takes_too_long_is_told_and_goes_on(velero, shop, s3):
    name = unique("slow")
    with standing_still(s3):
        with pytest.raises(WaitTimeoutError) as caught:
            velero.back_up(name, BackupOptions(included_namespaces=(shop,)), timeout_seconds=2)
        assert caught.value.seconds == 2
        assert caught.value.last_seen.startswith("InProgress")
    ended = velero.wait(velero.backup(name), timeout_seconds=60)
    velero.outcome(ended).raise_for_findings()


def test_without_a_server_every_request_ends_with_an_error(velero, hasty, shop, dead_server):
    backup = velero.back_up(unique("before"), BackupOptions(included_namespaces=(shop,)))
    dead_server()
    with pytest.raises(VeleroUnavailableError) as caught:
        hasty.status()
    assert isinstance(caught.value.__cause__, WaitTimeoutError)
    with pytest.raises(WaitTimeoutError) as caught:
        list(hasty.logs(backup))
    assert caught.value.what.startswith("Velero to answer the request for the log")
    assert not [each for each in velero.objects.list(DownloadRequest) if each.name.startswith("clusterguard-")]
    with pytest.raises(WaitTimeoutError) as caught:
        hasty.locations.require_available(fresh=True, timeout_seconds=2)
    assert caught.value.what.endswith("look at storage location default")
    with pytest.raises(VeleroUnavailableError):
        hasty.delete_backup(backup.name)
    with pytest.raises(VeleroUnavailableError):
        hasty.create_schedule(unique("nobody-looks"), "0 3 * * *")
    judged = hasty.outcome(Backup.model_validate({**backup.manifest, "status": {**backup.status, "warnings": 1}}))
    assert {finding.rule for finding in judged.findings} == {Rule.WARNING, Rule.EVIDENCE_MISSING}


def test_a_bucket_that_is_down_is_told(velero, shop, s3):
    backup = velero.back_up(unique("kept"), BackupOptions(included_namespaces=(shop,)))
    s3.stop()
    try:
        with pytest.raises(LocationUnavailableError, match="refused"):
            velero.locations.require_available(fresh=True, timeout_seconds=30)
        with pytest.raises(LocationUnavailableError, match="refused"):
            velero.restore(backup.name)
    finally:
        s3.start()
    restore = velero.restore(backup.name)
    assert isinstance(restore, Restore)


def test_a_bucket_that_died_since_velero_looked_fails_the_backup(velero, shop, s3):
    name = unique("lost")
    velero.locations.require_available(fresh=True)
    s3.stop()
    try:
        with pytest.raises(BackupFailedError) as caught:
            velero.back_up(name, BackupOptions(included_namespaces=(shop,)), timeout_seconds=60)
        assert caught.value.phase in {"Failed", "PartiallyFailed", "FailedValidation"}
        outcome = velero.outcome(velero.backup(name))
        assert not outcome.ok
    finally:
        s3.start()
        velero.locations.require_available(fresh=True)
