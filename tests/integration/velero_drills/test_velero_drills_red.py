"""Each Velero drill that we ship is red when its restore is broken, whichever way: so green means something."""

import gzip
import io
import shutil
import tarfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill
from clusterguard.drills.steps.registry import verbs
from clusterguard.velero.resources import Backup, BackupStorageLocation, Restore

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[3] / "drills"
ONE_CLUSTER = (
    "velero-deleted-namespace",
    "velero-renamed-namespace",
    "velero-selected-objects",
    "velero-second-location",
    "velero-cluster-scoped",
)


@pytest.fixture
def drill(tmp_path):
    """Load a shipped drill, its spec changed by a function."""

    def drill(name, change=lambda _: None):
        document = yaml.safe_load((FOLDER / f"{name}.drill.yaml").read_text())
        change(document["spec"])
        shutil.copytree(FOLDER / "manifests", tmp_path / "manifests", dirs_exist_ok=True)
        file = tmp_path / f"{name}.drill.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_drill(file)

    return drill


def red(result):
    return {step.title for step in result.steps if step.phase == "verify" and step.verdict is Verdict.FAIL}


def store_of(run, name, storage="backups"):
    backup = run.velero.taken(name).name
    return run.storages.for_velero(storage), f"backups/{backup}/{backup}.tar.gz"


def read(store, key):
    with store.get(key) as stream:
        return stream.read()


def write(store, key, data):
    with store.put(key, overwrite=True) as stream:
        stream.write(data)


def without(tarball, part):
    """Return a tarball of Velero's without the members whose name has a part."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(gzip.decompress(tarball))) as old,
        tarfile.open(fileobj=packed, mode="w:gz") as new,
    ):
        members = old.getmembers()
        kept = [member for member in members if part not in member.name]
        assert 0 < len(kept) < len(members)
        for member in kept:
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def edit(step, verb, **changes):
    """Return a change of a spec: other values for one action of a phase."""

    def change(spec):
        action = next(each[verb] for each in spec[step] if verb in each)
        action |= changes

    return change


@pytest.mark.parametrize(
    "name",
    [
        "velero-deleted-namespace",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ONE_CLUSTER if name != "velero-deleted-namespace"),
    ],
)
def test_without_its_restore_it_is_red(run, drill, api, name, around):
    around("verifyBackup", after=lambda run, _: _hurry(run))
    result = run(drill(name), omit_restore=True)
    assert result.verdict is Verdict.FAIL, result
    assert {"restored", "markers"} <= red(result)
    assert result.rto is None
    assert result.diff


def test_nothing_of_a_run_stays_in_a_cluster_that_stays(run, drill, velero, api):
    result = run(drill("velero-renamed-namespace"))
    assert result.verdict is Verdict.PASS, result
    assert result.red_after_fault[0] >= 1
    left = [each.name for kind in (Backup, Restore, BackupStorageLocation) for each in velero.objects.list(kind)]
    left += [item["metadata"]["name"] for item in api.list(api.resource("Secret"), "velero")]
    assert [name for name in left if result.run_id in name] == []
    assert {item["metadata"]["name"] for item in api.list(api.resource("Namespace"))} & {
        "shop",
        "shop-restored",
    } == set()


def test_objects_lost_and_changed_after_the_restore_are_found(run, drill, around, api):
    def tamper(run, _):
        api.delete(api.resource("Service"), "web", "shop")
        api.patch(api.resource("Secret"), "web", "shop", patch={"data": {"password": "Z3Vlc3NlZA=="}})
        labels = {"clusterguard.dev/run": None}
        api.patch(api.resource("ConfigMap"), "web", "shop", patch={"metadata": {"labels": labels}})
        _hurry(run)

    around("veleroRestore", after=tamper)
    result = run(drill("velero-deleted-namespace"))
    assert result.verdict is Verdict.FAIL, result
    assert "restored" in red(result)
    for line in ("missing: Service shop/web", "changed: Secret shop/web", "changed: ConfigMap shop/web"):
        assert line in result.diff
    assert "clusterguard.dev/run" in result.diff
    assert "guessed" not in result.diff


@pytest.mark.slow
def test_a_changed_rule_of_a_cluster_role_is_found(run, drill, around, api):
    rules = [{"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list", "delete"]}]

    def tamper(run, _):
        api.patch(api.resource("ClusterRole"), "shop-auditor", patch={"rules": rules})
        _hurry(run)

    around("veleroRestore", after=tamper)
    result = run(drill("velero-cluster-scoped"))
    assert result.verdict is Verdict.FAIL, result
    assert "restored" in red(result)
    assert "changed: ClusterRole.rbac.authorization.k8s.io shop-auditor" in result.diff
    assert "delete" in result.diff


@pytest.mark.slow
def test_an_older_backup_is_found(run, drill, around, api):
    """The backup has the page from before its last change; name, kind and number of objects are all as they were."""
    pages = {"older": "<h1>soon</h1>", "newer": "<h1>open</h1>"}

    def set_page(which):
        return api.patch(api.resource("ConfigMap"), "web", "shop", patch={"data": {"index.html": pages[which]}})

    around("veleroBackup", before=lambda *_: set_page("older"), after=lambda *_: set_page("newer"))
    around("veleroRestore", after=lambda run, _: _hurry(run))
    result = run(drill("velero-deleted-namespace"))
    assert result.verdict is Verdict.FAIL, result
    assert "restored" in red(result)
    assert '- "<h1>open</h1>"' in result.diff
    assert '+ "<h1>soon</h1>"' in result.diff


def test_a_kind_that_the_backup_leaves_out_is_found_before_anything_is_broken(run, drill):
    leave_out = edit("backup", "veleroBackup", kinds=["Namespace", "ConfigMap", "Secret", "Deployment.apps"])
    result = run(drill("velero-deleted-namespace", leave_out))
    assert result.verdict is Verdict.FAIL, result
    assert result.reason.startswith("backup: verifyBackup:")
    assert "Service shop/web" in result.reason
    assert "fault" not in {phase.name for phase in result.phases}


@pytest.mark.slow
def test_an_object_that_is_missing_in_the_tarball_is_found(run, drill, around):
    """Somebody changes the bucket after it was verified, and the restore completes without a word."""

    def drop(run, action):
        store, key = store_of(run, action.from_)
        write(store, key, without(read(store, key), "resources/services/"))

    around("veleroRestore", before=drop, after=lambda run, _: _hurry(run))
    result = run(drill("velero-deleted-namespace"))
    assert result.verdict is Verdict.FAIL, result
    assert "restored" in red(result)
    assert "missing: Service shop/web" in result.diff


@pytest.mark.slow
def test_objects_under_another_name_than_promised_are_found(run, drill, around, api):
    """The restore maps the namespace to another one than the drill verifies."""
    change = edit("restore", "veleroRestore", namespaceMapping={"shop": "shop-restored"})
    real = verbs()["veleroRestore"].perform

    def elsewhere(action, here):
        said = real(action.model_copy(update={"namespace_mapping": {"shop": "shop-elsewhere"}}), here)
        _hurry(here.run)
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verbs()["veleroRestore"], "perform", elsewhere)
        result = run(drill("velero-renamed-namespace", change))
    api.delete(api.resource("Namespace"), "shop-elsewhere")
    assert result.verdict is Verdict.FAIL, result
    assert {"restored", "markers"} <= red(result)
    assert "missing: Namespace shop-restored" in result.diff


def test_one_byte_of_a_copy_is_found(run, drill, around):
    def flip(run, action):
        store, key = store_of(run, action.backup, action.to)
        data = bytearray(read(store, key))
        data[len(data) // 2] ^= 1
        write(store, key, bytes(data))

    around("copyBackup", after=flip)
    result = run(drill("velero-second-location"))
    assert result.verdict is Verdict.FAIL, result
    assert result.reason.startswith("backup: verifyBackup:")
    assert ".tar.gz" in result.reason
    assert "fault" not in {phase.name for phase in result.phases}


def test_a_copy_that_was_never_made_is_found_at_the_restore(run, drill):
    def leave_out(spec):
        spec["backup"] = [step for step in spec["backup"] if "veleroBackup" in step]

    result = run(drill("velero-second-location", leave_out))
    assert result.verdict is Verdict.FAIL, result
    assert result.reason.startswith("restore: veleroRestore:")
    assert result.rto is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["velero-new-cluster", "velero-custom-resources"])
def test_a_new_cluster_without_one_of_the_objects_is_red(drill, around, name):
    """These drills delete a cluster, and so have clusters of their own."""
    kind = {"velero-new-cluster": "Service", "velero-custom-resources": "Menu"}[name]

    def tamper(run, _):
        target = run.clusters["target"].api
        resource = target.resource(kind)
        for item in list(target.list(resource, "shop")):
            target.delete(resource, item["metadata"]["name"], "shop")
        _hurry(run)

    around("veleroRestore", after=tamper)
    # The module's cluster is not needed: its server gives the port away, and takes it back when it is used again.
    result = DrillRunner(settings=DrillSettings(longest_wait=timedelta(seconds=60))).run(drill(name))
    assert result.verdict is Verdict.FAIL, result
    assert "restored" in red(result)
    assert f"missing: {kind}" in result.diff


@pytest.mark.slow
@pytest.mark.parametrize("name", ["velero-new-cluster", "velero-custom-resources"])
def test_without_its_restore_there_is_no_new_cluster(drill, around, name):
    around("verifyBackup", after=lambda run, _: _hurry(run))
    settings = DrillSettings(omit_restore=True, longest_wait=timedelta(seconds=60))
    result = DrillRunner(settings=settings).run(drill(name))
    assert result.verdict is Verdict.FAIL, result
    assert "restored" in red(result)


def _hurry(run):
    """Let checks from here on wait for a second: what a broken restore did not bring back never comes."""
    run.settings = replace(run.settings, longest_wait=timedelta(seconds=1))
