"""What runs a policy in Kubernetes: who gets which key, which file of the node, and which right."""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml

from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.kubernetes import CronJobOptions, cronjob_manifests, policy_files, velero_rules
from clusterguard.policies.files.load import load_policy
from clusterguard.policies.policy import (
    Encryption,
    Location,
    Metrics,
    Notification,
    Proof,
    RehearsalOptions,
    Schedule,
    Source,
    VeleroSource,
)
from policies_for_pods import NODE_ETCD, PKI, SECRET_ETCD, SHOP, changed
from whole_command_line import whole_command_line

POLICY = """\
apiVersion: clusterguard.dev/v1alpha1
kind: BackupPolicy
metadata: {name: production, labels: {version: "1.30"}}
spec:
  schedule: {cron: "0 2 * * *", timeZone: Europe/Berlin, grace: 1h30m}
  sources:
  - name: etcd
    etcd: {endpoints: ["https://127.0.0.1:2379"]}
  locations: [{name: north, url: "s3://backups/etcd?region=eu-north-1"}]
  retention: {daily: 7, maximumBytes: 500Gi, maximumAge: 90d}
  encryption:
    recipients: [age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq]
    identityEnv: IDENTITY
  notifications: [{name: on-call, urlEnv: ONCALL_URL, on: [failure, success]}]
"""


def made(policy, **options):
    return cronjob_manifests(policy, options=CronJobOptions(**options))


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def pods(objects):
    """Return the pod of each CronJob by what it does."""
    return {
        job["metadata"]["labels"]["app.kubernetes.io/component"]: job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for job in of_kind(objects, "CronJob")
    }


def mounts(pod):
    return {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}


def variables(pod):
    return {each["name"] for each in pod["containers"][0]["env"]}


def secrets_of(pod):
    """Return the keys that a pod gets by Secret; None for all of them."""
    found = {}
    for volume in pod["volumes"]:
        if secret := volume.get("secret"):
            found[secret["secretName"]] = [item["key"] for item in secret["items"]] if "items" in secret else None
    return found


def test_each_step_has_a_cronjob_and_they_never_overlap_themselves(full_policy):
    jobs = of_kind(made(full_policy), "CronJob")

    assert [job["metadata"]["name"] for job in jobs] == [
        "production-backup",
        "production-retain",
        "production-verify",
        "production-prove",
    ]
    for job, group in zip(jobs, ("backup", "retain", "verify", "prove"), strict=True):
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["args"][0] == "run"
        assert container["args"][2:] == ["--step", group, "--wait", "1h"]
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        assert job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 4 * 3600
        assert job["spec"]["jobTemplate"]["spec"]["ttlSecondsAfterFinished"] == 7 * 86400
        assert container["resources"]["limits"]["memory"]


def test_nothing_is_proven_where_the_policy_has_no_proofs(make_policy):
    assert "prove" not in pods(made(make_policy()))


def test_backups_follow_the_policys_schedule_and_the_rest_its_time_zone(make_policy):
    jobs = of_kind(made(make_policy(), schedules={"retain": "0 6 * * *"}), "CronJob")
    when = {job["metadata"]["name"].removeprefix("production-"): job["spec"]["schedule"] for job in jobs}

    assert when == {"backup": "0 2 * * *", "retain": "0 6 * * *", "verify": "43 4 * * *"}
    assert {job["spec"]["timeZone"] for job in jobs} == {"Europe/Berlin"}
    assert {job["spec"]["startingDeadlineSeconds"] for job in jobs} == {7200}


def test_a_tiny_grace_does_not_keep_jobs_from_starting(make_policy):
    policy = make_policy(schedule=Schedule(cron="* * * * *", grace=timedelta(seconds=1)))

    assert of_kind(made(policy), "CronJob")[0]["spec"]["startingDeadlineSeconds"] == 60


def test_every_pod_is_confined(full_policy):
    for group, pod in pods(made(full_policy)).items():
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, group
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        written = {path for path, mount in mounts(pod).items() if not mount.get("readOnly")}
        assert written == {"/tmp", "/home/clusterguard"}


def test_only_the_backup_of_a_nodes_etcd_is_root_on_the_control_plane(full_policy):
    found = pods(made(full_policy))
    backup = found.pop("backup")

    assert backup["securityContext"]["runAsUser"] == 0
    assert backup["hostNetwork"]
    assert backup["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert backup["nodeSelector"] == {"node-role.kubernetes.io/control-plane": ""}
    assert backup["tolerations"][0]["key"] == "node-role.kubernetes.io/control-plane"
    for pod in found.values():
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod.keys() & {"hostNetwork", "nodeSelector", "tolerations"}
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_of_the_node_a_pod_sees_three_files_and_writes_none(make_policy):
    pod = pods(made(make_policy()))["backup"]
    host = [volume["hostPath"] for volume in pod["volumes"] if "hostPath" in volume]

    assert host == [
        {"path": f"{PKI}/{name}", "type": "File"}
        for name in ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")
    ]
    assert all(mounts(pod)[each["path"]]["readOnly"] for each in host)


def test_a_certificate_from_a_secret_needs_no_node_no_root_and_no_privileges(make_policy):
    objects = made(make_policy(SECRET_ETCD))
    pod = pods(objects)["backup"]

    assert pod["securityContext"]["runAsUser"] == 65532
    assert not pod.keys() & {"hostNetwork", "nodeSelector", "tolerations"}
    assert secrets_of(pod)["clusterguard-etcd"] is None
    assert objects[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_files_of_the_node_make_the_namespace_a_privileged_one(make_policy):
    labels = made(make_policy())[0]["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:2379", "https://[::1]:2379", "https://localhost:2379"])
def test_loopback_is_the_nodes_own(make_policy, endpoint):
    pod = pods(made(make_policy(changed(SECRET_ETCD, endpoints=(endpoint,)))))["backup"]

    assert pod["hostNetwork"]
    assert "nodeSelector" in pod
    assert pod["securityContext"]["runAsNonRoot"]


def test_what_writes_backups_cannot_open_them_and_only_retention_can_delete(full_policy):
    found = {group: secrets_of(pod) for group, pod in pods(made(full_policy)).items()}

    assert found["backup"] == {"clusterguard-writer": None, "clusterguard-secrets": ["heartbeat"]}
    assert found["retain"] == {"clusterguard-keeper": None, "clusterguard-secrets": ["heartbeat"]}
    assert found["verify"] == found["prove"]
    assert found["prove"] == {"clusterguard-writer": None, "clusterguard-secrets": ["heartbeat", "identity"]}


def test_what_rehearses_has_the_encryption_configuration_and_nobody_else(full_policy):
    options = RehearsalOptions(encryption_config="/etc/clusterguard/secrets/at-rest.yaml")
    proof = Proof(name="etcd", rehearse=options, source="etcd", every=timedelta(days=7))
    policy = full_policy.model_copy(update={"proofs": (proof,)})
    keys = {group: secrets_of(pod)["clusterguard-secrets"] for group, pod in pods(made(policy)).items()}
    assert {group for group, given in keys.items() if "at-rest.yaml" in given} == {"prove"}
    assert not any("drill" in path for path in policy_files(policy))


STORED = "spec: {{backup: [storedBackup: {{policy: policy.yaml, source: etcd, encryptionConfig: {}}}]}}\n"


def test_a_drill_that_reads_what_is_encrypted_at_rest_has_the_key_from_the_secret(full_policy, tmp_path):
    drill = tmp_path / "drills" / "etcd.drill.yaml"
    drill.write_text(STORED.format("/etc/clusterguard/secrets/at-rest.yaml"))
    proving = pods(made(full_policy))
    keys = {group: secrets_of(pod)["clusterguard-secrets"] for group, pod in proving.items()}
    assert {group for group, given in keys.items() if "at-rest.yaml" in given} == {"prove"}
    assert "/etc/clusterguard/secrets" in mounts(proving["prove"])
    assert not any("at-rest" in path for path in policy_files(full_policy))


def test_a_key_beside_a_drill_is_refused_and_never_in_a_configmap(full_policy, tmp_path):
    (tmp_path / "drills" / "etcd.drill.yaml").write_text(STORED.format("at-rest.yaml"))
    (tmp_path / "drills" / "at-rest.yaml").write_text("kind: EncryptionConfiguration\n")
    with pytest.raises(ConfigError) as error:
        made(full_policy)
    assert "/etc/clusterguard/secrets/at-rest.yaml" in error.value.hint
    assert not any("at-rest" in path for path in policy_files(full_policy))


def test_the_audit_trail_names_the_cronjob(make_policy):
    (actor,) = (
        each["value"]
        for each in pods(made(make_policy()))["retain"]["containers"][0]["env"]
        if each["name"] == "CLUSTERGUARD_ACTOR"
    )

    assert actor == "cronjob clusterguard/production-retain"


def test_secrets_are_never_in_the_manifests_but_by_name(full_policy):
    env = pods(made(full_policy))["retain"]["containers"][0]["env"]
    (variable,) = (each for each in env if each["name"] == "ONCALL_URL")

    assert variable["valueFrom"] == {"secretKeyRef": {"name": "clusterguard-secrets", "key": "ONCALL_URL"}}
    assert not of_kind(made(full_policy), "Secret")


def test_only_what_backs_up_knows_etcds_user_and_password(make_policy):
    source = changed(SECRET_ETCD, user_env="ETCD_USER", password_env="ETCD_PASSWORD")
    names = {
        group: {variable["name"] for variable in pod["containers"][0]["env"] if "valueFrom" in variable}
        for group, pod in pods(made(make_policy(source))).items()
    }
    assert names["backup"] >= {"ETCD_USER", "ETCD_PASSWORD"}
    assert not names["retain"] & {"ETCD_USER", "ETCD_PASSWORD"}


def test_who_has_no_key_reads_a_policy_that_does_not_name_it(full_policy, make_policy):
    def read(policy):
        return {group: pod["containers"][0]["args"][1] for group, pod in pods(made(policy)).items()}

    whole, writing = (f"/etc/clusterguard/policy/{name}.yaml" for name in ("policy", "policy-for-writing"))
    assert read(full_policy) == {"backup": writing, "retain": writing, "verify": whole, "prove": whole}
    assert set(read(make_policy()).values()) == {whole}


def test_the_policy_for_writing_is_the_same_but_for_the_key(full_policy):
    files = policy_files(full_policy)

    whole, writing = (
        yaml.load(files[name], yaml.BaseLoader)  # noqa: S506 - every scalar is text to it
        for name in ("policy.yaml", "policy-for-writing.yaml")
    )
    del whole["spec"]["encryption"]["identityFile"]
    assert writing == whole
    assert "'on':" in files["policy-for-writing.yaml"]  # else it were true: in YAML 1.1


def test_the_policy_for_writing_loads_and_means_the_same(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    whole = load_policy(tmp_path / "policy.yaml", environ={})
    (tmp_path / "writing.yaml").write_text(policy_files(whole)["policy-for-writing.yaml"])

    writing = load_policy(tmp_path / "writing.yaml", environ={})

    assert writing.encryption == whole.encryption.model_copy(update={"identity_env": ""})
    apart = {"encryption": None, "path": "", "digest": ""}
    assert writing.model_copy(update=apart) == whole.model_copy(update=apart)


def test_what_root_is_given_is_roots_alone_and_what_others_are_given_their_groups(full_policy):
    found = {
        group: (
            pod["securityContext"].get("fsGroup"),
            {each["secret"]["defaultMode"] for each in pod["volumes"] if "secret" in each},
        )
        for group, pod in pods(made(full_policy)).items()
    }

    assert found == {
        "backup": (None, {0o400}),
        "retain": (65532, {0o440}),
        "verify": (65532, {0o440}),
        "prove": (65532, {0o440}),
    }


def test_pods_with_an_identity_of_their_own_get_no_credentials(make_policy):
    for pod in pods(made(make_policy(), writer_secret="", keeper_secret="")).values():
        assert "AWS_SHARED_CREDENTIALS_FILE" not in variables(pod)
        assert not secrets_of(pod)


def test_etcd_alone_takes_no_right_at_the_api_server_and_no_token(make_policy):
    objects = made(make_policy())

    assert not [each for each in objects if each["kind"].startswith(("Role", "ClusterRole"))]
    assert not any(pod["automountServiceAccountToken"] for pod in pods(objects).values())
    assert not any(each["automountServiceAccountToken"] for each in of_kind(objects, "ServiceAccount"))


def test_velero_takes_rights_in_its_namespace_for_the_backup_alone(full_policy):
    objects = made(full_policy)
    (role,), (binding,) = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")

    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "velero"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "production-backup", "namespace": "clusterguard"}]
    assert not of_kind(objects, "ClusterRole")
    tokens = {group: pod["automountServiceAccountToken"] for group, pod in pods(objects).items()}
    assert tokens == {"backup": True, "retain": False, "verify": False, "prove": False}


def test_velero_rights_neither_delete_nor_change_a_backup():
    for rule in velero_rules():
        if "backups" in rule["resources"]:
            assert not set(rule["verbs"]) & {"delete", "deletecollection", "patch", "update"}
        assert "secrets" not in rule["resources"]
        assert "*" not in rule["verbs"] + rule["resources"]


def test_the_cluster_itself_is_reached_by_the_token_that_the_pod_has(full_policy):
    objects = made(full_policy)
    kubeconfig = yaml.safe_load(of_kind(objects, "ConfigMap")[0]["data"]["in-cluster.kubeconfig"])
    pod = pods(objects)["backup"]

    assert kubeconfig["users"][0]["user"] == {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}
    assert "/etc/clusterguard/in-cluster" in mounts(pod)


def test_another_cluster_needs_a_kubeconfig_from_the_secret(make_policy):
    inside = Source(
        name="shop", velero=VeleroSource(cluster="kubeconfig:/etc/clusterguard/secrets/shop", bucket="s3://velero")
    )
    pod = pods(made(make_policy(inside)))["backup"]

    assert secrets_of(pod)["clusterguard-secrets"] == ["shop"]
    assert not pod["automountServiceAccountToken"]
    with pytest.raises(ConfigError) as caught:
        made(make_policy(changed(SHOP, cluster="context:shop")))
    assert (caught.value.code, caught.value.fields) == ("not-in-pods", {"what": "context:shop"})


def test_the_policy_and_its_drills_are_where_the_policy_looks_for_them(full_policy):
    objects = made(full_policy)
    (config,) = of_kind(objects, "ConfigMap")
    (volume,) = (each for each in pods(objects)["prove"]["volumes"] if each["name"] == "policy")

    assert config["data"]["drills..etcd.drill.yaml"] == "kind: Drill\n"
    paths = {item["path"]: item["key"] for item in volume["configMap"]["items"]}
    assert set(paths) == {"policy.yaml", "policy-for-writing.yaml", "drills/etcd.drill.yaml", "recipients.txt"}
    assert set(paths.values()) <= set(config["data"])


def test_a_folder_is_a_location_only_on_a_claim(make_policy):
    policy = make_policy(locations=(Location(name="here", url="file:///backups/etcd"),))

    with pytest.raises(ConfigError) as caught:
        made(policy)
    assert caught.value.code == "not-in-pods"
    pod = pods(made(policy, claims={"/backups": "backups"}))["backup"]
    assert not mounts(pod)["/backups"].get("readOnly")
    assert {"name": "claim-0", "persistentVolumeClaim": {"claimName": "backups"}} in pod["volumes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": None}, "has no schedule"),
        ({"sources": (changed(NODE_ETCD, endpoints=(), cluster="context:prod"),)}, "a pod cannot look there"),
        ({"sources": (changed(NODE_ETCD, ca_file="pki/ca.crt"),)}, "not an absolute path"),
        ({"metrics": Metrics(textfile="/var/lib/node_exporter/clusterguard.prom")}, "where nothing reads them"),
        ({"scratch": "/var/lib/scratch"}, "no pod has the scratch folder"),
        ({"notifications": (Notification(name="a", url_file="/root/url"),)}, "which no pod has"),
        (
            {"notifications": (Notification(name="a", url_file="/etc/clusterguard/secrets/../x"),)},
            "which no pod has",
        ),
        ({"name": "p" * 50}, "too long for a CronJob"),
        ({"path": ""}, "has no file"),
        ({"encryption": Encryption(recipients_file="/elsewhere/recipients")}, "is not beside policy.yaml"),
        ({"encryption": Encryption(recipients_file="gone")}, "cannot read .*gone"),
    ],
)
def test_what_a_pod_could_not_do_is_said_with_a_way_out(make_policy, changes, message):
    with pytest.raises(ConfigError, match=message) as refused:
        made(make_policy(**changes))
    assert refused.value.hint


def test_more_than_a_configmap_holds_is_refused(full_policy, tmp_path):
    (tmp_path / "recipients.txt").write_text("x" * (1 << 20))

    with pytest.raises(ConfigError, match="a ConfigMap holds"):
        policy_files(full_policy)


def test_what_a_drill_applies_comes_along(full_policy, tmp_path):
    (tmp_path / "drills" / "etcd.drill.yaml").write_text(
        "spec:\n  setup:\n  - apply: {file: shop.yaml}\n  - apply: {files: [more/a.yaml, more/b.yaml]}\n"
        "  - writeFile: {path: /x, file: no.yaml}\n"
    )
    (tmp_path / "drills" / "more").mkdir()
    for name in ("shop.yaml", "more/a.yaml", "more/b.yaml"):
        (tmp_path / "drills" / name).write_text("kind: ConfigMap\n")

    files = policy_files(full_policy)

    assert {name for name in files if name.startswith("drills/")} == {
        "drills/etcd.drill.yaml",
        "drills/shop.yaml",
        "drills/more/a.yaml",
        "drills/more/b.yaml",
    }


def test_a_variable_that_no_pod_has_is_refused(make_policy, tmp_path):
    policy = make_policy()
    (tmp_path / "policy.yaml").write_text("url: s3://${env.BUCKET}/etcd\n")

    with pytest.raises(ConfigError) as caught:
        made(policy)
    assert (caught.value.code, caught.value.fields) == ("not-in-pods", {"what": "env.BUCKET"})


def test_a_schedule_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="backups has a schedule"):
        CronJobOptions(schedules={"backups": "0 1 * * *"})


def test_a_drained_node_is_no_failed_backup_and_a_verdict_is_not_repeated(full_policy):
    limits = {}
    for job in of_kind(made(full_policy), "CronJob"):
        spec = job["spec"]["jobTemplate"]["spec"]
        assert spec["podFailurePolicy"]["rules"] == [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
        ]
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        limits[job["metadata"]["name"].removeprefix("production-")] = spec["backoffLimit"]
    assert limits == {"backup": 2, "retain": 2, "verify": 2, "prove": 0}


def test_pods_are_told_nothing_that_the_command_does_not_know(full_policy):
    command = whole_command_line()
    for pod in pods(made(full_policy)).values():
        name, *arguments = pod["containers"][0]["args"]
        found = command.commands[name].make_context(name, list(arguments))
        assert found.params["policy"].name.startswith("policy")
