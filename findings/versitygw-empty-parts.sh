#!/usr/bin/env bash
# versitygw 1.8.0: what was written under a prefix with an empty part is not listed under that prefix.
#
# Behaviour: keys are paths to it, and paths are made short: `a//b`, `a/./b` and `/a/b` are all `a/b`. Puts are answered
#   with 200, HEAD and GET of the same key find the object, and a listing names it `a/b`, so with the prefix `a//` it
#   names nothing. Two such keys are one object: the second put replaces the first, and deleting either removes both.
# Why one guesses otherwise: keys of S3 are text, of which no part means anything, and each of these is another object on
#   AWS. A prefix `/backups`, or `backups/` joined with `/daily.db` by a script, is a common slip that does no harm
#   there. Here such a job writes and reads back what it wrote, and finds no backup when it lists: neither to restore
#   nor to remove old ones; and two jobs with `backups` and `/backups` share what they take to be two places.
# Seen: after puts of backups//daily.db and /etcd/daily.db: HEAD 200 for both, listed as backups/daily.db and
#   etcd/daily.db, nothing below `backups//` or `/etcd/`. After a put of backups/daily.db the first key has its bytes; after
#   its deletion HEAD of the first key is 404. moto 5.2.5, which keeps keys as they are, lists and holds each by itself.
. "$(dirname "$0")/common/check.sh"
install_python boto3==1.44.5 "moto[s3,server]==5.2.5"
new_module github.com/versity/versitygw@v1.8.0
build versitygw github.com/versity/versitygw/cmd/versitygw

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
    config=Config(s3={"addressing_style": "path"}),
)


def head(key):
    try:
        return s3.head_object(Bucket="backups", Key=key)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


def listed(prefix):
    return [found["Key"] for found in s3.list_objects_v2(Bucket="backups", Prefix=prefix).get("Contents", [])]


s3.create_bucket(Bucket="backups")
s3.put_object(Bucket="backups", Key="backups//daily.db", Body=b"one")
s3.put_object(Bucket="backups", Key="/etcd/daily.db", Body=b"two")
print("head:", head("backups//daily.db"), head("/etcd/daily.db"))
print("all:", *listed(""))
print("below:", listed("backups//"), listed("/etcd/"))
s3.put_object(Bucket="backups", Key="backups/daily.db", Body=b"three")
print("read:", s3.get_object(Bucket="backups", Key="backups//daily.db")["Body"].read().decode())
s3.delete_object(Bucket="backups", Key="backups/daily.db")
print("left:", head("backups//daily.db"))
PY

ask() { # NAME PORT: what the steps print with that server, once it listens, into $SCRATCH/NAME
    for _ in $(seq 100); do
        if (: <"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then break; fi
        sleep 0.2
    done
    python "$SCRATCH/steps.py" "http://127.0.0.1:$2" >"$SCRATCH/$1"
}
line() { sed -n "s/^$2: //p" "$SCRATCH/$1"; }

PORT=$(free_port)
mkdir "$SCRATCH/data"
ROOT_ACCESS_KEY=test-access ROOT_SECRET_KEY=test-secret "$SCRATCH/bin/versitygw" --port "127.0.0.1:$PORT" --quiet \
    posix "$SCRATCH/data" >"$SCRATCH/versitygw.log" 2>&1 &
SERVERS+=($!)
ask versitygw "$PORT"
expect "HEAD of both keys" "200 200" "$(line versitygw head)"
expect "listed" "backups/daily.db etcd/daily.db" "$(line versitygw all)"
expect "listed below their prefixes" "[] []" "$(line versitygw below)"
expect "the first key after a put of another one" three "$(line versitygw read)"
expect "HEAD of it after the other one's deletion" 404 "$(line versitygw left)"

PORT=$(free_port)
python -m moto.server --host 127.0.0.1 --port "$PORT" >"$SCRATCH/moto.log" 2>&1 &
SERVERS+=($!)
ask moto "$PORT"
expect "moto, listed below their prefixes" "['backups//daily.db'] ['/etcd/daily.db']" "$(line moto below)"
expect "moto, the first key after a put of another one" one "$(line moto read)"
expect "moto, HEAD of it after the other one's deletion" 200 "$(line moto left)"
