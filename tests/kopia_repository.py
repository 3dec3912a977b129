"""Repositories as Velero keeps them: made by the kopia program alone, with Velero's user, password and folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterguard.process import run
from clusterguard.velero.repository import DEFAULT_PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "default@default:/snapshot-data-upload-download/kopia/shop/data"


@dataclass
class Repository:
    """One repository, in a folder of its own.

    Attributes:
        program: kopia.
        folder: Where everything of it lies.
    """

    program: Path
    folder: Path
    password: str = field(default=DEFAULT_PASSWORD, repr=False)

    def kopia(self, *words):
        env = {
            "KOPIA_PASSWORD": self.password,
            "KOPIA_CONFIG_PATH": str(self.folder / "config"),
            "KOPIA_CACHE_DIRECTORY": str(self.folder / "cache"),
            "KOPIA_LOG_DIR": str(self.folder / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "KOPIA_DANGEROUS_COMMANDS": "enabled",  # rewriting at once what maintenance would rewrite in weeks
        }
        return run([self.program, *words], env=env, timeout_seconds=300).stdout

    def create(self):
        names = ("--override-hostname=default", "--override-username=default")
        self.kopia("repository", "create", "filesystem", f"--path={self.folder / 'blobs'}", "--flat", *names)
        # Velero never compresses, and keeps every snapshot.
        self.kopia("policy", "set", "--global", "--compression=none", "--keep-latest=1000")
        return self

    def connect(self, bucket, prefix, *, endpoint, credentials):
        """Open one that lies in a bucket already, to write to it as Velero's node agent does."""
        key = (f"--access-key={credentials.access_key}", f"--secret-access-key={credentials.secret_key}")
        where = (f"--bucket={bucket}", f"--prefix={prefix}", f"--endpoint={endpoint.removeprefix('http://')}")
        names = ("--override-hostname=default", "--override-username=default")
        self.kopia("repository", "connect", "s3", *where, *key, "--region=us-east-1", "--disable-tls", *names)
        return self

    def snapshot(self, data, *, tags=()):
        """Save a folder and return the ID of the snapshot, and the bytes of its files."""
        words = [f"--tags={tag}" for tag in tags]
        told = self.kopia("snapshot", "create", str(data), f"--override-source={SOURCE}", "--json", *words)
        snapshot = json.loads(told)
        return snapshot["id"], snapshot["rootEntry"]["summ"]["size"]

    def blobs(self):
        """Return the blobs by name, in the order in which they were written; logs are none."""
        files = sorted((self.folder / "blobs").glob("*.f"), key=lambda file: (file.stat().st_mtime_ns, file.name))
        return {file.name.removesuffix(".f"): file.read_bytes() for file in files if not file.name.startswith("_log")}

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
