"""A command that is told to end gives back what it started."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import signal, time
from clusterguard.cli.main import app, main

@app.command()
def hold():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("given back", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are deaf to it
main()
"""


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_it_gives_back_what_it_started(told):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "hold"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    process.send_signal(told)
    said = process.communicate(timeout=30)[0]
    assert "given back" in said
    assert "interrupted" in said
    assert process.returncode == 130
