"""Velero: back up, verify in the bucket, restore, and say honestly what came of it."""

from clusterguard.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)
