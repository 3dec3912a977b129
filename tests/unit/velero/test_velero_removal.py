"""Finalizers that are taken off: of objects that somebody else changes at the same time, too."""

import pytest

from clusterguard.clusters.kube import ApiResource
from clusterguard.errors import ConflictError, ResourceNotFoundError
from clusterguard.velero import install
from clusterguard.velero.install import _Removal
from clusterguard.velero.resources import Restore

FINALIZER = "restores.velero.io/external-resources-finalizer"


class Api:
    """An API server with one restore, which is changed whenever somebody has just read it."""

    def __init__(self, *, conflicts, finalizers):
        self.conflicts = conflicts
        self.finalizers = finalizers
        self.tries = 0

    def get(self, resource, name, namespace):
        if self.finalizers is None:
            raise ResourceNotFoundError(name)
        return {"metadata": {"name": name, "finalizers": self.finalizers, "resourceVersion": "1"}}

    def patch(self, resource: ApiResource, name, namespace, *, patch):
        self.tries += 1
        if self.tries <= self.conflicts:
            raise ConflictError("the object has been modified")
        self.finalizers = patch["metadata"]["finalizers"]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(install, "_WHILE_CHANGED", install.RetryPolicy(attempts=10, sleep=lambda _: None))


def removal(api):
    return _Removal(api=api, namespace="velero", progress=lambda _: None)


def take_off(api):
    made = removal(api)
    made._take_finalizer_off(Restore.model_validate({"metadata": {"name": "r"}}))
    return made.finalizers


@pytest.mark.parametrize("conflicts", [0, 1, 9])
def test_only_veleros_own_goes_however_often_it_must_be_tried(conflicts):
    api = Api(conflicts=conflicts, finalizers=["example.com/theirs", FINALIZER])
    assert take_off(api) == ["Restore r"]
    assert api.finalizers == ["example.com/theirs"]


def test_an_object_that_never_stays_the_same_is_given_up():
    api = Api(conflicts=10_000, finalizers=[FINALIZER])
    with pytest.raises(ConflictError):
        take_off(api)
    assert api.tries == 10


@pytest.mark.parametrize("finalizers", [None, [], ["example.com/theirs"]])
def test_what_is_gone_or_free_is_left_alone(finalizers):
    api = Api(conflicts=0, finalizers=finalizers)
    assert take_off(api) == []
    assert api.tries == 0
