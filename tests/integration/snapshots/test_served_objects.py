"""The law: an object read from a snapshot is what the API server serves of it at the same revision, in every field.

A real API server is given every stored kind with every field filled in (under keys of etcd, as it reads them without
checks), and real objects through its own door; the ones that it makes itself are there, too. Then everything in its
etcd is read from a snapshot and compared, types included, with what it answers for each.
"""

from __future__ import annotations

import copy
import json
import time
import urllib.request
from base64 import b64decode, b64encode

import pytest
import yaml
from real_objects import OBJECTS, WIDGET, WIDGETS, differences

from bare_api_server import ApiError, BareApiServer
from clusterguard import EncryptionKeys, SnapshotReader
from clusterguard.model.support import parse_version
from clusterguard.snapshots.fields import field_table
from clusterguard.snapshots.resources import BUILT_IN
from clusterguard.snapshots.values import SERVED_AS
from clusterguard.toolchain.programs import PROGRAMS
from filled_objects import NAMESPACE, envelope, golden_files, is_stored
from other_versions import kubernetes_programs

pytestmark = [pytest.mark.programs, pytest.mark.timeout(4 * 3600)]

OWN_VERSION = PROGRAMS["kube-apiserver"].modules.version
OTHERS = ("1.30.14", "1.37.2")
FILLED = {30: 68, 36: 85, 37: 87}  # kinds, in each of their versions that is served

# Where the filled-in objects contradict themselves, as no API server would have written them: it sets it right when
# it reads. What it writes itself has none of this, so in real objects nothing may differ.
CONTRADICTIONS = {
    ".spec.serviceAccount": "the API server makes it what serviceAccountName is",
    ".template.spec.serviceAccount": "the same in a PodTemplate",
    ".spec.template.spec.serviceAccount": "the same in templates",
    ".spec.jobTemplate.spec.template.spec.serviceAccount": "the same in templates of templates",
    ".spec.containers[0].resources.requests.limitsKey": "a limit without a request of its own is one, too",
    ".spec.initContainers[0].resources.requests.limitsKey": "the same in init containers",
    ".status.podIPs[0].ip": "the first of podIPs is podIP",
    ".spec.podCIDRs[0]": "the first of podCIDRs is podCIDR",
    ".metadata.labels.kubernetes.io/metadata.name": "each namespace bears its own name as a label",
    ".metadata.annotations.deprecated.daemonset.template.generation": "templateGeneration is shown as an annotation",
    ".metadata.annotations.autoscaling.alpha.kubernetes.io/current-metrics": "v1 shows v2's metrics so",
    ".data.stringDataKey": "stringData is merged into data by the write",
    ".stringData": "the same",
}


def programs_of(version, toolchain_programs):
    return toolchain_programs if version == OWN_VERSION else {**toolchain_programs, **kubernetes_programs(version)}


@pytest.fixture(scope="module")
def toolchain_programs(toolchain):
    return toolchain.ensure("etcd", "kube-apiserver")


@pytest.fixture
def server_of(toolchain_programs, tmp_path):
    running = []

    def start(version, *, arguments=()):
        # Alpha features of 1.37 ask for more than an API server alone.
        gates = "AllBeta=true" if version == "1.37.2" else "AllAlpha=true,AllBeta=true"
        arguments = [f"--feature-gates={gates}", *arguments]
        running.append(BareApiServer(programs_of(version, toolchain_programs), tmp_path, arguments=arguments))
        return running[-1]

    yield start
    for server in running:
        server.close()


def etcd(server, call, body):
    request = urllib.request.Request(f"{server.etcd_url}/v3/{call}", json.dumps(body).encode())  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        return [json.loads(line) for line in answer]


def put(server, key, value):
    etcd(server, "kv/put", {"key": b64encode(key.encode()).decode(), "value": b64encode(value).decode()})


def save(server, path):
    with path.open("wb") as file:
        for part in etcd(server, "maintenance/snapshot", {}):
            file.write(b64decode(part["result"].get("blob", "")))
    return path


def served_kinds(server):
    """Return where each kind that can be read is served, by API version and kind."""
    return {
        (group.partition("/")[2], resource["kind"]): (group, resource)
        for group, resource in server.resources()
        if "get" in resource["verbs"]
    }


def fill(server, version):
    """Put every stored kind of a version, filled in, under a key of its own; return how many."""
    kinds, count = served_kinds(server), 0
    directories = {(each.group, each.plural): each.directory for each in BUILT_IN}
    for minor, value, _ in golden_files(version.replace("1.", "0.", 1)):
        api_version, kind, _ = envelope(value)
        if minor != parse_version(version)[1] or (api_version, kind) not in kinds or not is_stored(kind):
            continue
        group, resource = kinds[api_version, kind]
        name = api_version.rpartition("/")[0].replace("events.k8s.io", "")
        where = f"{NAMESPACE}/" if resource["namespaced"] else ""
        key = f"/registry/{directories[name, resource['name']]}/{where}filled-{group.replace('/', '-')}"
        put(server, key, value)
        count += 1
    return count


def create(server, item, kinds):
    group, resource = kinds[item["apiVersion"], item["kind"]]
    where = "/namespaces/law" if resource["namespaced"] else ""
    return server.ask(f"/{group}{where}/{resource['name']}", method="POST", body=item)


def create_all(server):
    """Create every object whose kind this server has; return the kinds of the others."""
    server.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "law"}})
    kinds = served_kinds(server)
    unserved = set()
    for item in OBJECTS:
        if (item["apiVersion"], item["kind"]) in kinds:
            create(server, item, kinds)
        else:
            unserved.add(item["kind"])
    until(lambda: create(server, WIDGET, served_kinds(server)))
    return unserved


def compare(server, reader):
    """Return how many objects are equal, what differs in others, and which were changed meanwhile."""
    kinds = served_kinds(server)
    equal, different, moved = 0, {}, []
    for each in reader.objects():
        assert each.error is None, each.error
        group, resource = kinds[each.data["apiVersion"], each.data["kind"]]
        where = f"/namespaces/{each.key.namespace}" if each.key.namespace else ""
        name = each.key.name
        served = server.ask(f"/{group}{where}/{resource['name']}/{name}")
        if served["metadata"]["resourceVersion"] != each.data["metadata"]["resourceVersion"]:
            moved.append(str(each.key))
        elif paths := list(differences(each.data, served)):
            different[str(each.key)] = paths
        else:
            equal += 1
    return equal, different, moved


@pytest.mark.parametrize("version", [OWN_VERSION, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_what_is_read_is_what_is_served(server_of, tmp_path, version):
    server = server_of(version)
    assert create_all(server) == ({"VolumeAttributesClass"} if version == "1.30.14" else set())
    filled = fill(server, version)  # last: a filled-in PriorityClass or webhook has a say in what is created
    path = save(server, tmp_path / "snapshot.db")
    minor = parse_version(version)[1]
    with SnapshotReader(path=path, kubernetes=version) as reader:
        equal, different, moved = compare(server, reader)
        assert not reader.unknown_fields
        stored = {(each.data["apiVersion"], each.data["kind"]) for each in reader.objects()}
    real = {key: paths for key, paths in different.items() if "/filled-" not in key and " filled-" not in key}
    assert real == {}
    assert {path for paths in different.values() for path in paths} == CONTRADICTIONS.keys()
    assert len(different) == 13
    assert all("leases" in key for key in moved), moved
    assert filled >= FILLED[minor]
    assert equal >= filled - len(different) + 200
    # Every kind that this server stores as protobuf was among them.
    known = {(api, kind) for api, kind in field_table(minor).kinds if (api, kind) in served_kinds(server)}
    later = {each for each, (since, _) in SERVED_AS.items() if since <= minor and each in known}
    assert {each for each in known - stored if is_stored(each[1])} == later


def test_every_kind_is_known_as_discovery_has_it(server_of):
    server = server_of(OWN_VERSION)
    known = {(each.group, each.plural): each for each in BUILT_IN}
    for group, resource in server.resources():
        name = group.split("/")[1] if group.startswith("apis/") else ""
        if "get" in resource["verbs"] and name != "events.k8s.io" and resource["kind"] != "ComponentStatus":
            own = known[name, resource["name"]]
            assert (own.kind, own.namespaced) == (resource["kind"], resource["namespaced"])
            assert list(own.aliases) == resource.get("shortNames", [])
            assert resource["singularName"] == own.kind.lower()


def encryption_config(folder, provider, *, resources=("secrets", "configmaps")):
    path = folder / f"{provider}.yaml"
    key = {"name": "first", "secret": b64encode(bytes(range(32))).decode()}
    providers = [{provider: {"keys": [key]}}, {"identity": {}}]
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": list(resources), "providers": providers}],
    }
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("provider", ["aesgcm", "aescbc", "secretbox"])
def test_values_that_a_server_encrypted_are_read_with_its_keys(server_of, tmp_path, provider):
    config = encryption_config(tmp_path, provider, resources=["secrets", "configmaps", "widgets.law.example.com"])
    server = server_of(OWN_VERSION, arguments=[f"--encryption-provider-config={config}"])
    create_all(server)
    path = save(server, tmp_path / "snapshot.db")
    with SnapshotReader(path=path) as reader:
        assert {each.error.code for each in reader.objects() if each.error} == {"stored-object-key-missing"}
        assert {str(each.key) for each in reader.objects() if each.error} >= {
            "secrets law/password", "configmaps law/text", "widgets.law.example.com law/first",
        }  # fmt: skip
    with SnapshotReader(path=path, encryption=EncryptionKeys.load(config)) as reader:
        equal, different, _ = compare(server, reader)
        assert different == {}
        assert equal > 200
        assert [str(each.key) for each in reader.search("s3cret <&>")] == ["secrets law/password"]


def test_custom_resources_that_a_server_stored_as_cbor(server_of, tmp_path):
    server = server_of(OWN_VERSION, arguments=["--feature-gates=CBORServingAndStorage=true"])
    create_all(server)
    path = save(server, tmp_path / "snapshot.db")
    assert b"\xd9\xd9\xf7" in path.read_bytes()
    with SnapshotReader(path=path) as reader:
        assert list(differences(reader.get("widgets", "first", namespace="law"),
                                server.ask("/apis/law.example.com/v1/namespaces/law/widgets/first"))) == []  # fmt: skip


def schema_of(spec):
    return {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}}


BEFORE = {
    "gone": {"type": "string"},
    "kept": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "list": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    "map": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "null": {"type": "string", "nullable": True},
    "other": {"type": "string", "nullable": True},
    "pod": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
TEXT = {"type": "string"}
AFTER = {
    "kept": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"inner": {"type": "object", "properties": {"known": TEXT}}},
    },
    "list": {"type": "array", "items": {"type": "object", "properties": {"a": TEXT, "b": {**TEXT, "default": "new"}}}},
    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": TEXT}}},
    "null": {"type": "string"},
    "other": {"type": "string", "default": "instead of null"},
    "pod": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
    "new": {"type": "object", "default": {"deep": {}}, "properties": {
        "deep": {"type": "object", "properties": {"number": {"type": "integer", "default": 7}}}}},
}  # fmt: skip
OLD_SPEC = {
    "gone": "x",
    "kept": {"unknown": 1, "inner": {"known": "k", "unknown": 2}},
    "list": [{"a": "1", "c": "2"}, {}],
    "map": {"x": {"a": "1", "z": "2"}, "y": {}},
    "null": None,
    "other": None,
    "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}, "status": {}},
}


def test_custom_resources_are_read_by_the_schema_of_now(server_of, tmp_path):
    server = server_of(OWN_VERSION)
    create_all(server)
    definition = copy.deepcopy(WIDGETS)
    definition["metadata"]["name"] = "gauges.law.example.com"
    definition["spec"]["names"] = {"plural": "gauges", "kind": "Gauge"}
    definition["spec"]["versions"] = [{"name": "v1", "served": True, "storage": True, "schema": schema_of(BEFORE)}]
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    server.ask(definitions, method="POST", body=definition)
    gauges = "/apis/law.example.com/v1/namespaces/law/gauges"
    gauge = {"apiVersion": "law.example.com/v1", "kind": "Gauge", "metadata": {"name": "g"}, "spec": OLD_SPEC}
    until(lambda: server.ask(gauges, method="POST", body=gauge))
    made = server.ask(f"{definitions}/gauges.law.example.com")
    made["spec"]["versions"][0]["schema"] = schema_of(AFTER)
    server.ask(f"{definitions}/gauges.law.example.com", method="PUT", body=made)
    until(lambda: server.ask(f"{gauges}/g")["spec"]["new"])
    served = server.ask(f"{gauges}/g")
    with SnapshotReader(path=save(server, tmp_path / "snapshot.db")) as reader:
        assert list(differences(reader.get("gauges", "g", namespace="law"), served)) == []
        assert [list(differences(each.data, served)) for each in reader.objects("gauges")] == [[]]
    assert served["spec"]["new"] == {"deep": {"number": 7}}
    assert served["spec"] != OLD_SPEC


def until(act):
    """Do something until it succeeds: what a definition says is served a moment later."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return act()
        except (KeyError, ApiError):
            assert time.monotonic() < deadline
            time.sleep(0.1)
