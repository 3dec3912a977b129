"""The certificates of an embedded control plane, as kubeadm lays them out: one authority for etcd, one for the rest."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority", "write_key_pair"]

# A throwaway cluster outlives nobody's patience by ten years; clocks may be a little behind.
_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
_SERVICE_IP = "10.96.0.1"
_NO_USES = (
    *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("encipher_only", "decipher_only"),
)
_HOSTS = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


class Authority:
    """A certificate authority that lives in memory: its key is never written."""

    def __init__(self, common_name: str, *, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(common_name, organisation=None)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{common_name}.crt"
        _write(self.file, self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, file_name: str, *, common_name: str, organisation: str | None = None) -> tuple[Path, Path]:
        """Write a certificate for client and server use on loopback; return the paths of it and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.IPAddress(ip_address(address)) for address in ("127.0.0.1", "::1", _SERVICE_IP)]
        certificate = (
            _builder(_name(common_name, organisation), self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            # Python verifies strictly since 3.13: a certificate must say which key signed it.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([*(x509.DNSName(host) for host in _HOSTS), *addresses]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = self._folder / f"{file_name}.crt", self._folder / f"{file_name}.key"
        _write(cert_file, certificate.public_bytes(serialization.Encoding.PEM))
        _write(key_file, _private(key))
        return cert_file, key_file


def write_key_pair(folder: Path, file_name: str) -> tuple[Path, Path]:
    """Write a bare key pair (service account tokens are signed with it); return public and private paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, private = folder / f"{file_name}.pub", folder / f"{file_name}.key"
    _write(
        public,
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    _write(private, _private(key))
    return public, private


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _name(common_name: str, organisation: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    uses = {"digital_signature": True, "key_cert_sign": authority, "crl_sign": authority}
    return x509.KeyUsage(**dict.fromkeys(_NO_USES, False), **uses)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
