"""Coverage of a real API server: metadata alone, a user who may not read everything, and Velero's own objects."""

import pytest
import yaml

from clusterguard.clusters.kube import KubeClient
from clusterguard.coverage.cover import cover
from clusterguard.errors import ForbiddenError

pytestmark = pytest.mark.programs

READER = "coverage-reader"


@pytest.fixture(scope="module")
def api(shared_cluster):
    """A cluster with one namespace, and an account that may read everything in it but Secrets."""
    api = shared_cluster.api
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["namespaces", "configmaps", "pods"], "verbs": ["list"]},
        {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["list"]},
    ]
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": READER}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": READER, "namespace": READER}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": READER}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": READER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": READER},
            "subjects": [{"kind": "ServiceAccount", "name": READER, "namespace": READER}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page", "namespace": READER}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "login", "namespace": READER},
            "stringData": {"password": "correct-horse"},
        },
    ]
    for manifest in made:
        api.apply(manifest)
    yield api
    for manifest in reversed(made):
        metadata = manifest["metadata"]
        api.delete(api.resource_of(manifest), metadata["name"], metadata.get("namespace"))


@pytest.fixture
def answers(api, monkeypatch):
    """Every answer of the API server to a list, as text."""
    seen = []
    ask = KubeClient.request

    def request(self, *args, **given):
        answer = ask(self, *args, **given)
        seen.append(answer.body)
        return answer

    monkeypatch.setattr(KubeClient, "request", request)
    return seen


def test_without_backups_all_that_somebody_made_is_unprotected(api, answers):
    table = cover(api, "context:shared")
    row = {each.name: each for each in table.namespaces}[READER]
    # The Namespace, the account, the ConfigMap and the Secret; what controllers put there is excused.
    assert (row.state, sum(row.reasons.values()), row.excused >= 1) == ("unprotected", 4, True)
    assert {each.name: each.state for each in table.kinds}["Secret"] == "unprotected"
    assert {each.name: each.state for each in table.namespaces}["kube-system"] == "excused"
    assert (table.unread, table.sources, table.uncovered) == ((), (), True)
    assert not any(b"correct-horse" in body or b"Y29ycmVjdC1ob3JzZ" in body for body in answers)


@pytest.fixture
def reader(api, shared_cluster, tmp_path):
    """A client with the rights of the account alone."""
    accounts = api.resource("ServiceAccount")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = api.request("POST", accounts.path(READER, READER, "token"), body=asked).json()
    (tmp_path / "token").write_text(answer["status"]["token"])
    kubeconfig = yaml.safe_load(shared_cluster.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    with KubeClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
        yield client


def test_a_user_who_may_not_read_everything_is_told_what(reader):
    table = cover(reader, "context:shared")
    assert ("Secret", READER) in {(each.what, each.namespace) for each in table.unread}
    assert {each.name: each.state for each in table.namespaces}[READER] == "unknown"
    assert {each.name: each.state for each in table.kinds}["ConfigMap"] == "unprotected"
    assert table.to_dict()["verdict"] == "unknown"


def test_without_namespaces_there_is_no_answer(api, reader):
    roles = api.resource("ClusterRole")
    rules = api.get(roles, READER)["rules"]
    api.patch(roles, READER, patch={"rules": rules[1:]})
    try:
        with pytest.raises(ForbiddenError):
            cover(reader, "context:shared")
    finally:
        api.patch(roles, READER, patch={"rules": rules})
