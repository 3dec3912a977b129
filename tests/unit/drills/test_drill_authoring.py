"""A drill of somebody's namespace: what is in it, what is not, and above all no secret."""

from __future__ import annotations

import base64
import copy
import json
import re

import pytest
import yaml

from clusterguard.drills.authoring.folder import drill_files_of, require_free, write_files
from clusterguard.drills.authoring.looking import Seen
from clusterguard.drills.authoring.made_up import MadeUp, made_up_secret, without_credentials_in
from clusterguard.drills.authoring.stand_in import MOST_OF_A_KIND, stand_in_for
from clusterguard.drills.load import load_drill
from clusterguard.drills.plan import plan_text
from clusterguard.drills.requirements import skip_reason
from clusterguard.errors import ConfigError

SERVER = {"uid": "u-1", "resourceVersion": "7", "creationTimestamp": "2030-01-01T00:00:00Z", "generation": 2}
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def an_object(kind, name="web", *, api_version="v1", namespace="shop", metadata=None, **fields):
    where = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, **where, **SERVER, **(metadata or {})},
        **fields,
    }


def a_namespace(name="shop"):
    labels = {"kubernetes.io/metadata.name": name}
    return an_object("Namespace", name, namespace="", metadata={"labels": labels}, spec={"finalizers": ["kubernetes"]})


def a_pod_spec(**fields):
    """A Pod's spec as an API server gives it back."""
    container = {
        "name": "web",
        "image": "registry.example.com/web:1.2",
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "resources": {},
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        **fields.pop("container", {}),
    }
    return {
        "containers": [container],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        **fields,
    }


def a_workload(kind="Deployment", name="web", *, pod=None, **spec):
    template = {"metadata": {"creationTimestamp": None, "labels": {"app": name}}, "spec": pod or a_pod_spec()}
    selector = {"matchLabels": {"app": name}}
    return an_object(
        kind,
        name,
        api_version="apps/v1",
        spec={"replicas": 2, "revisionHistoryLimit": 10, "selector": selector, "template": template, **spec},
        status={"replicas": 2},
    )


def a_service(name="web", **spec):
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    return an_object(
        "Service",
        name,
        spec={
            "clusterIP": "10.96.4.5",
            "clusterIPs": ["10.96.4.5"],
            "ipFamilies": ["IPv4"],
            "type": "ClusterIP",
            "ipFamilyPolicy": "SingleStack",
            "selector": {"app": name},
            "ports": ports,
            "sessionAffinity": "None",
            **spec,
        },
    )


def a_secret(name="web", *, kind="Opaque", metadata=None, **values):
    data = {
        key: base64.b64encode(value if isinstance(value, bytes) else value.encode()) for key, value in values.items()
    }
    data = {key: value.decode() for key, value in data.items()}
    return an_object("Secret", name, metadata=metadata, type=kind, data=data)


def a_claim(name="data", **spec):
    return an_object(
        "PersistentVolumeClaim",
        name,
        metadata={"annotations": {"volume.kubernetes.io/storage-provisioner": "csi.example.com"}},
        spec={
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "fast",
            "volumeMode": "Filesystem",
            "volumeName": "pvc-1",
            **spec,
        },
    )


def a_definition():
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "dishes": {"type": "array", "items": {"type": "string"}}, "open": {"type": "boolean"}}}}}  # fmt: skip
    return an_object(
        "CustomResourceDefinition",
        "menus.example.com",
        api_version="apiextensions.k8s.io/v1",
        namespace="",
        spec={
            "group": "example.com",
            "names": {"kind": "Menu", "plural": "menus"},
            "scope": "Namespaced",
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": "eA=="}}},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
        status={"conditions": []},
    )


def seen(*objects, namespace="shop", **fields):
    return Seen(namespace=namespace, objects=(a_namespace(namespace), *objects), **fields)


def manifests_of(*objects, **fields):
    """The stand-in, by kind and name."""
    stand_in = stand_in_for(seen(*objects, **fields))
    return {(each.ref.kind, each.ref.name): each for each in stand_in.manifests}


@pytest.fixture
def written(tmp_path):
    """Write the drill of some objects; return it as it loads, and everything that was written as one text."""

    def written(*objects, engine="etcd", namespace="shop", **fields):
        files, _ = drill_files_of(seen(*objects, namespace=namespace, **fields), engine=engine, origin="context:prod")
        paths = write_files(tmp_path / "out", files)
        return load_drill(paths[-1]), "".join(path.read_text() for path in paths)

    return written


# ---- the drill ----------------------------------------------------------------------------------------------


def of_verb(drill, verb):
    return [step.action for step in drill.steps if step.verb == verb]


@pytest.mark.parametrize(
    ("engine", "verbs"), [("etcd", "etcdSnapshot etcdRestore"), ("velero", "veleroBackup veleroRestore")]
)
def test_it_loads_and_is_not_skipped_on_an_embedded_cluster(written, engine, verbs):
    objects = [
        a_workload(),
        a_service(),
        a_secret(password="hunter2-hunter2"),
        a_claim(),
        a_workload("StatefulSet", "db"),
    ]
    drill, _ = written(*objects, engine=engine)
    assert skip_reason(drill, default_cluster="embedded") is None
    assert {step.verb for step in drill.steps} >= {
        *verbs.split(),
        "verifyBackup",
        "delete",
        "restored",
        "ready",
        "assert",
    }
    assert drill.spec.scope.namespaces == ("shop",)
    assert (drill.name, drill.metadata.labels["backup"]) == ("shop", engine)
    assert "compare everything in scope" in plan_text(drill, default_cluster="embedded")


def test_everything_of_the_namespace_is_compared_and_workloads_must_be_ready(written):
    drill, _ = written(a_workload(), a_workload(name="api"), a_workload("StatefulSet", "db"), a_claim())
    (restored,) = of_verb(drill, "restored")
    assert (restored.identity, restored.missing.value, restored.changed.value, restored.ignore) == ("uid", 0, 0, ())
    ready = {(step.phase, step.action.kind): step.action for step in drill.steps if step.verb == "ready"}
    assert {kind: action.count.value for (phase, kind), action in ready.items() if phase == "verify"} == {
        "Deployment": 2,
        "StatefulSet": 1,
        "PersistentVolumeClaim": 1,
    }
    assert {kind for phase, kind in ready if phase == "setup"} == {"Deployment", "StatefulSet", "PersistentVolumeClaim"}
    assert all(action.stable_for for (phase, _), action in ready.items() if phase == "verify")


def test_what_matters_is_asserted(written):
    drill, _ = written(a_workload(), a_service())
    deployment, service = (action.resource for action in of_verb(drill, "assert"))
    assert deployment["spec"] == {
        "replicas": 2,
        "template": {"spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1.2"}]}},
    }
    assert service["spec"] == {"ports": [{"port": 80}], "selector": {"app": "web"}}


def test_no_value_of_a_secret_is_asserted(written):
    drill, _ = written(a_secret(password="hunter2-hunter2"), a_workload())
    assert "Secret" not in {action.resource["kind"] for action in of_verb(drill, "assert")}


def test_each_field_of_a_definition_is_asserted(written):
    menu = an_object("Menu", "lunch", api_version="example.com/v1", spec={"dishes": ["soup"]})
    drill, text = written(menu, definitions={"Menu.example.com": a_definition()})
    (definition,) = (each.resource for each in of_verb(drill, "assert"))
    (version,) = definition["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert fields == {"dishes": {"type": "array"}, "open": {"type": "boolean"}}
    assert "caBundle" not in text
    assert next(iter(drill.steps)).objects[0]["kind"] == "CustomResourceDefinition"


def test_in_the_namespace_default_pods_go_before_the_claims_that_they_mount(written):
    pod = an_object("Pod", "alone", spec=a_pod_spec())
    objects = [a_claim(), a_workload(), pod]
    for item in objects:
        item["metadata"]["namespace"] = "default"
    drill, _ = written(*objects, namespace="default")
    kinds = [str(action.kind).partition(".")[0] for action in of_verb(drill, "delete")]
    assert kinds.index("Pod") < kinds.index("PersistentVolumeClaim")
    assert kinds.index("Deployment") < kinds.index("PersistentVolumeClaim")


def test_the_namespace_default_may_have_nothing_but_pods(tmp_path):
    pod = an_object("Pod", "alone", namespace="default", spec=a_pod_spec())
    alone = Seen(namespace="default", objects=(pod,), unread={"Secret": ""})
    files, _ = drill_files_of(alone, engine="etcd", origin="context:prod")
    drill = load_drill(write_files(tmp_path / "out", files)[-1])
    assert [action.names for action in of_verb(drill, "delete")] == [("alone",)]
    assert sorted(files) == ["default.drill.yaml", "manifests/default-pods.yaml"]


def test_no_key_leaves_the_comment_that_names_it(written):
    odd = "token\n---\nkind: Injected\n\u2028\x85---\x1b[1m"
    menu = an_object("Menu", "lunch", api_version="example.com/v1", spec={odd: "abc"})
    drill, text = written(menu, definitions={"Menu.example.com": a_definition()})
    assert {each["kind"] for step in drill.steps for each in step.objects} == {
        *("CustomResourceDefinition", "Menu", "Namespace"),
    }
    (line,) = (line for line in text.splitlines() if line.startswith("# ") and "made up: " in line)
    assert line.isprintable()


def test_what_needs_containers_is_a_comment_that_loads_without_its_mark(written, tmp_path):
    pod = a_pod_spec(
        container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    drill, _ = written(a_workload(pod=pod), a_service(), a_claim(), engine="velero")
    assert not of_verb(drill, "http")
    assert not of_verb(drill, "sameFiles")
    # As its owner would do it: the checks with what belongs to them, and the file that is written before.
    lines = drill.path.read_text().splitlines()
    marked = [line for line in lines if re.match(r"  # (- (http|sameFiles)|  timeout)", line)]
    other = tmp_path / "out" / "real.drill.yaml"
    other.write_text("\n".join([*lines, *(line.replace("# ", "", 1) for line in marked)]))
    real = load_drill(other)
    (http,) = of_verb(real, "http")
    (files,) = of_verb(real, "sameFiles")
    assert (http.service, http.port, files.path) == ("web", 80, "/data")
    assert skip_reason(real, default_cluster="embedded")


@pytest.mark.parametrize(
    ("port", "is_http"),
    [
        ({"name": "http", "port": 80}, True),
        ({"name": "web-ui", "port": 81}, True),
        ({"port": 8080}, True),
        ({"name": "sql", "port": 5432}, False),
        ({"name": "https", "port": 443}, False),
        ({"name": "http", "port": 80, "protocol": "UDP"}, False),
        ({"port": 5432}, False),
        ({"name": "x", "appProtocol": "http", "port": 1}, True),
    ],
)
def test_services_that_speak_http(written, port, is_http):
    _, text = written(a_service(ports=[port]))
    assert ("- http:" in text) == is_http


def test_a_namespace_that_cannot_be_deleted_loses_what_is_in_it(written):
    drill, _ = written(a_workload(), a_service(), namespace="default")
    deleted = [action for action in of_verb(drill, "delete") if action.kind != "Namespace"]
    assert deleted == of_verb(drill, "delete")


@pytest.mark.parametrize("namespace", ["shop-2", "null", "123", "on"])
def test_names_that_yaml_would_take_for_something_else(written, namespace):
    objects = [a_workload() for _ in range(1)]
    for item in objects:
        item["metadata"]["namespace"] = namespace
    drill, _ = written(*objects, namespace=namespace)
    assert drill.spec.scope.namespaces == (namespace,)
    assert of_verb(drill, "delete")[0].name == namespace


def test_a_reference_in_a_field_stays_a_text(written):
    odd = a_service(selector={"app": "${env.HOME}"})
    drill, _ = written(odd)
    assert of_verb(drill, "assert")[0].resource["spec"]["selector"] == {"app": "${env.HOME}"}


def test_what_could_not_be_read_and_what_is_left_out_is_said_in_the_file(written):
    job = an_object("Job", "import", api_version="batch/v1", spec={"template": {}})
    drill, _ = written(a_workload(), job, unread={"Secret": "403: secrets is forbidden\nsecond line"})
    head = drill.path.read_text().partition("apiVersion")[0]
    assert "1 Job.batch: " in head
    assert "Secret: 403: secrets is forbidden" in head
    assert "second line" not in head


def test_it_is_the_same_every_time():
    objects = seen(a_workload(), a_secret(password="x"), a_service())
    texts = [drill_files_of(copy.deepcopy(objects), engine="etcd", origin="context:prod")[0] for _ in range(2)]
    assert texts[0] == texts[1]


# ---- the stand-in -------------------------------------------------------------------------------------------


def test_what_a_server_fills_in_is_not_written():
    made = manifests_of(a_workload(), a_service())
    deployment, service = made["Deployment", "web"].item, made["Service", "web"].item
    assert deployment == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "web", "image": "registry.example.com/web:1.2", "ports": [{"containerPort": 8080}]}
                    ]
                },
            },
        },
    }
    assert service["spec"] == {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    assert made["Namespace", "shop"].item == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}


def test_a_value_that_is_no_default_stays():
    pod = a_pod_spec(restartPolicy="Always", dnsPolicy="None", terminationGracePeriodSeconds=5)
    spec = manifests_of(a_workload(pod=pod, revisionHistoryLimit=3))["Deployment", "web"].item["spec"]
    assert spec["revisionHistoryLimit"] == 3
    assert (spec["template"]["spec"]["dnsPolicy"], spec["template"]["spec"]["terminationGracePeriodSeconds"]) == (
        "None",
        5,
    )


@pytest.mark.parametrize(
    ("image", "policy", "kept"),
    [
        ("web:1", "IfNotPresent", False),
        ("web", "Always", False),
        ("web:latest", "IfNotPresent", True),
        ("localhost:5000/web", "Always", False),
        ("web:1", "Always", True),
        ("web@sha256:0", "IfNotPresent", False),
    ],
)
def test_the_pull_policy_that_an_image_has_anyway(image, policy, kept):
    pod = a_pod_spec(container={"image": image, "imagePullPolicy": policy})
    template = manifests_of(a_workload(pod=pod))["Deployment", "web"].item["spec"]["template"]
    assert ("imagePullPolicy" in template["spec"]["containers"][0]) == kept


def owned(kind, api_version, *, controller=True):
    return {
        "ownerReferences": [
            {"apiVersion": api_version, "kind": kind, "name": "o", "uid": "u", "controller": controller}
        ]
    }


def test_what_controllers_make_again_is_left_out_and_what_operators_made_is_not():
    of_deployment = an_object(
        "ReplicaSet", "web-1", api_version="apps/v1", metadata=owned("Deployment", "apps/v1"), spec={}
    )
    of_operator = a_workload("StatefulSet", "db")
    of_operator["metadata"] |= owned("Postgres", "db.example.com/v1")
    stand_in = stand_in_for(seen(of_deployment, of_operator, a_service()))
    assert dict(stand_in.left_out) == {("ReplicaSet.apps", "a controller makes them again"): 1}
    (kept,) = stand_in.of_kind("StatefulSet.apps")
    assert "ownerReferences" not in kept.item["metadata"]
    assert "Postgres o" in kept.notes[0]


def test_a_claim_that_goes_with_its_stateful_set_is_kept():
    claim = a_claim()
    claim["metadata"] |= owned("StatefulSet", "apps/v1")
    assert [each.ref.name for each in stand_in_for(seen(claim)).of_kind("PersistentVolumeClaim")] == ["data"]


def test_what_is_over_or_only_a_record_is_left_out():
    stand_in = stand_in_for(
        seen(
            an_object("Job", "import", api_version="batch/v1", spec={"template": {}}),
            an_object("Pod", "done", spec=a_pod_spec(), status={"phase": "Succeeded"}),
            a_secret(
                "sh.helm.release.v1.web.v1", kind="helm.sh/release.v1", metadata={"labels": {"status": "superseded"}}
            ),
            a_secret(
                "sh.helm.release.v1.web.v2", kind="helm.sh/release.v1", metadata={"labels": {"status": "deployed"}}
            ),
            an_object("Thing", "t", api_version="other.example.com/v1"),
            undefined={"Thing.other.example.com": "an API server of its own serves it"},
        )
    )
    assert {kind for kind, _ in stand_in.left_out} == {"Job.batch", "Pod", "Secret", "Thing.other.example.com"}
    assert [each.ref.name for each in stand_in.of_kind("Secret")] == ["sh.helm.release.v1.web.v2"]


def test_what_an_empty_cluster_has_not_is_left_out_and_said():
    pod = a_pod_spec(
        nodeSelector={"disk": "ssd"},
        affinity={"nodeAffinity": {}},
        priorityClassName="high",
        runtimeClassName="gvisor",
        container={"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}},
    )
    made = manifests_of(a_workload(pod=pod))["Deployment", "web"]
    spec = made.item["spec"]["template"]["spec"]
    assert set(spec) == {"containers"}
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    (note,) = made.notes
    assert all(word in note for word in ("nodeSelector", "affinity", "priorityClassName", "nvidia.com/gpu"))


def test_a_claim_gets_a_volume_since_nothing_else_would_make_one():
    made = manifests_of(a_claim(dataSource={"kind": "VolumeSnapshot", "name": "s"}))
    claim, volume = made["PersistentVolumeClaim", "data"].item, made["PersistentVolume", "shop-data"].item
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    }
    assert "annotations" not in claim["metadata"]
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data"}
    assert (volume["spec"]["claimRef"], volume["spec"]["storageClassName"]) == (reference, "fast")
    assert volume["spec"]["capacity"] == {"storage": "1Gi"}


def test_a_cron_job_is_suspended():
    job = an_object("CronJob", "report", api_version="batch/v1", spec={"schedule": "* * * * *", "suspend": False,
                    "jobTemplate": {"spec": {"template": {"spec": a_pod_spec(restartPolicy="Never")}}}})  # fmt: skip
    made = manifests_of(job)["CronJob", "report"]
    assert made.item["spec"]["suspend"] is True
    assert made.notes
    assert made.item["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_of_thousands_of_a_kind_those_that_workloads_name_come_first(written):
    many = [an_object("ConfigMap", f"c-{number:05}", data={"a": "b"}) for number in range(3000)]
    pod = a_pod_spec(volumes=[{"name": "c", "configMap": {"name": "c-02999"}}])
    drill, text = written(*many, a_workload(pod=pod))
    names = [each["metadata"]["name"] for step in drill.steps for each in step.objects if each["kind"] == "ConfigMap"]
    assert len(names) == MOST_OF_A_KIND
    assert "c-02999" in names
    assert f"{3000 - MOST_OF_A_KIND:,} ConfigMap: " in text


def test_large_manifests_are_several_files_that_a_drill_can_read(written, monkeypatch):
    monkeypatch.setattr("clusterguard.drills.authoring.folder._LARGEST", 1000)
    many = [an_object("ConfigMap", f"c-{number}", data={"a": "x" * 300}) for number in range(12)]
    drill, _ = written(*many)
    setup = drill.phase("setup")[0]
    assert len(setup.action.paths) > 2
    assert sum(each["kind"] == "ConfigMap" for each in setup.objects) == 12


def test_a_namespace_that_may_not_be_read_is_made_all_the_same():
    stand_in = stand_in_for(Seen(namespace="shop", objects=(a_service(),)))
    assert [each.item["metadata"] for each in stand_in.of_kind("Namespace")] == [{"name": "shop"}]


def test_the_namespace_default_is_there_anyway():
    stand_in = stand_in_for(Seen(namespace="default", objects=(a_service(),)))
    assert stand_in.of_kind("Namespace") == []


def test_pods_are_applied_once_their_account_is_there(written):
    drill, _ = written(
        an_object("Pod", "alone", spec=a_pod_spec(serviceAccountName="default", volumes=[])), a_workload()
    )
    steps = [step for step in drill.phase("setup") if step.verb == "apply" or step.action.kind == "ServiceAccount"]
    assert [[each["kind"] for each in step.objects] for step in steps] == [["Namespace", "Deployment"], [], ["Pod"]]
    assert (steps[1].action.name, steps[1].action.namespace) == ("default", "shop")
    assert set(steps[2].objects[0]["spec"]) == {"containers"}


def test_a_wide_definition_is_written_on_several_lines(written):
    definition = a_definition()
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] = {f"field{number}": {"type": "string"} for number in range(50)}
    menu = an_object("Menu", "lunch", api_version="example.com/v1", spec={})
    drill, _ = written(menu, definitions={"Menu.example.com": definition})
    (asserted,) = (each.resource for each in of_verb(drill, "assert"))
    fields = asserted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert fields == spec["properties"]
    assert max(map(len, drill.path.read_text().splitlines())) < 140


def test_a_volume_that_would_be_made_for_each_pod_is_an_empty_one():
    claim = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    pod = a_pod_spec(volumes=[{"name": "cache", "ephemeral": {"volumeClaimTemplate": claim}}])
    made = manifests_of(a_workload(pod=pod))["Deployment", "web"]
    assert made.item["spec"]["template"]["spec"]["volumes"] == [{"name": "cache", "emptyDir": {}}]
    assert "cache" in made.notes[0]


def test_kinds_of_other_groups_are_left_as_they_are():
    own = an_object(
        "Service", "s", api_version="serving.example.com/v1", spec={"ipFamilies": ["x"], "type": "ClusterIP"}
    )
    made = manifests_of(own, definitions={})["Service", "s"].item
    assert made["spec"] == {"ipFamilies": ["x"], "type": "ClusterIP"}


# ---- secrets ------------------------------------------------------------------------------------------------

PASSWORD = "correct-horse-battery"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAreallyreallysecret\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("key", "value", "like"),
    [
        ("password", PASSWORD, lambda text: text == "made-up-password"),
        ("port", "5432", str.isdecimal),
        ("tls.key", PEM, lambda text: text.startswith("-----BEGIN RSA PRIVATE KEY-----\n")),
        ("tls.crt", "-----BEGIN HUNTER2-----\nx", lambda text: text.startswith("-----BEGIN CERTIFICATE-----\n")),
        ("config.json", json.dumps({"hunter2": PASSWORD}), lambda text: "hunter2" not in text and json.loads(text)),
        (".dockerconfigjson", '{"auths": {}}', lambda text: json.loads(text)["auths"]),
        ("url", f"postgres://me:{PASSWORD}@db/shop", lambda text: text == "https://made-up.example.com/"),
        ("debug", "TRUE", lambda text: text == "true"),
        ("empty", "", lambda text: text == ""),
        ("word", "ßecret", lambda text: text == "made-up-word"),
    ],
)
def test_a_secret_keeps_its_keys_and_gets_values_of_the_same_kind(key, value, like):
    made = made_up_secret(a_secret(**{key: value}))
    assert list(made["stringData"]) == [key]
    assert like(made["stringData"][key])
    assert "data" not in made


def test_bytes_that_are_no_text_stay_bytes():
    made = made_up_secret(a_secret(keystore=b"\xfe\xed\xfe\xed"))
    assert base64.b64decode(made["data"]["keystore"], validate=True) == b"\x00made-up\xff"


def test_of_a_secret_only_type_labels_and_what_it_is_for_stays(written):
    copied = json.dumps({"data": {"password": base64.b64encode(PASSWORD.encode()).decode()}})
    annotations = {LAST_APPLIED: copied, "example.com/hash": "hash-of-it", "meta.helm.sh/release-name": "shop"}
    secret = a_secret(password=PASSWORD, kind="kubernetes.io/basic-auth", metadata={"annotations": annotations})
    drill, text = written({**secret, "immutable": True})
    (made,) = (each for step in drill.steps for each in step.objects if each["kind"] == "Secret")
    assert (made["type"], made["immutable"]) == ("kubernetes.io/basic-auth", True)
    assert made["metadata"]["annotations"] == {"meta.helm.sh/release-name": "shop"}
    assert PASSWORD not in text
    assert base64.b64encode(PASSWORD.encode()).decode() not in text
    assert "hash-of-it" not in text


LEAKS = {
    "an environment variable by its name": a_workload(
        pod=a_pod_spec(container={"env": [{"name": "DB_PASSWORD", "value": PASSWORD}]})
    ),
    "one of a CronJob": an_object("CronJob", "r", api_version="batch/v1", spec={"schedule": "@daily", "jobTemplate": {
        "spec": {"template": {"spec": a_pod_spec(container={"env": [{"name": "apiToken", "value": PASSWORD}]})}}}}),
    "a URL": a_workload(pod=a_pod_spec(container={"env": [{"name": "DB", "value": f"postgres://me:{PASSWORD}@db/shop"}]})),
    "an argument": a_workload(pod=a_pod_spec(container={"args": ["serve", f"--admin-password={PASSWORD}"]})),
    "an argument after its flag": a_workload(pod=a_pod_spec(container={"command": ["serve", "--token", PASSWORD]})),
    "a shell's line": a_workload(pod=a_pod_spec(container={"args": ["-c", f"export API_KEY='{PASSWORD}'; serve"]})),
    "the hash of a password": an_object("ConfigMap", data={"users": f"me:$apr1$abcdefgh${PASSWORD}\n"}),
    "npm's": an_object("ConfigMap", data={".npmrc": f"//npm.example.com/:_auth={PASSWORD}\n"}),
    "a login of Docker": an_object("ConfigMap", data={"c": json.dumps({"auths": {"r": {"auth": PASSWORD}}})}),
    "what follows a reference": an_object("ConfigMap", data={"c": f"db.password=${{PREFIX}}{PASSWORD}"}),
    "what follows a dollar": an_object("ConfigMap", data={"db.password": f"$a{PASSWORD}"}),
    "a header": a_workload(pod=a_pod_spec(container={"args": [f"-H Authorization: Bearer {PASSWORD}"]})),
    "a key of a ConfigMap": an_object("ConfigMap", data={"client-secret": PASSWORD}),
    "a line of properties": an_object("ConfigMap", data={"app.properties": f"a=b\ndb.password = {PASSWORD}\nc=d\n"}),
    "a line of YAML": an_object("ConfigMap", data={"app.yaml": f"db:\n  password: '{PASSWORD}'\n  user: me\n"}),
    "a block of YAML": an_object("ConfigMap", data={"app.yaml": f"db:\n  password: |\n    {PASSWORD}\n"}),
    "JSON": an_object("ConfigMap", data={"app.json": json.dumps({"a": 1, "accessKey": PASSWORD, "b": 2})}),
    "a value with a sign of XML": an_object("ConfigMap", data={"c": f"password=a<{PASSWORD}\n"}),
    "XML": an_object("ConfigMap", data={"app.xml": f"<password>{PASSWORD}</password>"}),
    "a private key": an_object("ConfigMap", data={"x": PEM.replace("MII", PASSWORD)}),
    "a cut private key": an_object("ConfigMap", data={"x": PEM.replace("MII", PASSWORD).partition("-----END")[0]}),
    "a web token": an_object("ConfigMap", data={"x": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.{PASSWORD}"}),
    "bytes": an_object("ConfigMap", binaryData={"keystore": base64.b64encode(PASSWORD.encode()).decode()}),
    "an annotation": a_service(),
    "the last applied": a_workload(),
    **{
        f"a variable {name}": a_workload(pod=a_pod_spec(container={"env": [{"name": name, "value": PASSWORD}]}))
        for name in (
            *("DB_PASS", "SMTP_PASS", "RABBITMQ_DEFAULT_PASS", "PGPASS", "dbPass", "ADMIN_PW", "rootpw"),
            *("PASSWORD_PROFILE", "basicAuth", "DBPassword"),
        )
    },
    "an argument after a flag of Redis": a_workload(pod=a_pod_spec(container={"args": ["--requirepass", PASSWORD]})),
    "a variable of several lines": a_workload(
        pod=a_pod_spec(container={"env": [{"name": "TOKENS", "value": f"a\n{PASSWORD}"}]})
    ),
    "several lines": an_object("ConfigMap", data={"api-tokens": f"a\n{PASSWORD}"}),
    **{
        f"a file with {text!r}": an_object("ConfigMap", data={"app.conf": f"a: b\n{text.format(PASSWORD)}\nc: d\n"})
        for text in (
            *("tokens:\n  - {}", "tokens:\n- {}", "password:\n  {}", "password:\r\n  {}", "password: |2-\n  {}"),
            *("password: | # c\n  {}", "password: # c\n  {}", "password: first\n  {}", "- password: first\n    {}"),
            *("password: 'first\n{}'", 'password = """\n{}"""', "password: first\\\n{}", "password='a' \\\n{}"),
            *('"tokens": [\n"{}"\n]', "password=${{X:-{}}}", "password=$(cat <<E\n{}\nE\n)", "password: 'it''s {}'"),
            *("<password><![CDATA[{}]]></password>", "PASS='a'\"{}\"", 'password: {{{{ default "{}" }}}}'),
            "$config['db_password'] = '{}'",
        )
    },
    **{
        f"a custom resource with {spec!r}": an_object("Menu", "m", api_version="example.com/v1", spec=spec)
        for spec in (
            *({"credentials": {"admin": PASSWORD}}, {"password": {"value": PASSWORD}}, {"tokens": [{"a": [PASSWORD]}]}),
            *({"values": {"image": {"credentials": {"password": PASSWORD}}}}, {"name": {"token": PASSWORD}}),
            {"adminName": f"postgres://me:{PASSWORD}@db/shop"},
        )
    },
    "a password with an at sign in a URL": an_object("ConfigMap", data={"x": f"amqp://me:a@{PASSWORD}@mq/x"}),
    "a field of a custom resource": an_object(
        "Menu", "m", api_version="example.com/v1", spec={"db": {"adminPassword": PASSWORD}}
    ),
}  # fmt: skip
LEAKS["an annotation"]["metadata"]["annotations"] = {"example.com/auth-token": PASSWORD}
LEAKS["the last applied"]["metadata"]["annotations"] = {LAST_APPLIED: json.dumps({"x": PASSWORD})}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_credential_elsewhere_is_made_up_and_told(written, leak):
    item = LEAKS[leak]
    assert PASSWORD in json.dumps(item) or leak == "bytes"
    _, text = written(item, definitions={"Menu.example.com": a_definition()})
    assert PASSWORD not in text
    assert base64.b64encode(PASSWORD.encode()).decode() not in text
    told = stand_in_for(seen(item)).made_up
    assert bool(told) == (leak != "the last applied")  # which is never written at all


def test_a_credential_may_be_a_number():
    item = an_object("Menu", "m", api_version="example.com/v1", spec={"password": 12345678, "pins": [87654321], "a": 5})
    made, places = MadeUp([item, a_secret(pin="87654321")]).without_credentials(item)
    assert made["spec"] == {"password": 12345, "pins": [12345], "a": 5}
    assert places == ("spec.password", "spec.pins[0]")


def test_a_value_of_a_secret_is_found_wherever_it_is(written):
    of_keys = dict.fromkeys(("name", "image", "type", "selector", "kind", "apiVersion", PASSWORD), f"x{PASSWORD}")
    service = a_service(selector={"app": PASSWORD}, externalName=f"{PASSWORD}.example.com")
    service["metadata"] |= {"annotations": {"a/lastName": PASSWORD}, "labels": {PASSWORD: PASSWORD}}
    pod = a_pod_spec(
        container={"image": f"example.com/{PASSWORD}:1"}, volumes=[{"name": PASSWORD, "ephemeral": {"a": "b"}}]
    )
    menu = an_object("Menu", "m", api_version="example.com/v1", spec={PASSWORD: 1, f"x-{PASSWORD}": {PASSWORD: "a"}})
    secret = a_secret(password=PASSWORD, metadata={"labels": {"a": PASSWORD}})
    objects = [secret, an_object("ConfigMap", data=of_keys), service, a_workload(pod=pod), menu]
    _, text = written(*objects, definitions={"Menu.example.com": a_definition()})
    assert PASSWORD not in text
    told = stand_in_for(seen(*objects)).made_up
    assert {ref.kind for ref in told} == {"ConfigMap", "Service", "Deployment", "Menu", "Secret"}
    assert PASSWORD not in str(told)


def test_no_key_is_lost_when_several_are_made_up():
    item = an_object("ConfigMap", data={f"a-{PASSWORD}": "1", f"a-{PASSWORD[::-1]}": "2", "a-made-up": "3"})
    made, _ = MadeUp([a_secret(a=PASSWORD, b=PASSWORD[::-1]), item]).without_credentials(item)
    assert sorted(made["data"].values()) == ["1", "2", "3"]


def test_a_secret_with_a_common_word_spoils_no_fields_and_no_names():
    item = a_workload(name="postgres-db", pod=a_pod_spec(restartPolicy="Never"))
    made, _ = MadeUp(
        [a_secret("postgres-login", user="postgres", a="template", b="metadata"), item]
    ).without_credentials(item)
    assert made["metadata"]["name"] == "postgres-db"
    assert made["spec"]["template"]["spec"]["containers"]


def test_of_a_known_value_with_a_form_nothing_stays(written):
    value = "postgres://app:Very@Secret9Word@db/app"
    _, text = written(a_secret(url=value), an_object("ConfigMap", data={"x": f"a {value} b"}))
    assert "Secret9Word" not in text
    assert "a made-up b" in text


def test_a_value_of_a_secret_is_found_under_any_name(written):
    pod = a_pod_spec(container={"env": [{"name": "HARMLESS", "value": f"x {PASSWORD} y"}]})
    _, text = written(a_secret(password=PASSWORD), a_workload(pod=pod))
    assert PASSWORD not in text
    assert "x made-up y" in text


@pytest.mark.parametrize(
    "item",
    [
        a_workload(pod=a_pod_spec(container={"env": [
            {"name": "PASSWORD_FILE", "value": "/run/secrets/password"},
            {"name": "TOKEN_ENDPOINT", "value": "$(BASE)/token"},
            {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "SECRETS_ENABLED", "value": "true"}, {"name": "LOG", "value": "debug"}]})),
        a_workload(pod=a_pod_spec(imagePullSecrets=[{"name": "pull"}], serviceAccountName="web",
                                  automountServiceAccountToken=False,
                                  volumes=[{"name": "s", "secret": {"secretName": "db"}}])),
        a_workload(pod=a_pod_spec(volumes=[
            {"name": "s", "secret": {"secretName": "db", "items": [{"key": "token", "path": "p"}], "defaultMode": 256}},
            {"name": "p", "projected": {"sources": [
                {"secret": {"name": "db", "optional": True}},
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607, "audience": "vault"}}]}}])),
        a_workload(pod=a_pod_spec(container={"env": [
            {"name": name, "value": "x"} for name in ("COMPASS", "BYPASS", "PASSIVE_MODE", "sslPassthrough")]})),
        an_object("Menu", "m", api_version="example.com/v1", spec={
            "passwordSecretRef": {"name": "db", "key": "token"}, "basicAuth": {"password": {"name": "a", "key": "b"}},
            "privateKey": {"algorithm": "RSA", "size": 2048}, "auth": {"method": "scram"}, "secretName": "db"}),
        an_object("ConfigMap", data={"app.properties": "db.password=${DB_PASSWORD}\ntoken-file: /run/token\na=b\n"}),
        an_object("ConfigMap", data={"index.html": "<h1>open</h1>", "url": "https://example.com/a@b"}),
    ],
)  # fmt: skip
def test_what_is_no_credential_stays(item):
    made, places = MadeUp([item]).without_credentials(item)
    assert (made, places) == (item, ())


def test_the_rest_of_a_file_stays():
    text = f"a=b\ndb.password = {PASSWORD}\nurl=amqp://me:{PASSWORD}@mq:5672/x\nc=d\n"
    made = without_credentials_in(text)
    assert made == "a=b\ndb.password = made-up\nurl=amqp://made-up@mq:5672/x\nc=d\n"


def test_very_long_texts_take_no_long_time():
    """A pattern that goes back over what it has read would take hours for these."""
    for text in (
        "a" * 300_000,
        "secret" * 50_000,
        "password=" * 30_000,
        "-" * 300_000,
        "a.b-" * 80_000,
        "eyJ-" * 80_000,
        "x " * 200_000,
        "://a:" * 60_000,
        "password='a' " * 20_000,
        "password: a\n" + " " * 300_000,
        "password: a\n" * 20_000,
        "://" + "a:@" * 100_000,
    ):
        assert without_credentials_in(text)


# ---- the folder ---------------------------------------------------------------------------------------------


def test_a_new_folder_has_all_of_it_and_nothing_else_beside_it(tmp_path):
    files, _ = drill_files_of(seen(a_workload()), engine="etcd", origin="context:prod")
    paths = write_files(tmp_path / "drills" / "shop", files)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)
    assert paths[-1].name == "shop.drill.yaml"
    assert (paths[-1].stat().st_mode & 0o777, paths[-1].parent.stat().st_mode & 0o777) == (0o644, 0o755)


def test_a_folder_with_something_in_it_is_left_alone_without_force(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(ConfigError) as error:
        require_free(tmp_path, force=False)
    assert (error.value.code, error.value.fields["files"]) == ("file-exists", ["mine.yaml"])
    with pytest.raises(ConfigError):
        require_free(tmp_path / "mine.yaml", force=True)
    require_free(tmp_path / "new", force=False)
    require_free(tmp_path, force=True)
    write_files(tmp_path, {"shop.drill.yaml": "new"})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine.yaml", "shop.drill.yaml"]


def test_a_new_folder_that_cannot_be_written_is_not_there(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clusterguard.drills.authoring.folder.replacing", full)
    with pytest.raises(OSError):
        write_files(tmp_path / "shop", {"shop.drill.yaml": "new"})
    assert list(tmp_path.iterdir()) == []


def test_the_texts_are_yaml_that_says_the_same(written):
    text = "first\n\tsecond: 'x'\n# third\n\n---\n"
    drill, _ = written(an_object("ConfigMap", data={"odd": text, "on": "yes"}))
    (item,) = (each for step in drill.steps for each in step.objects if each["kind"] == "ConfigMap")
    assert item["data"] == {"odd": text, "on": "yes"}
    for document in yaml.safe_load_all((drill.path.parent / "manifests" / "shop.yaml").read_text()):
        assert document["kind"]
