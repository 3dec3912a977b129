"""Which backup is meant, and whether it can be restored: what is known decides, and the newest is the newest."""

from datetime import UTC, datetime, timedelta

import pytest

from clusterguard.errors import BackupFailedError, ObjectNotFoundError, VeleroError
from clusterguard.velero.existing_backups import choose_backup, require_restorable
from clusterguard.velero.phases import BackupPhase
from clusterguard.velero.resources import Backup

NOW = datetime(2026, 1, 10, tzinfo=UTC)
TOMORROW = NOW + timedelta(days=1)
ENDED = {"Completed", "PartiallyFailed", "Failed", "FailedValidation", "Deleting"}


def backup(name, *, day=1, schedule="", phase="Completed", expires=TOMORROW, deleted=False, started=True):
    metadata = {
        "name": name,
        "labels": {"velero.io/schedule-name": schedule} if schedule else {},
        "creationTimestamp": f"2026-01-{day:02}T02:00:00Z",
        **({"deletionTimestamp": "2026-01-09T00:00:00Z"} if deleted else {}),
    }
    status = {
        "phase": phase,
        "expiration": expires.isoformat(),
        **({"startTimestamp": f"2026-01-{day:02}T03:00:00Z"} if started else {}),
    }
    return Backup.model_validate({"kind": "Backup", "metadata": metadata, "status": status})


def chosen(*backups, **wanted):
    return choose_backup(backups, where="the bucket", **wanted).name


def test_the_newest_is_the_one_that_began_last_whatever_its_name():
    assert chosen(backup("z", day=1), backup("a", day=3), backup("b", day=2)) == "a"


def test_only_those_of_the_schedule_count():
    known = (backup("nightly-1", schedule="nightly"), backup("other", day=2), backup("w", day=3, schedule="weekly"))
    assert chosen(*known, schedule="nightly") == "nightly-1"


@pytest.mark.parametrize("phase", ["PartiallyFailed", "Failed", "Deleting", "SomethingNew"])
def test_a_bad_one_is_not_passed_over_for_an_older_one(phase):
    assert chosen(backup("good"), backup("bad", day=2, phase=phase)) == "bad"


def test_one_that_never_began_is_as_old_as_its_object():
    refused = backup("refused", day=2, phase="FailedValidation", started=False)
    assert chosen(backup("good", day=1), refused) == "refused"
    assert chosen(backup("good", day=3), refused) == "good"


@pytest.mark.parametrize("phase", ["New", "Queued", "InProgress", "WaitingForPluginOperations", "Finalizing"])
def test_one_under_way_is_passed_over_unless_there_is_no_other(phase):
    made = backup("made", day=2, phase=phase)
    assert chosen(backup("good"), made) == "good"
    assert chosen(made) == "made"
    assert chosen(backup("good"), made, name="made") == "made"


@pytest.mark.parametrize(
    ("known", "wanted", "code", "hint"),
    [
        ((), {}, "no-backups", "bucket"),
        ((), {"schedule": "nightly"}, "schedule-without-backups", "no backup at all"),
        ((backup("w", schedule="weekly"),), {"schedule": "nightly"}, "schedule-without-backups", "weekly"),
        ((backup("one"), backup("two", day=2)), {"name": "three"}, "no-such-backup", "two, one"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(known, wanted, code, hint):
    with pytest.raises(ObjectNotFoundError) as caught:
        chosen(*known, **wanted)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_a_completed_one_can_be_restored():
    require_restorable(backup("good"), now=NOW)


@pytest.mark.parametrize(
    ("of", "code"),
    [
        ({"phase": "PartiallyFailed"}, "backup-partial"),
        ({"phase": "Failed"}, "backup-failed"),
        ({"phase": "FailedValidation"}, "backup-invalid"),
        ({"phase": "Deleting"}, "backup-deleting"),
        ({"deleted": True}, "backup-deleting"),
        ({"expires": NOW}, "backup-expired"),
    ],
)
def test_a_bad_one_has_a_code_for_what_is_wrong_with_it(of, code):
    with pytest.raises(BackupFailedError) as caught:
        require_restorable(backup("bad", **of), now=NOW)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize("phase", [*sorted(set(map(str, BackupPhase)) - ENDED), "SomethingNew"])
def test_one_that_has_not_ended_is_neither_good_nor_bad(phase):
    with pytest.raises(VeleroError) as caught:
        require_restorable(backup("made", phase=phase), now=NOW)
    assert (type(caught.value), caught.value.code) == (VeleroError, "backup-unfinished")
