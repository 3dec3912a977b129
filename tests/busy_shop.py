"""A namespace that somebody uses, with claims, custom resources and secrets; see busy-shop.yaml."""

from __future__ import annotations

from pathlib import Path

import yaml

from clusterguard.drills.authoring.looking import look_at_namespace
from clusterguard.drills.steps.selection import named, wait_until_gone
from clusterguard.validate.readiness import Selection, wait_ready

_FOLDER = Path(__file__).parents[1] / "drills" / "manifests"
_FILES = [_FOLDER / name for name in ("custom-resources.yaml", "shop.yaml", "menus.yaml")]


def look_at_busy_shop(api):
    """Return what `drill init` sees of it; it is gone from the cluster afterwards, which the drill needs."""
    made = []
    for file in [*_FILES, Path(__file__).parent / "busy-shop.yaml"]:
        for item in yaml.safe_load_all(file.read_text()):
            api.await_kind(item)
            made.append(api.apply(item))
    wait_ready(api, Selection(kind="Deployment.apps", namespace="shop"), timeout_seconds=60)
    seen = look_at_namespace(api, "shop")
    doomed = [named(api, item) for item in made if "namespace" not in item["metadata"]]
    for resource, item in doomed:
        api.delete(resource, item["metadata"]["name"])
    wait_until_gone(api, doomed, seconds=180)
    return seen
