"""Stores around other stores: encrypted ones, copies in several, parts of one."""

from __future__ import annotations

import pytest

from clusterguard.stores import LocalStore, MemoryStore, PrefixedStore, ReplicatedStore
from clusterguard.stores.encryption import EncryptedStore, Encryption
from clusterguard.testing import ObjectStoreContract


@pytest.fixture(scope="session")
def keys():
    from pyrage import x25519

    identity = x25519.Identity.generate()
    return {"recipients": (str(identity.to_public()),), "identities": (str(identity),)}


class TestEncryptedMemory(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, keys):
        return EncryptedStore(MemoryStore(), Encryption(**keys))


class TestEncryptedLocal(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, keys, tmp_path):
        return EncryptedStore(LocalStore(tmp_path), Encryption(**keys, compression_level=None))


class TestCompressedMemory(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self):
        return EncryptedStore(MemoryStore(), Encryption())


class TestUnencrypted(ObjectStoreContract):
    @pytest.fixture
    def store(self):
        return EncryptedStore(MemoryStore(), Encryption(compression_level=None))


class TestReplicatedMemory(ObjectStoreContract):
    has_versions = False

    @pytest.fixture
    def store(self):
        return ReplicatedStore({"near": MemoryStore(), "far": MemoryStore()}, minimum=2)


class TestReplicatedLocal(ObjectStoreContract):
    has_versions = False

    @pytest.fixture
    def store(self, tmp_path):
        return ReplicatedStore({"near": LocalStore(tmp_path / "a"), "far": LocalStore(tmp_path / "b")})


class TestEncryptedReplicated(ObjectStoreContract):
    exact_sizes = False
    has_versions = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, keys, tmp_path):
        copies = ReplicatedStore({"near": LocalStore(tmp_path / "a"), "far": MemoryStore()})
        return EncryptedStore(copies, Encryption(**keys))


class TestPrefixedMemory(ObjectStoreContract):
    @pytest.fixture
    def store(self):
        inner = MemoryStore()
        with inner.put("nightlyx") as writer:
            writer.write(b"a neighbour's")
        return PrefixedStore(inner, "nightly")


class TestPrefixedLocal(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return PrefixedStore(LocalStore(tmp_path), "teams/blue")
