"""The container image of this checkout, as the Dockerfile makes it."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from clusterguard.process import run

ROOT = Path(__file__).parents[3]
BASE_VARIABLE = "CLUSTERGUARD_BASE_IMAGE"
BUILD_SECONDS = 1200
RUN_SECONDS = 120


def docker(*words, seconds=RUN_SECONDS):
    """Run docker and return what it printed."""
    return run(["docker", *words], timeout_seconds=seconds).stdout


def build(folder):
    """Build the image and return its tag; what was built before is taken from docker's cache."""
    base = os.environ.get(BASE_VARIABLE, "debian:bookworm-slim")
    suffix = secrets.token_hex(4)
    tag, builder = f"clusterguard-test:{suffix}", f"clusterguard-test-builder:{suffix}"
    with_authority = _builder(base, builder, folder)
    try:
        arguments = ["--build-arg", f"BASE={base}", *(["--build-arg", f"BUILDER={builder}"] if with_authority else [])]
        docker("build", *arguments, "--tag", tag, str(ROOT), seconds=BUILD_SECONDS)
    finally:
        if with_authority:
            docker("rmi", builder)
    return tag


def _builder(base, tag, folder):
    """Make the image that packages are fetched in where pip needs a certificate authority of its own, as users do."""
    authority = os.environ.get("PIP_CERT")
    if not authority:
        return False
    shutil.copyfile(authority, folder / "ca.crt")
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY ca.crt /ca.crt\nENV PIP_CERT=/ca.crt\n")
    docker("build", "--tag", tag, str(folder), seconds=BUILD_SECONDS)
    return True
