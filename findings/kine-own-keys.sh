#!/usr/bin/env bash
# kine 0.17.5 (k3s): an empty datastore holds two keys that no client wrote, and keys have no version.
#
# Behaviour: before any write, a list of everything returns /registry/health and compact_rev_key, at revision 2. The
#   first is inside the prefix where the API server keeps its objects, without being one. A key written twice has
#   create_revision and mod_revision as in etcd, and version 0 all the same.
# Why one guesses otherwise: kine serves etcd's API, where a new store is empty at revision 1 and `version` counts the
#   writes since the key was created, 0 being what comparisons use for "does not exist". Who counts objects below
#   /registry/, or decodes each of them, finds one that is neither JSON of a known kind nor protobuf.
# Seen: /registry/health and compact_rev_key, revision 2; after two puts version 0, create 3, modified 4; etcd: no keys,
#   revision 1, version 2.
. "$(dirname "$0")/common/etcd.sh"

new_module github.com/k3s-io/kine@v0.17.5
CGO_ENABLED=1 build kine github.com/k3s-io/kine
kine=$SCRATCH/bin/kine
mv "$SCRATCH/module" "$SCRATCH/kine-module"
install_etcd 3.7.3

facts() { # PUTS: of one key; then its version, create_revision and mod_revision
    for i in $(seq "$1"); do etcdctl put key "$i" >/dev/null; done
    etcdctl get key --write-out json | python3 -c '
import json, sys
key = json.load(sys.stdin)["kvs"][0]
print(*(key.get(name, 0) for name in ("version", "create_revision", "mod_revision")))'
}
listed() { etcdctl get "" --from-key --keys-only | xargs; }
revision() { etcdctl get "" --from-key --limit 1 --write-out json | field header.revision; }

start_member m "$SCRATCH/member"
expect "etcd, keys of a new store" "" "$(listed)"
expect "etcd, its revision" 1 "$(revision)"
expect "etcd, version, create and mod revision after two puts" "2 2 3" "$(facts 2)"
stop_member

export ETCDCTL_ENDPOINTS="http://127.0.0.1:$(free_port)"
cd "$SCRATCH"
"$kine" --listen-address "${ETCDCTL_ENDPOINTS#http://}" --endpoint "sqlite://$SCRATCH/state.db" \
    --metrics-bind-address 0 >"$SCRATCH/kine.log" 2>&1 &
SERVERS+=("$!")
for _ in $(seq 60); do
    if [ "$(etcdctl get /registry/health --keys-only 2>/dev/null | xargs)" ]; then break; fi
    sleep 0.5
done
expect "kine, keys of a new store" "/registry/health compact_rev_key" "$(listed)"
expect "kine, its revision" 2 "$(revision)"
expect "kine, version, create and mod revision after two puts" "0 3 4" "$(facts 2)"
