"""The container image: what is in it, what is not, and that it needs neither root nor a disk to write to."""

from __future__ import annotations

import json
import os
import secrets
import time

import pytest
from image import BASE_VARIABLE, BUILD_SECONDS, docker

import clusterguard

pytestmark = [pytest.mark.kind, pytest.mark.timeout(BUILD_SECONDS)]

MOST_ADDED_BYTES = 280 << 20  # to the base, Python among them; a registry holds a third of it
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
SCRATCH = ("--tmpfs=/tmp", "--tmpfs=/home/clusterguard:uid=65532,mode=0700")


def shell(image, script):
    return docker("run", "--rm", *CONFINED, "--entrypoint=/bin/sh", image, "-c", script)


def python(image, script):
    return docker("run", "--rm", *CONFINED, *SCRATCH, "--entrypoint=python", image, "-c", script)


def test_it_runs_confined_and_says_what_it_is(image):
    printed = docker("run", "--rm", *CONFINED, *SCRATCH, image, "--version")

    assert printed == f"clusterguard {clusterguard.__version__}\n"


def test_its_user_is_a_number_that_is_not_root(image):
    assert docker("inspect", "--format={{.Config.User}}", image).strip() == "65532:65532"
    assert shell(image, "id -u").strip() == "65532"


def test_everything_that_a_policy_needs_can_be_imported(image):
    modules = "apprise, cronsim, jinja2, prometheus_client, pyrage, pycurl, boto3, kubernetes.client"
    python(image, f"import {modules}")
    python(image, "from clusterguard.stores.encryption import Encryption; Encryption()")


def test_it_does_its_work_with_scratch_folders_alone(image):
    script = (
        "from clusterguard.stores import open_store\n"
        "store = open_store('/tmp/store')\n"
        "with store.put('a/b') as writer: writer.write(b'x')\n"
        "assert [each.key for each in store.list()] == ['a/b']\n"
        "from pathlib import Path; (Path.home() / 'file').write_text('x')\n"
        "import zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin')"
    )

    python(image, script)


def test_there_is_nothing_in_it_to_build_or_install_with(image):
    found = shell(image, "for p in gcc cc make pip pip3 git; do command -v $p; done; true")
    packages = python(image, "import importlib.metadata as m; print(sorted(d.name for d in m.distributions()))")

    assert not found
    assert not {"pip", "setuptools", "wheel", "pytest", "mypy", "ruff"} & set(eval(packages))  # noqa: S307 - our own list


def test_nothing_of_the_build_is_left(image):
    # The lists of packages, pip's cache, the sources, and whatever certificate authority the build was made with.
    found = shell(
        image,
        "find / -xdev \\( -path '/var/lib/apt/lists/*_*' -o -path '*/.cache/*' -o -name 'pip.conf' -o -name '.git' "
        "-o -path '/build/*' -o -path '/ca.crt' \\) 2>/dev/null; true",
    )
    settings = json.loads(docker("inspect", "--format={{json .Config.Env}}", image))
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}}", image)

    assert not found
    assert {setting.partition("=")[0] for setting in settings} == {
        "PATH",
        "HOME",
        "TMPDIR",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED",
    }
    assert "PIP" not in history


def test_the_context_leaves_everything_out_that_is_not_named(image):
    named = " -o ".join(f"-name {name}" for name in ("noxfile.py", "s3_fault_proxy.py", "*.drill.yaml", "Dockerfile"))

    assert not shell(image, f"find / -xdev \\( {named} \\) 2>/dev/null; true")


def test_it_is_small(image):
    base = os.environ.get(BASE_VARIABLE, "debian:bookworm-slim")
    size, base_size = (int(docker("inspect", "--format={{.Size}}", each)) for each in (image, base))

    assert size - base_size < MOST_ADDED_BYTES


def test_the_bill_of_materials_lists_what_is_installed(image):
    bill = json.loads(shell(image, "cat /usr/share/clusterguard/sbom.cdx.json"))
    listed = {each["name"].lower(): each["version"] for each in bill["components"]}
    versions = "{d.name.lower(): d.version for d in m.distributions()}"
    script = f"import importlib.metadata as m, json; print(json.dumps({versions}))"
    installed = json.loads(python(image, script))

    assert bill["bomFormat"] == "CycloneDX"
    assert {name: listed[name] for name in ("pycurl", "pyrage")} == {
        name: installed[name] for name in ("pycurl", "pyrage")
    }
    missing = {name for name, version in installed.items() if listed.get(name) != version} - {"clusterguard"}
    assert not missing


def test_a_pod_that_is_ended_ends_as_by_ctrl_c_and_at_once(image):
    script = "import time\ntry: time.sleep(60)\nfinally: print('given back')"
    name = f"clusterguard-test-{secrets.token_hex(4)}"
    docker("run", "--detach", f"--name={name}", *CONFINED, "--entrypoint=python", image, "-c", script)
    try:
        time.sleep(1)  # until Python listens to signals
        docker("stop", "--time=20", name)
        assert "given back" in docker("logs", name)
    finally:
        docker("rm", "--force", name)


def test_its_labels_say_what_it_is(image):
    labels = json.loads(docker("inspect", "--format={{json .Config.Labels}}", image))

    assert labels["org.opencontainers.image.title"] == "clusterguard"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
