#!/usr/bin/env bash
# etcd 3.7.3: a restored member can have the very cluster ID and member ID of the one it was saved from.
#
# Behaviour: restored with the old peer URL and the default token, under another name even, it gets both IDs again.
#   Another file with the same URL and token gets them too: neither the data nor the name goes into them. With a token
#   of its own both differ.
# Why one guesses otherwise: etcd's recovery guide says that a restore overwrites member ID and cluster ID so that the
#   member loses its former identity. But the IDs are hashes of peer URLs and token only, and `snapshot restore` and
#   `etcd` have the same default token. An old member left running is then not told apart by its ID: name a new
#   `--initial-cluster-token` for each restore.
# Seen: default token: IDs equal to the old ones, for both files; token "second": both different.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

ids() { echo "$(member header.cluster_id) $(member header.member_id)"; }
port=$(free_port)
start_member original "$SCRATCH/original" "$port"
etcdctl put k 1 >/dev/null
save "$SCRATCH/first.db"
etcdctl put k 2 >/dev/null
save "$SCRATCH/second.db"
old=$(ids)
stop_member

restored_ids() { # SNAPSHOT NAME [OPTION...]
    restore "$SCRATCH/$1.db" "$SCRATCH/$1-$2" "$2" "$port" "${@:3}"
    start_member "$2" "$SCRATCH/$1-$2" "$port"
    FOUND=$(ids)
    stop_member
}
restored_ids first renamed
expect "IDs after a restore under another name" equal "$(same "$old" "$FOUND")"
restored_ids second another
expect "IDs after a restore of another snapshot" equal "$(same "$old" "$FOUND")"
restored_ids first renewed --initial-cluster-token second
expect "cluster ID with a token of its own" different "$(same "${old% *}" "${FOUND% *}")"
expect "member ID with a token of its own" different "$(same "${old#* }" "${FOUND#* }")"
