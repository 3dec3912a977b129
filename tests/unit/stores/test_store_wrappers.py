"""Stores around other stores: sealed ones, copies in several, parts of one."""

from __future__ import annotations

import pytest

from clusterguard.stores import FanOutStore, LocalStore, MemoryStore, PrefixedStore
from clusterguard.stores.sealing import Seal, SealedStore
from clusterguard.testing import ObjectStoreContract


@pytest.fixture(scope="session")
def keys():
    from pyrage import x25519

    identity = x25519.Identity.generate()
    return {"recipients": (str(identity.to_public()),), "identities": (str(identity),)}


class TestSealedMemory(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, keys):
        return SealedStore(MemoryStore(), Seal(**keys))


class TestSealedLocal(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, keys, tmp_path):
        return SealedStore(LocalStore(tmp_path), Seal(**keys, compression_level=None))


class TestCompressedMemory(ObjectStoreContract):
    exact_sizes = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self):
        return SealedStore(MemoryStore(), Seal())


class TestUnsealed(ObjectStoreContract):
    @pytest.fixture
    def store(self):
        return SealedStore(MemoryStore(), Seal(compression_level=None))


class TestFanOutMemory(ObjectStoreContract):
    has_versions = False

    @pytest.fixture
    def store(self):
        return FanOutStore({"near": MemoryStore(), "far": MemoryStore()}, minimum=2)


class TestFanOutLocal(ObjectStoreContract):
    has_versions = False

    @pytest.fixture
    def store(self, tmp_path):
        return FanOutStore({"near": LocalStore(tmp_path / "a"), "far": LocalStore(tmp_path / "b")})


class TestSealedFanOut(ObjectStoreContract):
    exact_sizes = False
    has_versions = False
    many = 103  # pages are the inner store's business

    @pytest.fixture
    def store(self, keys, tmp_path):
        copies = FanOutStore({"near": LocalStore(tmp_path / "a"), "far": MemoryStore()})
        return SealedStore(copies, Seal(**keys))


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
