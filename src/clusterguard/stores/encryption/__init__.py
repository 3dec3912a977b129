"""Objects that are compressed and encrypted on their way into a store, and opened on their way out.

What lies in the store is what ``zstd | age`` would have written, so the stock programs open it without us.
"""

from __future__ import annotations

from clusterguard.stores.encryption.age import new_key_pair
from clusterguard.stores.encryption.encryption import SUFFIXES, Encryption
from clusterguard.stores.encryption.store import EncryptedStore, StoredObject

__all__ = ["SUFFIXES", "EncryptedStore", "Encryption", "StoredObject", "new_key_pair"]
