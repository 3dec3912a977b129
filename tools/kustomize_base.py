"""Write deploy/kustomize/base/resources.yaml anew from the policy beside it: ``python tools/kustomize_base.py``."""

from pathlib import Path

import yaml

from clusterguard.policies.deploy.kubernetes import CronJobOptions, cronjob_manifests
from clusterguard.policies.files.load import load_policy

BASE = Path(__file__).parents[1] / "deploy" / "kustomize" / "base"


def manifests() -> list[dict[str, object]]:
    """Return everything but the ConfigMap, which kustomize makes of the policy itself, so that overlays replace it."""
    policy = load_policy(BASE / "policy.yaml", environ={})
    return [each for each in cronjob_manifests(policy, options=CronJobOptions()) if each["kind"] != "ConfigMap"]


def text() -> str:
    """Return the file."""
    head = "# Generated from policy.yaml by tools/kustomize_base.py; change that, and run this.\n"
    return head + yaml.safe_dump_all(manifests(), sort_keys=False, allow_unicode=True)


if __name__ == "__main__":
    (BASE / "resources.yaml").write_text(text(), encoding="utf-8")
