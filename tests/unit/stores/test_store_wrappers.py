"""Stores around other stores: encrypted ones, copies in several, parts of one."""

from __future__ import annotations

import pytest
from pyrage import x25519

from clusterguard.stores import LocalStore, MemoryStore, PrefixedStore, ReplicatedStore
from clusterguard.stores.encryption import EncryptedStore, Encryption
from clusterguard.testing import ObjectStoreContract


class TestEncrypted(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, tmp_path):
        identity = x25519.Identity.generate()
        encryption = Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),))
        return EncryptedStore(LocalStore(tmp_path), encryption)


class TestReplicated(ObjectStoreContract):
    has_versions = False

    @pytest.fixture
    def store(self, tmp_path):
        return ReplicatedStore({"near": LocalStore(tmp_path), "far": MemoryStore()}, minimum=2)


class TestPrefixed(ObjectStoreContract):
    @pytest.fixture
    def store(self):
        inner = MemoryStore()
        with inner.put("nightlyx") as writer:
            writer.write(b"a neighbour's")
        return PrefixedStore(inner, "nightly")
