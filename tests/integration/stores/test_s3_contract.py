"""The contract of every store, on a real S3 server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clusterguard.errors import StoreError
from clusterguard.stores import S3Credentials, open_store
from clusterguard.testing import ObjectStoreContract
from s3_gateway import BUCKET, CREDENTIALS, gateway

pytestmark = pytest.mark.programs


class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3, prefix):
        return s3.store(prefix=prefix)


class TestS3StoreOverTls(ObjectStoreContract):
    """Over TLS the payload is not signed, and what is refused may end as a broken connection."""

    @pytest.fixture
    def store(self, server, tls, prefix):
        return server.store(ca_file=tls[0], prefix=prefix)


class TestWholeBucket:
    """Without a prefix; a server of its own, since other tests fill the shared bucket."""

    @pytest.fixture
    def store(self, versitygw, tmp_path):
        with gateway(versitygw, tmp_path) as server:
            yield server.store()

    test_order = ObjectStoreContract.test_lists_in_the_order_of_keys
    test_prefix = ObjectStoreContract.test_a_prefix_is_text_not_a_directory
    test_delete = ObjectStoreContract.test_a_deleted_object_is_gone


@pytest.mark.parametrize("checksum", ["SHA256", "when_required"])
class TestChecksums:
    @pytest.fixture
    def store(self, s3, prefix, checksum):
        return s3.store(prefix=prefix, checksum=checksum)

    def test_large(self, store):
        ObjectStoreContract().test_gives_back_a_large_object_written_in_odd_pieces(store)

    def test_small(self, store):
        ObjectStoreContract().test_gives_back_what_was_put(store, b"small")

    def test_taken(self, store):
        ObjectStoreContract().test_a_key_taken_meanwhile_is_refused_at_the_end(store, 17 << 20)


def certificate(directory):
    """Make a CA, and a certificate of it for 127.0.0.1; return (CA file, (certificate file, key file))."""
    now = datetime.now(UTC)

    def make(name, key, issuer, issuer_key, *extensions):
        builder = x509.CertificateBuilder(
            subject_name=named(name),
            issuer_name=named(issuer),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(hours=1),
            not_valid_after=now + timedelta(hours=1),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(issuer_key, hashes.SHA256())

    def named(name):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    encrypting = ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")
    usage = dict.fromkeys(("content_commitment", *encrypting), False)
    authority = make(
        "test CA",
        ca_key,
        "test CA",
        ca_key,
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), True),
        (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
    )
    server = make(
        "s3",
        key,
        "test CA",
        ca_key,
        (x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    )
    (directory / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (directory / "s3.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (directory / "s3.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "ca.pem", (directory / "s3.pem", directory / "s3.key")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(versitygw, tmp_path_factory, tls):
    """An S3 server that speaks HTTPS alone, with a certificate of our own CA."""
    with gateway(versitygw, tmp_path_factory.mktemp("s3-tls"), tls=tls[1]) as running:
        yield running


class TestTls:
    @pytest.mark.parametrize("checksum", ["CRC32", "SHA256", "when_required"])
    def test_a_ca_of_our_own_is_trusted_when_named(self, server, tls, prefix, checksum):
        store = server.store(ca_file=tls[0], prefix=prefix, checksum=checksum)
        ObjectStoreContract().test_gives_back_a_large_object_written_in_odd_pieces(store)
        ObjectStoreContract().test_gives_back_what_was_put(store, b"small")

    @pytest.mark.parametrize("size", [3, 4 << 20, 17 << 20], ids=["small", "medium", "large"])
    @pytest.mark.parametrize(
        ("settings", "code"),
        [
            ({"credentials": S3Credentials(access_key="nobody", secret_key="wrong")}, "unknown-access-key"),
            ({"credentials": S3Credentials(access_key=CREDENTIALS.access_key, secret_key="wrong")}, "wrong-secret-key"),
            ({"bucket": "no-such-bucket"}, "store"),
        ],
        ids=["user", "secret", "bucket"],
    )
    def test_a_refused_upload_is_told_as_what_it_is(self, server, tls, prefix, settings, code, size):
        """This server hangs up on a body that it refuses, so boto3 sees an error of TLS and no answer."""
        store = server.store(ca_file=tls[0], prefix=prefix, **settings)
        with pytest.raises(StoreError) as raised, store.put("new", overwrite=True) as writer:
            writer.write(bytes(size))
        assert (type(raised.value), raised.value.code) == (StoreError, code)
        assert raised.value.hint

    def test_it_is_not_trusted_otherwise(self, server):
        with pytest.raises(StoreError, match=r"(?i)certificate") as raised:
            server.store().stat("a")
        assert "ca=" in raised.value.hint

    def test_a_location_says_it_all(self, server, tls, prefix, monkeypatch):
        """Credentials come from the environment, the rest from the URL."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)
        store = open_store(f"s3://{BUCKET}/{prefix}?endpoint={server.endpoint}&pathStyle=true&ca={tls[0]}")
        ObjectStoreContract().test_gives_back_what_was_put(store, b"small")
        assert CREDENTIALS.secret_key not in store.url
