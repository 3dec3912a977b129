"""What `clusterguard run` ends with: 1 is a no, 2 is that nobody could tell."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from clusterguard.policies.report import RunReport, StepReport
from clusterguard.policies.runs.run import PolicyRunner

NOW = datetime(2026, 6, 1, 2, 0, tzinfo=UTC)


def step(verb="backup", outcome="ok", code=""):
    return StepReport(verb=verb, outcome=outcome, at=NOW, code=code)


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(
        "apiVersion: clusterguard.dev/v1alpha1\nkind: BackupPolicy\nmetadata: {name: nightly}\n"
        "spec:\n  sources: [{name: etcd, etcd: {endpoints: ['http://127.0.0.1:2379']}}]\n"
        "  locations: [{name: disk, url: ./disk}]\n"
    )
    return str(file)


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([step()], 0),
        ([step(), step("verify", "warning", "copy-unread")], 0),
        ([step(), step("verify", "failed", "copy-damaged")], 1),
        ([step(), step("prove", "warning", "proof-undecided")], 2),
        ([step(), step("prove", "failed", "not-proven")], 1),
        ([step(outcome="failed", code="too-few-copies")], 1),
        ([step(outcome="failed", code="etcd-unavailable")], 2),
        ([step(outcome="failed", code="copy-unread")], 2),
        ([step("delete", "failed", "clock-untrusted")], 2),
        ([step(outcome="failed", code="backup-failed"), step("prove", "warning", "proof-undecided")], 1),
        ([step(outcome="failed", code="etcd-unavailable"), step("verify", "failed", "copy-damaged")], 1),
    ],
    ids=[
        *("well", "not read", "damaged", "undecided", "not proven", "too few", "no etcd", "too few or unread", "clock"),
        *("failed and undecided", "no etcd and damaged"),
    ],
)
def test_the_exit_code_tells_a_no_from_nobody_could_tell(cli, policy, monkeypatch, steps, code):
    report = RunReport(policy="nightly", run="r", started=NOW, finished=NOW, steps=tuple(steps))
    monkeypatch.setattr(PolicyRunner, "run", lambda *_: report)
    ended = cli("run", policy, "--json")
    assert ended.code == code, ended.err
    assert [each["code"] for each in json.loads(ended.out)["steps"]] == [each.code for each in steps]
