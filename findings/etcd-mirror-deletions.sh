#!/usr/bin/env bash
# etcd 3.7.3: a mirror made by `etcdctl make-mirror` keeps for good what is deleted or expires while it is not running.
#
# Behaviour: each start copies all keys and then follows. Keys that the target has and the source has no longer stay,
#   whether they were deleted, or their lease ran out, between two starts; so does what the target had before. Leases
#   are not copied: expiry is followed as a deletion while the mirror runs, and what was mirrored never expires by itself.
# Why one guesses otherwise: a mirror is a copy that equals its source, and one that begins by reading everything could
#   tell what is too much. It prints how many keys it wrote, nothing of others.
#   Whoever fails over to such a copy of a Kubernetes cluster gets deleted objects back, and Leases and Events without end.
# Seen: with the mirror at rest `deleted` is deleted and the lease of `leased` ends; started again, it copies the new
#   key `later`, and the target has deleted, kept, later and leased, the source kept and later. While the mirror runs, a
#   deletion arrives.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

start_member source "$SCRATCH/source"
SOURCE=$ETCDCTL_ENDPOINTS
start_member target "$SCRATCH/target"
TARGET=$ETCDCTL_ENDPOINTS
export ETCDCTL_ENDPOINTS=$SOURCE

at() { ETCDCTL_ENDPOINTS=$1 etcdctl "${@:2}"; }
names() { at "$1" get "" --from-key --keys-only | xargs; }
await() { # MEMBER KEYS: until it has exactly these
    for _ in $(seq 60); do
        if [ "$(names "$1")" = "$2" ]; then return; fi
        sleep 0.5
    done
}
start_mirror() {
    etcdctl make-mirror "$TARGET" >>"$SCRATCH/mirror.log" 2>&1 &
    MIRROR=$!
    SERVERS+=("$MIRROR")
}

stop_mirror() { kill "$MIRROR" && wait "$MIRROR" || true; }

lease=$(etcdctl lease grant 15 | awk '{ print $2 }')
for key in deleted follows kept; do etcdctl put "$key" value >/dev/null; done
etcdctl put leased value --lease "$lease" >/dev/null
start_mirror
await "$TARGET" "deleted follows kept leased"
expect "target, the mirror running" "deleted follows kept leased" "$(names "$TARGET")"
expect "leases there" "found 0 leases" "$(at "$TARGET" lease list | head -n 1)"
etcdctl del follows >/dev/null
await "$TARGET" "deleted kept leased"
expect "target after a deletion" "deleted kept leased" "$(names "$TARGET")"
stop_mirror

etcdctl del deleted >/dev/null
await "$SOURCE" kept
etcdctl put later value >/dev/null
start_mirror
await "$TARGET" "deleted kept later leased"
sleep 5
expect "source after the pause" "kept later" "$(names "$SOURCE")"
expect "target, the mirror running again" "deleted kept later leased" "$(names "$TARGET")"
