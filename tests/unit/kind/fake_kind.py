"""A Docker and a kind that tests can make fail: what they do is written into a folder."""

import json
import time

from clusterguard.clusters.kind.docker import NodeContainer
from clusterguard.errors import ResourceNotFoundError

# Fake kind: remembers the configuration as Docker would the containers, and says what the test wants.
KIND = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$1 $2" in
"get clusters") cat {folder}/existing 2>/dev/null; exit 0 ;;
"create cluster") ;;
*) test -e {folder}/fails || exit 0 ;;
esac
for word in "$@"; do
  case "$before" in --config) cp "$word" {folder}/part && mv {folder}/part {folder}/config.yaml ;; esac
  case "$word" in --kubeconfig=*) printf '%s' '{kubeconfig}' > "${{word#--kubeconfig=}}" ;; esac
  before="$word"
done
if test -e {folder}/says; then cat {folder}/says >&2; fi
while test -e {folder}/hangs; do sleep 0.02; done
if test -e {folder}/fails; then exit 1; fi
touch {folder}/up
"""
KUBECONFIG = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
)


def node(**changes):
    told = {
        "id": "id-of-leader",
        "name": "test-control-plane",
        "role": "control-plane",
        "created": time.time(),
        "running": True,
        "etcd_port": 30001,
        "address": "172.18.0.2",
        "network": "kind",
    }
    return NodeContainer(**(told | changes))


class FakeDocker:
    """A Docker in memory, with the clusters that others made in it."""

    program = "docker"

    def __init__(self, folder):
        self.folder = folder
        self.theirs = {}
        self.ours = {}
        self.removed = []
        self.killed = []
        self.error = None

    def require(self):
        if self.error:
            raise self.error

    def clusters(self):
        return frozenset(self.theirs)

    def nodes(self, cluster):
        self.require()
        import yaml

        config = self.folder / "config.yaml"
        if cluster in self.theirs:
            return self.theirs[cluster]
        if cluster in self.ours:
            return self.ours[cluster]
        if not config.exists() or "id-of-leader" in self.removed:
            return ()
        port = yaml.safe_load(config.read_text())["nodes"][0]["extraPortMappings"][0]["hostPort"]
        return (node(name=f"{cluster}-control-plane", etcd_port=port),)

    def remove(self, nodes):
        self.require()
        self.removed += [each.id for each in nodes]
        (self.folder / "hangs").unlink(missing_ok=True)

    def kill(self, each):
        self.killed.append(each.id)

    def start(self, each):
        self.killed.remove(each.id)


class FakeApi:
    """An API server that tells of nodes, and nothing else."""

    def __init__(self):
        self.nodes = [{"metadata": {"name": "n1"}, "spec": {}, "status": {"conditions": [ready("True")]}}]
        self.version = "v1.36.3"
        self.service_account = True
        self.closed = 0

    def resource(self, kind):
        return kind

    def list(self, kind):
        return iter(self.nodes)

    def get(self, kind, name, namespace):
        if not self.service_account:
            raise ResourceNotFoundError(f"no {kind} {namespace}/{name}")

    def server_version(self):
        return self.version

    def close(self):
        self.closed += 1


def ready(status):
    return {"type": "Ready", "status": status}
