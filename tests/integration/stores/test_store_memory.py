"""Memory does not grow with the object."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from s3_gateway import CREDENTIALS

OBJECT = 300 << 20
GROWTH = 100 << 20

# VmHWM is the peak of this very program; getrusage's maximum also counts what forked it.
SCRIPT = """
import sys
from clusterguard.stores import open_store

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

store, size = open_store(sys.argv[1]), int(sys.argv[2])
with store.put("warm-up") as writer:
    writer.write(b"loads everything that is loaded lazily")
before = peak()
buffer = memoryview(bytearray(range(256)) * 4096)
with store.put("large") as writer:
    for _ in range(size // len(buffer)):
        writer.write(buffer)
put = peak() - before
read = 0
with store.get("large") as reader:
    while data := reader.read(1 << 20):
        read += len(data)
assert read == size == store.stat("large").size
print(put, peak() - before)
"""


def growth(location):
    """Return by how many bytes a put, and a put and a get, raise the peak of a program's memory."""
    environment = {
        "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, location, str(OBJECT)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.programs
def test_of_an_s3_store(s3, prefix):
    assert max(growth(s3.store(prefix=prefix).url)) < GROWTH


@pytest.mark.slow
def test_of_a_directory(tmp_path):
    assert max(growth(str(tmp_path))) < 16 << 20


@pytest.mark.slow
def test_the_measure_sees_a_store_that_keeps_everything():
    assert growth("memory:")[0] > OBJECT
