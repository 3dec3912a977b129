"""The certificates of an embedded control plane."""

from __future__ import annotations

import ssl
import stat
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from clusterguard.clusters.certificates import Authority, write_key_pair


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_what_an_authority_issues_is_signed_by_it(tmp_path):
    authority = Authority("etcd-ca", folder=tmp_path)
    cert, _ = authority.issue("server", common_name="etcd", organisation="system:masters")
    certificate, ca = load(cert), load(authority.file)
    certificate.verify_directly_issued_by(ca)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "etcd"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:masters"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ip_address("127.0.0.1") in names.get_values_for_type(x509.IPAddress)


def test_another_authority_of_the_same_name_did_not_sign_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cert, _ = Authority("ca", folder=tmp_path / "a").issue("server", common_name="etcd")
    other = Authority("ca", folder=tmp_path / "b")
    with pytest.raises(InvalidSignature):
        load(cert).verify_directly_issued_by(load(other.file))


def test_python_takes_them(tmp_path):
    authority = Authority("ca", folder=tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(*authority.issue("client", common_name="admin"))


def test_the_authoritys_key_is_never_written_and_nobody_else_reads_the_others(tmp_path):
    authority = Authority("ca", folder=tmp_path)
    authority.issue("client", common_name="admin")
    write_key_pair(tmp_path, "service-account")
    assert {path.name for path in tmp_path.iterdir()} == {
        "ca.crt",
        "client.crt",
        "client.key",
        "service-account.key",
        "service-account.pub",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_leaf_signs_nothing(tmp_path):
    cert, _ = Authority("ca", folder=tmp_path).issue("client", common_name="admin")
    constraints = load(cert).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
