#!/usr/bin/env bash
# etcd 3.7.3: what was overwritten and compacted away is still readable in every later snapshot, and restores with it.
#
# Behaviour: 30 values are written in the clear, all are overwritten, the history is compacted (--physical, so etcd
#   reports it done). A snapshot taken after that still contains nearly all of the old values, and so does the data
#   directory that etcdutl restores from it. Only a defragmentation before the snapshot removes them.
# Why one guesses otherwise: compaction is documented as discarding the old revisions, no read returns them any more,
#   and `snapshot save` sounds like an export of the keys. In fact it streams the pages of the database file, free ones
#   included, and compaction frees pages without clearing them. It matters after encryption at rest was switched on:
#   rewriting all Secrets and waiting for compaction does not take the plaintext out of the backups.
# Seen: old values readable by etcdctl 0; in the snapshot 28 of 30, in the restored file 28, after defrag 0.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

old_values_in() { grep -ao 'PLAINTEXT-[0-9]*-END' "$1" | sort -u | wc -l; }
many() { if [ "$1" -ge 20 ]; then echo "20 or more"; else echo "$1"; fi; }

start_member m "$SCRATCH/member"
padding=$(head -c 3000 /dev/zero | tr '\0' x)
for i in $(seq 30); do etcdctl put "/registry/secrets/default/s$i" "${padding}PLAINTEXT-$i-END" >/dev/null; done
for i in $(seq 30); do etcdctl put "/registry/secrets/default/s$i" "k8s:enc:x" >/dev/null; done
etcdctl compaction "$(member header.revision)" --physical >/dev/null
for i in 1 2 3; do etcdctl put "later$i" x >/dev/null; done

save "$SCRATCH/compacted.db"
etcdctl defrag >/dev/null
save "$SCRATCH/defragmented.db"
restore "$SCRATCH/compacted.db" "$SCRATCH/restored" m "$(free_port)"

etcdctl get "" --from-key >"$SCRATCH/readable"
expect "old values etcdctl can read" 0 "$(old_values_in "$SCRATCH/readable")"
expect "old values in the snapshot after compaction" "20 or more" "$(many "$(old_values_in "$SCRATCH/compacted.db")")"
expect "old values in what it restores to" "20 or more" "$(many "$(old_values_in "$SCRATCH/restored/member/snap/db")")"
expect "old values in the snapshot after defrag" 0 "$(old_values_in "$SCRATCH/defragmented.db")"
