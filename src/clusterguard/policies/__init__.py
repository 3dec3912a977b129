"""Backup policies: what runs every night, and what is known of it in the morning.

A run in a program::

    policy = load_policy(Path("policy.yaml"), environ=os.environ)
    report = PolicyRunner(policy=policy, environ=os.environ).run()
    assert report.outcome == "ok"

Names here are loaded when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterguard.policies.copies.places import Place, open_places, read_catalogs
    from clusterguard.policies.files.load import load_policy
    from clusterguard.policies.runs.run import PolicyRunner
    from clusterguard.policies.watching.audit import AuditTrail
    from clusterguard.policies.watching.status import policy_status

__all__ = [
    "AuditTrail",
    "Place",
    "PolicyRunner",
    "load_policy",
    "open_places",
    "policy_status",
    "read_catalogs",
]

_HOMES = {
    "AuditTrail": "watching.audit",
    "Place": "copies.places",
    "PolicyRunner": "runs.run",
    "load_policy": "files.load",
    "open_places": "copies.places",
    "policy_status": "watching.status",
    "read_catalogs": "copies.places",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    # Loaded when they are asked for: a drill of a stored backup needs no metrics, and an import no drills.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
