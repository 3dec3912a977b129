"""``drill init`` by somebody who may not read everything in the namespace: what is missing in the drill is told."""

import pytest
import yaml

from clusterguard.cli.main import main
from clusterguard.drills import load_drill

pytestmark = pytest.mark.programs

NAMESPACE = "rights"
RBAC = "rbac.authorization.k8s.io"


def manifest(kind, name, *, group="v1", namespaced=True, **fields):
    metadata = {"name": name, **({"namespace": NAMESPACE} if namespaced else {})}
    return {"apiVersion": group, "kind": kind, "metadata": metadata, **fields}


def bound(account, kind, role):
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    ref = {"apiGroup": RBAC, "kind": kind, "name": role}
    return manifest("RoleBinding", account, group=f"{RBAC}/v1", roleRef=ref, subjects=[subject])


SOME = [{"apiGroups": ["", "apps"], "resources": ["configmaps", "deployments", "services"], "verbs": ["get", "list"]}]
POD = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1"}]},
}
MADE = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"team": "shop"}}},
    *(manifest("ServiceAccount", name) for name in ("viewer", "some", "nobody")),
    manifest("ConfigMap", "page", data={"page": "open"}),
    manifest("Secret", "login", stringData={"password": "correct-horse-battery"}),
    manifest("Deployment", "web", group="apps/v1", spec={"selector": {"matchLabels": {"app": "web"}}, "template": POD}),
    manifest("Role", "some", group=f"{RBAC}/v1", rules=SOME),
    bound("viewer", "ClusterRole", "view"),
    bound("some", "Role", "some"),
]


@pytest.fixture(scope="module")
def api(shared_cluster):
    api = shared_cluster.api
    for item in MADE:
        api.apply(item)
    yield api
    api.delete(api.resource("Namespace"), NAMESPACE)


@pytest.fixture
def init(api, shared_cluster, tmp_path, monkeypatch, capsys):
    """Run the command with the rights of an account; return its exit code, what it printed, and the drill."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def init(account):
        path = api.resource("ServiceAccount").path(NAMESPACE, account, "token")
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        (tmp_path / "token").write_text(api.request("POST", path, body=asked).json()["status"]["token"])
        kubeconfig = yaml.safe_load(shared_cluster.kubeconfig.read_text())
        kubeconfig["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        words = ["drill", "init", "--cluster", f"kubeconfig:{tmp_path}/kubeconfig", "-n", NAMESPACE, "--no-mutate"]
        monkeypatch.setattr("sys.argv", ["clusterguard", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().err, tmp_path / "drills" / NAMESPACE

    return init


def kinds_in(folder):
    files = (folder / "manifests").iterdir()
    return {item["kind"]: item for file in files for item in yaml.safe_load_all(file.read_text())}


def test_the_role_view_does_not_show_secrets_and_rights(init):
    code, err, folder = init("viewer")
    assert code == 0, err
    unread = {line.split(":")[1].strip() for line in err.splitlines() if line.startswith("could not be read")}
    assert unread == {"PodTemplate", "Secret", f"Role.{RBAC}", f"RoleBinding.{RBAC}"}
    kinds = kinds_in(folder)
    assert kinds.keys() == {"Namespace", "ServiceAccount", "ConfigMap", "Deployment"}
    assert kinds["Namespace"]["metadata"]["labels"]["team"] == "shop"
    text = (folder / f"{NAMESPACE}.drill.yaml").read_text()
    assert all(f"{kind}: " in text.partition("apiVersion")[0] for kind in unread)
    assert load_drill(folder / f"{NAMESPACE}.drill.yaml").name == NAMESPACE


def test_of_what_may_not_be_read_every_kind_is_told(init):
    code, err, folder = init("some")
    assert code == 0, err
    unread = {line.split(":")[1].strip() for line in err.splitlines() if line.startswith("could not be read")}
    assert unread >= {"Namespace", "Secret", "ServiceAccount", "Pod", "StatefulSet.apps", f"Role.{RBAC}"}
    assert not unread & {"ConfigMap", "Deployment.apps", "Service"}
    assert kinds_in(folder).keys() == {"Namespace", "ConfigMap", "Deployment"}


def test_where_nothing_may_be_read_nothing_is_written(init):
    code, err, folder = init("nobody")
    assert code == 2
    assert "nothing in namespace rights can be read" in err
    assert not folder.exists()
