#!/usr/bin/env bash
# etcd 3.7.3: two snapshots of an idle member, one right after the other, are different files.
#
# Behaviour: nothing is written between the two; revision, raft index, size and status hash are equal, but the bytes
#   and so the appended sha256 are not.
# Why one guesses otherwise: the source did not change, and the file is a copy of its pages. But a snapshot first commits
#   etcd's open transaction to bbolt, even an empty one: bbolt's transaction number grows and pages move. Storage that
#   keeps equal objects once stores every snapshot, and "same digest as last night" cannot mean "nothing happened".
# Seen: status hash and size equal, sha256 different.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

start_member m "$SCRATCH/member"
for i in 1 2 3; do etcdctl put "k$i" v >/dev/null; done
before=$(member raftIndex)
save "$SCRATCH/first.db"
save "$SCRATCH/second.db"

digest() { sha256sum <"$SCRATCH/$1.db"; }
status() { etcdutl snapshot status "$SCRATCH/$1.db" --write-out json; }
expect "raft index" equal "$(same "$before" "$(member raftIndex)")"
expect "snapshot status, hash included" equal "$(same "$(status first)" "$(status second)")"
expect "size" equal "$(same "$(stat -c %s "$SCRATCH/first.db")" "$(stat -c %s "$SCRATCH/second.db")")"
expect "sha256" different "$(same "$(digest first)" "$(digest second)")"
