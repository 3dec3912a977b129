"""Looking at a cluster: what is asked for, what is read of it, and what may not be."""

import copy

import pytest
from coverage_objects import NOW

from clusterguard.clusters.kube import ApiResource, Page
from clusterguard.coverage.look import look_at
from clusterguard.errors import ClusterUnreachableError, ConflictError, ForbiddenError, ResourceNotFoundError

VERBS = frozenset({"create", "get", "list"})


def kind(name, group="", *, namespaced=True, verbs=VERBS, plural=""):
    plural = plural or f"{name.lower()}s"
    return ApiResource(group=group, version="v1", kind=name, plural=plural, namespaced=namespaced, verbs=verbs)


KINDS = (
    kind("Namespace", namespaced=False),
    kind("Secret"),
    kind("ConfigMap"),
    kind("Pod"),
    kind("ServiceAccount"),
    kind("PersistentVolumeClaim"),
    kind("Event"),
    kind("Job", "batch"),
    kind("PersistentVolume", namespaced=False),
    kind("StorageClass", "storage.k8s.io", namespaced=False, plural="storageclasses"),
    kind("ClusterRoleBinding", "rbac.authorization.k8s.io", namespaced=False),
    kind("APIService", "apiregistration.k8s.io", namespaced=False),
    *(
        kind(name, "velero.io")
        for name in ("Restore", "PodVolumeBackup", "DownloadRequest", "Schedule", "BackupStorageLocation")
    ),
    kind("CustomResourceDefinition", "apiextensions.k8s.io", namespaced=False),
)


def item(of, name, namespace="shop", **fields):
    resource = next(each for each in KINDS if each.kind == of)
    metadata = {"name": name, "creationTimestamp": "2029-01-01T00:00:00Z", **fields.pop("metadata", {})}
    metadata |= {"namespace": namespace} if resource.namespaced else {}
    return {"apiVersion": resource.api_version, "kind": of, "metadata": metadata, **fields}


class Api:
    """A cluster; `failures` has what is raised for a kind and a namespace (None: all of them)."""

    def __init__(self, *items, kinds=KINDS, gaps=(), failures=None):
        self.items = [item("Namespace", "shop"), item("Namespace", "lab"), *items]
        self.kinds, self.gaps, self.failures = kinds, gaps, failures or {}
        self.whole, self.gone = set(), False

    def server_time(self):
        return NOW

    def server_version(self):
        if self.gone:
            raise ClusterUnreachableError("gone")
        return "v1.36.3"

    def resources(self, *, refresh=False):
        return self.kinds

    def resource(self, name, *, api_version=None):
        return next(each for each in self.kinds if each.kind == name)

    def discovery_gaps(self):
        return self.gaps

    def list(self, resource, namespace=None, **options):
        return [each for page in self.list_pages(resource, namespace, **options) for each in page.items]

    def list_pages(self, resource, namespace=None, *, metadata_only=False, page_size=500):
        failure = self.failures.get((resource.kind, namespace))
        if isinstance(failure, list):
            failure = failure.pop(0) if failure else None
        if failure is not None:
            raise failure
        if not metadata_only:
            self.whole.add(resource.kind)
        found = [
            each
            for each in copy.deepcopy(self.items)
            if each["kind"] == resource.kind and namespace in {None, each["metadata"].get("namespace")}
        ]
        keys = {"apiVersion", "kind", "metadata"}
        items = [{key: each[key] for key in keys} for each in found] if metadata_only else found
        yield Page(items=items, resource_version="1", last=True)


def names(found, kind_name):
    return [(each.namespace, each.name) for each in found.of_kind(kind_name)]


def test_every_kind_is_looked_at_and_secrets_are_never_read():
    api = Api(item("Secret", "login", data={"a": "Yg=="}), item("ConfigMap", "page", metadata={"labels": {"a": "b"}}))
    found = look_at(api, "context:prod")
    assert (names(found, "Secret"), names(found, "Namespace")) == ([("shop", "login")], [("", "shop"), ("", "lab")])
    assert found.of_kind("ConfigMap")[0].labels == {"a": "b"}
    assert "Secret" not in api.whole
    assert "Pod" in api.whole
    assert (found.not_listed, found.at, found.cluster) == ({"Event": "events"}, NOW, "context:prod")


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (item("Pod", "done", spec={}, status={"phase": "Succeeded"}), "ended pods"),
        (item("Pod", "runs", spec={}, status={"phase": "Running"}), ""),
        (item("Job", "done", status={"completionTime": "x"}), "completed jobs"),
        (item("Job", "runs", status={}), ""),
        (item("Restore", "r"), "records of Velero"),
        (item("PodVolumeBackup", "p"), "records of Velero"),
        (item("DownloadRequest", "d"), "records of Velero"),
        (item("Schedule", "nightly"), ""),
        (item("BackupStorageLocation", "default"), ""),
        (item("CustomResourceDefinition", "restores.velero.io"), "definitions that come with Velero"),
        (item("CustomResourceDefinition", "menus.example.com"), ""),
        (item("ServiceAccount", "default"), "untouched default service accounts"),
        (item("ServiceAccount", "default", automountServiceAccountToken=False), ""),
        (item("ConfigMap", "kube-root-ca.crt"), "root certificates"),
        (item("ConfigMap", "mine", "kube-system"), ""),
        (
            item("PersistentVolumeClaim", "a", metadata={"ownerReferences": [{"kind": "Pod", "name": "p"}]}, spec={}),
            "claims that go with their Pod",
        ),
        (item("ConfigMap", "going", metadata={"deletionTimestamp": "x"}), "already being deleted"),
    ],
)
def test_what_need_not_be_in_a_backup_is_known_by_rule(given, rule):
    [thing] = look_at(Api(given), "c").of_kind(given["kind"] + _group(given))
    assert thing.rule == rule


def _group(given):
    group = given["apiVersion"].rpartition("/")[0]
    return f".{group}" if group else ""


# ---- what may not be read ------------------------------------------------------------------------------------

FORBIDDEN = ForbiddenError("403 Forbidden: secrets")


def test_a_kind_that_is_forbidden_everywhere_is_told_for_each_namespace():
    failures = dict.fromkeys([("Secret", None), ("Secret", "shop"), ("Secret", "lab")], FORBIDDEN)
    found = look_at(Api(failures=failures), "c")
    assert {(each.what, each.namespace) for each in found.unread} == {("Secret", "shop"), ("Secret", "lab")}


def test_a_kind_that_is_allowed_in_some_namespaces_is_read_there():
    failures = {("Secret", None): FORBIDDEN, ("Secret", "lab"): FORBIDDEN}
    found = look_at(Api(item("Secret", "login"), failures=failures), "c")
    assert names(found, "Secret") == [("shop", "login")]
    assert [(each.what, each.namespace) for each in found.unread] == [("Secret", "lab")]


def test_a_cluster_scoped_kind_that_is_forbidden_is_told():
    found = look_at(Api(failures={("PersistentVolume", None): FORBIDDEN}), "c")
    assert [(each.what, each.namespace) for each in found.unread] == [("PersistentVolume", "")]


def test_a_kind_whose_api_is_down_is_told():
    found = look_at(Api(failures={("ConfigMap", None): ClusterUnreachableError("503")}), "c")
    assert [each.what for each in found.unread] == ["ConfigMap"]


def test_a_server_that_is_gone_is_an_error():
    api = Api(failures={("ConfigMap", None): ClusterUnreachableError("refused")})
    api.gone = True
    with pytest.raises(ClusterUnreachableError):
        look_at(api, "c")


def test_namespaces_that_may_not_be_listed_are_an_error():
    with pytest.raises(ForbiddenError):
        look_at(Api(failures={("Namespace", None): FORBIDDEN}), "c")


def test_versions_that_nobody_answers_for_are_told_but_for_measurements():
    found = look_at(Api(gaps=("example.com/v1", "metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1")), "c")
    assert [each.what for each in found.unread] == ["*.example.com"]


def test_a_list_that_expired_is_read_again_and_nothing_twice():
    api = Api(item("ConfigMap", "page"), failures={("ConfigMap", None): [ConflictError("410 Gone")]})
    assert names(look_at(api, "c"), "ConfigMap") == [("shop", "page")]


def test_a_list_that_expires_again_and_again_is_told():
    failures = {("ConfigMap", None): [ConflictError("410 Gone")] * 3}
    assert [each.what for each in look_at(Api(failures=failures), "c").unread] == ["ConfigMap"]


def test_a_kind_that_is_gone_meanwhile_is_told():
    found = look_at(Api(failures={("ConfigMap", None): ResourceNotFoundError("404")}), "c")
    assert [each.what for each in found.unread] == ["ConfigMap"]


# ---- volumes -------------------------------------------------------------------------------------------------


def pod(name="web-1", *, volumes=(), mounts=(), owner="web", phase="Running", **annotations):
    owners = [{"kind": "ReplicaSet", "name": owner, "controller": True}] if owner else []
    metadata = {"ownerReferences": owners, "annotations": annotations}
    spec = {"volumes": list(volumes), "containers": [{"volumeMounts": list(mounts)}]}
    return item("Pod", name, metadata=metadata, spec=spec, status={"phase": phase})


def claim_of(volume, claim):
    return {"name": volume, "persistentVolumeClaim": {"claimName": claim}}


def test_claims_are_found_with_what_is_behind_them_and_who_uses_them():
    claim = item("PersistentVolumeClaim", "data", metadata={"uid": "u"}, spec={"volumeName": "pv"})
    volume = item("PersistentVolume", "pv", spec={"csi": {"driver": "d"}})
    free = item("PersistentVolume", "free", spec={"local": {}}, status={"phase": "Released"})
    user = pod(volumes=[claim_of("v", "data")], **{"backup.velero.io/backup-volumes": "a, v"})
    ended = pod("done", volumes=[claim_of("v", "data")], phase="Failed")
    found = look_at(Api(claim, volume, free, user, ended), "c")
    [seen] = found.claims
    assert (str(seen), seen.driver, seen.uid, seen.pods) == ("shop/data", "d", "u", ("web-1",))
    [use] = found.uses["shop", "data"]
    assert (use.volume, use.running, use.opted_in, use.opted_out) == ("v", True, True, False)
    assert found.unclaimed == {"free": "Released"}
    assert found.snapshot_classes is None


def test_volumes_of_one_owner_are_one_and_those_without_data_are_none():
    volumes = [
        {"name": "cache", "emptyDir": {}},
        {"name": "logs", "hostPath": {"path": "/l"}},
        {"name": "cm", "configMap": {}},
        {"name": "token", "projected": {}},
        {"name": "old"},
    ]
    mounts = [{"name": "logs", "readOnly": True}, {"name": "cache"}]
    found = look_at(Api(pod(volumes=volumes, mounts=mounts), pod("web-2", volumes=volumes, mounts=mounts)), "c")
    assert {(each.owner, each.volume, each.source, each.pods, each.read_only) for each in found.inline} == {
        ("ReplicaSet web", "cache", "emptyDir", ("web-1", "web-2"), False),
        ("ReplicaSet web", "logs", "hostPath", ("web-1", "web-2"), True),
        ("ReplicaSet web", "old", "emptyDir", ("web-1", "web-2"), True),
    }


def test_a_host_path_that_any_container_may_write_to_is_written_to():
    volumes = [{"name": "logs", "hostPath": {"path": "/l"}}]
    mounts = [{"name": "logs", "readOnly": True}, {"name": "logs"}]
    [volume] = look_at(Api(pod(volumes=volumes, mounts=mounts, owner="")), "c").inline
    assert (volume.owner, volume.read_only) == ("Pod web-1", False)


def test_other_servers_and_bindings_are_known():
    ours = item("APIService", "v1.apps", spec={"group": "apps", "service": None})
    other = item("APIService", "v1.example.com", spec={"group": "example.com", "service": {"name": "x"}})
    binding = item(
        "ClusterRoleBinding",
        "web",
        roleRef={"kind": "ClusterRole", "name": "reader"},
        subjects=[{"kind": "ServiceAccount", "namespace": "shop", "name": "web"}, {"kind": "User", "name": "eve"}],
    )
    found = look_at(Api(ours, other, binding), "c")
    assert found.aggregated == {"example.com"}
    assert [(each.name, each.role, each.namespaces) for each in found.bindings] == [("web", "reader", {"shop"})]
