"""What a policy comes to, and what is risky about it."""

# ruff: noqa: E501 - a table of cases, each on a line of its own

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from clusterguard.policies.files.planning import plan_policy
from clusterguard.policies.files.risks import risks
from clusterguard.policies.policy import (
    Encryption,
    Location,
    Proof,
    RehearsalOptions,
    RetentionPolicy,
    Schedule,
    Verification,
)

NOW = datetime(2026, 3, 27, 12, tzinfo=UTC)


@pytest.fixture
def policy(load, minimal):
    """A policy without any risk."""
    proofs = tuple(
        Proof(name=name, drill=f"/{name}.drill.yaml", source=name, every=timedelta(days=7)) for name in ("etcd", "shop")
    )
    verification = Verification(every=timedelta(days=7), per_run=20)
    return load(
        minimal.replace(
            "includedNamespaces: [shop]", "includedNamespaces: [shop], clusterScoped: true, volumes: snapshots"
        )
    ).model_copy(update={"proofs": proofs, "verification": verification})


def told(policy, **changes):
    return [f"{risk.about}: {risk.message}" for risk in risks(policy.model_copy(update=changes), now=NOW)]


def test_a_good_policy_has_no_risks(policy):
    assert told(policy) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cluster_scoped": False}, ["sources[1].velero.clusterScoped"]),
        ({"cluster_scoped": None}, ["sources[1].velero.includedNamespaces"]),
        ({"cluster_scoped": None, "included_namespaces": (), "excluded_namespaces": ("bank",)}, []),
        ({"selector": "app=web"}, ["sources[1].velero.selector"]),
        ({"volumes": "none"}, ["sources[1].velero.volumes"]),
    ],
)  # fmt: skip
def test_what_a_filter_of_velero_leaves_out_is_told(policy, changes, expected):
    etcd, shop = policy.sources
    velero = shop.velero.model_copy(update=changes)
    found = risks(policy.model_copy(update={"sources": (etcd, shop.model_copy(update={"velero": velero}))}), now=NOW)
    assert [risk.about for risk in found] == expected
    assert all(risk.hint for risk in found)


REGRETTED = [
    ({"schedule": None}, "schedule: overdue backups cannot be detected"),
    ({"schedule": Schedule(cron="*/5 * * * *")}, "schedule.cron: runs are due 5m apart"),
    ({"schedule": Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")}, "schedule.cron: 2026-03-29 02:30 is skipped"),
    ({"schedule": Schedule(cron="0 4 1 * MON")}, "schedule.cron: with a day of the month and a day of the week"),
    ({"locations": (Location(name="a", url="s3://bucket-b/c"),)}, "locations: there is one location"),
    ({"locations": (Location(name="a", url="/a"), Location(name="b", url="/b"))}, "locations: all copies lie on this machine"),
    ({"locations": (Location(name="a", url="s3://bucket-x/a"), Location(name="b", url="s3://bucket-x/b"))}, "locations: 2 locations are in s3://bucket-x"),
    ({"retention": RetentionPolicy()}, "retention: nothing is ever removed"),
    ({"retention": RetentionPolicy(maximum_age=timedelta(days=3))}, "retention.maximumAge: backups go after 3d, before"),
    ({"retention": RetentionPolicy(maximum_age=timedelta(hours=20))}, "retention.maximumAge: backups go after 20h, and up to 24h"),
    ({"encryption": None}, "encryption: backups are not encrypted: an etcd snapshot holds every Secret"),
    ({"encryption": Encryption(passphrase_env="P")}, "encryption: whoever writes backups with this passphrase"),
    ({"encryption": Encryption(recipients=("age1" + 8 * "x",), identity_env="I")}, "encryption: the private key is where"),
    ({"verification": Verification(per_run=1)}, "verification.perRun: about 28 copies are kept in each location, and runs read 7"),
    ({"proofs": ()}, "proofs: nothing ever restores a backup of `etcd`"),
    ({"notifications": ()}, "notifications: no one is notified"),
    ({"heartbeat": None}, "heartbeat: a run that never starts goes unnoticed"),
]  # fmt: skip


def test_what_may_be_regretted_is_told(policy):
    told_of = [(expected, told(policy, **changes)) for changes, expected in REGRETTED]

    assert not [each for each in told_of if not any(risk.startswith(each[0]) for risk in each[1])]


def test_every_risk_says_what_to_do(policy):
    changed = policy.model_copy(
        update={"encryption": None, "proofs": (), "heartbeat": None, "schedule": None, "retention": RetentionPolicy()}
    )

    assert all(risk.hint for risk in risks(changed, now=NOW))


def test_the_plan_tells_the_next_five_runs_by_both_clocks(policy):
    due = plan_policy(policy, now=NOW).due

    assert [f"{each.local:%d %H:%M%z} {each.utc:%H:%M}" for each in due] == [
        "28 03:30+0100 02:30",
        "29 03:30+0200 01:30",  # the first one in summer
        "30 03:30+0200 01:30",
        "31 03:30+0200 01:30",
        "01 03:30+0200 01:30",
    ]


def test_the_plan_tells_every_step_in_its_order(policy, tmp_path):
    steps = plan_policy(policy, now=NOW).steps

    assert [step.part for step in steps] == [
        "backup", "backup", "backup", "backup", "verify", "retain", "prove", "prove", "", "", "",
    ]  # fmt: skip
    assert steps[0].text == (
        f"etcd: snapshot of the etcd of https://127.0.0.1:2379, zstd level 3, encrypted for those of {tmp_path}/readers.txt"
    )
    assert steps[0].where == ("near", "far")
    assert steps[1].text.startswith("shop: Velero backup of shop of context:production")
    assert steps[2].text == "read the new copies back; all must be whole"
    assert steps[5].text == "keep daily 14"


def test_a_rehearsal_is_planned_as_one(policy):
    proofs = (Proof(name="weekly", rehearse=RehearsalOptions(), source="etcd", every=timedelta(days=7)),)
    steps = plan_policy(policy.model_copy(update={"proofs": proofs}), now=NOW).steps
    (text,) = (step.text for step in steps if step.part == "prove")
    assert text == "weekly: rehearse the restore of etcd, unless proven within 7d"


def test_fewer_copies_than_locations_are_told(policy):
    steps = plan_policy(policy.model_copy(update={"copies": 1}), now=NOW).steps

    assert steps[2].text == "read the new copies back; 1 of 2 must be whole"


def test_the_plan_is_the_same_in_json(policy):
    plan = plan_policy(policy, now=NOW)

    document = json.loads(json.dumps(plan.to_dict()))

    assert document["due"][0] == {"utc": "2026-03-28T02:30:00Z", "local": "2026-03-28T03:30:00+01:00"}
    assert [step["text"] for step in document["steps"]] == [step.text for step in plan.steps]
    assert all(step.text in plan.to_text() for step in plan.steps)


def test_a_policy_without_a_schedule_has_a_plan(policy):
    assert "due: whenever it is started" in plan_policy(policy.model_copy(update={"schedule": None}), now=NOW).to_text()
