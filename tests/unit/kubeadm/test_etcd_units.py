"""What a unit of systemd starts etcd with, in all the places where that may be written."""

from __future__ import annotations

import pytest

from clusterguard.clusters.kubeadm.etcd_setup import Identity
from clusterguard.clusters.kubeadm.etcd_units import EtcdUnit, is_in_use
from clusterguard.errors import ClusterError

ALL = {
    "name": "one",
    "data-dir": "/srv/etcd",
    "initial-advertise-peer-urls": "https://10.0.0.5:2380",
    "advertise-client-urls": "https://10.0.0.5:2379",
    "trusted-ca-file": "/pki/ca.pem",
    "cert-file": "/pki/server.pem",
    "key-file": "/pki/server-key.pem",
}
VARIABLES = [f"ETCD_{key.upper().replace('-', '_')}={value}" for key, value in ALL.items()]


def parsed(argv="/usr/bin/etcd", *, environment=(), files=None, user=""):
    told = {"ExecStart": [f"{{ path={argv.split()[0]} ; argv[]={argv} ; ignore_errors=no ; pid=0 }}"]}
    told |= {"Environment": list(environment)} if environment else {}
    files = files or {}
    told |= {"EnvironmentFiles": [f"{path} (ignore_errors=no)" for path in files if path.endswith("env")]}
    told |= {"User": [user]} if user else {}
    return EtcdUnit.parse(told, read=files.get, where="host:etcd.service")


def flags(**changed):
    return " ".join(f"--{key}={value}" for key, value in (ALL | changed).items())


def test_it_is_told_by_flags():
    unit = parsed(f"/opt/etcd {flags()}".replace("/opt/etcd ", "/opt/etcd/etcd "), user="etcd")
    assert (unit.name, unit.host_dir, unit.peer_url) == ("one", "/srv/etcd", "https://10.0.0.5:2380")
    assert unit.identity == Identity(ca="/pki/ca.pem", cert="/pki/server.pem", key="/pki/server-key.pem")
    assert (unit.user, unit.program, unit.client_url) == ("etcd", "/opt/etcd/etcd", "https://10.0.0.5:2379")


@pytest.mark.parametrize(
    "given",
    [
        {"environment": [" ".join(VARIABLES)]},
        {"environment": [" ".join(f'"{each}"' for each in VARIABLES)]},
        {"files": {"/etc/etcd.env": "# etcd\n\n; of this host\n" + "\n".join(VARIABLES)}},
        {"files": {"/etc/etcd.env": "\n".join(f'{each.replace("=", "=" + chr(34), 1)}"' for each in VARIABLES)}},
        {"files": {"/etc/etcd.env": VARIABLES[0].replace("one", "\\\none") + "\n" + "\n".join(VARIABLES[1:])}},
        {"environment": ["ETCD_NAME=two"], "files": {"/etc/etcd.env": "\n".join(VARIABLES)}},
        {"environment": [f"OPTIONS='{flags()}'"], "argv": "/usr/bin/etcd $OPTIONS"},
        {"environment": ["NAME=one"], "argv": f"/usr/bin/etcd {flags(name='${NAME}')}"},
        {"environment": ["ETCD_NAME=two"], "argv": f"/usr/bin/etcd {flags()}"},
    ],
    ids=["variables", "quoted", "file", "quotes", "over two lines", "file first", "split", "put in", "flags first"],
)  # fmt: skip
def test_it_is_told_by_variables_as_systemd_reads_them(given):
    assert parsed(**given) == parsed(f"/usr/bin/etcd {flags()}")


def test_a_file_of_etcd_counts_alone():
    text = """
name: one
data-dir: /srv/etcd/
initial-advertise-peer-urls: https://10.0.0.5:2380
advertise-client-urls: https://10.0.0.5:2379
wal-dir:
client-transport-security: {client-cert-auth: true, trusted-ca-file: /pki/ca.pem, cert-file: /pki/server.pem,
                            key-file: /pki/server-key.pem}
"""
    files = {"/etc/etcd.yaml": text}
    wanted = parsed(f"/usr/bin/etcd {flags()}")
    assert parsed("/usr/bin/etcd --config-file=/etc/etcd.yaml --name two", files=files).host_dir == wanted.host_dir
    assert parsed("/usr/bin/etcd --config-file /etc/etcd.yaml", files=files).identity == wanted.identity
    assert parsed(environment=["ETCD_CONFIG_FILE=/etc/etcd.yaml ETCD_WAL_DIR=/fast"], files=files).name == "one"


def test_a_certificate_for_clients_of_its_own_is_used():
    more = {"client-cert-file": "/pki/client.pem", "client-key-file": "/pki/client-key.pem"}
    unit = parsed(f"/usr/bin/etcd {flags(**more)}")
    assert (unit.identity.cert, unit.identity.key) == ("/pki/client.pem", "/pki/client-key.pem")
    assert set(unit.certificates) == {"/pki/ca.pem", "/pki/client.pem", "/pki/server.pem"}


def test_a_certificate_whose_path_a_shell_would_read_differently_is_not_looked_at():
    unit = parsed(f"/usr/bin/etcd {flags(**{'peer-cert-file': '/pki/$(reboot)'})}")
    assert set(unit.certificates) == {"/pki/ca.pem", "/pki/server.pem"}


def test_plain_http_needs_no_certificate():
    unit = parsed(f"/usr/bin/etcd {flags(**{'advertise-client-urls': 'http://10.0.0.5:2379'})}")
    assert unit.identity == Identity()
    assert unit.identity.curl == ""


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"argv": "/usr/bin/docker run etcd"}, "etcd-unit-unreadable"),
        ({"argv": "/usr/bin/etcd --config-file=/nowhere"}, "etcd-unit-unreadable"),
        ({"argv": "/usr/bin/etcd --config-file=/a", "files": {"/a": "name: ["}}, "etcd-unit-unreadable"),
        ({"argv": "/usr/bin/etcd --config-file=/a", "files": {"/a": "- name"}}, "etcd-unit-unreadable"),
        ({"files": {"/a.env": 'ETCD_NAME="one'}}, "etcd-unit-unreadable"),
        ({"argv": f"/usr/bin/etcd {flags(**{'data-dir': 'default.etcd'})}"}, "etcd-unit-unreadable"),
        ({"argv": f"/usr/bin/etcd {flags(**{'data-dir': '/$(reboot)'})}"}, "etcd-unit-unreadable"),
        ({"argv": f"/usr/bin/etcd {flags(**{'key-file': ''})}"}, "etcd-unit-unreadable"),
        ({"argv": f"/usr/bin/etcd {flags(**{'advertise-client-urls': 'https://$(reboot)'})}"}, "etcd-unit-unreadable"),
        ({"argv": f"/usr/bin/etcd {flags()}", "user": "$(reboot)"}, "etcd-unit-unreadable"),
        ({"argv": f"/usr/bin/etcd {flags(name='')}"}, "etcd-flags-missing"),
        ({"argv": f"/usr/bin/etcd {flags(**{'advertise-client-urls': ''})}"}, "etcd-flags-missing"),
        ({"argv": f"/usr/bin/etcd {flags()} --wal-dir=/fast"}, "own-wal-dir"),
    ],
)
def test_what_cannot_be_told_for_sure_is_refused(given, code):
    with pytest.raises(ClusterError) as caught:
        parsed(**given)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"LoadState": ["not-found"], "ActiveState": ["inactive"]}, False),
        ({"LoadState": ["loaded"], "ActiveState": ["inactive"], "UnitFileState": ["disabled"]}, False),
        ({"LoadState": ["loaded"], "ActiveState": ["inactive"], "UnitFileState": ["enabled"]}, True),
        ({"LoadState": ["loaded"], "ActiveState": ["failed"], "UnitFileState": ["disabled"]}, True),
        ({"LoadState": ["loaded"], "ActiveState": ["active"], "UnitFileState": ["static"]}, True),
        ({}, False),
    ],
)
def test_a_unit_counts_where_its_host_uses_it(told, used):
    assert is_in_use(told) is used
