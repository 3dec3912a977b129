# Sourced by the findings about etcd: builds the programs of one release and starts single members on loopback.
. "$(dirname "${BASH_SOURCE[0]}")/check.sh"

# install_etcd VERSION: etcd, etcdctl and etcdutl of that release, on PATH.
install_etcd() {
    local etcd=go.etcd.io/etcd
    export CGO_ENABLED=0
    new_module "$etcd/server/v3@v$1" "$etcd/etcdctl/v3@v$1" "$etcd/etcdutl/v3@v$1"
    build etcd "$etcd/server/v3"
    build etcdctl "$etcd/etcdctl/v3"
    build etcdutl "$etcd/etcdutl/v3"
    PATH=$SCRATCH/bin:$PATH
    unset "${!ETCDCTL_@}" "${!ETCD_@}"
}

# start_member NAME DIRECTORY [PEER_PORT]: a member alone; sets MEMBER (pid) and ETCDCTL_ENDPOINTS once it is healthy.
start_member() {
    local client="http://127.0.0.1:$(free_port)" peer="http://127.0.0.1:${3:-$(free_port)}" log="$SCRATCH/$1.log"
    etcd --name "$1" --data-dir "$2" --initial-cluster "$1=$peer" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --listen-client-urls "$client" --advertise-client-urls "$client" >"$log" 2>&1 &
    MEMBER=$!
    SERVERS+=("$MEMBER")
    export ETCDCTL_ENDPOINTS=$client
    for _ in $(seq 120); do
        if etcdctl endpoint health >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    tail -n 3 "$log"
    return 1
}
stop_member() { kill "$MEMBER" && wait "$MEMBER" || true; }

save() { etcdctl snapshot save "$1" >/dev/null 2>&1; }

# restore SNAPSHOT DIRECTORY NAME PEER_PORT [OPTION...]: for a cluster of that one member.
restore() {
    local peer="http://127.0.0.1:$4"
    etcdutl snapshot restore "$1" --data-dir "$2" --name "$3" --initial-cluster "$3=$peer" \
        --initial-advertise-peer-urls "$peer" "${@:5}" >/dev/null 2>&1
}

# field PATH: one value of the JSON on standard input, "-" where it is absent. PATH: names and indexes with dots.
field() {
    python3 -c '
import json, sys
found = json.load(sys.stdin)
for step in sys.argv[1].split("."):
    found = found[int(step)] if step.isdigit() else found.get(step, "-")
print(found)' "$1"
}
status_of() { etcdutl snapshot status "$1" --write-out json | field "$2"; }
member() { etcdctl endpoint status --write-out json | field "0.Status.$1"; }
hash_kv() { etcdctl endpoint hashkv --write-out json | field 0.HashKV.hash; }
keys() { etcdctl get "" --from-key --keys-only | grep -c .; }
