#!/usr/bin/env bash
# Velero 1.18.3: a changed file is backed up with its old content as long as size and modification time are the old ones.
#
# Behaviour: from the second backup of a volume on, a file of the same size, modification time, mode and owner as in the
#   last backup is not read: the new backup refers to the old content, and so does each later one. Velero always builds
#   on the last backup and has no option for a full one; only a file that differs in one of the four is read.
# Why one guesses otherwise: the repository is addressed by content, and a deduplicating backup is taken to hash what is
#   there; where times are relied upon, as in rsync, an option for checksums or the inode's change time helps. Equal times
#   are common in volumes that are filled from images: reproducible builds give every file the same one (Nix, Jib and
#   Bazel all use 1970), so a release whose file has the same size as the one before is such a file.
# Seen: two archives of reproducible builds, unpacked one after the other between two backups: of the second backup,
#   and of a third one, settings come back as `replicas: 2`, where the volume has `replicas: 3`, in a new file; after
#   `touch` they are right. The script calls Velero's package as the node agent does.
. "$(dirname "$0")/common/velero.sh"
install_uploader 1.18.3 v0.0.0-20251230033609-d946b1e75197

volume=$SCRATCH/volume
release() { # REPLICAS: a reproducible archive of one file, unpacked into the volume
    mkdir -p "$SCRATCH/build" "$volume"
    echo "replicas: $1" >"$SCRATCH/build/settings.yaml"
    tar --create --directory "$SCRATCH/build" --mtime @1 --sort name settings.yaml | tar --extract --directory "$volume"
}
restored() { # NAME: the settings in the backup made last
    bring_back "$SCRATCH/$1"
    cat "$SCRATCH/$1/settings.yaml"
}

release 2
back_up "$volume"
expect "first backup" "replicas: 2" "$(restored first)"
release 3
expect "in the volume now" "replicas: 3" "$(cat "$volume/settings.yaml")"
back_up "$volume"
expect "second backup" "replicas: 2" "$(restored second)"
expect "warnings" "" "$SAID"
back_up "$volume"
expect "third backup" "replicas: 2" "$(restored third)"
touch "$volume/settings.yaml"
back_up "$volume"
expect "after touch" "replicas: 3" "$(restored touched)"
