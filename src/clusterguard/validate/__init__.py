"""Restores, judged: an inventory before, a comparison after, and readiness that is not stale."""

from clusterguard.validate.files import load_inventory, save_inventory
from clusterguard.validate.readiness import ReadyEvidence, Selection, wait_ready
from clusterguard.validate.rules import PROFILES, Profile, VolatileRule
from clusterguard.validate.system import SYSTEM_KINDS, SYSTEM_RULES
from clusterguard.validate.validator import RestoreValidator, Tolerance

__all__ = [
    "PROFILES",
    "SYSTEM_KINDS",
    "SYSTEM_RULES",
    "Profile",
    "ReadyEvidence",
    "RestoreValidator",
    "Selection",
    "Tolerance",
    "VolatileRule",
    "load_inventory",
    "save_inventory",
    "wait_ready",
]
