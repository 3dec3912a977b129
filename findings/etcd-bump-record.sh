#!/usr/bin/env bash
# etcd 3.7.3: `snapshot restore --bump-revision` adds a record that no client can read, list or remove.
#
# Behaviour: three keys restored with a bump are three keys for every client, but `snapshot status` of the next backup
#   counts four records. The fourth sits at the bumped revision: a key-value with an empty key and an empty value. It
#   outlives later compactions, so the difference of one stays in every backup from then on.
# Why one guesses otherwise: the bump is described as moving a number, the latest revision. etcd has no field for that
#   number: it is the highest revision of any record, so one is written. And an empty key cannot be asked for: a request
#   for it is refused, and etcdctl's `get "" --from-key` starts behind it, at \0.
# Seen: 3 keys and 4 records after the restore; 4 keys and 5 records after one more key and a compaction.
. "$(dirname "$0")/common/etcd.sh"
install_etcd 3.7.3

records() { save "$SCRATCH/$1.db"; status_of "$SCRATCH/$1.db" totalKey; }

start_member m "$SCRATCH/member"
for i in 1 2 3; do etcdctl put "k$i" v >/dev/null; done
expect "records before" 3 "$(records before)"
stop_member

port=$(free_port)
restore "$SCRATCH/before.db" "$SCRATCH/restored" m "$port" --bump-revision 1000 --mark-compacted
start_member m "$SCRATCH/restored" "$port"
expect "revision after the restore" 1004 "$(member header.revision)"
expect "keys after the restore" 3 "$(keys)"
expect "records after the restore" 4 "$(records bumped)"
refused() { if etcdctl "$1" "" >/dev/null 2>&1; then echo answered; else echo refused; fi; }
expect "reading the empty key" refused "$(refused get)"
expect "deleting the empty key" refused "$(refused del)"

etcdctl put k4 v >/dev/null
etcdctl compaction 1005 --physical >/dev/null
expect "keys after a compaction" 4 "$(keys)"
expect "records after a compaction" 5 "$(records compacted)"

cat >"$SCRATCH/module/main.go" <<'GO'
// Prints the record at the bumped revision: 8 bytes of revision, "_", 8 bytes of sub-revision.
package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

func main() {
	db, err := bbolt.Open(os.Args[1], 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	at := append(binary.BigEndian.AppendUint64(nil, 1004), "_\x00\x00\x00\x00\x00\x00\x00\x00"...)
	if err := db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket([]byte("key")).Get(at)
		_, err := fmt.Printf("there: %t, bytes: %d\n", value != nil, len(value))
		return err
	}); err != nil {
		panic(err)
	}
}
GO
build record .
expect "record 1004 in the last backup" "there: true, bytes: 0" "$(record "$SCRATCH/compacted.db")"
