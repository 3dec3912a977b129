"""A defect in etcd, or through the API, and how it is undone."""

import copy

import orjson
import pytest

from clusterguard.clusters.kube import ApiResource
from clusterguard.drills.defects.catalogue import OBJECT_DEFECTS
from clusterguard.drills.defects.placing import ApiPlace, EtcdPlace, NotAppliedError, NotUndoneError, key_of
from clusterguard.errors import ConflictError, EtcdError, ResourceNotFoundError
from clusterguard.etcd.member import StoredValue
from clusterguard.model.inventory import ObjectRef

BY_NAME = {each.name: each for each in OBJECT_DEFECTS}
CONFIG_MAPS = ApiResource(
    group="", version="v1", kind="ConfigMap", plural="configmaps", namespaced=True, verbs=frozenset()
)
REF = ObjectRef("ConfigMap", "shop", "web")
KEY = b"/registry/configmaps/shop/web"
ITEM = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1", "resourceVersion": "7"},
    "data": {"a": "1234"},
}
STORED = b"k8s\0 as protobuf, uid-1"


class Etcd:
    def __init__(self):
        self.keys = {KEY: StoredValue(value=STORED, revision=7)}
        self.revision = 7
        self.refuses = ()  # how many of the next writes fail, and how

    def stored(self, key):
        return self.keys.get(key)

    def replace(self, key, value, *, revision):
        now = self.keys.get(key)
        if (now.revision if now else 0) != revision:
            return False
        self.revision += 1
        if value is None:
            self.keys.pop(key, None)
        else:
            self.keys[key] = StoredValue(value=value, revision=self.revision)
        if self.refuses:
            error, *self.refuses = self.refuses
            if error:
                raise error
        return True


class Api:
    def __init__(self):
        self.item = copy.deepcopy(ITEM)
        self.refuses = {}

    def resource(self, kind, *, api_version):
        assert (kind, api_version) == ("ConfigMap", "v1")
        return CONFIG_MAPS

    def get(self, *_):
        if self.item is None:
            raise ResourceNotFoundError("none")
        return copy.deepcopy(self.item)

    def _write(self, verb, item, **given):
        if verb in self.refuses:
            raise self.refuses[verb]
        self.item = copy.deepcopy(item)
        self.item["metadata"] |= given
        return self.get()

    def replace(self, item):
        assert item["metadata"]["resourceVersion"] == self.item["metadata"]["resourceVersion"]
        return self._write("replace", item, resourceVersion=str(int(item["metadata"]["resourceVersion"]) + 1))

    def create(self, item):
        assert not {"uid", "resourceVersion"} & item["metadata"].keys()
        return self._write("create", item, uid="uid-2", resourceVersion="20")

    def delete(self, *_, uid):
        assert uid == self.item["metadata"]["uid"]
        self.item = None


@pytest.fixture
def etcd():
    return Etcd()


@pytest.fixture
def api():
    return Api()


def put(place, name):
    return place.put(BY_NAME[name], REF, version="v1")


# ---- etcd ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "plural", "key"),
    [
        ("", "services", b"/registry/services/specs/shop/web"),
        ("apps", "deployments", b"/registry/deployments/shop/web"),
        ("shop.example", "menus", b"/registry/shop.example/menus/shop/web"),
    ],
)
def test_the_key_of_an_object(group, plural, key):
    resource = ApiResource(group=group, version="v1", kind="X", plural=plural, namespaced=True, verbs=frozenset())
    assert key_of(resource, REF) == key


def test_in_etcd_the_object_is_changed_and_its_bytes_come_back(api, etcd):
    with put(EtcdPlace(api, etcd), "config-cut"):
        changed = orjson.loads(etcd.keys[KEY].value)
        assert (changed["data"], changed["metadata"]["uid"]) == ({"a": "12"}, "uid-1")
        assert "resourceVersion" not in changed["metadata"]
    assert etcd.keys[KEY].value == STORED


def test_in_etcd_the_object_is_left_out_and_its_bytes_come_back(api, etcd):
    with put(EtcdPlace(api, etcd), "object-left-out"):
        assert KEY not in etcd.keys
    assert etcd.keys[KEY].value == STORED


def test_it_is_undone_whatever_happens_meanwhile(api, etcd):
    with pytest.raises(KeyboardInterrupt), put(EtcdPlace(api, etcd), "object-left-out"):
        raise KeyboardInterrupt
    assert etcd.keys[KEY].value == STORED


def test_what_etcd_does_not_hold_in_clear_is_left_alone(api, etcd):
    etcd.keys[KEY] = StoredValue(value=b"k8s:enc:aescbc:v1:key1:", revision=7)
    with pytest.raises(NotAppliedError), put(EtcdPlace(api, etcd), "config-cut"):
        pytest.fail("it was put there")
    assert etcd.revision == 7


def test_a_write_whose_answer_is_lost_is_undone(api, etcd):
    etcd.refuses = (EtcdError("the connection broke"),)
    with pytest.raises(NotAppliedError), put(EtcdPlace(api, etcd), "config-cut"):
        pytest.fail("nobody knew whether it was there")
    assert etcd.keys[KEY].value == STORED


def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(api, etcd):
    with pytest.raises(NotUndoneError), put(EtcdPlace(api, etcd), "config-cut"):
        etcd.keys[KEY] = StoredValue(value=b"of a controller", revision=99)
    assert etcd.keys[KEY].value == b"of a controller"


def test_an_etcd_that_fails_at_the_end_is_told(api, etcd):
    etcd.refuses = (None, EtcdError("no leader"))
    with pytest.raises(NotUndoneError), put(EtcdPlace(api, etcd), "config-cut"):
        pass


# ---- through the API ----------------------------------------------------------------------------------------


def test_through_the_api_the_object_is_changed_back(api):
    with put(ApiPlace(api, same_uids=True), "config-cut"):
        assert api.item["data"] == {"a": "12"}
    assert (api.item["data"], api.item["metadata"]["uid"]) == ({"a": "1234"}, "uid-1")


def test_through_the_api_the_object_is_made_again(api):
    with put(ApiPlace(api, same_uids=False), "object-left-out"):
        assert api.item is None
    assert (api.item["data"], api.item["metadata"]["uid"]) == ({"a": "1234"}, "uid-2")


@pytest.mark.parametrize(
    ("same_uids", "owners", "metadata", "kind"),
    [
        (True, (), {}, "ConfigMap"),
        (False, ("uid-1",), {}, "ConfigMap"),
        (False, (), {"finalizers": ["a/b"]}, "ConfigMap"),
        (False, (), {}, "Namespace"),
    ],
)
def test_what_would_not_come_back_as_it_was_is_not_deleted(api, same_uids, owners, metadata, kind):
    api.item["kind"], api.item["metadata"] = kind, api.item["metadata"] | metadata
    before = copy.deepcopy(api.item)
    place = ApiPlace(api, same_uids=same_uids, owners=frozenset(owners))
    with pytest.raises(NotAppliedError), put(place, "object-left-out"):
        pytest.fail("it was put there")
    assert api.item == before


def test_what_the_api_refuses_is_not_applied(api):
    api.refuses["replace"] = ConflictError("field is immutable")
    with pytest.raises(NotAppliedError), put(ApiPlace(api, same_uids=True), "config-cut"):
        pytest.fail("it was put there")
    assert api.item == ITEM


def test_what_the_api_does_not_take_back_is_told(api):
    with pytest.raises(NotUndoneError), put(ApiPlace(api, same_uids=True), "config-cut"):
        api.refuses["replace"] = ConflictError("a webhook denied the request")


def test_pods_that_must_stay_the_same_are_not_replaced(api):
    with pytest.raises(NotAppliedError), put(ApiPlace(api, same_uids=True), "replicas-changed"):
        pytest.fail("it was put there")
    assert api.item == ITEM
