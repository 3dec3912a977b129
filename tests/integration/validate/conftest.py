import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.validate import RestoreValidator


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    # Its home is not the user's, so that nothing here meets a cluster of theirs.
    with EmbeddedCluster(home=tmp_path_factory.mktemp("clusters")) as running:
        yield running


@pytest.fixture(scope="module")
def api(cluster):
    return cluster.api


@pytest.fixture
def validator(api):
    return RestoreValidator(api=api)


@pytest.fixture
def namespace(api, request):
    name = "t-" + "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())[-50:].strip("-")
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    api.wait_for(
        api.resource("ServiceAccount"),
        "default",
        name,
        until=lambda account: account is not None,
        what="the default service account",
        timeout_seconds=30,
    )
    return name
