"""Loading: from files to drills that can run."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterguard.documents.model import API_VERSION
from clusterguard.drills import schema
from clusterguard.drills.load import Drill, load_drill, load_drills
from clusterguard.drills.steps.assert_ import Assert
from clusterguard.drills.steps.ready import Ready
from clusterguard.drills.values import Comparison
from clusterguard.errors import InvalidDrillError

WITH_FILE = ("- ready: {kind: Pod, namespace: shop}", "- apply: {file: shop.yaml}")
OBJECT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web, namespace: shop}\n"


# ── the examples that the format was made for ──


def test_the_etcd_example_loads(examples):
    drill = load_drill(examples["etcd-pods"])

    assert drill.id == drill.name == "etcd-pods"
    assert drill.metadata.labels == {"tier": "nightly"}
    assert drill.location.endswith("etcd-pods.drill.yaml:5:9")
    assert drill.spec.objectives.rto == timedelta(minutes=3)
    assert [(step.phase, step.verb) for step in drill.steps] == [
        ("setup", "apply"), ("setup", "ready"), ("backup", "etcdSnapshot"), ("backup", "verifyBackup"),
        ("fault", "delete"), ("restore", "etcdRestore"), ("verify", "restored"), ("verify", "ready"),
    ]  # fmt: skip
    assert [thing["kind"] for thing in drill.steps[0].objects] == ["Namespace", "ConfigMap", "Deployment"]
    assert drill.steps[-1].timeout == timedelta(minutes=2)
    assert drill.steps[-1].action == Ready(
        kind="Pod", namespace="shop", selector="app=web", count=3, stableFor="10s"
    )  # fmt: skip


def test_the_velero_example_loads(examples):
    drill = load_drill(examples["velero-new-cluster"])

    assert drill.default_cluster == "source"
    assert drill.spec.clusters["target"].start_in == "restore"
    assert drill.spec.storage["backups"].s3.endpoint == "local"
    assert [step.cluster for step in drill.phase("verify")] == ["target"] * 4
    assert drill.phase("verify")[2].action.resource["spec"] == {"ports": [{"port": 80}]}


def test_the_game_day_example_loads(examples):
    drill = load_drill(examples["gameday-namespace-loss"])

    assert drill.spec.canary == schema.Canary(every="30s")
    assert drill.spec.evidence.controls == ("SOC2-A1.3", "ISO27001-A.8.13", "DORA-Art.12")
    assert [step.verb for step in drill.phase("cleanup")] == ["unblockStorage", "veleroRestore"]
    assert drill.spec.clusters["west"].existing


# ── what is there without being written ──


def test_a_drill_without_clusters_has_one_named_main(minimal, load):
    text = minimal.replace("  clusters:\n    main: {}\n    other: {startIn: restore}\n", "")

    assert load(text).default_cluster == "main"


def test_defaults_are_the_strict_ones(minimal, load):
    drill = load(minimal)

    restored = drill.phase("verify")[0].action
    assert (restored.missing, restored.changed, restored.extra) == (
        Comparison("==", 0),
        Comparison("==", 0),
        "report",
    )
    assert restored.identity == "name"
    assert drill.spec.canary is True
    assert drill.spec.prove is True
    assert drill.spec.on_failure == ("events", "describe", "logs")
    assert Assert(resource={"apiVersion": "v1", "kind": "Pod"}).match == "all"


def test_a_step_knows_where_it_is_written(minimal, load):
    (step,) = load(minimal.replace("{from: before}", "\n      from: before\n    timeout: 3m")).phase("restore")

    assert step.location.endswith("test.drill.yaml:19:5")
    assert step.source == "   19 |   - etcdRestore: \n   20 |       from: before\n   21 |     timeout: 3m"


def test_steps_are_called_by_their_name_or_their_action(minimal, load):
    drill = load(minimal.replace("- restored: {}", "- name: all is back\n    restored: {}"))

    assert [drill.phase("verify")[0].title, drill.phase("fault")[0].title] == ["all is back", "delete"]


# ── references and the matrix ──


def test_references_are_resolved_wherever_text_is(minimal, load):
    text = minimal.replace("app=web", "'app=${env.APP}'").replace("  clusters:", "  description: $${x}\n  clusters:")

    drill = load(text, environ={"APP": "api"})

    assert drill.phase("fault")[0].action.selector == "app=api"
    assert drill.spec.description == "${x}"


def test_the_process_environment_is_not_read(minimal, problems, monkeypatch):
    monkeypatch.setenv("APP", "web")

    assert "the environment has no variable APP" in problems(minimal.replace("app=web", "'${env.APP}'"))[0].message


def test_a_matrix_makes_one_drill_for_each_combination(minimal, write):
    path = write(
        minimal.replace("    main: {}", '    main: {kind: {version: "${matrix.k8s}", workers: "${matrix.n}"}}').replace(
            "  clusters:", "  matrix: {k8s: [1.30, 1.36], n: [0, 2]}\n  clusters:"
        )
    )

    drills = load_drills(path)

    assert [drill.id for drill in drills] == [
        "small[k8s=1.30,n=0]", "small[k8s=1.30,n=2]", "small[k8s=1.36,n=0]", "small[k8s=1.36,n=2]",
    ]  # fmt: skip
    assert drills[1].combination == {"k8s": "1.30", "n": 2}
    assert drills[1].spec.clusters["main"].kind == schema.KindProvider(version="1.30", workers=2)
    with pytest.raises(InvalidDrillError) as caught:
        load_drill(path)
    assert caught.value.fields == {"drills": [drill.id for drill in drills]}


# ── manifests ──


def test_a_list_in_a_manifest_is_taken_apart(minimal, load, write):
    inner = "".join(f"- {{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}}}\n" for name in "ab")
    write(f"{OBJECT}---\n# empty\n---\napiVersion: v1\nkind: List\nitems:\n{inner}", "shop.yaml")

    names = [thing["metadata"]["name"] for thing in load(minimal.replace(*WITH_FILE)).steps[0].objects]

    assert names == ["web", "a", "b"]


def test_manifests_may_be_written_in_the_drill(minimal, load):
    manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: null}"
    drill = load(minimal.replace(WITH_FILE[0], f"- apply: {{manifest: [{manifest}]}}"))

    assert drill.steps[0].objects == (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": None},
    )


def test_null_in_a_patch_removes_a_key_and_is_no_slip(minimal, load):
    fault = "- patch: {kind: Service, namespace: shop, name: web, patch: {spec: {ports: null}}}"
    drill = load(minimal.replace("- delete: {kind: Pod, namespace: shop, selector: app=web}", fault))

    assert drill.phase("fault")[0].action.patch == {"spec": {"ports": None}}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (
            f"{OBJECT}---\nkind: Pod\nmetadata: {{name: x}}\n",
            ":5:1: apiVersion: an object needs `apiVersion`",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n",
            ":3:11: metadata: an object needs `metadata.name`",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 0x1f}\n",
            ":3:18: metadata.name: the name is a number in YAML",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}\n",
            ":3:18: metadata.name: 'a/b' cannot be the name",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: [{}]\n",
            ":3:9: items[0].apiVersion: an object needs `apiVersion`",
        ),
        ("- a\n", ":1:1: a Kubernetes object is expected here, not a list"),
        ("a: [\n", ":2:1: not YAML"),
        ("a: 1\na: 2\n", ":2:1: key `a` is here twice"),
    ],
)
def test_a_bad_manifest_is_told_at_its_own_place(minimal, write, manifest, expected):
    shop, drill = write(manifest, "shop.yaml"), write(minimal.replace(*WITH_FILE))

    with pytest.raises(InvalidDrillError) as caught:
        load_drill(drill)

    assert f"{shop}{expected}" in str(caught.value)


def test_an_empty_manifest_is_told(minimal, write, problems):
    write("# nothing\n", "shop.yaml")

    assert problems(minimal.replace(*WITH_FILE))[0][1:] == (
        19,
        "spec.setup[0].apply.file: shop.yaml holds no object",
    )


def test_a_misspelt_file_is_suggested(minimal, write, problems):
    write(OBJECT, "manifests/shop.yaml")

    found = problems(minimal.replace(WITH_FILE[0], "- apply: {file: manifests/shpo.yaml}"))

    assert found[0].message.endswith("no such file: manifests/shpo.yaml; did you mean `manifests/shop.yaml`?")


def test_files_may_be_anywhere_below_the_root(minimal, write, tmp_path):
    write(OBJECT, "shop.yaml")
    drill = write(minimal.replace(WITH_FILE[0], "- apply: {file: ../shop.yaml}"), "drills/a.drill.yaml")

    assert load_drill(drill, root=tmp_path).steps[0].objects
    with pytest.raises(InvalidDrillError, match="is outside of"):
        load_drill(drill)


def test_a_link_that_leads_out_of_the_root_is_refused(minimal, write, tmp_path):
    write(OBJECT, "elsewhere/shop.yaml")
    drill = write(minimal.replace(*WITH_FILE), "drills/a.drill.yaml")
    (tmp_path / "drills/shop.yaml").symlink_to(tmp_path / "elsewhere/shop.yaml")

    with pytest.raises(InvalidDrillError, match="is outside of"):
        load_drill(drill)


def test_a_link_to_itself_and_a_pipe_are_no_manifests(minimal, write, tmp_path):
    drill = write(minimal.replace(*WITH_FILE))
    manifest = tmp_path / "shop.yaml"

    manifest.symlink_to(manifest)
    with pytest.raises(InvalidDrillError) as caught:
        load_drill(drill)
    assert "no such file" in caught.value.message or "cannot be followed" in caught.value.message

    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(InvalidDrillError, match="not a regular file"):
        load_drill(drill)


def test_a_missing_drill_file_is_told(tmp_path):
    with pytest.raises(InvalidDrillError) as caught:
        load_drill(tmp_path / "x.drill.yaml")
    assert caught.value.fields == {"path": str(tmp_path / "x.drill.yaml"), "reason": "no such file"}


# ── laws ──

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("${matrix.x}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def drills_or_error(path):
    """Load; any other exception than the one that is promised fails the test."""
    drills, message = (), str(path)
    try:
        drills = load_drills(path)
    except InvalidDrillError as error:
        message = str(error)

    assert message.startswith(str(path))
    assert all(isinstance(drill, Drill) for drill in drills)


def places(data, path=()):
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@fuzz
@given(st.text() | st.binary())
def test_any_text_is_a_drill_or_an_error(write, text):
    drills_or_error(write(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text))


@fuzz
@given(st.data())
def test_a_drill_with_any_characters_changed_is_a_drill_or_an_error(minimal, write, data):
    start = data.draw(st.integers(0, len(minimal)))
    end = data.draw(st.integers(start, min(start + 9, len(minimal))))
    instead = data.draw(st.text(st.sampled_from("{}[]&*!|>%@`'\"#:,-?\n \t<$x0"), max_size=6))

    drills_or_error(write(minimal[:start] + instead + minimal[end:]))


@fuzz
@given(st.data())
def test_a_drill_with_any_value_put_anywhere_is_a_drill_or_an_error(examples, write, data):
    drill = yaml.safe_load(examples[data.draw(st.sampled_from(sorted(examples)))].read_text())
    path = data.draw(st.sampled_from([path for path in places(drill) if path]))
    parent = drill
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = data.draw(json_like)

    drills_or_error(write(yaml.safe_dump(drill, allow_unicode=True), "examples/any.drill.yaml"))


labels = st.from_regex(r"[a-z]([-a-z0-9]{0,6}[a-z0-9])?", fullmatch=True)
durations = st.sampled_from(["90s", "15m", "1h30m", "250ms", "1.5s"])
counts = st.integers(0, 99) | st.sampled_from([">=3", "<= 2", "!=0", "7"])
plain_text = st.text(max_size=5).filter(lambda text: "${" not in text and "\0" not in text)
objects = st.fixed_dictionaries({
    "apiVersion": st.just("v1"), "kind": st.just("ConfigMap"),
    "metadata": st.fixed_dictionaries({"name": labels}),
    "data": st.none() | st.dictionaries(labels, plain_text),
})  # fmt: skip


def optional(required, **keys):
    return st.fixed_dictionaries(required, optional=keys)


def step(action):
    common = {"name": labels, "timeout": durations, "cluster": st.just("main")}
    return st.builds(lambda one, rest: {**rest, **one}, action, st.fixed_dictionaries({}, optional=common))


ready = optional({"kind": st.just("Pod")}, namespace=labels, selector=st.just("a=b"), count=counts)
applied = st.fixed_dictionaries({"manifest": objects | st.lists(objects, min_size=1, max_size=2)})
restored = optional({}, missing=counts, extra=counts | st.just("report"), identity=st.sampled_from(["name", "uid"]))
patched = st.fixed_dictionaries({"kind": st.just("Gadget"), "name": labels, "patch": st.just({"spec": {"x": None}})})
drill_data = st.fixed_dictionaries({
    "apiVersion": st.just(API_VERSION),
    "kind": st.just("Drill"),
    "metadata": optional({"name": labels}, labels=st.dictionaries(labels, labels)),
    "spec": optional(
        {
            "backup": st.just([{"etcdSnapshot": {"name": "one"}}]),
            "fault": st.lists(step(st.fixed_dictionaries({"patch": patched})), min_size=1, max_size=2),
            "restore": st.just([{"etcdRestore": {"from": "one"}}]),
            "verify": st.lists(
                step(st.fixed_dictionaries({"restored": restored}) | st.fixed_dictionaries({"ready": ready})),
                min_size=1, max_size=3,
            ),
        },
        setup=st.lists(step(st.fixed_dictionaries({"apply": applied})), max_size=2),
        canary=st.just(True) | st.fixed_dictionaries({"every": durations}),
        prove=st.booleans(),
        timeout=durations,
        objectives=optional({}, rto=durations, rpo=durations),
        matrix=st.just({}),
    ),
})  # fmt: skip


@fuzz
@given(drill_data)
def test_a_valid_drill_loads_and_survives_being_written_again(load, data):
    drill = load(yaml.safe_dump(data, allow_unicode=True))
    again = {
        "apiVersion": API_VERSION,
        "kind": "Drill",
        "metadata": drill.metadata.model_dump(mode="json", exclude_unset=True),
        "spec": drill.spec.model_dump(mode="json", exclude_unset=True),
    }

    assert load(yaml.safe_dump(again, allow_unicode=True)).spec == drill.spec
