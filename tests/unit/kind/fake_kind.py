"""A Docker and a kind that tests can make fail: what they do is written into a folder."""

import json
import time
from collections import Counter

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
        "api": "127.0.0.1:30443",
        "address": "172.18.0.2",
        "network": "kind",
        "image": "my/node",
    }
    return NodeContainer(**(told | changes))


class FakeDocker:
    """A Docker in memory, with the clusters that others made in it."""

    def __init__(self, folder):
        self.folder = folder
        # All that is asked of a node is the administrator's kubeconfig.
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\necho "$3 $5" >> {folder}/asked\nbase64 {folder}/admin.conf\n')
        program.chmod(0o700)
        (folder / "admin.conf").write_text(KUBECONFIG)
        self.program = str(program)
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
        return tuple(self._containers(cluster, yaml.safe_load(config.read_text())["nodes"]))

    def _containers(self, cluster, nodes):
        """Call them as kind does, with a load balancer before several leaders."""
        seen = Counter()
        for each in nodes:
            role = each["role"]
            seen[role] += 1
            name = f"{cluster}-{role}{seen[role] if seen[role] > 1 else ''}"
            id_ = "id-of-leader" if name.endswith("control-plane") else f"id-of-{name}"
            port = each["extraPortMappings"][0]["hostPort"] if role == "control-plane" else None
            yield node(id=id_, name=name, role=role, etcd_port=port, running=id_ not in self.killed)
        if seen["control-plane"] > 1:
            name = f"{cluster}-external-load-balancer"
            yield node(id=f"id-of-{name}", name=name, role="external-load-balancer", etcd_port=None)

    def remove(self, nodes):
        self.require()
        self.removed += [each.id for each in nodes]
        (self.folder / "hangs").unlink(missing_ok=True)

    def kill(self, each):
        self.killed.append(each.id)

    def start(self, each, *, address):
        self.killed.remove(each.id)
        self.started_at = address


class FakeApi:
    """An API server that tells of the nodes of its cluster, and nothing else."""

    def __init__(self, docker):
        self.docker = docker
        self.cluster = "test"
        self.conditions = [ready("True")]
        self.taints = []
        self.unknown = set()
        self.version = "v1.36.3"
        self.service_account = True
        self.closed = 0

    def resource(self, kind):
        return kind

    def list(self, kind):
        for each in self.docker.nodes(self.cluster):
            if each.is_node and each.name not in self.unknown:
                yield {
                    "metadata": {"name": each.name},
                    "spec": {"taints": self.taints},
                    "status": {"conditions": self.conditions},
                }

    def get(self, kind, name, namespace):
        if not self.service_account:
            raise ResourceNotFoundError(f"no {kind} {namespace}/{name}")

    def server_version(self):
        return self.version

    def close(self):
        self.closed += 1


def ready(status):
    return {"type": "Ready", "status": status}
