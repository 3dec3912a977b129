#!/usr/bin/env bash
# etcd 3.7.3: where all members are told to stop at once, the leader takes seven seconds more than the others.
#
# Behaviour: three members, SIGTERM to all of them in one moment: the followers end within about a second. The leader
#   first wants to hand its leadership over to one of them, which ends as well, and gives up after 7 s (5 s for any
#   request and two election timeouts). Told to stop alone it ends at once.
# Why one guesses otherwise: a restore stops every member, and nothing is left to lead; a runbook that counts a second for
#   each step has an API that is away for seven more, on one node only, and on another one each time.
# Seen: followers 1 s or less; leader 7 s, its log "leader transfer took too long"; the leader alone under 2 s.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

declare -A CLIENT PEER PROCESS
for name in a b c; do
    CLIENT[$name]=http://127.0.0.1:$(free_port) PEER[$name]=http://127.0.0.1:$(free_port)
done
run_member() { # NAME
    etcd --name "$1" --data-dir "$SCRATCH/$1" --initial-cluster "a=${PEER[a]},b=${PEER[b]},c=${PEER[c]}" \
        --listen-peer-urls "${PEER[$1]}" --initial-advertise-peer-urls "${PEER[$1]}" \
        --listen-client-urls "${CLIENT[$1]}" --advertise-client-urls "${CLIENT[$1]}" >>"$SCRATCH/$1.log" 2>&1 &
    PROCESS[$1]=$!
    SERVERS+=("$!")
}
until_all_serve() {
    for _ in $(seq 120); do
        if etcdctl endpoint health >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    return 1
}
leader() { # prints the name of the member that leads
    for name in a b c; do
        if [ "$(ETCDCTL_ENDPOINTS=${CLIENT[$name]} member header.member_id)" = "$(member leader)" ]; then echo "$name"; fi
    done
}
export ETCDCTL_ENDPOINTS=${CLIENT[a]},${CLIENT[b]},${CLIENT[c]}
for name in a b c; do run_member "$name"; done
until_all_serve
etcdctl put k v >/dev/null

stop_alone=$(leader)
began=$SECONDS
kill "${PROCESS[$stop_alone]}" && wait "${PROCESS[$stop_alone]}" || true
expect "a leader that stops alone is gone within 4 s" yes "$( ((SECONDS - began <= 4)) && echo yes || echo no)"
run_member "$stop_alone"
until_all_serve

leads=$(leader)
began=$SECONDS
kill "${PROCESS[@]}"
for name in a b c; do [ "$name" = "$leads" ] || wait "${PROCESS[$name]}" || true; done
expect "the followers are gone within 4 s" yes "$( ((SECONDS - began <= 4)) && echo yes || echo no)"
expect "the leader is still there" yes "$(kill -0 "${PROCESS[$leads]}" 2>/dev/null && echo yes || echo no)"
wait "${PROCESS[$leads]}" || true
expect "the leader took 6 s or more" yes "$( ((SECONDS - began >= 6)) && echo yes || echo no)"
expect "what it says of that" 1 "$(grep -c 'leader transfer took too long' "$SCRATCH/$leads.log")"
