"""What is asked of ``velero install``, what is made of its answer, and what is refused before that."""

import json

import pytest

from clusterguard.errors import ConfigError, ProgramError, ToolchainError
from clusterguard.velero.install import InstallOptions, render

DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "velero", "creationTimestamp": None},
    "spec": {"template": {"spec": {"containers": [{"name": "velero", "args": ["server"], "resources": {"a": 1}}]}}},
}
OTHER = {"kind": "Namespace", "metadata": {"name": "velero", "creationTimestamp": None}, "spec": {}}


@pytest.fixture
def program(tmp_path):
    """A program that writes down how it was called, with the credentials it was shown, and prints two objects."""
    (tmp_path / "answer.json").write_text(json.dumps({"kind": "List", "items": [OTHER, DEPLOYMENT]}))
    script = tmp_path / "velero"
    script.write_text(
        "#!/bin/sh\n"
        f"printf '%s\\n' \"$@\" > {tmp_path}/called\n"
        f'for word in "$@"; do case "$word" in --secret-file=*) cat "${{word#*=}}" > {tmp_path}/secret;; esac; done\n'
        f"cat {tmp_path}/answer.json\n"
    )
    script.chmod(0o700)
    return script


def called(program):
    return (program.parent / "called").read_text().splitlines()


def test_options_become_arguments(program):
    options = InstallOptions(
        namespace="backup",
        image="velero/velero:v1.18.3",
        plugins=("one:1", "two:2"),
        provider="aws",
        bucket="b",
        prefix="p",
        location_config={"region": "eu-west-1", "s3Url": "https://s3.example.com/?a=b"},
        credentials="[default]\nsecret",
        ca="PEM",
        node_agent=True,
        volume_snapshots=True,
        snapshot_location_config={"region": "eu-west-1"},
        features=("EnableCSI",),
        service_account_annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/velero"},
    )
    render(options, velero=program)
    words = called(program)
    assert {
        "backup",
        "--dry-run",
        "--image=velero/velero:v1.18.3",
        "--plugins=one:1",
        "--plugins=two:2",
        "--provider=aws",
        "--bucket=b",
        "--prefix=p",
        "--backup-location-config=region=eu-west-1,s3Url=https://s3.example.com/?a=b",
        "--snapshot-location-config=region=eu-west-1",
        "--use-volume-snapshots=true",
        "--use-node-agent",
        "--features=EnableCSI",
        "--sa-annotations=eks.amazonaws.com/role-arn=arn:aws:iam::111122223333:role/velero",
    } <= set(words)
    assert not any("secret" in word and "secret-file" not in word for word in words)  # only a file's name
    assert (program.parent / "secret").read_text() == "[default]\nsecret"


def test_without_a_bucket_or_credentials_that_is_said(program):
    render(InstallOptions(), velero=program)
    assert {"--no-default-backup-location", "--no-secret", "--use-volume-snapshots=false"} <= set(called(program))


def test_the_deployment_is_as_asked_and_empty_times_are_gone(program):
    namespace, deployment = render(
        InstallOptions(replicas=0, server_args=("--client-qps=500",), resources={"limits": {"memory": "2Gi"}}),
        velero=program,
    )
    assert namespace["metadata"] == {"name": "velero"}
    assert deployment["spec"]["replicas"] == 0
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["server", "--client-qps=500"]
    assert container["resources"] == {"limits": {"memory": "2Gi"}}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (InstallOptions(bucket="b", plugins=("p",)), "needs its provider"),
        (InstallOptions(volume_snapshots=True), "need their provider"),
        (InstallOptions(bucket="b", provider="aws"), "needs its plugin"),
        (InstallOptions(replicas=2), "two servers"),
        (InstallOptions(bucket="b", provider="aws", replicas=0, location_config={"a": "b,c"}), "no comma"),
    ],
)
def test_contradictions_are_refused_before_anything_is_run(program, options, problem):
    with pytest.raises(ConfigError, match=problem):
        render(options, velero=program)
    assert not (program.parent / "called").exists()


def test_a_program_that_is_not_velero_is_told(program):
    (program.parent / "answer.json").write_text("hello")
    with pytest.raises(ToolchainError, match="list of objects"):
        render(InstallOptions(), velero=program)
    program.write_text("#!/bin/sh\necho unknown flag >&2\nexit 3\n")
    with pytest.raises(ProgramError, match="unknown flag"):
        render(InstallOptions(), velero=program)


def test_credentials_are_not_shown():
    assert "hidden" not in repr(InstallOptions(credentials="hidden"))
