"""Velero drills on a cluster and a Velero server in memory: what each answer of the server comes to."""

import copy
import gzip
import io
import json
import tarfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from fake_cluster import FakeCluster

from clusterguard.drills import DrillRunner, DrillSettings, Verdict
from clusterguard.drills import velero as module
from clusterguard.drills.events import Note
from clusterguard.drills.run import DrillRun
from clusterguard.drills.storages import Storages
from clusterguard.errors import (
    DrillError,
    LocationUnavailableError,
    ProvisioningError,
    VeleroError,
    VeleroNotInstalledError,
    WaitTimeoutError,
)
from clusterguard.model.inventory import ObjectRef
from clusterguard.model.support import require_supported
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.claims import ClaimedVolume
from clusterguard.velero.locations import LocationSpec
from clusterguard.velero.outcome import BackupOutcome, OutcomeFinding, RestoredItem, RestoreOutcome, Rule
from clusterguard.velero.phases import BackupPhase, RestorePhase
from clusterguard.velero.repository import DEFAULT_PASSWORD
from clusterguard.velero.resources import Backup, BackupStorageLocation, Restore
from clusterguard.velero.volume_infos import VolumeRecord

DIFFERS = OutcomeFinding(
    rule=Rule.EXISTS_DIFFERENT, detail="data.page differs", ref=ObjectRef("ConfigMap", "shop", "web")
)
DENIED = OutcomeFinding(rule=Rule.ERROR, detail="admission webhook denied the request")
PARTIAL = OutcomeFinding(rule=Rule.PARTIALLY_FAILED, detail="1 errors, 0 warnings")


class FakeVelero:
    """The part of `VeleroClient` that drills use; what a test wants to go wrong is set on `Server`."""

    namespace = "velero"

    def __init__(self, *, api):
        self.server = Server.of(api)
        self.objects = SimpleNamespace(
            api=api, find=self._find, delete=self._delete, list=lambda kind, labels: self.server.transfers.get(kind, [])
        )
        self.locations = SimpleNamespace(
            create=self._create_location,
            delete=lambda name: self._tell("delete location", name) or self.server.locations.pop(name),
            require_available=lambda name, fresh=False: self._tell("look at", name),
            get=lambda name="": self.server.default,
        )

    def installed(self):
        return self.server.installed

    def require_supported(self):
        require_supported("Velero", self.server.version, where="here")

    def require_installed(self):
        if not self.server.installed:
            raise VeleroNotInstalledError("Velero is not installed")

    def wait(self, run, *, timeout_seconds):
        return run

    def back_up(self, name, options, *, wait):
        assert not wait
        self._tell("back up", name)
        self.server.options.append(options)
        self.server.backups[name] = SimpleNamespace(
            kind="Backup",
            name=name,
            storage_location=options.storage_location,
            progress=SimpleNamespace(done=3),
            phase=BackupPhase(self.server.phases.get("Backup", "Completed")),
        )
        Server.saved[name] = copy.deepcopy(dict(self.objects.api.objects))
        with Server.buckets["backups"].put(f"backups/{name}/{name}.tar.gz") as stream:
            stream.write(b"objects")
        return self.server.backups[name]

    def restore(self, backup, options, *, name, wait):
        assert not wait
        self._tell("restore", backup)
        self.server.options.append(options)
        phase = RestorePhase(self.server.phases.get("Restore", "Completed"))
        self.server.restores[name] = SimpleNamespace(kind="Restore", name=name or backup, phase=phase)
        for folder in [f"restores/{name}/"] if name else []:
            with Server.buckets["backups"].put(f"{folder}results.gz") as stream:
                stream.write(b"results")
        self.objects.api.objects |= copy.deepcopy(Server.saved[backup])
        self.server.after_restore(self.objects.api)
        return self.server.restores[name]

    def delete_restore(self, name):
        self._tell("delete restore", name)
        del self.server.restores[name]

    def backups(self):
        return list(self.server.backups.values())

    def adopt(self, name, *, store, location):
        self._tell("adopt", location)
        list(store.list(f"backups/{name}/"))
        self.server.backups[name] = SimpleNamespace(kind="Backup", name=name, storage_location=location)

    def delete_backup(self, name):
        self._tell("delete backup", name)
        del self.server.backups[name]

    def outcome(self, run, *, tolerate, bucket=None):
        found = self.server.findings.get(run.kind, ())
        made = {"backup": run, "volumes": self.server.volumes}
        kind, more = (BackupOutcome, made) if run.kind == "Backup" else (RestoreOutcome, {"restore": run})
        return kind(
            name=run.name,
            phase=str(run.phase),
            findings=tuple(each for each in found if each.rule not in tolerate),
            tolerated=tuple(each for each in found if each.rule in tolerate),
            **more | ({"items": self.server.items} if run.kind == "Restore" else {}),
        )

    def _create_location(self, name, spec):
        self._tell("create location", name)
        self.server.locations[name] = spec

    def _find(self, kind, name):
        found = {Backup: self.server.backups, Restore: self.server.restores}.get(kind, self.server.locations)
        return found.get(name)

    def _delete(self, known):
        self._tell("forget", known.name)
        self.server.backups.pop(known.name)

    def _tell(self, what, name):
        self.server.calls.append((what, name))


class Server:
    """What a Velero server knows; one for each cluster."""

    buckets, saved, servers = {}, {}, {}

    def __init__(self):
        self.installed, self.version = True, "v1.18.3"
        self.backups, self.locations, self.findings, self.transfers = {}, {}, {}, {}
        self.calls, self.options, self.phases, self.restores = [], [], {}, {}
        self.items = (RestoredItem(ref=ObjectRef("ConfigMap", "shop", "web"), action="created"),) * 3
        self.after_restore = lambda api: None
        self.default, self.volumes = None, ()

    @classmethod
    def of(cls, api):
        return cls.servers.setdefault(id(api), cls())

    def did(self, what):
        return [name for done, name in self.calls if done == what]


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.setattr(module, "VeleroClient", FakeVelero)
    for name in ("buckets", "saved", "servers"):
        monkeypatch.setattr(Server, name, {"backups": MemoryStore()} if name == "buckets" else {})
    monkeypatch.setattr(Storages, "for_velero", lambda _, name: Server.buckets.setdefault(name, MemoryStore()))
    monkeypatch.setattr(Storages, "velero_location", lambda _, name, *, in_pods: LocationSpec(bucket=f"drill-{name}"))
    monkeypatch.setattr("clusterguard.velero.manifest.record_manifest", lambda *_, **__: None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server(api):
    return Server.of(api)


@pytest.fixture
def spec(spec):
    """A Velero drill that passes as it is, to be changed."""
    storage = {name: {"s3": {"bucket": f"drill-{name}", "endpoint": "local"}} for name in ("backups", "copies")}
    return spec | {
        "storage": storage,
        "backup": [{"veleroBackup": {"name": "shop", "namespaces": ["shop"], "storage": "backups"}}],
        "restore": [{"veleroRestore": {"from": "shop"}}],
    }


def test_it_is_green_when_all_comes_back(run, spec, server):
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert server.did("back up") == server.did("restore") == [f"shop-{result.run_id}"]
    assert "3 created" in [step.detail for step in result.steps]


def test_an_unsupported_velero_ends_the_drill_before_its_setup(run, spec, server, api):
    server.version = "v1.13.2"
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert (result.code, "v1.13.2" in result.reason) == ("unsupported-version", True)
    assert server.calls == []
    assert not [call for call in api.calls if call[0] in ("create", "apply", "delete")]


def test_what_speaks_against_a_restore_fails_the_drill(run, spec, server):
    server.findings["Restore"] = [DIFFERS]
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.FAIL, "restore-failed")
    assert "exists-different: ConfigMap shop/web" in result.reason


def test_what_speaks_against_a_backup_stops_the_drill_before_its_fault(run, spec, server, api):
    server.findings["Backup"] = [OutcomeFinding(rule=Rule.WARNING, detail="no such plugin")]
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "no such plugin" in result.reason
    assert "fault" not in {phase.name for phase in result.phases}
    assert server.backups == {}, "the backup of a drill that stopped stays"


def test_a_location_is_made_once_for_each_storage(run, spec, server):
    spec["backup"].append({"veleroBackup": {"name": "again", "storage": "backups"}})
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert server.did("create location") == [f"backups-{result.run_id}"]
    assert {options.storage_location for options in server.options[:2]} == {f"backups-{result.run_id}"}


def test_a_location_of_somebody_with_the_name_of_the_storage_is_left_alone(run, spec, server):
    server.locations["backups"] = "somebody's"
    assert run(spec).verdict is Verdict.PASS
    assert server.locations == {"backups": "somebody's"}


def test_nothing_stays_in_a_cluster_that_stays(run, spec, server):
    result = run(spec)
    assert server.backups == server.locations == {}
    assert [info.key for info in Server.buckets["backups"].list()] == []
    # While its location is there, and known to be usable: a server refuses to delete from one that is not.
    order = [what for what, _ in server.calls][-3:]
    assert order == ["look at", "delete backup", "delete location"]
    assert server.did("delete backup") == [f"shop-{result.run_id}"]


def test_copies_are_removed_and_what_else_is_in_the_bucket_stays(run, spec, server):
    store = Server.buckets["copies"] = MemoryStore()
    with store.put("backups/weekly/weekly.tar.gz") as stream:
        stream.write(b"somebody's")
    spec["backup"].append({"copyBackup": {"backup": "shop", "from": "backups", "to": "copies"}})
    spec["restore"][0]["veleroRestore"]["storage"] = "copies"
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert [info.key for info in store.list()] == ["backups/weekly/weekly.tar.gz"]


def test_a_backup_known_from_another_location_is_forgotten_first_and_its_files_stay(run, spec, server):
    spec["backup"].append({"copyBackup": {"backup": "shop", "from": "backups", "to": "copies"}})
    spec["restore"][0]["veleroRestore"]["storage"] = "copies"
    result = run(spec)
    name = f"shop-{result.run_id}"
    doings = [(what, each) for what, each in server.calls if what in {"forget", "adopt", "delete backup"}]
    assert doings == [("forget", name), ("adopt", f"copies-{result.run_id}"), ("delete backup", name)]


def test_copying_a_backup_that_a_storage_does_not_have_is_an_error(run, spec):
    spec["backup"].append({"copyBackup": {"backup": "shop", "from": "copies", "to": "backups"}})
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "storage `copies` has no backup shop-" in result.reason


def test_a_backup_that_this_run_did_not_make_is_unknown(spec, load):
    with pytest.raises(DrillError, match="weekly"):
        DrillRun(drill=load(spec)).velero.taken("weekly")


def test_a_cluster_of_somebody_gets_no_velero_from_a_drill(run, spec, server):
    server.installed = False
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert result.code == "velero-not-installed"
    assert server.calls == []


def test_selectors_kinds_and_mappings_are_handed_on(run, spec, server):
    spec["backup"][0]["veleroBackup"] |= {"kinds": ["ConfigMap", "Deployment"], "selector": "tier=data"}
    spec["restore"][0]["veleroRestore"] |= {"existingResources": "update", "namespaces": ["shop"], "kinds": ["Secret"]}
    run(spec)
    backup, restore = server.options
    assert backup.included_resources == ("configmaps", "deployments.apps")
    assert backup.label_selector is not None
    assert restore.included_resources == ("secrets",)
    assert restore.included_namespaces == ("shop",)
    assert restore.existing_resource_policy == "update"


# ---- globs


@pytest.fixture
def several(api):
    """Namespaces of several teams, beside those of the system."""
    for name in ("shop-test", "shop-old", "bakery", "kube-system"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.mark.parametrize(
    ("given", "included", "excluded"),
    [
        ({"namespaces": ["shop*"]}, ("shop", "shop-old", "shop-test"), ()),
        ({"namespaces": ["shop*"], "excludedNamespaces": ["*-test", "bakery"]}, ("shop", "shop-old"), ()),
        ({"namespaces": ["bakery", "shop-*"]}, ("bakery", "shop-old", "shop-test"), ()),
        ({"namespaces": ["bakery"], "excludedNamespaces": ["shop-*"]}, ("bakery",), ()),
        ({"excludedNamespaces": ["shop-*", "kube-*"]}, (), ("kube-system", "shop-old", "shop-test")),
        ({"excludedNamespaces": ["nowhere-*"]}, (), ()),
        ({"namespaces": ["nowhere"], "excludedNamespaces": ["bakery"]}, ("nowhere",), ("bakery",)),
        ({"namespaces": ["[b-k]*"]}, ("bakery",), ()),
    ],
)
def test_globs_mean_what_is_there(run, spec, server, several, given, included, excluded):
    del spec["backup"][0]["veleroBackup"]["namespaces"]
    spec["backup"][0]["veleroBackup"] |= given
    run(spec)
    assert server.options[0].included_namespaces == included
    assert server.options[0].excluded_namespaces == excluded


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"namespaces": ["shop", "nowhere-*"]}, "glob-matches-nothing"),
        ({"namespaces": ["kube-*"]}, "glob-matches-nothing"),
        ({"namespaces": ["shop-*"], "excludedNamespaces": ["shop-test", "*-old"]}, "namespaces-left-out"),
    ],
)
def test_globs_that_mean_nothing_stop_the_drill_before_its_fault(run, spec, server, several, given, code):
    spec["backup"][0]["veleroBackup"] |= given
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.ERROR, code)
    assert server.did("back up") == []
    assert "fault" not in {phase.name for phase in result.phases}


def test_globs_of_a_restore_mean_what_the_backup_has(run, spec, server, several, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "clusterguard.velero.bucket.namespaces_in_backup",
        lambda store, name: asked.append(name) or ["shop", "shop-lost"],
    )
    spec["restore"][0]["veleroRestore"]["namespaces"] = ["shop*"]
    result = run(spec)
    assert server.options[1].included_namespaces == ("shop", "shop-lost")
    assert asked == [f"shop-{result.run_id}"]


def test_exclusions_and_the_rest_are_handed_on(run, spec, server):
    spec["backup"][0]["veleroBackup"] |= {
        "excludedKinds": ["Secret"],
        "orderedResources": {"Pod": ["shop/web-0"], "Deployment": ["shop/web"]},
        "extra": {"itemOperationTimeout": "1h0m0s"},
    }
    spec["restore"][0]["veleroRestore"] |= {"excludedKinds": ["Deployment"], "preserveNodePorts": False}
    run(spec)
    backup, restore = (options.to_spec() for options in server.options)
    assert backup["excludedResources"] == ["secrets"]
    assert backup["orderedResources"] == {"pods": "shop/web-0", "deployments.apps": "shop/web"}
    assert backup["itemOperationTimeout"] == "1h0m0s"
    assert restore["excludedResources"] == ["deployments.apps"]
    assert restore["preserveNodePorts"] is False


def test_volumes_of_namespaces_that_are_left_out_are_not_missed(run, spec, server, several, monkeypatch):
    del spec["backup"][0]["veleroBackup"]["namespaces"]
    spec["backup"][0]["veleroBackup"] |= {"volumes": "fileSystem", "excludedNamespaces": ["shop-*"]}
    asked = []
    monkeypatch.setattr(
        "clusterguard.velero.volumes.require_every_volume",
        lambda outcome, __, **scope: asked.append(scope["namespaces"]) or outcome,
    )
    run(spec)
    assert [set(each) & {"shop", "shop-test", "shop-old", "bakery"} for each in asked] == [{"shop", "bakery"}]


# ---- Velero's default location


def location(**spec):
    defaults = {"provider": "aws", "objectStorage": {"bucket": "company", "prefix": "velero"}}
    return BackupStorageLocation.new(namespace="velero", name="default", spec=defaults | spec)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "s3://company/velero"),
        ({"objectStorage": {"bucket": "company"}, "provider": "velero.io/aws"}, "s3://company"),
        ({"config": {"region": "eu-central-1"}}, "s3://company/velero?region=eu-central-1"),
        (
            {"config": {"s3Url": "https://s3.example.com", "s3ForcePathStyle": "true"}},
            "s3://company/velero?endpoint=https%3A%2F%2Fs3.example.com&pathStyle=true",
        ),
    ],
)
def test_without_a_storage_the_bucket_of_the_default_location_is_read(run, spec, server, monkeypatch, given, url):
    locations = []

    def open_it(text):
        locations.append(text)
        return Server.buckets["backups"]

    monkeypatch.setattr(module, "open_store", open_it)
    server.default = location(**given)
    del spec["backup"][0]["veleroBackup"]["storage"]
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert set(locations) == {url}
    assert server.did("create location") == server.did("delete location") == []
    assert server.options[0].storage_location == "default"
    assert server.did("forget") == [], "the server knows it from there already"


def test_a_default_location_that_is_no_s3_is_told(run, spec, server):
    server.default = location(provider="azure")
    del spec["backup"][0]["veleroBackup"]["storage"]
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "of provider azure, and only S3 can be read" in result.reason


# ---- clusters of the run


def test_in_a_cluster_that_goes_anyway_nothing_is_tidied(load, spec, monkeypatch):
    cluster = FakeCluster()
    monkeypatch.setattr("clusterguard.drills.clusters.open_cluster", lambda *_, **__: cluster)
    settings = DrillSettings(cluster="embedded")
    result = DrillRunner(settings=replace(settings)).run(load(spec))
    assert result.verdict is Verdict.PASS, result
    assert Server.of(cluster.api).did("delete backup") == []
    assert not cluster.running


# ---- Velero in pods


def test_velero_in_a_throwaway_cluster_can_reach_s3_and_read_volumes():
    options = module.install_options({})
    assert options.image.startswith("velero/velero:v1.")
    assert [plugin.partition(":")[0] for plugin in options.plugins] == ["velero/velero-plugin-for-aws"]
    assert options.node_agent
    assert "--client-qps=5000" in options.server_args
    assert list(options.problems()) == []


def test_its_images_may_be_others():
    options = module.install_options({module.VELERO_IMAGE: "mirror/velero:1", module.AWS_IMAGE: "mirror/aws:2"})
    assert (options.image, options.plugins) == ("mirror/velero:1", ("mirror/aws:2",))


class Throwaway(FakeCluster):
    """A cluster with real pods that somebody made for this drill."""

    created_by_us = True
    docker_network = "kind"

    def __init__(self):
        super().__init__()
        self.loaded = []

    def load_image(self, image):
        if "aws" in image:
            raise ProvisioningError(f"docker has no {image}")
        self.loaded.append(image)


def test_a_throwaway_cluster_gets_velero_and_the_images_that_are_here(load, spec, monkeypatch, events):
    cluster, networks, told = Throwaway(), [], []
    Server.of(cluster.api).installed = False

    def install(options, *, api, **_):
        told.append(options)
        Server.of(api).installed = True

    monkeypatch.setattr(module, "install", install)
    tools = SimpleNamespace(ensure=lambda name: {name: "/nowhere/velero"})
    monkeypatch.setattr(module, "from_environment", lambda *_, **__: tools)
    monkeypatch.setattr(Storages, "serve_pods", lambda _, network: networks.append(network))
    settings = DrillSettings(open=lambda _: cluster)
    result = DrillRunner(settings=settings, on_event=events.append).run(load(spec))
    assert result.verdict is Verdict.PASS, result
    assert [options.node_agent for options in told] == [True]
    assert [image.partition(":")[0] for image in cluster.loaded] == ["velero/velero"]
    assert set(networks) == {"kind"}
    assert any("the nodes pull velero/velero-plugin-for-aws" in getattr(event, "note", "") for event in events)


# ---- volumes


def test_volumes_that_are_not_in_the_backup_stop_the_drill_before_its_fault(run, spec, server, monkeypatch):
    spec["backup"][0]["veleroBackup"]["volumes"] = "fileSystem"

    left_out = OutcomeFinding(rule=Rule.VOLUME_LEFT_OUT, detail="shop/web-0:data")
    asked = []
    monkeypatch.setattr(
        "clusterguard.velero.volumes.require_every_volume",
        lambda outcome, _, **scope: asked.append(scope) or replace(outcome, findings=[left_out]),
    )
    result = run(spec)
    assert asked == [{"namespaces": ("shop",), "selector": ""}]
    assert result.verdict is Verdict.ERROR
    assert "volume-left-out" in result.reason
    assert [options.default_volumes_to_fs_backup for options in server.options] == [True]


def test_without_volumes_velero_does_as_it_is_set(run, spec, server):
    run(spec)
    assert server.options[0].default_volumes_to_fs_backup is None


# ---- a server beside the cluster


class Beside(FakeCluster):
    """A cluster whose Velero server must wait for the machine's port."""

    def __init__(self, seconds):
        super().__init__()
        self.velero_server = SimpleNamespace(start=self._start)
        self._seconds, self.starts = seconds, 0

    def _start(self, *, on_wait):
        self.starts += 1
        if self.starts == 1:
            on_wait("waiting for port 8080: process 17 (pytest) has it")
            time.sleep(self._seconds)


def test_waiting_for_the_port_of_another_server_is_told_once_and_is_not_the_drills_own_time(load, spec, events):
    cluster = Beside(0.2)
    spec["timeout"] = "1h"
    run = DrillRun(drill=load(spec), settings=DrillSettings(open=lambda _: cluster), on_event=events.append)
    run.deadline = 100.0
    run.clusters["main"] = cluster
    run.velero.client("main")
    after = run.deadline
    run.velero.client("main")
    assert cluster.starts == 2
    assert [event.text for event in events if isinstance(event, Note)] == [
        "cluster `main`: waiting for port 8080: process 17 (pytest) has it"
    ]
    assert after > 100.0
    assert run.deadline == after


# ---- what is expected and tolerated


@pytest.mark.parametrize("step", ["veleroBackup", "veleroRestore"])
@pytest.mark.parametrize(
    ("action", "phase", "findings", "code"),
    [
        ({}, "Completed", [DIFFERS], "{kind}-failed"),
        ({"tolerate": ["exists-different"]}, "Completed", [DIFFERS], ""),
        ({"tolerate": ["exists-different"]}, "Completed", [DIFFERS, DENIED], "{kind}-failed"),
        ({"tolerate": ["error"]}, "PartiallyFailed", [PARTIAL, DENIED], "{kind}-failed"),
        ({"tolerate": ["error", "partially-failed"]}, "PartiallyFailed", [PARTIAL, DENIED], ""),
        ({}, "PartiallyFailed", [PARTIAL, DENIED], "{kind}-failed"),
        ({"expect": "PartiallyFailed"}, "PartiallyFailed", [PARTIAL, DENIED], ""),
        ({"expect": "PartiallyFailed"}, "PartiallyFailed", [PARTIAL, DENIED, DIFFERS], "{kind}-failed"),
        ({"expect": "PartiallyFailed"}, "Completed", [], "unexpected-outcome"),
        ({"expect": "PartiallyFailed", "tolerate": ["exists-different"]}, "Completed", [DIFFERS], "unexpected-outcome"),
        ({"expect": "Completed"}, "Completed", [], ""),
        ({"expect": "Completed", "tolerate": ["partially-failed"]}, "PartiallyFailed", [PARTIAL], "unexpected-outcome"),
    ],
)
def test_an_outcome_is_as_expected_and_only_what_is_named_is_tolerated(
    run, spec, server, step, action, phase, findings, code
):
    kind = step.removeprefix("velero")
    server.phases[kind], server.findings[kind] = phase, findings
    spec[kind.lower()][0][step] |= action
    result = run(spec)
    assert result.code == code.format(kind=kind.lower()), result
    if code == "unexpected-outcome":
        assert result.verdict is Verdict.FAIL
    assert (result.verdict is Verdict.PASS) == (not code)


def test_what_a_drill_tolerates_is_reported_by_name_and_object(run, spec, server, events):
    server.findings["Restore"] = [
        DIFFERS,
        OutcomeFinding(rule=Rule.ROOT_CA_EXISTS, detail="as everywhere"),
    ]
    spec["restore"][0]["veleroRestore"]["tolerate"] = ["exists-different"]
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert result.tolerated == {"exists-different": 1}
    assert result.to_dict()["tolerated"] == {"exists-different": 1}
    [step] = [step for step in result.steps if step.title == "veleroRestore"]
    assert "1 exists-different, 1 root-ca-exists" in step.detail
    assert [event.text for event in events if isinstance(event, Note) and "tolerated" in event.text] == [
        f"veleroRestore: tolerated: {DIFFERS}"
    ]


def test_an_expected_failure_leaves_no_digests_behind_and_nothing_to_restore(run, spec, server, monkeypatch):
    recorded = []
    monkeypatch.setattr("clusterguard.velero.manifest.record_manifest", lambda *_, **__: recorded.append(True))
    server.phases["Backup"] = "Failed"
    server.findings["Backup"] = [OutcomeFinding(rule=Rule.FAILED, detail="no space left")]
    spec["backup"][0]["veleroBackup"]["expect"] = "Failed"
    result = run(spec)
    assert [step.verdict for step in result.steps if step.title == "veleroBackup"] == [Verdict.PASS]
    assert recorded == []


def test_a_backup_is_verified_by_what_its_step_expects_and_tolerates(run, spec, server, monkeypatch):
    policies = []

    def verify(*_, policy, **__):
        policies.append(policy)
        return SimpleNamespace(raise_for_findings=lambda: None, objects=3, checks=())

    monkeypatch.setattr("clusterguard.velero.bucket.verify_backup", verify)
    monkeypatch.setattr("clusterguard.velero.manifest.load_manifest", lambda *_: None)
    server.phases["Backup"], server.findings["Backup"] = "PartiallyFailed", [PARTIAL, DENIED]
    spec["backup"][0]["veleroBackup"] |= {"expect": "PartiallyFailed", "tolerate": ["api-unavailable"]}
    spec["backup"].append({"verifyBackup": {"backup": "shop"}})
    assert run(spec).verdict is Verdict.PASS
    assert policies[0].tolerate_phases == ("PartiallyFailed",)
    assert {"api-unavailable", "error", "partially-failed"} <= policies[0].tolerate_rules


def test_the_data_of_volumes_is_read_where_the_step_asks_for_it(run, spec, server, monkeypatch):
    checks = []

    def verify(*_, volume_data, **__):
        checks.append(volume_data)
        return SimpleNamespace(raise_for_findings=lambda: None, objects=3, checks=())

    monkeypatch.setattr("clusterguard.velero.bucket.verify_backup", verify)
    monkeypatch.setattr("clusterguard.velero.manifest.load_manifest", lambda *_: None)
    monkeypatch.setattr("clusterguard.velero.repository.password_in", lambda api, namespace: f"of {namespace}")
    spec["backup"] += [{"verifyBackup": {"backup": "shop"}}, {"verifyBackup": {"backup": "shop", "data": "5%"}}]
    assert run(spec).verdict is Verdict.PASS
    without, check = checks
    assert without is None
    assert (check.share, check.password) == (0.05, "of velero")


# ---- backups that exist

CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "web", "namespace": "shop"},
    "data": {"page": "open"},
}
SHOP = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
LONG_AGO, YESTERDAY, TODAY = "2020-01-01T03:00:00Z", "2026-01-02T03:00:00Z", "2026-01-03T03:00:00Z"


def backup_object(name, phase="Completed", *, started=TODAY, schedule="", expires="2090-01-01T00:00:00Z", **spec):
    labels = {"velero.io/schedule-name": schedule} if schedule else {}
    made = Backup.new(namespace="velero", name=name, labels=labels, spec={"storageLocation": "default", **spec})
    status = {"phase": phase, "startTimestamp": started, "expiration": expires, "formatVersion": "1.1.0"}
    return Backup.model_validate({**made.manifest, "status": status})


def write(key, data):
    with Server.buckets["backups"].put(key) as stream:
        stream.write(data)


def store_backup(name, *items, **of):
    """Put a backup into the bucket, as Velero would have done, and return its object."""
    made, packed = backup_object(name, **of), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        members = {"metadata/version": b"1.1.0"}
        for item in items:
            metadata = item["metadata"]
            where = f"namespaces/{metadata['namespace']}" if "namespace" in metadata else "cluster"
            for version in ("", "v1-preferredversion/"):
                path = f"resources/{item['kind'].lower()}s/{version}{where}/{metadata['name']}.json"
                members[path] = json.dumps(item).encode()
        for path, data in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    write(f"backups/{name}/{name}.tar.gz", packed.getvalue())
    write(f"backups/{name}/velero-backup.json", json.dumps(made.manifest).encode())
    write(f"backups/{name}/{name}-volumeinfo.json.gz", gzip.compress(b"[]"))
    Server.saved[name] = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]): {
            **copy.deepcopy(item),
            "metadata": {**item["metadata"], "uid": "restored", "resourceVersion": "1"},
        }
        for item in items
    }
    return made


@pytest.fixture
def stored(spec, api):
    """Return a drill of last night's backup, which is in a bucket, and let its restore bring back the page."""
    for item in (SHOP, CONFIG):
        api.apply(item)

    def drill(**velero):
        return spec | {
            "setup": [],
            "backup": [{"storedBackup": {"name": "night", "velero": {"storage": "backups", **velero}}}],
            "restore": [{"veleroRestore": {"from": "night"}}],
        }

    return drill


def test_a_backup_that_exists_is_restored_and_compared_with_what_it_holds(run, stored, server, api):
    store_backup("nightly-1", SHOP, CONFIG, started=YESTERDAY)
    store_backup("nightly-2", SHOP, CONFIG)
    before = {info.key for info in Server.buckets["backups"].list()}
    result = run(stored())
    assert result.verdict is Verdict.PASS, result
    assert server.did("restore") == ["nightly-2"]
    assert "nightly-2, begun 2026-01-03 03:00:00 UTC" in next(
        s.detail for s in result.steps if s.title == "storedBackup"
    )
    assert result.red_after_fault == (1, 1)
    assert result.rpo > 3600 * 24
    assert result.to_dict()["stored"] == ["nightly-2"]
    # Nothing of it is removed, and nothing of ours stays.
    assert {info.key for info in Server.buckets["backups"].list()} == before
    assert server.did("delete backup") == []
    assert server.did("delete restore") == [f"nightly-2-{result.run_id}-1"]
    assert not [name for name in api.names("ConfigMap") if "marker" in name]


def test_a_cluster_that_is_created_for_the_restore_counts(load, stored, server, monkeypatch):
    store_backup("nightly-1", SHOP, CONFIG)
    cluster = FakeCluster()
    monkeypatch.setattr("clusterguard.drills.clusters.open_cluster", lambda *_, **__: cluster)
    drill = stored() | {"clusters": {"main": {"startIn": "restore"}}, "fault": []}
    drill["backup"].append({"verifyBackup": {"backup": "night", "data": "all"}})
    report, checks = SimpleNamespace(raise_for_findings=lambda: None, objects=2, checks=()), []
    monkeypatch.setattr(
        "clusterguard.velero.bucket.verify_backup", lambda *_, volume_data, **__: checks.append(volume_data) or report
    )
    monkeypatch.setattr("clusterguard.velero.manifest.load_manifest", lambda *_: None)
    Server.of(cluster.api).items = server.items
    result = DrillRunner(settings=DrillSettings(cluster="embedded")).run(load(drill))
    assert result.verdict is Verdict.PASS, result
    assert [phase.name for phase in result.phases].index("backup") < [phase.name for phase in result.phases].index(
        "provision for the restore"
    )
    assert result.red_after_fault == (1, 1)
    assert [check.password for check in checks] == [DEFAULT_PASSWORD], "there is no cluster yet that could tell it"


def test_its_location_may_not_be_written_to(run, stored, server, monkeypatch):
    store_backup("nightly-1", SHOP, CONFIG)
    made = []
    monkeypatch.setattr(
        FakeVelero,
        "_create_location",
        lambda self, name, spec: made.append(spec) or self.server.locations.update({name: spec}),
    )
    assert run(stored()).verdict is Verdict.PASS
    assert [spec.read_only for spec in made] == [True]


@pytest.mark.parametrize("ours", [True, False])
def test_only_a_velero_in_a_cluster_of_the_runs_own_gets_the_credentials_of_the_environment(
    run, spec, server, monkeypatch, ours
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for an hour")
    monkeypatch.setattr(FakeCluster, "created_by_us", ours)
    made = []
    monkeypatch.setattr(
        FakeVelero,
        "_create_location",
        lambda self, name, spec: made.append(spec) or self.server.locations.update({name: spec}),
    )
    assert run(spec).verdict is Verdict.PASS
    file = "[default]\naws_access_key_id=somebody\naws_secret_access_key=a secret\naws_session_token=for an hour\n"
    assert [location.credentials for location in made] == [file if ours else None]


@pytest.mark.parametrize("lost", ["missing", "changed"])
def test_what_the_restore_does_not_bring_back_as_it_was_is_red(run, stored, lost):
    store_backup("nightly-1", SHOP, CONFIG)
    if lost == "missing":
        del Server.saved["nightly-1"]["ConfigMap", "shop", "web"]
    else:
        Server.saved["nightly-1"]["ConfigMap", "shop", "web"]["data"]["page"] = "closed"
    result = run(stored())
    assert (result.verdict, result.code) == (Verdict.FAIL, "not-recovered")
    assert f"{lost}: ConfigMap shop/web" in result.diff


def test_what_came_back_by_itself_proves_no_restore(run, stored, server):
    store_backup("nightly-1", SHOP, CONFIG)
    server.items = [RestoredItem(ref=ObjectRef("Secret", "shop", "other"), action="created")]
    result = run(stored())
    assert result.verdict is Verdict.FAIL
    assert "nothing of the scope" in result.reason


@pytest.mark.parametrize(
    ("of", "velero", "verdict", "code"),
    [
        ({"phase": "PartiallyFailed"}, {}, Verdict.FAIL, "backup-partial"),
        ({"phase": "Failed"}, {}, Verdict.FAIL, "backup-failed"),
        ({"phase": "FailedValidation"}, {}, Verdict.FAIL, "backup-invalid"),
        ({"phase": "Deleting"}, {}, Verdict.FAIL, "backup-deleting"),
        ({"expires": LONG_AGO}, {}, Verdict.FAIL, "backup-expired"),
        ({"phase": "InProgress"}, {"backup": "nightly-2"}, Verdict.ERROR, "backup-unfinished"),
        ({"phase": "Chilled"}, {}, Verdict.ERROR, "backup-unfinished"),
        ({}, {"schedule": "weekly"}, Verdict.FAIL, "schedule-without-backups"),
        ({}, {"backup": "nightly-3"}, Verdict.FAIL, "no-such-backup"),
    ],
)
def test_a_backup_that_cannot_be_restored_stops_the_drill_before_its_fault(run, stored, of, velero, verdict, code):
    store_backup("nightly-1", SHOP, CONFIG, started=YESTERDAY, schedule="nightly")
    store_backup("nightly-2", SHOP, CONFIG, schedule="nightly", **of)
    result = run(stored(**velero))
    assert (result.verdict, result.code) == (verdict, code), result
    assert "fault" not in {phase.name for phase in result.phases}


def test_an_empty_bucket_has_no_newest(run, stored):
    result = run(stored())
    assert (result.verdict, result.code) == (Verdict.FAIL, "no-backups")


def test_one_that_is_still_made_is_not_the_newest(run, stored, server):
    store_backup("nightly-1", SHOP, CONFIG, started=YESTERDAY, schedule="nightly")
    store_backup("nightly-2", SHOP, CONFIG, schedule="nightly", phase="InProgress")
    assert run(stored(schedule="nightly")).verdict is Verdict.PASS
    assert server.did("restore") == ["nightly-1"]


@pytest.mark.parametrize(
    ("scope", "verdict"), [({}, Verdict.PASS), ({"namespaces": ["shop", "velero"]}, Verdict.FAIL)], ids=["all", "named"]
)
def test_what_is_veleros_own_comes_with_the_velero_that_restores(run, stored, scope, verdict):
    """Unless the scope names it: a new cluster has a Velero of its own, with other locations and records."""
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "velero"}}
    store_backup("nightly-1", SHOP, CONFIG, own)
    del Server.saved["nightly-1"]["ConfigMap", "velero", "settings"]
    result = run(stored() | {"scope": scope})
    assert result.verdict is verdict, result
    assert ("missing: ConfigMap velero/settings" in result.diff) == bool(scope)


def test_a_backup_without_anything_of_the_scope_proves_nothing(run, stored):
    store_backup("nightly-1", {**SHOP, "metadata": {"name": "bakery"}})
    result = run(stored())
    assert (result.verdict, result.code) == (Verdict.ERROR, "scope-empty")


def test_a_damaged_backup_is_found_before_the_fault(run, stored):
    store_backup("nightly-1", SHOP, CONFIG)
    with Server.buckets["backups"].put("backups/nightly-1/nightly-1.tar.gz", overwrite=True) as stream:
        stream.write(b"odd")
    result = run(stored())
    assert result.verdict is Verdict.FAIL
    assert "fault" not in {phase.name for phase in result.phases}


def test_without_a_storage_it_is_what_the_clusters_own_velero_knows(run, stored, server, monkeypatch):
    server.default = location()
    monkeypatch.setattr(module, "open_store", lambda text: Server.buckets["backups"])
    server.backups["nightly-1"] = store_backup("nightly-1", SHOP, CONFIG)
    drill = stored()
    drill["backup"][0]["storedBackup"]["velero"] = {}
    result = run(drill)
    assert result.verdict is Verdict.PASS, result
    assert server.did("create location") == server.did("delete location") == server.did("forget") == []
    assert "default" in server.did("look at")
    assert set(server.backups) == {"nightly-1"}


def test_an_unavailable_location_is_told_before_the_fault(run, stored, server, monkeypatch):
    server.backups["nightly-1"] = backup_object("nightly-1")

    def unavailable(self, what, name):
        raise LocationUnavailableError(f"location {name} cannot be used: no such bucket")

    monkeypatch.setattr(FakeVelero, "_tell", unavailable)
    drill = stored()
    drill["backup"][0]["storedBackup"]["velero"] = {}
    result = run(drill)
    assert (result.verdict, result.code) == (Verdict.ERROR, "location-unavailable"), result
    assert "fault" not in {phase.name for phase in result.phases}


def test_what_the_cluster_knows_from_elsewhere_is_not_forgotten_for_a_drill(run, stored, server):
    server.backups["nightly-1"] = store_backup("nightly-1", SHOP, CONFIG)
    result = run(stored())
    assert (result.verdict, result.code) == (Verdict.ERROR, "backup-known-elsewhere")
    assert set(server.backups) == {"nightly-1"}


@pytest.fixture
def shared(spec):
    """Let the bucket of a drill that makes its own backup be somebody's, with an old backup in it."""
    store_backup("old", SHOP, expires=LONG_AGO)
    spec["storage"]["backups"]["s3"] = {"bucket": "company"}
    return spec


def test_a_server_of_ours_gets_no_bucket_in_which_it_would_collect_what_others_keep(load, shared):
    result = DrillRunner(settings=DrillSettings(open=lambda _: Throwaway())).run(load(shared))
    assert (result.verdict, result.code) == (Verdict.ERROR, "expired-in-bucket"), result
    assert "fault" not in {phase.name for phase in result.phases}


def test_what_expired_just_now_is_still_to_be_collected_by_its_own_server(load, shared):
    just_now = datetime.now(UTC) - timedelta(minutes=30)
    write("backups/new/velero-backup.json", json.dumps(backup_object("new", expires=str(just_now)).manifest).encode())
    Server.buckets["backups"].delete("backups/old/velero-backup.json")
    result = DrillRunner(settings=DrillSettings(open=lambda _: Throwaway())).run(load(shared))
    assert result.code != "expired-in-bucket", result


def test_the_server_of_somebody_collects_as_it_did(run, shared):
    assert run(shared).verdict is Verdict.PASS


def test_a_new_cluster_knows_no_backup(load, stored):
    drill = stored()
    drill["backup"][0]["storedBackup"]["velero"] = {"schedule": "nightly"}
    result = DrillRunner(settings=DrillSettings(cluster="embedded")).run(load(drill))
    assert (result.verdict, result.code) == (Verdict.ERROR, "stored-where")
    assert result.steps == ()


# ---- what stays


def bare(name, uid):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": uid, "resourceVersion": "1"}}


@pytest.fixture
def makes_namespaces(server):
    """Let the restore make namespaces without any label, as Velero does where the backup has none."""

    def makes(*names):
        def make(api):
            for each in names:
                api.objects["Namespace", None, each] = bare(each, f"made-{each}")

        server.after_restore = make

    return makes


def test_a_namespace_that_velero_made_without_the_runs_label_goes(run, spec, api, makes_namespaces):
    spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
    spec["verify"] = [{"ready": {"kind": "ConfigMap", "namespace": "shop", "name": "web"}}]
    makes_namespaces("shop")
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert api.names("Namespace") == []


def test_a_namespace_under_a_new_name_goes_without_a_label_too(run, spec, api, makes_namespaces):
    makes_namespaces("shop-restored")
    spec["restore"][0]["veleroRestore"]["namespaceMapping"] = {"shop": "shop-restored"}
    spec |= {"verify": [{"absent": {"kind": "Secret", "namespace": "shop"}}], "canary": False, "prove": False}
    assert run(spec).verdict is Verdict.PASS
    assert api.names("Namespace") == []


def test_a_namespace_that_was_there_before_the_drill_stays_although_the_restore_made_it_again(
    run, spec, api, makes_namespaces
):
    api.create(bare("shop", "theirs"))
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}})
    spec["setup"] = []
    spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
    makes_namespaces("shop")
    run(spec)
    assert api.names("Namespace") == ["shop"]


def test_a_namespace_that_somebody_else_made_meanwhile_stays(run, spec, api, makes_namespaces):
    makes_namespaces("shop", "unrelated")
    run(spec)
    assert api.names("Namespace") == ["unrelated"]


def test_a_namespace_of_a_restore_that_ended_badly_goes(run, spec, api, makes_namespaces, monkeypatch):
    spec["fault"] = [{"delete": {"kind": "Namespace", "name": "shop"}}]
    makes_namespaces("shop")

    def wait(self, run, *, timeout_seconds):
        if run.kind == "Restore":
            raise WaitTimeoutError("the restore to end", seconds=1, last_seen="InProgress")
        return run

    monkeypatch.setattr(FakeVelero, "wait", wait)
    assert run(spec).verdict is not Verdict.PASS
    assert api.names("Namespace") == []


def test_a_server_that_does_not_start_keeps_nothing_else_from_being_removed(run, spec, cluster, server, monkeypatch):
    """Ten drills once left ten locations, each of which cost Velero seconds from then on."""
    starts = []

    def start(*, on_wait):
        if "restore" in [what for what, _ in server.calls]:
            starts.append(True)
            raise ProvisioningError("port 8080 is taken by another program")

    cluster.velero_server = SimpleNamespace(start=start, running=lambda: False)
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.ERROR, "provisioning")
    assert starts == [True]
    assert server.locations == {}
    assert [info.key for info in Server.buckets["backups"].list()] == []


def test_one_removal_that_fails_keeps_no_other_from_being_tried(run, spec, server, monkeypatch):
    spec["backup"].append({"veleroBackup": {"name": "again", "storage": "copies"}})
    real = FakeVelero.delete_backup

    def refuse(self, name):
        if name.startswith("shop-"):
            raise LocationUnavailableError("storage location backups is Unavailable")
        real(self, name)

    monkeypatch.setattr(FakeVelero, "delete_backup", refuse)
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.ERROR, "location-unavailable")
    assert [name.partition("-")[0] for name in server.backups] == ["shop"]
    assert server.locations == {}


def test_markers_that_a_restore_brought_into_another_namespace_go_too(run, spec, api, makes_namespaces):
    api.create(bare("shop-restored", "theirs"))
    spec["restore"][0]["veleroRestore"]["namespaceMapping"] = {"shop": "shop-restored"}
    spec |= {"verify": [{"absent": {"kind": "Secret", "namespace": "shop"}}], "prove": False}

    def moved(api):
        for key, item in list(api.objects.items()):
            if "clusterguard-marker" in key[2] and "before" in key[2]:
                api.objects[key[0], "shop-restored", key[2]] = {
                    **item,
                    "metadata": {**item["metadata"], "namespace": "shop-restored"},
                }

    Server.of(api).after_restore = moved
    run(spec)
    assert [name for name in api.names("ConfigMap") if "marker" in name] == []


# ---- where markers are


def two_namespaces(spec, **labels):
    """Let the drill be about two namespaces, of which only the second has objects with labels."""
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bakery"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "flour", "namespace": "bakery", "labels": labels},
            "data": {"kilos": "3"},
        },
    ]
    spec["setup"][0]["apply"]["manifest"] += items
    spec["scope"] = {"namespaces": ["shop", "bakery"]}


def marker_namespaces(server):
    [saved] = Server.saved.values()
    return {key[1] for key in saved if "clusterguard-marker" in key[2]}


def test_a_marker_is_where_the_selector_of_the_backup_takes_something_else(run, spec, server):
    """Anywhere else it would take its Namespace along, into a backup that would not have it."""
    two_namespaces(spec, tier="data")
    spec["backup"][0]["veleroBackup"] |= {"namespaces": ["shop", "bakery"], "selector": "tier in (data,cache)"}
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert marker_namespaces(server) == {"bakery"}
    saved = next(iter(Server.saved.values()))
    labels = next(item["metadata"]["labels"] for key, item in saved.items() if "clusterguard-marker" in key[2])
    assert labels["tier"] in {"data", "cache"}


@pytest.mark.parametrize(
    ("backup", "restore", "namespace"),
    [
        ({"namespaces": ["bakery"]}, {}, "bakery"),
        ({"namespaces": ["bak*"]}, {}, "bakery"),
        ({"namespaces": ["shop", "bakery"]}, {"namespaces": ["bakery"]}, "bakery"),
        ({"excludedNamespaces": ["shop"]}, {}, "bakery"),
        ({}, {"excludedNamespaces": ["shop"]}, "bakery"),
        ({}, {}, "shop"),
    ],
)
def test_a_marker_is_in_a_namespace_that_backup_and_restore_take(run, spec, server, backup, restore, namespace):
    two_namespaces(spec)
    del spec["backup"][0]["veleroBackup"]["namespaces"]
    spec["backup"][0]["veleroBackup"] |= backup
    spec["restore"][0]["veleroRestore"] |= restore
    run(spec)
    assert marker_namespaces(server) == {namespace}


def test_without_a_place_for_markers_the_restores_own_list_proves_that_it_did_it(run, spec, server, events):
    spec["setup"][0]["apply"]["manifest"].append(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "shop"}}
    )
    spec["backup"][0]["veleroBackup"]["kinds"] = ["Namespace", "Secret"]
    spec["scope"]["kinds"] = ["Secret"]
    spec["fault"] = [{"delete": {"kind": "Secret", "namespace": "shop", "name": "key"}}]
    server.items = [RestoredItem(ref=ObjectRef("Secret", "shop", "key"), action="created")]
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert not any("clusterguard-marker" in key[2] for saved in Server.saved.values() for key in saved)
    assert [step.detail for step in result.steps if step.title == "markers"] == [
        "none: `kinds` of veleroBackup leaves ConfigMaps out; the restore itself brought something of the scope back"
    ]
    assert sum("no markers: `kinds` of veleroBackup" in event.text for event in events if isinstance(event, Note)) == 1


def test_what_came_back_without_the_restore_is_red_without_markers_too(run, spec, server):
    spec["backup"][0]["veleroBackup"]["kinds"] = ["Namespace", "Secret"]
    server.items = [RestoredItem(ref=ObjectRef("Secret", "shop", "other"), action="created")]
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.FAIL, "marker-wrong")
    assert result.rto is None


def test_loss_that_cannot_be_measured_is_an_error_before_the_backup(run, spec, server):
    """Its file does not tell: nothing of the scope has the labels that the backup chooses by."""
    spec["backup"][0]["veleroBackup"]["selector"] = "tier=data"
    spec["canary"] = {"every": "5s"}
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.ERROR, "no-place-for-markers")
    assert server.did("back up") == []


# ---- volumes by CSI snapshots


CLAIM = ClaimedVolume(namespace="shop", name="data", volume="pv", driver="d", annotations={}, pods=("db",))
MOVED = VolumeRecord(volume="shop/data", method="CSISnapshot", moved=True, handle="k1", result="succeeded")


@pytest.fixture
def snapshots(monkeypatch, server):
    """What was asked of the cluster, which can do all of it."""
    asked = []
    monkeypatch.setattr("clusterguard.velero.claims.claimed_volumes", lambda *_, **__: (CLAIM,))
    monkeypatch.setattr(module, "missing_classes", lambda *_, **__: [])
    for name in ("clusterguard.drills.velero", "clusterguard.velero.csi"):
        monkeypatch.setattr(f"{name}.require_server", lambda _, **how: asked.append(("server", how["moves_data"])))
    monkeypatch.setattr(module, "require_snapshots", lambda _, claims, **__: asked.append(("tried", claims)))
    monkeypatch.setattr("clusterguard.drills.unkept.not_kept", lambda *_, **__: ([], []))
    monkeypatch.setattr(
        "clusterguard.velero.volumes.require_claims_restored",
        lambda outcome, _, **how: asked.append(("restored", how["snapshots"], how["moved"])) or outcome,
    )
    server.volumes = [MOVED]
    return asked


def test_moved_volumes_are_looked_for_before_the_backup_and_after_the_restore(run, spec, server, snapshots):
    spec["backup"][0]["veleroBackup"]["volumes"] = "move"
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert snapshots == [("server", True), ("tried", (CLAIM,)), ("server", True), ("restored", (), ("shop/data",))]
    asked = server.options[0]
    assert (asked.snapshot_volumes, asked.snapshot_move_data, asked.default_volumes_to_fs_backup) == (True, True, False)


def test_snapshots_that_stay_are_not_moved_by_the_default_of_a_server(run, spec, server, snapshots):
    spec["backup"][0]["veleroBackup"]["volumes"] = "snapshot"
    server.volumes = [replace(MOVED, moved=False, ready=True)]
    assert run(spec).verdict is Verdict.PASS
    asked = server.options[0]
    assert (asked.snapshot_volumes, asked.snapshot_move_data, asked.default_volumes_to_fs_backup) == (
        True,
        False,
        False,
    )
    assert snapshots[-1] == ("restored", ("shop/data",), ())


def test_what_cannot_take_snapshots_ends_the_drill_before_anything_is_backed_up(
    run, spec, server, snapshots, monkeypatch
):
    def refuse(*_, **__):
        raise VeleroError("no class", code="snapshots-impossible")

    monkeypatch.setattr(module, "require_snapshots", refuse)
    spec["backup"][0]["veleroBackup"]["volumes"] = "snapshot"
    result = run(spec)
    assert (result.verdict, result.code) == (Verdict.ERROR, "snapshots-impossible")
    assert server.did("back up") == []


def test_a_claim_that_was_not_moved_stops_the_drill_before_its_fault(run, spec, server, snapshots):
    spec["backup"][0]["veleroBackup"]["volumes"] = "move"
    server.volumes = []
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "fault" not in {phase.name for phase in result.phases}


def test_what_the_mover_does_not_keep_stops_the_drill_unless_it_is_tolerated(run, spec, server, snapshots, monkeypatch):
    pipe = OutcomeFinding(rule=Rule.NOT_KEPT, detail="1 FIFO(s)")
    monkeypatch.setattr("clusterguard.drills.unkept.not_kept", lambda *_, **__: ([pipe], ["shop/other: no stat"]))
    spec["backup"][0]["veleroBackup"]["volumes"] = "move"
    assert run(spec).verdict is Verdict.ERROR
    spec["backup"][0]["veleroBackup"]["tolerate"] = ["not-kept"]
    assert run(spec).verdict is Verdict.PASS


def test_volumes_that_nobody_wants_the_data_of_do_not_count(run, spec, server):
    server.findings["Backup"] = [OutcomeFinding(rule=Rule.VOLUME_LEFT_OUT, detail="shop/data")]
    assert run(spec).verdict is Verdict.PASS
    spec["backup"][0]["veleroBackup"]["extra"] = {"snapshotVolumes": True}
    assert run(spec).verdict is Verdict.ERROR
