#!/usr/bin/env bash
# Velero 1.18.3: of files whose names are not UTF-8, the backup of a volume keeps one, under another name.
#
# Behaviour: names are kept as JSON text, where each byte that is not UTF-8 becomes U+FFFD. A file `caf\xe9` (é in Latin-1)
#   comes back under a name of other bytes. Where two names of a folder become the same, both are uploaded and one file
#   comes back, with the content of one of them; the other one is gone. Backup and restore are complete, without a warning.
#   The targets of symbolic links keep their bytes, so a link to such a file leads nowhere afterwards.
# Why one guesses otherwise: to Linux a name is bytes, tar and rsync keep them, and a backup that could not would be
#   expected to say so. Older programs, and archives made elsewhere, leave such names in volumes.
# Seen: caf\xe8 and caf\xe9, with other contents, and a link to the second: restored are one file caf\xef\xbf\xbd and a
#   link that dangles. The script calls Velero's package as the node agent does.
. "$(dirname "$0")/common/velero.sh"
install_uploader 1.18.3 v0.0.0-20251230033609-d946b1e75197

volume=$SCRATCH/volume back=$SCRATCH/back
mkdir "$volume"
echo grave >"$volume/"$'caf\xe8'
echo acute >"$volume/"$'caf\xe9'
echo plain >"$volume/"$'caf\xc3\xa9' # the same word in UTF-8
ln -s $'caf\xe9' "$volume/link"
expect "through the link before" acute "$(cat "$volume/link")"
back_up "$volume"
bring_back "$back"
expect "warnings" "" "$SAID"
shown() { (cd "$back" && printf '%q ' *); }
expect "names restored" "$(printf '%q ' $'caf\xc3\xa9' $'caf\xef\xbf\xbd' link)" "$(shown)"
expect "the name in UTF-8" plain "$(cat "$back/"$'caf\xc3\xa9')"
expect "contents left of the two others" 1 "$(cat "$back/"$'caf\xef\xbf\xbd' | grep -c -e '^grave$' -e '^acute$')"
expect "the link's target" "$(printf '%q' $'caf\xe9')" "$(printf '%q' "$(readlink "$back/link")")"
expect "through the link" "nothing" "$(cat "$back/link" 2>/dev/null || echo nothing)"
