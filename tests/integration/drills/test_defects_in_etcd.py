"""An API server reads a defect that lies in etcd as JSON, and the bytes from before it as if nothing had been."""

import pytest
import yaml

from bare_api_server import BareApiServer
from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.kube import KubeClient
from clusterguard.drills.defects.catalogue import OBJECT_DEFECTS
from clusterguard.drills.defects.choosing import choose
from clusterguard.drills.defects.placing import EtcdPlace, key_of
from clusterguard.errors import ResourceNotFoundError
from clusterguard.etcd.member import EtcdMember
from clusterguard.model.inventory import ObjectRef
from clusterguard.retrying import poll_until

pytestmark = [
    pytest.mark.programs,
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),  # its own certificate, on loopback
]

RBAC = "rbac.authorization.k8s.io/v1"
POD = {"containers": [{"name": "web", "image": "web:1", "resources": {"limits": {"cpu": "3"}}}]}
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": POD}


def item(api_version, kind, name="web", namespace="shop", **more):
    metadata = {"name": name, "labels": {"app": "web"}, "annotations": {"owner": "me"}}
    metadata |= {"namespace": namespace} if namespace else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


OBJECTS = [
    item("v1", "Namespace", "shop", ""),
    item("v1", "ConfigMap", data={"page": "open"}),
    item("v1", "Secret", stringData={"password": "only-for-drills"}),
    item("v1", "Service", spec={"selector": {"app": "web"}, "ports": [{"port": 80}]}),
    item(
        "apps/v1",
        "Deployment",
        spec={"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE},
    ),
    item("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}),
    item("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}}),
    item(RBAC, "Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
    item(
        RBAC,
        "RoleBinding",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web"},
        subjects=[{"kind": "User", "name": "me", "apiGroup": "rbac.authorization.k8s.io"}],
    ),
    item(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "menus.shop.example",
        "",
        spec={
            "group": "shop.example",
            "names": {"kind": "Menu", "plural": "menus"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"dishes": {"type": "array", "items": {"type": "string"}}},
                                }
                            },
                        }
                    },
                }
            ],
        },
    ),
    item("shop.example/v1", "Menu", spec={"dishes": ["soup", "bread"]}),
]


def client(server, folder):
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
                "users": [{"name": "it", "user": {"token": server.token}}],
            }
        )
    )
    return KubeClient.from_kubeconfig(kubeconfig)


@pytest.fixture(scope="module")
def server(toolchain, tmp_path_factory):
    programs = toolchain.ensure("etcd", "kube-apiserver")
    with BareApiServer(programs, tmp_path_factory.mktemp("server"), everything=False) as server:
        yield server


@pytest.fixture(scope="module")
def api(server, tmp_path_factory):
    with client(server, tmp_path_factory.mktemp("client")) as api:
        for each in OBJECTS:
            api.await_kind(each)
            api.create(each)
        yield api


@pytest.fixture(scope="module")
def member(server):
    with EtcdMember(EtcdAccess(endpoints=(server.etcd_url,)), server.etcd_url) as member:
        yield member


def served(api, ref, version):
    resource = api.resource(ref.kind, api_version=version)
    item = api.get(resource, ref.name, ref.namespace or None)
    del item["metadata"]["resourceVersion"]
    return item


def test_every_defect_is_served_and_gone_again(api, member):
    objects = {ObjectRef.of(each): api.get(*find(api, each)) for each in OBJECTS}
    tried = list(choose(objects, owned_too=False))
    assert {defect.name for defect, _ in tried} == {defect.name for defect in OBJECT_DEFECTS}
    place = EtcdPlace(api, member)
    for defect, ref in tried:
        version = objects[ref]["apiVersion"]
        before, key = served(api, ref, version), key_of(api.resource(ref.kind, api_version=version), ref)
        stored = member.stored(key).value
        with place.put(defect, ref, version=version):
            if defect.removes:
                with pytest.raises(ResourceNotFoundError):
                    served(api, ref, version)
            else:
                # Whole: nothing else of the object is read otherwise from JSON than from protobuf.
                assert served(api, ref, version) == defect.put_into(before), (defect.name, ref)
        assert member.stored(key).value == stored
        poll_until(lambda: difference(api, ref, version, before), what=f"{ref} is back", seconds=20)  # noqa: B023


def difference(api, ref, version, before):
    """A definition that is back is served a moment later, and its custom resources with it."""
    try:
        now = served(api, ref, version)
    except ResourceNotFoundError as error:
        return error.message
    return None if now == before else f"{now} is not {before}"


def find(api, manifest):
    resource, metadata = api.resource_of(manifest), manifest["metadata"]
    return resource, metadata["name"], metadata.get("namespace")
