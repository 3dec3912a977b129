"""A process that has loaded clusterguard once, and forks a command line from it whenever one is wanted.

Hundreds of real processes are killed here, and loading takes longer than most of what they do. Each command is a child
of its own that ends as the interpreter ends; a second child waits for it and reports how it ended.
"""

from __future__ import annotations

import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve()
LONGEST_SECONDS = 240


# ---- in the zygote and its children ------------------------------------------------------------------------


def load_everything():
    import clusterguard

    for module in pkgutil.walk_packages(clusterguard.__path__, "clusterguard."):
        if not module.name.startswith(("clusterguard.pytest_plugin", "clusterguard.testing", "clusterguard.__main__")):
            __import__(module.name)
    load_model_of_s3()
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"


def load_model_of_s3():
    """Let botocore read its description of S3, which all children share then."""
    from clusterguard.stores.s3 import S3Credentials, S3Store

    nobody = S3Credentials(access_key="none", secret_key="none")
    _ = S3Store(bucket="none", region="us-east-1", credentials=nobody)._client


def serve():
    sys.path.insert(0, str(HERE.parent))
    load_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b"ready\n")
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            mind(json.loads(line))


def mind(job):
    """Fork the command, and report how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    events = os.open(Path(job["folder"]) / "events", os.O_WRONLY)
    pid = os.fork()
    if pid == 0:
        command(job, events)
    _, status = os.waitpid(pid, 0)
    tell(events, {"ended": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def command(job, events):
    import injector

    folder = Path(job["folder"])
    redirect(folder)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    go = os.open(folder / "go", os.O_RDWR)
    injector.install(
        injector.Plan.from_json(job["plan"]),
        folder=folder,
        say=lambda event: tell(events, event),
        await_go=lambda: os.read(go, 1),
    )
    sys.argv = ["clusterguard", *job["argv"]]
    tell(events, {"pid": os.getpid()})
    from clusterguard.cli.main import main

    main()
    raise SystemExit(0)


def redirect(folder):
    for descriptor, name in ((0, os.devnull), (1, folder / "out"), (2, folder / "err")):
        opened = os.open(name, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)


def tell(events, event):
    os.write(events, json.dumps(event).encode() + b"\n")


# ---- in the test -------------------------------------------------------------------------------------------


class Zygote:
    """Starts command lines."""

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, HERE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == b"ready\n"

    def start(self, argv, *, folder, cwd, env, plan):
        return Command(self._process.stdin, argv, folder=folder, cwd=cwd, env=env, plan=plan)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


class Command:
    """One command line: what it told, and its end. Its folder has what it printed, and its calls."""

    def __init__(self, zygote, argv, *, folder, cwd, env, plan):
        folder.mkdir(parents=True)
        self.folder = folder
        self._unread = b""
        for name in ("events", "go"):
            os.mkfifo(folder / name)
        # Open for both, so that neither side ever waits for the other to open it.
        self._events = os.open(folder / "events", os.O_RDWR)
        self._go = os.open(folder / "go", os.O_RDWR)
        job = {"argv": [*map(str, argv)], "folder": str(folder), "cwd": str(cwd), "env": env, "plan": plan.to_json()}
        zygote.write(json.dumps(job).encode() + b"\n")
        zygote.flush()
        begun = self._next("pid", "ended")
        assert "pid" in begun, self.printed()
        self.pid, self.code = begun["pid"], None

    def _next(self, *wanted, seconds=LONGEST_SECONDS):
        """Return the next event that has one of the wanted fields."""
        until = time.monotonic() + seconds
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                event = json.loads(line)
                if event.keys() & set(wanted):
                    return event
            ready, _, _ = select.select([self._events], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(f"none of {wanted} within {seconds} s: {self.printed()}")
            self._unread += os.read(self._events, 65536)

    def wait_until_reached(self):
        """Wait until it hangs or stops where it shall; return False where it ended first."""
        event = self._next("reached", "ended")
        self.code = event.get("ended")
        return "reached" in event

    def send(self, number):
        os.kill(self.pid, number)

    def go(self):
        os.write(self._go, b"!")

    def wait(self):
        """Return its exit code, negative for a signal."""
        if self.code is None:
            self.code = self._next("ended")["ended"]
        return self.code

    def close(self):
        os.close(self._events)
        os.close(self._go)

    @property
    def out(self):
        return (self.folder / "out").read_text()

    @property
    def err(self):
        return (self.folder / "err").read_text()

    def printed(self):
        return "\n".join(path.read_text() for path in (self.folder / "out", self.folder / "err") if path.exists())

    def calls(self):
        """Return what it asked of stores, in order: (monotonic nanoseconds, site fields…, key)."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    serve()
