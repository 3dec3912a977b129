"""deploy/kustomize is what clusterguard prints, and the overlay changes what it says it changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from clusterguard.policies.deploy.kubernetes import CronJobOptions, cronjob_manifests
from clusterguard.policies.files.load import load_policy
from clusterguard.process import run

KUSTOMIZE = Path(__file__).parents[3] / "deploy" / "kustomize"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="NOT RUN: there is no kubectl on PATH")


def built(folder):
    printed = run(["kubectl", "kustomize", str(KUSTOMIZE / folder)], timeout_seconds=60).stdout
    return by_name(yaml.safe_load_all(printed))


def by_name(objects):
    return {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]): each for each in objects}


def printed_for(folder):
    policy = load_policy(KUSTOMIZE / folder / "policy.yaml", environ={})
    return by_name(cronjob_manifests(policy, options=CronJobOptions()))


def test_the_base_is_what_the_policy_makes():
    assert built("base") == printed_for("base")


def test_the_overlay_is_what_its_policy_makes_but_for_the_image():
    expected = printed_for("example")
    for (kind, _, _), each in expected.items():
        if kind == "CronJob":
            (container,) = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
            container["image"] = "registry.example.com/clusterguard:0.1.0"

    assert built("example") == expected


def test_everything_is_in_one_namespace_of_its_own():
    assert {key[1] for key in built("base")} == {None, "clusterguard"}
    assert [key for key in built("base") if key[1] is None] == [("Namespace", None, "clusterguard")]
