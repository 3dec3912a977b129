"""Objects of every built-in kind with every field filled in, as the API modules themselves bring them for their tests.

They lie in k8s.io/api as protobuf and as JSON. Under a key of etcd the protobuf is read like any other object: the API
server checks what is written through it, not what it reads.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import platformdirs

from clusterguard import process
from clusterguard.etcd.protobuf import places_of
from clusterguard.toolchain.cache import Cache
from clusterguard.toolchain.golang import fetch_go, find_go

API_MODULES = ("0.30.14", "0.33.13", "0.36.3", "0.37.2")
"""Each brings the files of its own minor version and of some before it."""

NAMESPACE = "namespaceValue"  # of all of them
_OLDEST_GO = (1, 24, 0)
_UNSTORED = re.compile(
    "Options$|Review$|^(Binding|Eviction|Scale|TokenRequest|APIGroup|APIVersions|Status|RangeAllocation"
    "|SerializedReference|DeploymentRollback|APIGroupDiscovery|WatchEvent|List|ComponentStatus)"
)


def golden_files(module):
    """Yield ``(minor version, protobuf, JSON)`` of every file that a release of the API modules brings."""
    cache = Cache(platformdirs.user_cache_path("clusterguard") / "toolchain")
    go = find_go(needed=_OLDEST_GO, path=os.environ.get("PATH")) or fetch_go(cache=cache, progress=lambda _: None)
    download = [go.path, "mod", "download", "-json", f"k8s.io/api@v{module}"]
    answer = process.run(download, env=go.env, timeout_seconds=600)
    data = Path(json.loads(answer.stdout)["Dir"]) / "testdata"
    for folder in sorted(data.iterdir()):
        if folder.is_dir():
            minor = int((module if folder.name == "HEAD" else folder.name).split(".")[1])
            for file in sorted(folder.glob("*.pb")):
                if "after_roundtrip" not in file.name:
                    yield minor, file.read_bytes(), json.loads(file.with_suffix(".json").read_text())


def envelope(value):
    """Return API version, kind, and where the message lies."""
    outer = places_of(value, 4, len(value))
    named = places_of(value, *outer[1])
    api_version, kind = (value[slice(*named.get(each, (0, 0)))].decode() for each in (1, 2))
    return api_version, kind, outer[2]


def is_stored(kind):
    """Whether the API server ever stores objects of a kind."""
    return not _UNSTORED.search(kind)
