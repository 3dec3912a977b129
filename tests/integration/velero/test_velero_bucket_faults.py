"""What Velero's own server makes of an S3 server that answers wrongly, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from velero_names import unique

from clusterguard.errors import (
    BackupFailedError,
    LocationUnavailableError,
    ObjectNotFoundError,
    RestoreFailedError,
    VeleroError,
)
from clusterguard.velero.bucket import verify_backup
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.outcome import Rule
from s3_fault_proxy import Fault, fault_proxy

pytestmark = [pytest.mark.programs, pytest.mark.slow]


@pytest.fixture
def proxy(s3):
    """What stands between Velero and the S3 server."""
    with fault_proxy(s3.endpoint) as standing:
        yield standing


@pytest.fixture
def through(velero, location_spec, s3, proxy):
    """The name of a location whose server is reached through the proxy."""
    name = unique("through")
    config = {"region": s3.region, "s3ForcePathStyle": "true", "s3Url": proxy.endpoint}
    velero.locations.create(name, location_spec(prefix=name, config=config))
    yield name
    proxy.decide = lambda _: None
    velero.locations.delete(name)


def of_backups(request):
    return "/backups/backups/" in request.path or "/backups/" in request.path.removeprefix("/backups/")


def uploads(request):
    return request.method == "PUT" and of_backups(request)


def downloads(request):
    return request.method == "GET" and request.path.split("?")[0].endswith((".tar.gz", ".json", ".gz"))


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("refused", ["velero-backup.json", ".tar.gz", "-resource-list.json.gz"])
def test_a_refused_upload_fails_the_backup_and_the_bucket_is_quoted(velero, shop, through, proxy, s3, refused, status):
    proxy.always(
        Fault(status=status, code="InternalError"),
        when=lambda request: uploads(request) and request.path.split("?")[0].endswith(refused),
    )
    name = unique("refused")
    with pytest.raises(BackupFailedError, match=rf"Failed: .*StatusCode: {status}.*InternalError: injected"):
        velero.back_up(name, BackupOptions(included_namespaces=(shop,), storage_location=through), timeout_seconds=90)
    assert Rule.FAILED in {found.rule for found in velero.outcome(velero.backup(name)).findings}
    assert verify_backup(s3.store("backups", through), name, now=datetime.now(UTC)).findings


def test_a_backup_whose_log_alone_was_refused_is_whole(velero, shop, through, proxy, s3):
    proxy.always(
        Fault(status=503, code="SlowDown"),
        when=lambda request: uploads(request) and request.path.split("?")[0].endswith("-logs.gz"),
    )
    name = unique("silent")
    velero.back_up(name, BackupOptions(included_namespaces=(shop,), storage_location=through), timeout_seconds=90)
    assert not verify_backup(s3.store("backups", through), name, now=datetime.now(UTC)).findings
    with pytest.raises(ObjectNotFoundError):
        list(velero.logs(velero.backup(name)))


def test_a_bucket_that_gives_nothing_fails_the_restore(velero, shop, through, proxy):
    backup = velero.back_up(unique("kept"), BackupOptions(included_namespaces=(shop,), storage_location=through))
    proxy.always(Fault(status=503, code="SlowDown"), when=downloads)
    with pytest.raises(RestoreFailedError, match=r"SlowDown|EOF|cut"):
        velero.restore(backup.name, timeout_seconds=120)


def test_a_tarball_cut_short_on_its_way_fails_the_restore(velero, shop, through, proxy):
    backup = velero.back_up(unique("whole"), BackupOptions(included_namespaces=(shop,), storage_location=through))
    proxy.always(
        Fault(cut_after=100), when=lambda request: request.path.split("?")[0].endswith(f"{backup.name}.tar.gz")
    )
    with pytest.raises(RestoreFailedError, match=r"SlowDown|EOF|cut"):
        velero.restore(backup.name, timeout_seconds=120)


def test_a_location_of_another_region_says_so(velero, location_spec, s3):
    name = unique("elsewhere")
    config = {"region": "eu-west-1", "s3ForcePathStyle": "true", "s3Url": s3.endpoint}
    with pytest.raises(
        LocationUnavailableError, match=r"(?i)region|AuthorizationHeaderMalformed|SignatureDoesNotMatch"
    ):
        velero.locations.create(name, location_spec(prefix=name, config=config), timeout_seconds=30)
    velero.locations.delete(name)


def test_a_backup_of_a_future_format_is_not_adopted(velero, shop, api, s3):
    backup = velero.back_up(unique("future"), BackupOptions(included_namespaces=(shop,)))
    store = s3.store("backups", "main")
    key = f"backups/{backup.name}/velero-backup.json"
    with store.get(key) as reader:
        document = orjson.loads(reader.read())
    document["status"]["formatVersion"] = "2.0.0"
    store.delete(key)
    with store.put(key) as writer:
        writer.write(orjson.dumps(document))
    velero.objects.delete(backup)  # as in a new cluster
    with pytest.raises(VeleroError, match=r"format 2\.0\.0") as caught:
        velero.adopt(backup.name, store=store)
    assert "newer Velero" in (caught.value.hint or "")
