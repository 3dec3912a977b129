"""A real S3 server with users, and the documents of deploy/access as the policy of its bucket."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

from clusterguard.process import run, spawn, tail
from clusterguard.sockets import free_ports
from clusterguard.stores.s3 import S3Credentials, S3Store

DOCUMENTS = Path(__file__).parents[3] / "deploy" / "access"
USERS = ("writer", "reader", "keeper")
BUCKET = "backups"
PREFIX = "etcd/production"
_ROOT = S3Credentials(access_key="root-access", secret_key="root-secret")


@dataclass(frozen=True)
class GatewayWithUsers:
    endpoint: str

    def credentials(self, user):
        return _ROOT if user == "root" else S3Credentials(access_key=user, secret_key=f"{user}-secret")

    def store(self, user, prefix=PREFIX):
        """Return what a user sees of the bucket."""
        return S3Store(
            bucket=BUCKET,
            prefix=prefix,
            endpoint=self.endpoint,
            region="us-east-1",
            path_style=True,
            credentials=self.credentials(user),
            part_size=5 << 20,
        )

    def allow(self, statements):
        """Make these statements the bucket's policy."""
        credentials = self.credentials("root")
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        policy = {"Version": "2012-10-17", "Statement": statements}
        client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


def statements_of(user, *, bucket=BUCKET, prefix=PREFIX):
    """Return the document of a user as statements of a bucket policy: only who is meant is added."""
    text = (DOCUMENTS / f"s3-{user}-policy.json").read_text()
    document = json.loads(text.replace("BUCKET", bucket).replace("PREFIX", prefix))
    return [{**statement, "Principal": {"AWS": [user]}} for statement in document["Statement"]]


@contextmanager
def gateway_with_users(program, folder):
    """Run a server with three users and one bucket whose policy lets each do what its document says."""
    (folder / "data" / BUCKET).mkdir(parents=True)
    (folder / "users").mkdir()
    port, admin_port = free_ports(2)
    log = folder / "versitygw.log"
    words = ["--port", f"127.0.0.1:{port}", "--admin-port", f"127.0.0.1:{admin_port}"]
    server = spawn(
        [program, *words, "--iam-dir", folder / "users", "--iam-cache-disable", "--quiet", "posix", folder / "data"],
        log=log,
        env={"ROOT_ACCESS_KEY": _ROOT.access_key, "ROOT_SECRET_KEY": _ROOT.secret_key},
    )
    try:
        for each in (port, admin_port):
            _wait_for(each, server, log)
        gateway = GatewayWithUsers(endpoint=f"http://127.0.0.1:{port}")
        for user in USERS:
            _create_user(program, admin_port, gateway.credentials(user))
        gateway.allow([statement for user in USERS for statement in statements_of(user)])
        yield gateway
    finally:
        server.stop(grace_seconds=10)


def _create_user(program, admin_port, credentials):
    words = ["admin", "--endpoint-url", f"http://127.0.0.1:{admin_port}", "create-user", "--role", "user"]
    keys = ["--access", credentials.access_key, "--secret", credentials.secret_key]
    root = {"ADMIN_ACCESS_KEY": _ROOT.access_key, "ADMIN_SECRET_KEY": _ROOT.secret_key}
    run([str(program), *words, *keys], timeout_seconds=30, env=root)


def _wait_for(port, server, log):
    for _ in range(600):
        assert server.alive(), tail(log)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(tail(log))
