from __future__ import annotations

from datetime import timedelta

import pytest

from clusterguard.policies.policy import (
    Encryption,
    Heartbeat,
    Location,
    Notification,
    Policy,
    Proof,
    Schedule,
)
from policies_for_pods import NODE_ETCD, SHOP


@pytest.fixture
def make_policy(tmp_path):
    """Make a policy whose file is there; the text in it is of no matter to what is tested."""

    def make_policy(*sources, **changes):
        file = tmp_path / "policy.yaml"
        file.write_text("kind: BackupPolicy\n")
        policy = Policy(
            name="production",
            path=str(file),
            sources=sources or (NODE_ETCD,),
            schedule=Schedule(cron="0 2 * * *", time_zone="Europe/Berlin", grace=timedelta(hours=2)),
            locations=(Location(name="north", url="s3://backups-north/etcd"),),
            copies=1,
        )
        return policy.model_copy(update=changes)

    return make_policy


@pytest.fixture
def full_policy(make_policy, tmp_path):
    """A policy with everything that pods must know of."""
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "etcd.drill.yaml").write_text("kind: Drill\n")
    (tmp_path / "recipients.txt").write_text("age1example\n")
    policy = make_policy(
        NODE_ETCD,
        SHOP,
        encryption=Encryption(recipients_file="recipients.txt", identity_file="/etc/clusterguard/secrets/identity"),
        proofs=(Proof(name="etcd", drill="drills/etcd.drill.yaml", source="etcd", every=timedelta(days=7)),),
        notifications=(Notification(name="on-call", url_env="ONCALL_URL"),),
        heartbeat=Heartbeat(url_file="/etc/clusterguard/secrets/heartbeat"),
    )
    (tmp_path / "policy.yaml").write_text(
        "kind: BackupPolicy\n"
        "spec:\n"
        "  notifications: [{name: on-call, urlEnv: ONCALL_URL, on: [failure]}]\n"
        "  encryption: {recipientsFile: recipients.txt, identityFile: /etc/clusterguard/secrets/identity}\n"
    )
    return policy
