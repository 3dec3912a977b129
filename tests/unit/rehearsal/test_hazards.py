"""What would hurt after a restore is found in the objects, and what would not is left alone."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.clusters.certificates import Authority
from clusterguard.rehearsal.hazards import Hazards

if TYPE_CHECKING:
    from pathlib import Path

ADMISSION = "admissionregistration.k8s.io/v1"
VERSIONS = {"ValidatingWebhookConfiguration": ADMISSION, "Lease": "coordination.k8s.io/v1"}
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def found(*items: dict[str, Any], claimed: datetime | None = None, now: datetime = NOW) -> dict[str, int]:
    hazards = Hazards(now=now, claimed=claimed, users=False)
    for item in items:
        hazards.see({"apiVersion": VERSIONS.get(item["kind"], "v1"), **item})
    return {finding.code: finding.count for finding in hazards.findings()}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def webhook(**fields: Any) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    one = {"name": "w", "clientConfig": {"service": {"namespace": "policy", "name": "s"}}, "rules": [rule], **fields}
    return {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "w"}, "webhooks": [one]}


EXEMPT = {"matchExpressions": [{"key": "policy", "operator": "DoesNotExist"}]}


@pytest.mark.parametrize(
    ("fields", "blocks"),
    [
        ({}, True),  # Fail is the default
        ({"failurePolicy": "Fail"}, True),
        ({"failurePolicy": "Ignore"}, False),
        ({"clientConfig": {"url": "https://example.com"}}, False),  # not one of the cluster's own pods
        ({"rules": [{"apiGroups": ["*"], "operations": ["*"], "resources": ["*/*"]}]}, True),
        ({"rules": [{"apiGroups": ["apps"], "operations": ["*"], "resources": ["*"]}]}, False),
        ({"rules": [{"apiGroups": [""], "operations": ["UPDATE"], "resources": ["pods"]}]}, False),
        ({"rules": None}, False),
        ({"namespaceSelector": EXEMPT}, False),
        ({"namespaceSelector": {"matchLabels": {"policy": "on"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"policy": "off"}}}, False),
        ({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["policy"]}]}}, False),
        ({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["policy"]}]}}, True),
        ({"namespaceSelector": {"matchExpressions": [{"key": "policy", "operator": "Exists"}]}}, True),
        ({"objectSelector": {"matchLabels": {"inject": "yes"}}}, False),
    ],
)  # fmt: skip
def test_webhooks_that_must_let_in_their_own_pods(fields: dict[str, Any], blocks: bool) -> None:
    items = (webhook(**fields), namespace("policy", policy="on"))
    assert ("webhook-blocks-itself" in found(*items)) is blocks
    assert ("webhook-blocks-itself" in found(*reversed(items))) is blocks  # whichever comes first


def test_the_webhooks_namespace_may_be_missing() -> None:
    assert found(webhook()) == {"webhook-blocks-itself": 1}


@pytest.mark.parametrize(
    ("days", "code"),
    [(-1, "certificate-expired"), (0, "certificate-expired"), (3, "certificate-expires-soon"), (60, "")],
)
def test_certificates_by_when_they_end(tmp_path: Path, days: int, code: str) -> None:
    certificate, _ = Authority("a", folder=tmp_path).issue("web", common_name="web")
    from cryptography import x509

    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    data = {"tls.crt": b64encode(certificate.read_bytes()).decode()}
    secret = {"kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "web", "namespace": "shop"}}
    seen = found({**secret, "data": data}, now=ends - timedelta(days=days))
    assert seen == ({code: 1} if code else {})
    assert found({**secret, "type": "Opaque", "data": data}, now=ends + timedelta(days=1)) == {}


@pytest.mark.parametrize("data", [None, {}, {"tls.crt": None}, {"tls.crt": "!"}, {"tls.crt": "bm90IFBFTQ=="}])
def test_what_is_not_a_certificate_is_passed_over(data: object) -> None:
    assert found({"kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "s"}, "data": data}) == {}


@pytest.mark.parametrize("kind", ["Lease", "Secret", "Namespace", "PersistentVolume", "ValidatingWebhookConfiguration"])
def test_custom_resources_may_have_any_kind_and_shape(kind: str) -> None:
    odd = {"kind": kind, "metadata": {"name": "a"}, "spec": "text", "data": "text", "type": "kubernetes.io/tls"}
    assert found({"apiVersion": "example.com/v1", **odd, "webhooks": "text"}, claimed=NOW) == {}


def test_volumes_are_counted() -> None:
    volumes = [{"kind": "PersistentVolume", "metadata": {"name": f"v{number}"}} for number in range(7)]
    assert found(*volumes) == {"volume-data-elsewhere": 7}


@pytest.mark.parametrize(
    ("renewed", "claimed", "stale"),
    [
        ("2026-11-28T11:59:50.000000Z", NOW, False),
        ("2026-11-28T11:00:00.000000Z", NOW, False),
        ("2026-11-28T10:59:59.000000Z", NOW, True),
        ("2026-11-01T00:00:00.000000Z", None, False),  # it claims nothing
        (None, NOW, False),
        ("yesterday", NOW, False),
    ],
)
def test_a_snapshot_that_is_older_than_it_claims(renewed: str | None, claimed: datetime | None, stale: bool) -> None:
    lease = {"kind": "Lease", "metadata": {"name": "node", "namespace": "kube-node-lease"}}
    older = {**lease, "spec": {"renewTime": "2026-10-01T00:00:00.000000Z"}}
    newer = {**lease, "spec": {"renewTime": renewed}}
    codes = found(*([older] if renewed and renewed[0] == "2" else []), newer, claimed=claimed)
    assert ("older-than-it-claims" in codes) is stale


def test_a_cluster_that_nobody_uses() -> None:
    def codes(*names: str) -> set[str]:
        hazards = Hazards(now=NOW)
        for name in names:
            hazards.see({"apiVersion": "v1", **namespace(name)})
        return {finding.code for finding in hazards.findings()}

    assert codes("default", "kube-system") == {"no-user-namespaces"}
    assert codes() == {"no-user-namespaces"}
    assert codes("default", "shop") == set()
