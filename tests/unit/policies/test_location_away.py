"""A location that is away is away for every verb, is named once, and keeps nothing from happening in the others."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from datetime import timedelta

import pytest
from policy_worlds import NOW, Saving, add_backup, locations_of, policy, session_of

from clusterguard.errors import ConfigError, StoreError, StoreUnavailableError
from clusterguard.policies.policy import Metrics, RetentionPolicy, Verification
from clusterguard.policies.runs import backup, run
from clusterguard.policies.runs.backup import back_up
from clusterguard.policies.runs.reencrypt import reencrypt_all
from clusterguard.policies.runs.replicate_missing import replicate_missing
from clusterguard.policies.runs.retain import retain
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.policies.runs.verify import verify_due
from clusterguard.policies.watching import metrics
from clusterguard.stores import MemoryStore
from clusterguard.stores.encryption import Encryption

DAY = timedelta(days=1)
AWAY = [StoreUnavailableError("503", hint="wait"), ConfigError("the token file is not there")]


class Leaving(MemoryStore):
    """Goes away at a moment, for every verb, and counts how often it is asked after that."""

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.at = lambda verb, key: False
        self.away = False
        self.asked = 0

    def look(self, verb, key):
        self.away = self.away or self.at(verb, key)
        if self.away:
            self.asked += 1
            raise self.error

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        self.look("put", key)
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            yield writer
            self.look("put", key)

    def get(self, key):
        self.look("get", key)
        return super().get(key)

    def stat(self, key):
        self.look("stat", key)
        return super().stat(key)

    def list(self, prefix=""):
        self.look("list", prefix)
        return super().list(prefix)

    def delete(self, key):
        self.look("delete", key)
        super().delete(key)


@pytest.fixture(params=AWAY, ids=lambda error: type(error).__name__)
def there(request):
    return Leaving(request.param)


@pytest.fixture
def locations(there):
    return locations_of(wanted(), {"there": there})


def wanted(**options):
    settings = {"retention": RetentionPolicy(last=2), "verification": Verification(every=7 * DAY, per_run=5)}
    return policy("here", "there", **{**settings, **options})


def fill(locations, *ages):
    for location in locations:
        for age in ages:
            add_backup(location, f"etcd-{age:03d}", age=age * DAY)


def told(session, location="there"):
    """What is said of a location that is not well."""
    return [(step.verb, step.outcome) for step in session.steps if step.location == location and step.outcome != "ok"]


@pytest.fixture
def etcd(monkeypatch):
    monkeypatch.setattr(backup, "EtcdSnapshotter", Saving)
    monkeypatch.setattr(backup, "connect_etcd", lambda *_, **__: nullcontext())
    monkeypatch.setattr(backup, "can_decrypt", lambda *_: False)


MOMENTS = {
    "at the first question": lambda verb, key: verb == "list" and key.startswith("etcd/"),
    "when the bytes are sent": lambda verb, key: verb == "put" and ".db" in key,
    "when the record is sent": lambda verb, key: verb == "put" and key.endswith(".json"),
    "when it is read back": lambda verb, key: verb == "get" and ".db" in key,
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_location_that_goes_away_during_a_backup_is_named_once_and_the_others_have_it(locations, there, etcd, moment):
    session = session_of(wanted(copies=1), locations)
    there.at = moment
    back_up(session.policy.sources[0], session)
    replicate_missing(session)
    verify_due(session)
    retain(session)
    [step] = [step for step in session.steps if step.verb == "backup"]
    assert step.outcome == "warning"
    assert [entry.sound for entry in session.catalogs["here"].entries.values()] == [True]
    away = [step for step in session.steps if step.verb == "copy"]
    assert [(step.location, step.outcome, step.code) for step in away] == [("there", "warning", there.error.code)]
    assert [location.name for location in session.locations] == ["here"]
    assert not [step for step in session.steps if step.outcome == "failed"]


def test_too_few_copies_are_for_the_policy_to_judge(locations, there, etcd):
    session = session_of(wanted(copies=2), locations)
    there.at = MOMENTS["when the bytes are sent"]
    back_up(session.policy.sources[0], session)
    assert [step.outcome for step in session.steps if step.verb == "backup"] == ["failed"]
    assert [entry.sound for entry in session.catalogs["here"].entries.values()] == [True], "what there is is kept"


def test_a_location_that_goes_away_while_copies_are_read_again_is_not_asked_for_each(locations, there):
    fill(locations, 1, 2, 3, 4, 5)
    session = session_of(wanted(), locations)
    there.at = lambda verb, _: verb == "get"
    verify_due(session)
    assert told(session) == [("verify", "warning"), ("copy", "warning")]
    assert all(entry.sound for entry in session.catalogs["here"].entries.values())
    assert not any(entry.problem for entry in session.catalogs["there"].entries.values())


def test_one_copy_that_cannot_be_read_does_not_keep_the_location_from_being_looked_at(locations, there):
    fill(locations, 1, 2, 3)
    session = session_of(wanted(), locations)
    real = there.get

    def get(key):
        if key == "etcd/etcd-002.db.zst.age":
            raise there.error
        return real(key)

    there.get = get
    verify_due(session)
    assert told(session) == [("verify", "warning")]
    assert [entry.sound for entry in session.catalogs["there"].of_source("etcd")] == [True, False, True]


def test_a_location_that_goes_away_while_it_catches_up_is_tried_once(locations, there):
    fill(locations[:1], 1, 2)
    session = session_of(wanted(), locations)
    there.at = lambda verb, _: verb == "put"
    replicate_missing(session)
    assert told(session) == [("copy", "warning"), ("copy", "warning")]
    assert [location.name for location in session.locations] == ["here"]


def test_a_location_that_goes_away_during_retention_keeps_its_copies_and_fails_nothing(locations, there):
    fill(locations, 1, 2, 3, 4, 5)
    session = session_of(wanted(), locations)
    there.at = lambda verb, _: verb == "delete"
    retain(session)
    assert told(session) == [("copy", "warning"), ("delete", "warning")]
    assert len(session.catalogs["here"].entries) == 2
    assert len(session.catalogs["there"].entries) == 5


def test_a_location_that_takes_nothing_is_still_verified_and_what_is_too_old_goes(locations, there, etcd):
    """A disk that is full would never have room again otherwise."""
    fill(locations, 1, 2, 3)
    session = session_of(wanted(copies=1), locations)
    real = there.put

    @contextmanager
    def full(key, **options):
        if ".db" in key:
            raise StoreError("no space left")
        with real(key, **options) as writer:
            yield writer

    there.put = full
    back_up(session.policy.sources[0], session)
    replicate_missing(session)
    verify_due(session)
    retain(session)
    assert told(session) == [("copy", "warning")]
    assert [entry.name for entry in session.catalogs["there"].of_source("etcd")] == ["etcd-001", "etcd-002"]
    assert all(entry.sound for entry in session.catalogs["there"].entries.values())


def test_a_location_that_goes_away_while_it_is_re_encrypted_is_tried_once(locations, there):
    fill(locations, 1, 2, 3)
    session = session_of(wanted(), locations)
    there.at = lambda verb, _: verb == "get"
    reencrypt_all(session, old=Encryption())
    assert told(session) == [("reencrypt", "failed"), ("copy", "warning")]


def test_a_location_that_goes_away_at_the_end_is_named_once_and_counts_as_down(there, monkeypatch, tmp_path):
    """What is shown after the run must not be what was known before the location went away."""
    shown = []
    monkeypatch.setattr(metrics, "publish", lambda _, status: shown.append(status) or ())
    policy_of_two = wanted(metrics=Metrics(textfile=str(tmp_path / "cg.prom")))
    locations = locations_of(policy_of_two, {"there": there})
    fill(locations, 1)
    monkeypatch.setattr(run, "open_locations", lambda _: locations)
    there.at = lambda verb, key: verb == "put" and "/audit/" in key
    report = PolicyRunner(policy=policy_of_two, environ={}, now=lambda: NOW).run(["verify"])
    assert [
        (step.verb, step.outcome) for step in report.steps if step.location == "there" and step.outcome != "ok"
    ] == [
        ("audit", "warning"),
        ("copy", "warning"),
    ]
    assert [(each.name, each.reachable) for each in shown[0].locations] == [("here", True), ("there", False)]


def test_no_location_that_takes_a_copy_is_a_failure(locations, there, etcd):
    session = session_of(wanted(copies=1), locations)
    session.leave_out("here", StoreUnavailableError("down"))
    there.at = MOMENTS["at the first question"]
    for _ in range(2):
        back_up(session.policy.sources[0], session)
    assert [step.outcome for step in session.steps if step.verb == "backup"] == ["failed", "failed"]
