#!/usr/bin/env bash
# etcd 3.5.35 and 3.7.3: the refusal of a learner has another gRPC code since 3.6, which decides about retries.
#
# Behaviour: a learner refuses a linearizable read with Unavailable (14) in 3.5, which says "try again", and with
#   FailedPrecondition (9) in 3.7, which says "do not". Both hand out a snapshot.
# Why one guesses otherwise: the words are the same in all releases ("rpc not supported for learner"), and a refusal for
#   the member's role is no outage; but a client that tries again on 14, as gRPC's own policy does, waits for its whole
#   time-out on 3.5 for what can never come.
# Seen: 3.5.35: Unavailable; 3.7.3: FailedPrecondition; a snapshot from the learner on both.
. "$(dirname "$0")/common/etcd.sh"

look() { # VERSION
    rm -rf "$SCRATCH/module" "$SCRATCH/bin"
    install_etcd "$1"
    hash -r
    start_member voter "$SCRATCH/voter-$1"
    local voter=$ETCDCTL_ENDPOINTS client="http://127.0.0.1:$(free_port)" peer="http://127.0.0.1:$(free_port)" token
    etcdctl put k v >/dev/null
    etcdctl member add learner --learner --peer-urls "$peer" >"$SCRATCH/added"
    token=$(sed -n 's/^ETCD_INITIAL_CLUSTER="\(.*\)"$/\1/p' "$SCRATCH/added")
    etcd --name learner --data-dir "$SCRATCH/learner-$1" --initial-cluster "$token" --initial-cluster-state existing \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --listen-client-urls "$client" --advertise-client-urls "$client" >"$SCRATCH/learner.log" 2>&1 &
    SERVERS+=("$!")
    for _ in $(seq 120); do
        if ETCDCTL_ENDPOINTS=$client etcdctl get k --consistency s 2>/dev/null | grep -q v; then break; fi
        sleep 0.5
    done
    export ETCDCTL_ENDPOINTS=$client
    (etcdctl get k --command-timeout 3s 2>&1 || true) | grep -o 'code = [A-Za-z]*' | head -1
    save "$SCRATCH/learner-$1.db" && echo "snapshot"
    export ETCDCTL_ENDPOINTS=$voter
}
expect "3.5.35" "code = Unavailable snapshot" "$(look 3.5.35 | xargs)"
expect "3.7.3" "code = FailedPrecondition snapshot" "$(look 3.7.3 | xargs)"
