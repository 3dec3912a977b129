# Sourced by the findings about the data of volumes: the uploader of Velero's node agent, on a repository in a folder.
. "$(dirname "${BASH_SOURCE[0]}")/check.sh"

# install_uploader VERSION KOPIA: Velero's packages, with the version of Velero's fork of kopia that its go.mod names.
install_uploader() {
    mkdir -p "$SCRATCH/module"
    cat >"$SCRATCH/module/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/snapshot/upload"
	"github.com/sirupsen/logrus"
	"github.com/vmware-tanzu/velero/pkg/uploader"
	"github.com/vmware-tanzu/velero/pkg/uploader/kopia"
)

type unwatched struct{}

func (unwatched) UpdateProgress(*uploader.Progress) {}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// uploader REPOSITORY init | backup FOLDER | restore SNAPSHOT FOLDER
func main() {
	ctx, config, password := context.Background(), os.Args[1]+".config", "password"
	if os.Args[2] == "init" {
		storage, err := filesystem.New(ctx, &filesystem.Options{Path: os.Args[1]}, true)
		check(err)
		check(repo.Initialize(ctx, storage, &repo.NewRepositoryOptions{}, password))
		check(repo.Connect(ctx, config, storage, password, nil))
		return
	}
	repository, err := repo.Open(ctx, config, password, nil)
	check(err)
	_, writer, err := repository.NewWriter(ctx, repo.WriteSessionOptions{})
	check(err)
	warnings := logrus.New()
	warnings.SetLevel(logrus.WarnLevel)
	progress := kopia.NewProgress(unwatched{}, time.Second, warnings)
	files := uploader.PersistentVolumeFilesystem
	if os.Args[2] == "restore" {
		_, _, err = kopia.Restore(ctx, writer, progress, os.Args[3], os.Args[4], files, nil, warnings, nil)
		check(err)
		return
	}
	uploading := upload.NewUploader(writer) // set up as by pkg/uploader/provider/kopia.go
	uploading.Progress, uploading.FailFast = progress, true
	tags := map[string]string{
		uploader.SnapshotRequesterTag: "pod-volume-backup-restore",
		uploader.SnapshotUploaderTag:  uploader.KopiaType,
	}
	made, _, err := kopia.Backup(ctx, uploading, writer, os.Args[3], "", false, "", files, nil, tags, warnings)
	check(err)
	fmt.Print(made.ID)
}
GO
    (
        cd "$SCRATCH/module"
        go mod init example.invalid/finding 2>/dev/null
        go mod edit -replace "github.com/kopia/kopia=github.com/project-velero/kopia@$2"
        go get "github.com/vmware-tanzu/velero@v$1" 2>/dev/null
    )
    mkdir -p "$SCRATCH/bin"
    build uploader .
    mkdir "$SCRATCH/repository"
    uploader init
}
uploader() { HOME=$SCRATCH "$SCRATCH/bin/uploader" "$SCRATCH/repository" "$@"; } # HOME: kopia's cache goes there

# back_up FOLDER: sets BACKUP, and SAID to whatever the uploader warned of; ends the script if Velero would call it failed.
back_up() {
    BACKUP=$(uploader backup "$1" 2>"$SCRATCH/said") || { cat "$SCRATCH/said"; return 1; }
    SAID=$(cat "$SCRATCH/said")
}
# bring_back FOLDER: the backup made last, into a new folder.
bring_back() { mkdir "$1" && uploader restore "$BACKUP" "$1"; }
# names FOLDER: of all regular files below it, in one line.
names() { (cd "$1" && find . -type f -printf '%P\n' | sort | xargs); }
