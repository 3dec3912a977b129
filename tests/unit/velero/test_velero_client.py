"""The client's own decisions: what it asks before it asks the server, and how long it believes in a silent one."""

from datetime import UTC, datetime

import pytest

from clusterguard.errors import (
    ConfigError,
    ForbiddenError,
    LocationUnavailableError,
    ResourceNotFoundError,
    UnsupportedVersionError,
    VeleroError,
    VeleroUnavailableError,
    WaitTimeoutError,
)
from clusterguard.retrying import RetryPolicy
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.client import VeleroClient
from clusterguard.velero.locations import LocationSpec
from clusterguard.velero.objects import VeleroObjects
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.phases import BackupPhase
from clusterguard.velero.resources import (
    Backup,
    BackupStorageLocation,
    DeleteBackupRequest,
    Restore,
    Schedule,
    ServerStatusRequest,
)
from clusterguard.velero.waiting import Follower, far


class Objects:
    """A server's objects, and a clock that only waiting moves."""

    namespace = "velero"
    api = None
    version = "v1.18.3"

    def __init__(self, *there):
        self.there = list(there)
        self.created = []
        self.asked = []
        self.deleted = []
        self.script = []  # what the next waits see: a list of states each, or () for none
        self.time = 0.0
        self.server_lives = True
        self.patches = []

    def find(self, kind, name):
        return next((each for each in self.there if type(each) is kind and each.name == name), None)

    def get(self, kind, name):
        found = self.find(kind, name)
        if found is None:
            raise ResourceNotFoundError(f"no {kind.kind} {name!r}")
        return found

    def list(self, kind, labels=None):
        return [
            each
            for each in self.there
            if type(each) is kind and all(each.labels.get(key) == value for key, value in (labels or {}).items())
        ]

    def create(self, new, *, strict=False):
        metadata = {"name": f"{type(new).plural}-1", "uid": "1", **new.metadata}
        made = type(new).model_validate({**new.manifest, "metadata": metadata})
        (self.asked if isinstance(made, ServerStatusRequest) else self.created).append(made)
        return made

    def patch(self, kind, name, patch):
        self.patches.append(patch)
        return self.get(kind, name)

    def delete(self, old):
        self.deleted.append(old)

    ask = VeleroObjects.ask

    def wait(self, kind, name, *, until, what, timeout_seconds):
        if kind is ServerStatusRequest and self.server_lives:
            return ServerStatusRequest.model_validate({"status": {"phase": "Processed", "serverVersion": self.version}})
        for state in self.script.pop(0) if kind is not ServerStatusRequest and self.script else ():
            if until(state):
                return state
        self.time += timeout_seconds
        raise WaitTimeoutError(what, seconds=timeout_seconds, last_seen="-")


def location(**spec):
    return BackupStorageLocation.model_validate(
        {"metadata": {"name": "main"}, "spec": spec, "status": {"phase": "Available"}}
    )


def backup(phase="Completed", name="b", version="1", **metadata):
    return Backup.model_validate(
        {
            "metadata": {"name": name, "uid": "1", "resourceVersion": version, **metadata},
            "spec": {"storageLocation": "main"},
            "status": {"phase": phase, "progress": {"itemsBackedUp": 1, "totalItems": 9}},
        }
    )


def client(objects, **settings):
    made = VeleroClient(api=None, clock=lambda: objects.time, silence_seconds=10, request_seconds=5, **settings)
    made.objects = objects
    object.__setattr__(made.locations, "objects", objects)
    return made


# ---- locations -------------------------------------------------------------------------------------------


def looked_at(**metadata):
    return BackupStorageLocation.model_validate(
        {
            "metadata": {"name": "main", **metadata},
            "spec": {},
            "status": {"phase": "Available", "lastValidationTime": "2030-01-01T00:00:00Z"},
        }
    )


def test_the_spec_of_somebody_elses_location_is_never_edited():
    """A tool that deploys it would put it back or call it drift, and a kill would leave it changed."""
    objects = Objects(looked_at())
    objects.script = [[looked_at()]]
    assert client(objects).locations.validate(looked_at()).phase == "Available"
    assert objects.patches == [{"status": {"lastValidationTime": None}}]


def test_a_location_of_ours_is_looked_at_at_once_and_left_as_it_was():
    ours = looked_at(labels={"app.kubernetes.io/managed-by": "clusterguard"})
    objects = Objects(ours)
    objects.script = [[ours], [ours]]
    client(objects).locations.validate(ours)
    assert [patch["spec"]["validationFrequency"] for patch in objects.patches] == ["1m0s", None]


# ---- asking ----------------------------------------------------------------------------------------------


def test_a_backup_names_its_location_even_when_it_is_the_default_one():
    objects = Objects(location(default=True))
    client(objects).back_up("b", BackupOptions(included_namespaces=("shop",)), wait=False)
    assert objects.created[0].spec == {"includedNamespaces": ["shop"], "storageLocation": "main"}


@pytest.mark.parametrize("version", ["v1.13.2", "v1.19.0", "v2.0.0", "main"])
def test_nothing_is_created_by_a_server_of_an_unsupported_version(version):
    objects = Objects(location(default=True), backup())
    objects.version = version
    for ask in (client(objects).back_up, client(objects).restore):
        with pytest.raises(UnsupportedVersionError) as caught:
            ask("b", wait=False)
        assert caught.value.fields["version"] == version
    assert not objects.created


def test_a_server_is_asked_for_its_version_once():
    objects = Objects(location(default=True), backup())
    speaks = client(objects)
    speaks.back_up("b", wait=False)
    speaks.restore("b", wait=False)
    assert len(objects.asked) == 1


def test_a_backup_without_filters_means_everything():
    objects = Objects(location(default=True))
    client(objects).back_up("b", wait=False)
    assert objects.created[0].spec["includedNamespaces"] == ["*"]


@pytest.mark.parametrize(
    ("there", "error"),
    [
        ([], ResourceNotFoundError),
        ([location()], ResourceNotFoundError),  # it is not the default one
        ([location(default=True, accessMode="ReadOnly")], ConfigError),
    ],
)
def test_nothing_is_created_without_a_location_to_write_to(there, error):
    objects = Objects(*there)
    with pytest.raises(error):
        client(objects).back_up("b")
    assert not objects.created


def test_nothing_is_created_while_the_location_is_unavailable():
    down = BackupStorageLocation.model_validate(
        {"metadata": {"name": "main"}, "spec": {"default": True}, "status": {"phase": "Unavailable", "message": "no"}}
    )
    objects = Objects(down)
    status = {"phase": "Unavailable", "lastValidationTime": "2026-01-02T03:04:05Z", "message": "no"}
    looked = BackupStorageLocation.model_validate({"metadata": {"name": "main"}, "status": status})
    objects.script = [[looked], [looked]]  # Velero is made to look, and looks again when that is taken back
    with pytest.raises(LocationUnavailableError, match="main is Unavailable: no"):
        client(objects).back_up("b")
    assert not objects.created


def test_a_backup_takes_its_options_from_a_schedule_or_from_its_caller():
    schedule = Schedule.model_validate(
        {"metadata": {"name": "daily"}, "spec": {"template": {"includedNamespaces": ["shop"]}}}
    )
    objects = Objects(location(default=True), schedule)
    velero = client(objects)
    velero.back_up("b", from_schedule="daily", wait=False)
    assert objects.created[0].spec["includedNamespaces"] == ["shop"]
    assert objects.created[0].schedule == "daily"
    with pytest.raises(ConfigError, match="either, not both"):
        velero.back_up("b", BackupOptions(), from_schedule="daily")


@pytest.mark.parametrize("phase", ["Failed", "FailedValidation", "InProgress", "New", "Deleting", "Shining"])
def test_there_is_nothing_to_restore_from_such_a_backup(phase):
    objects = Objects(location(default=True), backup(phase))
    with pytest.raises(VeleroError, match="nothing to restore"):
        client(objects).restore("b")
    assert not objects.created


def test_a_restore_is_called_like_its_backup_and_the_time():
    objects = Objects(location(), backup())
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    client(objects, now=lambda: now).restore("b", RestoreOptions(namespace_mapping={"a": "b"}), wait=False)
    made = objects.created[0]
    assert made.name == "b-20260102030405"
    assert made.spec == {"includedNamespaces": ["*"], "backupName": "b", "namespaceMapping": {"a": "b"}}


def test_a_restore_from_a_schedule_takes_its_latest_completed_backup():
    def made(name, started, phase="Completed"):
        manifest = backup(phase, name, labels={"velero.io/schedule-name": "daily"}).manifest
        return Backup.model_validate({**manifest, "status": {**manifest["status"], "startTimestamp": started}})

    objects = Objects(
        location(),
        made("new", "2026-01-03T00:00:00Z"),
        made("old", "2026-01-02T00:00:00Z"),
        made("newer-but-partial", "2026-01-04T00:00:00Z", "PartiallyFailed"),
    )
    client(objects).restore(schedule="daily", wait=False)
    assert objects.created[0].backup_name == "new"


# ---- waiting ---------------------------------------------------------------------------------------------


def test_waiting_tells_progress_and_ends_it_once():
    objects, seen = Objects(), []
    objects.script = [[backup("InProgress", version="2")], [backup("Completed", version="3")]]
    done = client(objects, progress=seen.append).wait(backup("New"))
    assert done.phase == BackupPhase.COMPLETED
    assert [(moment.done, moment.total, moment.note) for moment in seen] == [
        (1, 9, "InProgress"),
        (1, 9, "Completed"),
    ]
    assert [moment.finished for moment in seen] == [False, True]


def test_a_backup_that_moves_is_waited_for_without_asking_the_server():
    objects = Objects()
    objects.script = [[backup("InProgress", version=str(step))] for step in range(2, 20)]
    objects.server_lives = False
    with pytest.raises(VeleroUnavailableError, match="does not move"):
        client(objects).wait(backup("New"))
    assert not objects.script  # every state was waited for
    assert len(objects.asked) == 1


def test_a_silent_backup_of_a_living_server_is_waited_for_until_the_limit():
    objects = Objects()
    with pytest.raises(WaitTimeoutError) as caught:
        client(objects).wait(backup("InProgress"), timeout_seconds=100)
    assert (caught.value.seconds, caught.value.last_seen) == (100, "InProgress, 1 of 9 objects")
    assert objects.time == pytest.approx(100)
    assert len(objects.asked) > 5  # and the server was asked each time


def test_a_silent_backup_of_a_dead_server_is_given_up_soon():
    objects, seen = Objects(), []
    objects.server_lives = False
    with pytest.raises(VeleroUnavailableError) as caught:
        client(objects, progress=seen.append).wait(backup("InProgress"), timeout_seconds=3600)
    assert caught.value.fields["last_seen"] == "InProgress, 1 of 9 objects"
    assert objects.time < 40
    assert seen[-1].finished


@pytest.mark.parametrize("seen", [None, backup("New", uid="2")])
def test_a_backup_that_was_deleted_is_not_waited_for(seen):
    objects = Objects()
    objects.script = [[seen]]
    with pytest.raises(VeleroError, match="was deleted"):
        client(objects).wait(backup("New"))


def test_how_far_a_backup_is_reads_well():
    queued = Backup.model_validate({"status": {"phase": "Queued", "queuePosition": 2}})
    assert far(queued) == "Queued, place 2"
    assert far(backup("InProgress")) == "InProgress, 1 of 9 objects"


def test_a_follower_knows_when_nothing_moves():
    follower = Follower(run=backup("New"), sink=lambda _: None)
    assert not follower.still()
    assert follower.still()
    follower.ended(backup("New", version="1"))
    assert follower.still()
    follower.ended(backup("New", version="2"))
    assert not follower.still()


# ---- deleting --------------------------------------------------------------------------------------------


def test_a_deletion_ends_when_its_request_is_gone_and_the_backup_with_it():
    objects = Objects(backup())
    objects.script = [[None]]
    velero = client(objects)
    objects.find = lambda kind, name: None  # both went before anybody looked
    velero.backup = lambda name: backup()
    velero.delete_backup("b")
    request = objects.created[0]
    assert request.spec == {"backupName": "b"}
    assert request.labels == {"velero.io/backup-name": "b", "velero.io/backup-uid": "1"}


def test_a_deletion_that_failed_tells_why():
    objects = Objects(backup())
    refused = DeleteBackupRequest.model_validate(
        {"metadata": {"name": "x"}, "status": {"phase": "Processed", "errors": ["locked"]}}
    )
    objects.script = [[refused]]
    with pytest.raises(VeleroError) as caught:
        client(objects).delete_backup("b")
    assert (caught.value.code, caught.value.fields) == ("backup-not-deleted", {"backup": "b", "reasons": ["locked"]})
    assert objects.deleted == [refused]


def test_a_deletion_that_comes_too_early_is_asked_for_again(monkeypatch):
    monkeypatch.setattr("clusterguard.velero.client._WHILE_BUSY", RetryPolicy(attempts=3, sleep=lambda _: None))
    busy = DeleteBackupRequest.model_validate(
        {"metadata": {"name": "x"}, "status": {"phase": "Processed", "errors": ["backup is still in progress"]}}
    )
    objects = Objects(backup())
    objects.script = [[busy], [None]]
    velero = client(objects)
    finds = iter([backup(), None])
    objects.find = lambda kind, name: next(finds)
    velero.backup = lambda name: backup()
    velero.delete_backup("b")
    assert (len(objects.created), objects.deleted) == (2, [busy])


def test_a_backup_that_outlives_its_request_was_not_deleted():
    objects = Objects(backup())
    objects.script = [[None]]
    with pytest.raises(VeleroError, match="no reason is given"):
        client(objects).delete_backup("b")


# ---- adopting --------------------------------------------------------------------------------------------


def test_another_backup_of_the_same_name_is_not_taken_for_the_one_in_the_bucket():
    there = backup()
    objects = Objects(location(default=True), there)
    store = MemoryStore()
    with store.put("backups/b/velero-backup.json") as writer:
        writer.write(
            b'{"kind": "Backup", "metadata": {"name": "b"},'
            b' "status": {"phase": "Completed", "startTimestamp": "2026-01-02T03:04:05Z"}}'
        )
    with pytest.raises(VeleroError, match="knows another backup b"):
        client(objects).adopt("b", store=store)


def test_owners_that_this_cluster_does_not_have_are_dropped():
    # With one of them the garbage collector would delete the Backup at once.
    schedule = Schedule.model_validate({"metadata": {"name": "daily", "uid": "here"}})
    objects = Objects(location(default=True), schedule)
    store = MemoryStore()
    with store.put("backups/b/velero-backup.json") as writer:
        writer.write(
            b'{"kind": "Backup", "metadata": {"name": "b", "ownerReferences": ['
            b'{"kind": "Schedule", "name": "daily", "uid": "elsewhere"},'
            b'{"kind": "Schedule", "name": "daily", "uid": "here"},'
            b'{"kind": "ConfigMap", "name": "daily", "uid": "here"}]},'
            b' "status": {"phase": "Completed"}}'
        )
    made = client(objects).adopt("b", store=store)
    assert [owner["uid"] for owner in made.metadata["ownerReferences"]] == ["here"]
    assert made.metadata["ownerReferences"][0]["kind"] == "Schedule"


def test_a_status_that_nobody_answers_is_told_and_tidied_up():
    objects = Objects()
    objects.server_lives = False
    with pytest.raises(VeleroUnavailableError, match="nothing within 5 s"):
        client(objects).status()
    assert objects.deleted == objects.asked


def test_restores_without_their_end_are_not_judged_by_files_that_do_not_exist():
    outcome = client(Objects()).outcome(
        Restore.model_validate({"metadata": {"name": "r"}, "status": {"phase": "InProgress"}})
    )
    assert [str(each.rule) for each in outcome.findings] == ["not-final"]


# ---- locations that were just made, and that go


def seen(phase, message="", **metadata):
    return BackupStorageLocation.model_validate(
        {
            "metadata": {"name": "new", "labels": {"app.kubernetes.io/managed-by": "clusterguard"}, **metadata},
            "spec": {"credential": {"name": "new-credentials", "key": "cloud"}},
            "status": {"phase": phase, "message": message, "lastValidationTime": "2030-01-01T00:00:00Z"},
        }
    )


TOO_EARLY = 'unable to get credentials: unable to get key for secret: Secret "new-credentials" not found'


@pytest.mark.parametrize(
    ("first", "looks"),
    [(seen("Unavailable", TOO_EARLY), 3), (seen(""), 3), (seen("New"), 3), (seen("Available"), 1)],
)
def test_a_location_that_was_looked_at_too_early_is_looked_at_once_more(first, looks):
    objects = Objects()
    objects.script = [[first], [seen("Available")], [seen("Available")]]
    objects.patch = lambda kind, name, patch: objects.patches.append(patch)
    made = client(objects).locations.create("new", LocationSpec(bucket="backups"))
    assert made.phase == "Available"
    assert len(objects.script) == 3 - looks


def test_a_location_that_cannot_be_used_is_not_looked_at_again_for_that():
    objects = Objects()
    objects.script = [[seen("Unavailable", "no such bucket")], [seen("Available")]]
    with pytest.raises(LocationUnavailableError):
        client(objects).locations.create("new", LocationSpec(bucket="backups"))
    assert len(objects.script) == 1


def test_a_secret_that_is_not_there_at_the_second_look_either_is_told():
    objects = Objects()
    objects.script = [[seen("Unavailable", TOO_EARLY)]] * 3
    objects.patch = lambda kind, name, patch: objects.patches.append(patch)
    with pytest.raises(LocationUnavailableError):
        client(objects).locations.create("new", LocationSpec(bucket="backups"))


def test_what_belongs_to_a_location_goes_whatever_becomes_of_the_rest():
    label = {"velero.io/storage-location": "main"}
    objects = Objects(location(), backup(name="one", labels=label), backup(name="two", labels=label))
    gone = []

    def delete(old):
        if old.name == "one":
            raise ForbiddenError("backups may not be deleted")
        gone.append(old.name)

    objects.delete = delete
    with pytest.raises(ForbiddenError):
        client(objects).locations.delete("main")
    assert gone == ["main", "two"]
