"""`clusterguard drill init`: what it reads, what it refuses, what it writes, and that it changes nothing."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from fake_cluster import VERBS, FakeApi, FakeCluster

from clusterguard.cli.main import main
from clusterguard.clusters.kube import ApiResource
from clusterguard.drills import Verdict, load_drill
from clusterguard.drills.authoring.looking import look_at_namespace, shows_etcd
from clusterguard.errors import ConfigError, ForbiddenError, ResourceNotFoundError

DRILLS = Path(__file__).parents[3] / "drills"
PASSWORD = "correct-horse-battery"


def custom(kind, group, *, namespaced=True):
    return ApiResource(
        group=group, version="v1", kind=kind, plural=f"{kind.lower()}s", namespaced=namespaced, verbs=VERBS
    )


class Api(FakeApi):
    """Also knows kinds that somebody added, and may refuse to show some of them."""

    def __init__(self):
        super().__init__()
        self.added = [custom("CustomResourceDefinition", "apiextensions.k8s.io", namespaced=False)]

    def resources(self, *, refresh=False):
        return (*super().resources(), *self.added)

    def resource(self, text, *, api_version=None):
        for resource in self.added:
            if text in {resource.kind, str(resource)}:
                return resource
        return super().resource(text, api_version=api_version)


def space(name="shop", **metadata):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}}


@pytest.fixture
def api():
    api = Api()
    for document in yaml.safe_load_all((DRILLS / "manifests/shop.yaml").read_text()):
        api.apply(document)
    secret = api.objects["Secret", "shop", "web"]
    secret["data"]["password"] = base64.b64encode(PASSWORD.encode()).decode()
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": "elsewhere"}})
    api.calls.clear()
    return api


# ---- looking ------------------------------------------------------------------------------------------------


def test_it_sees_what_is_in_the_namespace_and_changes_nothing(api):
    seen = look_at_namespace(api, "shop")
    kinds = sorted(item["kind"] for item in seen.objects)
    assert kinds == ["ConfigMap", "Deployment", "Namespace", "Secret", "Service"]
    assert api.touched() == []
    assert (seen.velero, dict(seen.unread), dict(seen.undefined)) == (False, {}, {})


def test_custom_resources_come_with_their_definitions(api):
    api.added += [custom("Menu", "example.com"), custom("Route", "route.example.com"), custom("Gate", "x.k8s.io")]
    for resource in api.added[1:]:
        api.apply(
            {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "a", "namespace": "shop"}}
        )
    for plural in ("menus.example.com", "gates.x.k8s.io"):
        definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        api.apply({**definition, "metadata": {"name": plural}})
    seen = look_at_namespace(api, "shop")
    assert set(seen.definitions) == {"Menu.example.com", "Gate.x.k8s.io"}
    assert set(seen.undefined) == {"Route.route.example.com"}


def test_a_definition_that_may_not_be_read_is_told(api):
    api.added.append(custom("Menu", "example.com"))
    api.apply({"apiVersion": "example.com/v1", "kind": "Menu", "metadata": {"name": "a", "namespace": "shop"}})
    api.errors["get", "CustomResourceDefinition"] = ForbiddenError("not you")
    assert "not you" in look_at_namespace(api, "shop").undefined["Menu.example.com"]


@pytest.mark.parametrize(
    ("namespace", "error", "code"),
    [
        ("kube-system", ConfigError, "system-namespace"),
        ("nowhere", ResourceNotFoundError, "resource-not-found"),
        ("empty", ConfigError, "namespace-empty"),
        ("going", ConfigError, "namespace-terminating"),
    ],
)
def test_namespaces_that_no_drill_can_be_about(api, namespace, error, code):
    api.apply(space("empty"))
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "empty"}})
    api.apply(space("going", deletionTimestamp="2030-01-01T00:00:00Z"))
    with pytest.raises(error) as raised:
        look_at_namespace(api, namespace)
    assert raised.value.code == code
    assert raised.value.hint


def test_a_namespace_of_which_nothing_may_be_read(api):
    for kind in ("Namespace", "ConfigMap", "Secret", "Service", "Deployment"):
        for verb in ("get", "list"):
            api.errors[verb, kind] = ForbiddenError(f"{kind} is forbidden")
    with pytest.raises(ForbiddenError) as raised:
        look_at_namespace(api, "shop")
    assert set(raised.value.fields["kinds"]) >= {"Secret", "Deployment.apps"}


def test_what_may_not_be_read_is_told_and_the_rest_is_seen(api):
    api.errors["list", "Secret"] = ForbiddenError("Secret is forbidden")
    api.errors["get", "Namespace"] = ForbiddenError("Namespace is forbidden")
    seen = look_at_namespace(api, "shop")
    assert set(seen.unread) == {"Secret"}
    assert "Deployment" in {item["kind"] for item in seen.objects}


def test_whether_etcd_is_to_be_seen(api):
    assert not shows_etcd(api)
    pod = {"name": "etcd-a", "namespace": "kube-system", "labels": {"component": "etcd"}}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": pod})
    assert shows_etcd(api)
    api.errors["list", "Pod"] = ForbiddenError("no")
    assert not shows_etcd(api)


# ---- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(api):
    cluster = FakeCluster()
    cluster.api.close()
    cluster.api = api
    return cluster


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path, cluster):
    """Run `clusterguard drill init` in an empty folder, against a cluster in memory."""

    @contextmanager
    def opened(reference, **_):
        assert reference == "context:prod"
        yield cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clusterguard.cli.drill_init.opened", opened)
    monkeypatch.setenv("COLUMNS", "200")

    def cli(*arguments):
        words = ["clusterguard", "drill", "init", "--cluster", "context:prod", *map(str, arguments)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return cli


def texts(folder):
    return "".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


def test_it_writes_a_drill_that_loads_and_says_what_to_read(cli, api, tmp_path):
    code, out, err = cli("-n", "shop", "--no-mutate")
    assert code == 0, err
    folder = tmp_path / "drills" / "shop"
    assert out.splitlines() == ["drills/shop/manifests/shop.yaml", "drills/shop/shop.drill.yaml"]
    drill = load_drill(folder / "shop.drill.yaml")
    assert {step.verb for step in drill.steps} >= {"etcdSnapshot", "etcdRestore", "restored", "ready", "assert"}
    assert "1 Secret" in err
    assert "commit" in err
    for text in (texts(folder), out, err):
        assert PASSWORD not in text
        assert base64.b64encode(PASSWORD.encode()).decode() not in text
    assert api.touched() == []


def test_credentials_elsewhere_are_told_by_their_place(cli, api):
    api.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "app", "namespace": "shop"},
            "data": {"api-key": "abc-def-ghi"},
        }
    )
    _, _, err = cli("-n", "shop", "--no-mutate")
    assert "ConfigMap shop/app: data.api-key" in err
    assert "abc-def-ghi" not in err


def test_it_replaces_nothing_without_force(cli, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    code, out, err = cli("-n", "shop", folder, "--no-mutate")
    assert (code, out, "--force" in err) == (2, "", True)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert cli("-n", "shop", folder, "--no-mutate", "--force")[0] == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "shop.drill.yaml").exists()


def test_it_fills_the_empty_folder_that_one_is_in(cli, tmp_path):
    assert cli("-n", "shop", ".", "--no-mutate")[0] == 0
    assert (tmp_path / "shop.drill.yaml").exists()


@pytest.mark.parametrize("broken", ["write_files", "require_free"])
def test_a_folder_that_cannot_be_written_is_no_bug_of_ours(cli, monkeypatch, broken):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"clusterguard.drills.authoring.folder.{broken}", full)
    code, _, err = cli("-n", "shop", "--no-mutate")
    assert (code, "No space left on device" in err, "bug" in err) == (2, True, False)


def test_nothing_is_written_for_a_namespace_that_is_not_there(cli, tmp_path):
    code, _, err = cli("-n", "nowhere", "--no-mutate")
    assert (code, "no namespace nowhere" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "has_velero", "simulated", "etcd_pod", "engine"),
    [
        ((), False, False, False, "etcd"),
        ((), True, False, False, "velero"),
        ((), True, False, True, "etcd"),
        ((), True, True, False, "etcd"),
        (("--backup", "etcd"), True, False, False, "etcd"),
        (("--backup", "velero"), False, False, False, "velero"),
    ],
)
def test_what_it_backs_up_by(cli, api, cluster, tmp_path, given, has_velero, simulated, etcd_pod, engine):
    cluster.simulated_pods = simulated
    if has_velero:
        api.added.append(custom("Backup", "velero.io"))
    if etcd_pod:
        labels = {"component": "etcd"}
        metadata = {"name": "etcd-a", "namespace": "kube-system", "labels": labels}
        api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    code, out, _ = cli("-n", "shop", "--no-mutate", *given)
    drill = load_drill(tmp_path / "drills/shop/shop.drill.yaml")
    assert (code, drill.metadata.labels["backup"]) == (0, engine)
    assert ("shows no etcd" in out) == (engine == "velero" and not given)


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("FAIL", 1), ("ERROR", 2)])
def test_the_new_drill_is_attacked_and_its_verdict_is_the_answer(cli, monkeypatch, verdict, code):
    ran = []

    class Runner:
        def __init__(self, *, settings, on_event):
            self.settings = settings

        def run(self, drill):
            ran.append((drill.name, self.settings.cluster, self.settings.mutate, self.settings.allowed_contexts))
            return SimpleNamespace(verdict=Verdict[verdict])

    monkeypatch.setattr("clusterguard.drills.runner.DrillRunner", Runner)
    monkeypatch.setattr("clusterguard.toolchain.Toolchain.missing", lambda *_: set())  # none is needed
    ended = cli("-n", "shop")
    assert ended[0] == code, ended
    assert ran == [("shop", "embedded", 100, ())]
