#!/usr/bin/env bash
# etcd 3.7.3: a downgrade that was under way when the snapshot was taken goes on in the restored cluster.
#
# Behaviour: `downgrade enable 3.6`, snapshot, `downgrade cancel`. The new cluster restored from the file by etcd 3.7.3
#   has the downgrade enabled, says cluster version 3.6, keeps its storage at 3.6.0, and stays so until somebody cancels
#   it; then the storage version goes up again.
# Why one guesses otherwise: restore creates a new cluster and drops the old one's members, IDs and raft log; a
#   procedure of the old cluster, cancelled there since, would be expected to go with them. It is kept in the `cluster`
#   bucket of the same file, and that comes along.
# Seen: source cluster after cancel: not enabled. Restored: enabled, target 3.6.0, storage 3.6.0; after cancel 3.7.0.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

await_storage() { # VERSION: etcd moves it by a check every few seconds
    for _ in $(seq 60); do
        if [ "$(member storageVersion)" = "$1" ]; then return; fi
        sleep 1
    done
}

start_member m "$SCRATCH/member"
etcdctl put k v >/dev/null
await_storage 3.7.0
expect "storage version before" 3.7.0 "$(member storageVersion)"
etcdctl downgrade enable 3.6 >/dev/null
await_storage 3.6.0
save "$SCRATCH/saved.db"
etcdctl downgrade cancel >/dev/null
expect "downgrade in the source cluster after cancel" "{}" "$(member downgradeInfo)"
stop_member

port=$(free_port)
restore "$SCRATCH/saved.db" "$SCRATCH/restored" new "$port" --initial-cluster-token new
start_member new "$SCRATCH/restored" "$port"
sleep 10 # longer than etcd's check of versions takes
expect "downgrade enabled in the restored cluster" True "$(member downgradeInfo.enabled)"
expect "its target" 3.6.0 "$(member downgradeInfo.targetVersion)"
expect "storage version there" 3.6.0 "$(member storageVersion)"
expect "cluster version there" "Downgrade cancel success, cluster version 3.6" "$(etcdctl downgrade cancel)"
await_storage 3.7.0
expect "storage version after cancel" 3.7.0 "$(member storageVersion)"
