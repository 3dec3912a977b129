"""Keys that sign evidence and check it."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from nacl.secret import SecretBox

from clusterguard.errors import ConfigError
from clusterguard.evidence.keys import load_signing_key, load_verifying_key

PLAIN = serialization.NoEncryption()
KINDS = {"ed25519": ed25519.Ed25519PrivateKey.generate, "p-256": lambda: ec.generate_private_key(ec.SECP256R1())}


def private_pem(key, encryption=PLAIN):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def cosign_pem(key, passphrase, *, label="ENCRYPTED SIGSTORE PRIVATE KEY", **changed):
    """Seal a key as cosign does, with less work for scrypt."""
    salt, nonce = b"s" * 32, b"n" * 24
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, PLAIN)
    box = SecretBox(hashlib.scrypt(passphrase.encode(), salt=salt, n=1024, r=8, p=1, dklen=32))
    document = {
        "kdf": {
            "name": "scrypt",
            "params": {"N": 1024, "r": 8, "p": 1},
            "salt": base64.b64encode(salt).decode(),
        },
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(box.encrypt(der, nonce).ciphertext).decode(),
    }
    body = base64.b64encode(json.dumps(document | changed).encode()).decode()
    lines = "\n".join(body[start : start + 64] for start in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n".encode()


# Sealed by go-securesystemslib 0.9.1, which cosign seals its keys with, under the passphrase open-sesame; it signs
# nothing but in this test.
OF_COSIGN = b"""\
-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiIrWUN4bzA0T0FpSUZKQmF0Q0h6QlR2dFJvRElNRVJl
T0dkMlBnaWJOMXYwPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJ0UzI2OWs2bktoNjBDeGxncHdTYU9kcVdzSCtqc05nMCJ9LCJj
aXBoZXJ0ZXh0IjoiM2h6WUhkVlhEMHZjOENjUTlXTytIMWhTWVNoSTAvZWVxTnY5
azVpSjdkdnN1UldyMkVpeXFPUit6cmNyWlJEdVBLeGw1ajFlTnBHUmlwclZ5K1Y5
VVlZdndXUWFud3pCVWFJdW0wNW92NCt5NmkveXB3NzI1ekV5eDBRajdCOHlUY3Jt
VjlnbWNZSzJLUzBKSHdhMkIrUm8zVkxkRHF6aUNJSmVmMDRDWEgwWmVuem44Qnl2
cE9JUDRDNTNaK201cERzNjU4OHhybi9VZXc9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
ITS_PUBLIC_KEY = b"""\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUQQJkr570kRQr5ISzo+fYpSLMekU
697DXst3+imgocS9OvGoEQpkQlXZa8Pl+N7JH4volz64Wlaq8EJtSerP/Q==
-----END PUBLIC KEY-----
"""


@pytest.fixture
def keep(tmp_path):
    def keep(data, mode=0o600):
        path = tmp_path / f"{hashlib.sha256(data).hexdigest()[:8]}.pem"
        path.write_bytes(data)
        path.chmod(mode)
        return path

    return keep


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_signs_its_public_half_verifies_and_no_other(kind, keep):
    key, other = KINDS[kind](), KINDS[kind]()
    signing = load_signing_key(keep(private_pem(key)))
    verifying = load_verifying_key(keep(public_pem(key), 0o644))
    signature = signing.sign(b"done")
    assert signing.public.id == verifying.id
    assert verifying.verifies(signature, b"done")
    assert not verifying.verifies(signature, b"dont")
    assert not verifying.verifies(signature[:-1], b"done")
    assert not load_verifying_key(keep(public_pem(other), 0o644)).verifies(signature, b"done")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "seal",
    [
        lambda key: private_pem(key, serialization.BestAvailableEncryption(b"open")),
        lambda key: cosign_pem(key, "open"),
        lambda key: cosign_pem(key, "open", label="ENCRYPTED COSIGN PRIVATE KEY"),
    ],
    ids=["pkcs8", "cosign", "older cosign"],
)
def test_a_passphrase_opens_a_key_and_another_one_does_not(kind, seal, keep):
    key = KINDS[kind]()
    path = keep(seal(key))
    verifying = load_verifying_key(keep(public_pem(key), 0o644))
    assert verifying.verifies(load_signing_key(path, passphrase="open").sign(b"done"), b"done")
    for wrong in ("shut", None):
        with pytest.raises(ConfigError) as caught:
            load_signing_key(path, passphrase=wrong)
        assert caught.value.code == "evidence-key-locked"


def test_a_passphrase_that_nothing_needs_does_no_harm(keep):
    assert load_signing_key(keep(private_pem(KINDS["p-256"]())), passphrase="open")


def test_a_key_of_cosign_may_have_an_empty_passphrase(keep):
    assert load_signing_key(keep(cosign_pem(KINDS["p-256"](), "")))


@pytest.mark.parametrize(
    "data",
    [
        b"not a key",
        private_pem(rsa.generate_private_key(65537, 2048)),
        private_pem(ec.generate_private_key(ec.SECP384R1())),
        public_pem(KINDS["ed25519"]()),
        private_pem(KINDS["ed25519"]())[:60],
        cosign_pem(KINDS["p-256"](), "", cipher={"name": "aes", "nonce": ""}),
        cosign_pem(KINDS["p-256"](), "", kdf={"name": "scrypt", "params": {"N": 1 << 24, "r": 8, "p": 1}, "salt": ""}),
        cosign_pem(KINDS["p-256"](), "", ciphertext=None),
        cosign_pem(KINDS["p-256"](), "")[:120] + b"\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
    ],
    ids=["text", "rsa", "p-384", "public", "cut", "other cipher", "much memory", "nothing in it", "cut cosign"],
)  # fmt: skip
def test_what_is_not_a_key_that_signs_is_refused(data, keep):
    with pytest.raises(ConfigError) as caught:
        load_signing_key(keep(data))
    assert caught.value.code == "invalid-evidence-key"


@pytest.mark.parametrize("data", [b"not a key", private_pem(KINDS["ed25519"]()),
                                  public_pem(rsa.generate_private_key(65537, 2048))])  # fmt: skip
def test_what_is_not_a_key_that_verifies_is_refused(data, keep):
    with pytest.raises(ConfigError) as caught:
        load_verifying_key(keep(data))
    assert caught.value.code == "invalid-evidence-key"


def test_a_private_key_that_others_may_read_is_refused(keep):
    with pytest.raises(ConfigError) as caught:
        load_signing_key(keep(private_pem(KINDS["ed25519"]()), 0o640))
    assert caught.value.code == "secret-file-mode"


def test_a_key_is_shown_nowhere(keep):
    key = KINDS["ed25519"]()
    assert repr(load_signing_key(keep(private_pem(key)))).startswith("SigningKey(")


def test_a_key_that_the_library_of_cosign_sealed_is_opened(keep):
    signing = load_signing_key(keep(OF_COSIGN), passphrase="open-sesame")
    assert signing.public.id == load_verifying_key(keep(ITS_PUBLIC_KEY, 0o644)).id


def test_a_key_has_the_id_that_go_programs_give_it(keep):
    """cosign skips a signature by a key of any other id; ssh-keygen -l prints the same."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    assert load_signing_key(keep(private_pem(key))).public.id == "SHA256:tAXFyTXI8xtDaujAEcwJslAYc9/6FKcUkd2Lw0xDhPo"
