"""Drills: declarative rehearsals that back up, break, restore, and prove from evidence that what was lost is back."""

from clusterguard.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)
