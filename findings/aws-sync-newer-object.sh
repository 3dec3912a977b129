#!/usr/bin/env bash
# awscli 1.46.3: `aws s3 sync` does not download an object that was replaced by one of the same size.
#
# Behaviour: from a bucket to a folder, sync passes over an object of the same size when it is newer than the file; only
#   an older object is downloaded. The file has the time of the object it came from, so each later version is newer, and
#   none comes as long as the size stays. The exit code is 0, and nothing is printed. With `--exact-timestamps` it comes;
#   the other way, and from bucket to bucket, the newer one is taken.
# Why one guesses otherwise: it is what a sync is for, and the examples of the command's own help say that an object newer
#   than the local file is downloaded; only the words for --exact-timestamps have it the other way. A snapshot of etcd
#   includes the free pages of its database, so it often has yesterday's size: a second site that pulls `latest.db` stays
#   with the day on which the size last changed.
# Seen: Monday's latest.db synced to a folder and Tuesday's put over it: sync prints nothing, ends with 0, and the folder
#   has Monday's; with --exact-timestamps Tuesday's. A bucket as target has Tuesday's. One of another size comes. The
#   server is moto 5.2.5; the rule is the client's.
. "$(dirname "$0")/common/check.sh"
install_python awscli==1.46.3 "moto[server]==5.2.5"

export AWS_ACCESS_KEY_ID=test-access AWS_SECRET_ACCESS_KEY=test-secret AWS_DEFAULT_REGION=us-east-1
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
PORT=$(free_port)
export AWS_ENDPOINT_URL=http://127.0.0.1:$PORT
python -m moto.server --host 127.0.0.1 --port "$PORT" >"$SCRATCH/moto.log" 2>&1 &
SERVERS+=($!)
for _ in $(seq 100); do
    if (: <"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then break; fi
    sleep 0.2
done
aws() { python "$SCRATCH/python/bin/aws" "$@"; }
sync() { aws s3 sync s3://backups "$@" --no-progress; }
put() { # CONTENT: as latest.db, later by a second or more than what was there
    sleep 2
    printf %s "$1" >"$SCRATCH/snapshot"
    aws s3 cp "$SCRATCH/snapshot" s3://backups/latest.db --quiet
}
site=$SCRATCH/site

aws s3 mb s3://backups >/dev/null
aws s3 mb s3://second >/dev/null
put "Monday "
sync "$site" >/dev/null
sync s3://second >/dev/null
expect "after the first sync" "Monday " "$(cat "$site/latest.db")"
put "Tuesday"
expect "the object now" "Tuesday" "$(aws s3 cp s3://backups/latest.db -)"
expect "what sync prints, and its exit code" "0" "$(sync "$site"; echo $?)"
expect "after the second sync" "Monday " "$(cat "$site/latest.db")"
sync s3://second >/dev/null
expect "from bucket to bucket" "Tuesday" "$(aws s3 cp s3://second/latest.db -)"
sync "$site" --exact-timestamps >/dev/null
expect "with --exact-timestamps" "Tuesday" "$(cat "$site/latest.db")"
put "Wednesday"
sync "$site" >/dev/null
expect "of another size" "Wednesday" "$(cat "$site/latest.db")"
