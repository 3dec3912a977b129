"""How a process ends: what it started is given back, and 1 is said by nothing but an answer."""

from __future__ import annotations

import os
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


PRINTS = """
import sys
import typer
from clusterguard.cli.main import app
from clusterguard.__main__ import main
from clusterguard.terminal import err, out

@app.command()
def echo():
    for _ in range(100_000):
        typer.echo("a line")

@app.command()
def rich():
    for _ in range(100_000):
        out.print("a line")

@app.command()
def told():
    for _ in range(100_000):
        err.print("a line")

@app.command()
def ask():
    print("asking", flush=True)
    typer.confirm("Go on?", abort=True, err=True)

@app.command()
def text():
    sys.exit("no number")

main()
"""


def started(*arguments, **pipes):
    return subprocess.Popen([sys.executable, "-c", PRINTS, *arguments], **pipes)


@pytest.mark.parametrize("command", ["echo", "rich"])
def test_a_reader_that_left_is_no_verdict(command):
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, "")


def test_nor_is_one_of_standard_error():
    with started("told", stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "a line\n"
        process.stderr.close()
    assert process.returncode == 141


def test_ctrl_c_at_a_question_is_an_interruption():
    terminal, end = os.openpty()
    with started("ask", stdin=end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "asking\n"
        assert process.stderr.read(3) == "Go "
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    os.close(terminal)
    os.close(end)
    assert process.returncode == 130
    assert "interrupted" in said


def test_an_end_without_a_number_is_no_verdict():
    done = subprocess.run([sys.executable, "-c", PRINTS, "text"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no number" in done.stderr


def test_a_broken_installation_is_no_verdict(tmp_path):
    """The console script and ``python -m`` alike, whatever cannot be imported."""
    (tmp_path / "typer.py").write_text("raise ImportError('typer is broken')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for code in (["-m", "clusterguard"], ["-c", SCRIPT]):
        argv = [sys.executable, *code]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "typer is broken" in done.stderr


SCRIPT = """
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="clusterguard")
script.load()()
"""
