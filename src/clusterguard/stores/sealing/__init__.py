"""Objects that are compressed and encrypted on their way into a store, and opened on their way out.

What lies in the store is what ``zstd | age`` would have written, so the stock programs open it without us.
"""

from __future__ import annotations

from clusterguard.stores.sealing.encryption import new_key_pair
from clusterguard.stores.sealing.seal import SUFFIXES, Seal
from clusterguard.stores.sealing.store import SealedObject, SealedStore

__all__ = ["SUFFIXES", "Seal", "SealedObject", "SealedStore", "new_key_pair"]
