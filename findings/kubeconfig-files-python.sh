#!/usr/bin/env bash
# kubernetes (Python client) 37.0.1: of several files in KUBECONFIG the last one's current context counts.
#
# Behaviour: KUBECONFIG=a:b is merged; contexts of both files are there, and for a user of the same name the first file
#   wins. But the current context is that of the last file, so a program goes to another cluster than kubectl does with
#   the same variable.
# Why one guesses otherwise: the rule of kubectl, written down in the Kubernetes documentation, is that the first file to
#   set a value wins, for the current context by name; and for users the client keeps to it.
# Seen: current context `second`, token of the first file.
. "$(dirname "$0")/common/check.sh"
install_python kubernetes==37.0.1

config() { # NAME NUMBER TOKEN
    cat <<YAML
apiVersion: v1
kind: Config
current-context: $1
clusters: [{name: cluster-$2, cluster: {server: "https://127.0.0.1:$2"}}]
users: [{name: operator, user: {token: $3}}]
contexts: [{name: $1, context: {cluster: cluster-$2, user: operator}}]
YAML
}
config first 1 token-of-the-first >"$SCRATCH/a"
config second 2 token-of-the-second >"$SCRATCH/b"

seen() {
    python - "$SCRATCH/a:$SCRATCH/b" <<'PY'
import sys
from kubernetes.config import kube_config

contexts, current = kube_config.list_kube_config_contexts(config_file=sys.argv[1])
[user] = kube_config.KubeConfigMerger(sys.argv[1]).config.value["users"]
print(",".join(each["name"] for each in contexts), current["name"], user.value["user"]["token"])
PY
}
expect "contexts, current context, token" "first,second second token-of-the-first" "$(seen)"
