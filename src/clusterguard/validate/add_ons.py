"""What add-ons write into objects of others, and how it is told: by annotations, or by names that they generate.

From the sources of cert-manager 1.18, OpenShift 4.20 (openshift-controller-manager, service-ca-operator), Calico 3.30,
OVN-Kubernetes, Multus 4, Flannel 0.27 and Cilium 1.18.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.model.inventory import ObjectRef
from clusterguard.validate.difference import ABSENT, GENERATED, look_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.validate.difference import Difference

__all__ = [
    "NETWORK_KINDS",
    "NODE_ANNOTATIONS",
    "POD_ANNOTATIONS",
    "PULLED_WITH",
    "authority_injected",
    "has_only_own_secrets",
    "is_pull_secret",
    "network_noted",
    "pull_secret_replaced",
]

_Object: TypeAlias = "Mapping[str, Any]"

# ---- certificate authorities -----------------------------------------------------------------------------

_FROM_CERTIFICATE: Final = "cert-manager.io/inject-ca-from"
_COPIED_FROM: Final = "cert-manager.io/inject-ca-from-secret"
_CERT_MANAGER: Final = (_FROM_CERTIFICATE, _COPIED_FROM, "cert-manager.io/inject-apiserver-ca")
_SERVICE_CA: Final = "service.beta.openshift.io/inject-cabundle"
_TRUSTED_CA: Final = "config.openshift.io/inject-trusted-cabundle"


def authority_injected(difference: Difference) -> bool:
    """A controller keeps the certificates of an authority there, as an annotation asks for both times."""
    asked = [_asked_for(item) for item in (difference.old, difference.new)]
    if not asked[0] or asked[0] != asked[1] or not isinstance(difference.after, str) or not difference.after:
        return False
    source = _source(difference)
    return source is None or look_up(source, "data", "ca.crt") == difference.after


def _asked_for(item: _Object) -> dict[str, str]:
    annotations = look_up(item, "metadata", "annotations") or {}
    found = {name: annotations[name] for name in (*_CERT_MANAGER, _SERVICE_CA) if annotations.get(name)}
    if look_up(item, "metadata", "labels", _TRUSTED_CA) == "true":
        found[_TRUSTED_CA] = "true"
    return found


def _source(difference: Difference) -> _Object | None:
    """Return the Secret with the certificates that cert-manager is to inject, if it was seen."""
    annotations = look_up(difference.new, "metadata", "annotations") or {}
    if named := annotations.get(_FROM_CERTIFICATE):
        namespace, _, name = str(named).partition("/")
        certificate = difference.context.new(ObjectRef("Certificate", namespace, name, "cert-manager.io"))
        named = f"{namespace}/{look_up(certificate, 'spec', 'secretName')}"
    else:
        named = annotations.get(_COPIED_FROM, "")
    namespace, _, name = str(named).partition("/")
    return difference.context.new(ObjectRef("Secret", namespace, name))


# ---- pull secrets of OpenShift ---------------------------------------------------------------------------

PULLED_WITH: Final = "openshift.io/internal-registry-pull-secret-ref"  # since 4.16; admission protects it
_FOR_ACCOUNT: Final = "openshift.io/internal-registry-auth-token.service-account"
_BEFORE_4_16: Final = "openshift.io/token-secret.name"
_MADE_BY: Final = ("kubernetes.io/created-by", "openshift.io/create-dockercfg-secrets")


def is_pull_secret(secret: _Object) -> bool:
    """Return whether OpenShift made a Secret for an account to pull from its own registry, or the token in it."""
    annotations = look_up(secret, "metadata", "annotations") or {}
    if secret.get("type") == "kubernetes.io/dockercfg":
        return _FOR_ACCOUNT in annotations or _BEFORE_4_16 in annotations
    is_token = secret.get("type") == "kubernetes.io/service-account-token"
    return is_token and annotations.get(_MADE_BY[0]) == _MADE_BY[1]


def has_only_own_secrets(account: _Object) -> bool:
    """Return whether all that a ServiceAccount names is what the cluster made for it under generated names."""
    name = str(look_up(account, "metadata", "name"))
    own = re.compile(f"{re.escape(name)}-(dockercfg|token)-{GENERATED}")
    entries = (*(account.get("secrets") or ()), *(account.get("imagePullSecrets") or ()))
    return all(own.fullmatch(str(look_up(entry, "name"))) for entry in entries)


def pull_secret_replaced(difference: Difference) -> bool:
    """OpenShift made another pull secret for this account under a random name, in place of the one before."""
    pattern = re.compile(f"{re.escape(difference.ref.name)}-dockercfg-{GENERATED}")
    sides = [_pull_secrets(item, pattern) for item in (difference.old, difference.new)]
    if not all(sides):
        return False
    if difference.path[0] == "metadata":
        return difference.before is ABSENT or difference.after is not ABSENT
    entry = difference.after if difference.before is ABSENT else difference.before
    return bool(pattern.fullmatch(str(look_up(entry, "name"))))


def _pull_secrets(account: _Object, pattern: re.Pattern[str]) -> set[str]:
    named = {str(look_up(entry, "name")) for entry in account.get("imagePullSecrets") or ()}
    return {name for name in named if pattern.fullmatch(name)}


# ---- networks --------------------------------------------------------------------------------------------

POD_ANNOTATIONS: Final = (
    *(f"cni.projectcalico.org/{name}" for name in ("podIP", "podIPs", "containerID")),
    "k8s.ovn.org/pod-networks",
    *(f"k8s.v1.cni.cncf.io/{name}" for name in ("network-status", "networks-status")),
)
"""What networks note in pods; what a person asks them for, such as k8s.v1.cni.cncf.io/networks, goes by other names."""

NODE_ANNOTATIONS: Final = (
    *(f"projectcalico.org/{name}" for name in ("IPv4*", "IPv6*")),
    "k8s.ovn.org/*",
    "network.cilium.io/*",
    *(f"flannel.alpha.coreos.com/{name}" for name in ("backend-*", "kube-subnet-manager", "public-ip", "public-ipv6")),
)

NETWORK_KINDS: Final = (
    *(f"{name}.crd.projectcalico.org" for name in ("BlockAffinity", "IPAMBlock", "IPAMHandle")),
    *(f"{name}.cilium.io" for name in ("CiliumEndpoint", "CiliumEndpointSlice", "CiliumIdentity", "CiliumNode")),
    *(f"{name}.whereabouts.cni.cncf.io" for name in ("IPPool", "NodeSlicePool", "OverlappingRangeIPReservation")),
)
"""What networks keep books in: of addresses, and of the pods that have them."""


def network_noted(difference: Difference) -> bool:
    """The pod is another one, or the network noted something else: it takes nothing away from a pod that lives."""
    return difference.made_again or difference.after is not ABSENT
