from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError, SnapshotCorruptError
from clusterguard.model.snapshot import CheckOutcome, Remark, Snapshot, VerifyReport

VALUES = {
    "name": "before-upgrade",
    "key": "etcd/before-upgrade.db",
    "taken": datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
    "revision": 1234,
    "total_keys": 567,
    "size": 1_048_608,
    "etcd_version": "3.6.5",
    "storage_version": "3.6.0",
    "cluster_id": "cdf818194e3a8c32",
    "member_id": "8e9e05c52164694d",
    "member_name": "default",
    "sha256": "ab" * 32,
    "hash_kv": 4_294_967_295,
    "hash_revision": 1234,
    "compact_revision": -1,
    "endpoint": "https://127.0.0.1:2379",
}
SNAPSHOT = Snapshot(**VALUES)


def test_a_record_survives_its_json() -> None:
    assert Snapshot.from_json(SNAPSHOT.to_json()) == SNAPSHOT
    assert Snapshot.from_json(SNAPSHOT.to_json().encode()) == SNAPSHOT


@given(
    name=st.text(),
    revision=st.integers(0, 2**63 - 1),
    taken=st.datetimes(timezones=st.just(UTC)),
    version=st.none() | st.text(),
)
def test_any_record_survives_its_json(name: str, revision: int, taken: datetime, version: str | None) -> None:
    snapshot = Snapshot(**{**VALUES, "name": name, "revision": revision, "taken": taken, "storage_version": version})
    assert Snapshot.from_json(snapshot.to_json()) == snapshot


def test_fields_of_a_later_release_are_kept() -> None:
    document = json.loads(SNAPSHOT.to_json()) | {"encryption": {"key": "k1"}}
    snapshot = Snapshot.from_json(json.dumps(document))
    assert snapshot.extra == {"encryption": {"key": "k1"}}
    assert json.loads(snapshot.to_json()) == document


def test_remarks_survive_and_a_record_from_before_them_has_none() -> None:
    remarks = (Remark(code="learner", detail="it lags"), Remark(code="authentication-on", detail="it is on"))
    snapshot = Snapshot(**VALUES, remarks=remarks)
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert [remark.warning for remark in remarks] == [True, False]
    document = json.loads(SNAPSHOT.to_json())
    del document["remarks"]
    assert Snapshot.from_json(json.dumps(document)).remarks == ()


@pytest.mark.parametrize("found", [7, None, ["learner"], [{"code": "learner"}]])
def test_remarks_that_are_none_are_refused(found: object) -> None:
    document = json.loads(SNAPSHOT.to_json()) | {"remarks": found}
    with pytest.raises(SnapshotCorruptError, match="cannot be read: remarks"):
        Snapshot.from_json(json.dumps(document))


def test_a_time_in_another_zone_is_read_as_utc() -> None:
    document = json.loads(SNAPSHOT.to_json()) | {"taken": "2026-05-04T05:02:01+02:00"}
    assert Snapshot.from_json(json.dumps(document)).taken == SNAPSHOT.taken


WRONG = [(name, 1.5) for name in VALUES] + [
    ("name", None),
    ("revision", "12"),
    ("revision", True),
    ("revision", -1),
    ("compact_revision", -2),
    ("storage_version", 3),
    ("taken", "yesterday"),
    ("taken", "2026-05-04T05:02:01"),
    ("endpoint", "https://root:secret@127.0.0.1:2379"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_field_is_named(name: str, value: object) -> None:
    document = json.loads(SNAPSHOT.to_json()) | {name: value}
    with pytest.raises(SnapshotCorruptError, match=f"cannot be read: {name}") as caught:
        Snapshot.from_json(json.dumps(document))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", VALUES)
def test_a_missing_field_is_named(name: str) -> None:
    document = json.loads(SNAPSHOT.to_json())
    del document[name]
    with pytest.raises(SnapshotCorruptError) as caught:
        Snapshot.from_json(json.dumps(document))
    assert caught.value.fields == {"defect": "record", "field": name}


def test_the_record_of_a_later_release_is_no_damaged_one() -> None:
    document = json.loads(SNAPSHOT.to_json()) | {"format": 2}
    with pytest.raises(ConfigError) as caught:
        Snapshot.from_json(json.dumps(document))
    assert (caught.value.code, caught.value.fields) == ("record-format", {"format": 2})


@pytest.mark.parametrize("found", [0, None, "1", True])
def test_another_format_is_refused(found: object) -> None:
    document = json.loads(SNAPSHOT.to_json()) | {"format": found}
    with pytest.raises(SnapshotCorruptError) as caught:
        Snapshot.from_json(json.dumps(document))
    assert caught.value.fields == {"defect": "record", "format": found}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe\xff"])
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(SnapshotCorruptError) as caught:
        Snapshot.from_json(text)
    assert caught.value.fields == {"defect": "record"}


def test_credentials_and_local_times_are_not_recorded() -> None:
    for endpoint in ("https://root:secret@127.0.0.1:2379", "root:secret@127.0.0.1:2379"):
        with pytest.raises(ConfigError) as caught:
            Snapshot(**{**VALUES, "endpoint": endpoint})
        assert caught.value.code == "credentials-in-endpoint"
        assert "secret" not in str(caught.value)
    for zone in (None, timezone(timedelta(hours=2))):
        with pytest.raises(ConfigError, match=r"taken: .* is not in UTC"):
            Snapshot(**{**VALUES, "taken": datetime(2026, 5, 4, tzinfo=zone)})


OK = CheckOutcome(name="sha256 trailer", ok=True, detail="abab")
BAD = CheckOutcome(name="structure", ok=False, detail="page 7: says it is page 9")
UNASKED = CheckOutcome(name="HashKV", ok=None, detail="the member does not answer")


@pytest.mark.parametrize(
    ("checks", "ok", "verdict"),
    [
        ([OK], True, "intact"),
        ([OK, UNASKED], True, "intact"),
        ([OK, BAD], False, "NOT INTACT"),
        ([BAD, UNASKED], False, "NOT INTACT"),
        ([UNASKED], False, "NOT PROVEN"),
        ([], False, "NOT PROVEN"),
    ],
)
def test_a_report_is_ok_when_something_was_asked_and_nothing_failed(
    checks: list[CheckOutcome], ok: bool, verdict: str
) -> None:
    report = VerifyReport(snapshot=SNAPSHOT, checks=checks)
    assert report.ok is ok
    assert report.to_text().splitlines()[0] == f"before-upgrade: {verdict} (revision 1234)"
    if ok:
        report.raise_for_findings()
    else:
        with pytest.raises(SnapshotCorruptError) as caught:
            report.raise_for_findings()
        assert str(caught.value) == report.to_text()


def test_a_report_tells_each_check_and_what_was_not_asked() -> None:
    report = VerifyReport(snapshot=SNAPSHOT, checks=[OK, BAD, UNASKED])
    assert report.to_text().splitlines()[1:] == [
        "  sha256 trailer  ok         abab",
        "  structure       FAILED     page 7: says it is page 9",
        "  HashKV          not asked  the member does not answer",
    ]
    assert report.unasked == (UNASKED,)
