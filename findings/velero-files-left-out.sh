#!/usr/bin/env bash
# Velero 1.18.3: files inside of a volume decide which other files of it are backed up.
#
# Behaviour: by file-system backup and by the data mover, what a file `.kopiaignore` in the volume's own data matches is
#   left out, and so is the content of each folder with a `CACHEDIR.TAG`. The backup is complete, without a warning;
#   restored are `.kopiaignore` without the files and an empty folder. With the tag at its top a volume is backed up empty.
# Why one guesses otherwise: Velero documents choosing volumes, never files in them, and has no option for it. The two
#   are defaults of the kopia command, meant for people who back up their own folders; Velero's policy does not set them,
#   so kopia's defaults hold. A volume gets such files from a workstation's folder copied into it, or from tools that
#   tag what they write (compilers' and package managers' caches, caches of restic and Borg), not from whoever backs it up.
# Seen: app.db, cache/result, keep and shop/orders.db all come back at first; with a .kopiaignore of
#   `*.db` and the tag in place, of the same files .kopiaignore and keep. With the tag at the top nothing. The script calls
#   Velero's package as the node agent does.
. "$(dirname "$0")/common/velero.sh"
install_uploader 1.18.3 v0.0.0-20251230033609-d946b1e75197

volume=$SCRATCH/volume
mkdir -p "$volume/cache" "$volume/shop"
for file in keep app.db shop/orders.db cache/result; do echo "$file" >"$volume/$file"; done
back_up "$volume"
bring_back "$SCRATCH/before"
expect "all files that are there" "app.db cache/result keep shop/orders.db" "$(names "$SCRATCH/before")"

echo '*.db' >"$volume/.kopiaignore"
tag='Signature: 8a477f597d28d172789f06886806bc55' # as bford.info/cachedir has it
echo "$tag" >"$volume/cache/CACHEDIR.TAG"
back_up "$volume"
bring_back "$SCRATCH/after"
expect "of those and the two new ones" ".kopiaignore keep" "$(names "$SCRATCH/after")"
expect "the tagged folder" cache "$(cd "$SCRATCH/after" && find cache)" # and nothing below it
expect "warnings" "" "$SAID"

echo "$tag" >"$volume/CACHEDIR.TAG"
back_up "$volume"
bring_back "$SCRATCH/tagged"
expect "with the tag at the top" "" "$(names "$SCRATCH/tagged")"
expect "warnings then" "" "$SAID"
