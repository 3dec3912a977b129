#!/usr/bin/env bash
# versitygw 1.8.0 with versioning: a name that was deleted once can never be taken under `If-None-Match: *` again.
#
# Behaviour: in a bucket with versioning, DELETE leaves a delete marker; HEAD and GET of the key are 404 from then on, and
#   no listing has it. PutObject and CompleteMultipartUpload with `If-None-Match: *` are refused with 412, as if it were
#   there, until the marker itself is removed by its version. Without versioning, and without the condition, they work.
# Why one guesses otherwise: the condition means "only if there is no such object", the 404 says that there is none, and
#   S3's description of conditional writes names the delete marker as a case in which the write succeeds. A lock that is
#   an object, taken under this condition and released by DELETE, works once: whoever comes second waits for ever on a
#   lock that nobody can see. Versioning is what one turns on to keep backups from being deleted.
# Seen: put 200, delete 204, HEAD 404, put 412, complete 412, put without the condition 200; after deletion again, and
#   deletion of the marker and of what lay under it, 200. With versioning off 200 at once. moto 5.2.5: 200 with both.
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


def status(operation, **details):
    try:
        return operation(Bucket=bucket, Key="lock", **details)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


def complete():
    upload = s3.create_multipart_upload(Bucket=bucket, Key="lock")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="lock", UploadId=upload, PartNumber=1, Body=b"mine")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    return status(s3.complete_multipart_upload, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*")


for bucket in "plain", "versioned":
    s3.create_bucket(Bucket=bucket)
    if bucket == "versioned":
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put, head, delete = s3.put_object, s3.head_object, s3.delete_object
    seen = [status(put, Body=b"first", IfNoneMatch="*"), status(delete), status(head)]
    seen += [status(put, Body=b"second", IfNoneMatch="*"), status(delete), complete(), status(delete)]
    print(f"{bucket}:", *seen)

listed = s3.list_object_versions(Bucket="versioned")
for each in listed["DeleteMarkers"] + listed["Versions"]:
    s3.delete_object(Bucket="versioned", Key="lock", VersionId=each["VersionId"])
print("cleared:", status(s3.put_object, Body=b"third", IfNoneMatch="*"))
s3.delete_object(Bucket="versioned", Key="lock")
print("unconditional:", status(s3.put_object, Body=b"fourth"))
PY

ask() { # NAME PORT: what the steps print with that server, once it listens, into $SCRATCH/NAME
    for _ in $(seq 100); do
        if (: <"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then break; fi
        sleep 0.2
    done
    python "$SCRATCH/steps.py" "http://127.0.0.1:$2" >"$SCRATCH/$1"
}
line() { sed -n "s/^$2: //p" "$SCRATCH/$1"; }
steps="put, delete, HEAD, put, delete, complete, delete"

PORT=$(free_port)
mkdir "$SCRATCH/data" "$SCRATCH/versions"
ROOT_ACCESS_KEY=test-access ROOT_SECRET_KEY=test-secret "$SCRATCH/bin/versitygw" --port "127.0.0.1:$PORT" --quiet \
    posix --versioning-dir "$SCRATCH/versions" "$SCRATCH/data" >"$SCRATCH/versitygw.log" 2>&1 &
SERVERS+=($!)
ask versitygw "$PORT"
expect "without versioning: $steps" "200 204 404 200 204 200 204" "$(line versitygw plain)"
expect "with versioning: $steps" "200 204 404 412 204 412 204" "$(line versitygw versioned)"
expect "with all versions and markers removed, put" 200 "$(line versitygw cleared)"
expect "without the condition, put" 200 "$(line versitygw unconditional)"

PORT=$(free_port)
python -m moto.server --host 127.0.0.1 --port "$PORT" >"$SCRATCH/moto.log" 2>&1 &
SERVERS+=($!)
ask moto "$PORT"
expect "moto, with versioning: $steps" "200 204 404 200 204 200 204" "$(line moto versioned)"
