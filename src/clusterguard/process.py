"""Programs: run one to its end, or keep one as a child that cannot outlive us. The only user of subprocess.

A kept child must die with its parent even when the parent is killed with SIGKILL and runs nothing more. On
Linux the kernel does that (prctl PR_SET_PDEATHSIG), with two traps. The signal is tied to the *thread* that
forked, not to the process, so children are forked by one thread that lives as long as the process. And a
``preexec_fn`` may deadlock in a threaded parent, so a tiny launcher sets the option in the child and then
executes the program. The launcher also waits at a gate until the child is written down: a parent that is killed
before that leaves a closed gate, and no program that nobody knows of.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from clusterguard.errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "Attached",
    "Completed",
    "ProcessRecord",
    "attached",
    "dying_with_us",
    "elapsed",
    "run",
    "spawn",
    "stop_together",
    "stream_lines",
    "tail",
]

_LAUNCHER = """
import os, sys
parent, gate = int(sys.argv[1]), int(sys.argv[2])
if parent:
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the option was set
        os._exit(125)
if gate:
    if not os.read(gate, 1):  # the parent died before it had written us down
        os._exit(125)
    os.close(gate)
os.execv(sys.argv[3], sys.argv[3:])
"""
_DESCRIPTOR = re.compile(r"(?<![^=,:])/proc/self/fd/([0-9]+)(?![^,:])")
_TAIL_BYTES = 4096
_KILL_SECONDS = 10.0
_ZOMBIE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended with success."""

    stdout: str
    stderr: str
    seconds: float


def run(
    argv: Sequence[str | Path],
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | bytes | Path | None = None,
    dies_with_us: bool = False,
) -> Completed:
    """Run a program to its end.

    Args:
        argv: Program and arguments; no shell is involved. A path below ``/proc/self/fd`` is this process's own: the
            program inherits that descriptor.
        timeout_seconds: When to kill it.
        env: Variables to set beside the inherited ones.
        cwd: Working directory, by default ours.
        stdin: What to feed it: text, bytes, or a file of any size; by default nothing.
        dies_with_us: Let the kernel end it when this process is killed, for programs that change something.
            The program must then be named by its path.

    Raises:
        ProgramError: It is missing, took too long, or ended with anything but 0.
    """
    words = [str(word) for word in argv]
    name = Path(words[0]).name
    began = time.monotonic()
    if dies_with_us:
        _require_program(words[0])
    try:
        with _start_errors(words[0]), _fed(stdin) as feed:
            done = subprocess.run(
                _launched(words, dies_with_us=True) if dies_with_us else words,
                check=False,
                capture_output=True,
                timeout=timeout_seconds,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                pass_fds=[int(number) for word in words for number in _DESCRIPTOR.findall(word)],
                **feed,
            )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(
            f"{name}: still running after {timeout_seconds:g} s, so it was killed",
            code="program-timed-out",
            fields={"program": name, "seconds": timeout_seconds},
        ) from error
    if done.returncode:
        output = (_text(done.stderr).strip() or _text(done.stdout).strip())[-_TAIL_BYTES:]
        raise _failure(name, done.returncode, output)
    return Completed(stdout=_text(done.stdout), stderr=_text(done.stderr), seconds=time.monotonic() - began)


class Attached:
    """A program that is spoken to: a line in, a line out."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, errors: IO[bytes]) -> None:
        self._process = process
        self._name = name
        self._errors = errors
        self._read = b""

    def read_line(self, *, timeout_seconds: float) -> str:
        """Return the next line that it prints; a ProgramError says that it ended, or printed none in time."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker; PIPE was asked for
        deadline = time.monotonic() + timeout_seconds
        while b"\n" not in self._read:
            # Read by os.read below: a buffered reader would hold lines back that select does not see.
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ProgramError(
                    f"{self._name}: no answer after {timeout_seconds:g} s",
                    code="program-timed-out",
                    fields={"program": self._name, "seconds": timeout_seconds},
                )
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                code = self._process.wait()
                self._errors.seek(0)
                raise _failure(self._name, code, _text(self._errors.read()).strip()[-_TAIL_BYTES:])
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return _text(line)

    def write_line(self, text: str) -> None:
        """Write into its standard input."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker; PIPE was asked for
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ProgramError(f"{self._name}: it has ended") from error


@contextmanager
def attached(argv: Sequence[str | Path], *, grace_seconds: float = 5) -> Iterator[Attached]:
    """Keep a program while the ``with`` block runs, and speak to it.

    Its standard input is a pipe from us: when the block ends, or when this process is killed, the program reads its
    end and should end as well, wherever it really runs; after ``grace_seconds`` it is killed.
    """
    words = [str(word) for word in argv]
    name = Path(words[0]).name
    with tempfile.TemporaryFile() as errors:
        with _start_errors(words[0]):
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        try:
            yield Attached(process, name, errors)
        finally:
            _let_go(process, grace_seconds)


def _let_go(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(BrokenPipeError):  # what it did not read any more
            pipe.close()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _fed(stdin: str | bytes | Path | None) -> Iterator[dict[str, Any]]:
    """Give the arguments by which subprocess feeds a program."""
    if isinstance(stdin, Path):
        with stdin.open("rb") as file:
            yield {"stdin": file}
    elif stdin is None:
        yield {"stdin": subprocess.DEVNULL}
    else:
        yield {"input": stdin.encode() if isinstance(stdin, str) else stdin}


def _text(output: bytes) -> str:
    return output.decode(errors="replace")


def _failure(name: str, code: int, output: str) -> ProgramError:
    return ProgramError(
        f"{name}: {_ending(code)}: {output or 'it printed nothing'}",
        exit_code=code,
        output=output,
        fields={"program": name},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A process, told apart from others with its number by when it started, and by where that number counts.

    Attributes:
        pid: Its number.
        started: Seconds since the machine booted: unlike the time of day, nobody ever sets that back.
        boot_id: The boot that ``started`` counts from; empty where the system has none, and in older records.
        pid_namespace: Where ``pid`` is its number: containers have namespaces of their own.
    """

    pid: int
    started: float
    boot_id: str = ""
    pid_namespace: str = ""

    @classmethod
    def of(cls, pid: int) -> ProcessRecord:
        """Return the record of the process that has a number now."""
        try:
            return cls(pid=pid, started=_started(pid), boot_id=_boot_id(), pid_namespace=_pid_namespace())
        except (OSError, psutil.NoSuchProcess) as error:
            raise ProgramError(f"there is no process {pid}") from error

    def alive(self) -> bool:
        """Return whether that very process still runs."""
        return self._process() is not None

    def visible(self) -> bool:
        """Return whether it is certain that its number means the same process here: in this boot and namespace."""
        return bool(self.boot_id) and (self.boot_id, self.pid_namespace) == (_boot_id(), _pid_namespace())

    def ended(self) -> bool:
        """Return whether a process of this machine has certainly ended; one that is not shown to us may run."""
        if self.boot_id and self.boot_id != _boot_id():
            return True  # the machine was restarted
        if self.boot_id and self.pid_namespace != _pid_namespace():
            return False  # another container's
        return not self.alive() and not _hidden(self.pid)

    def terminate(self) -> None:
        """Ask it to end, and return at once."""
        process = self._process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()

    def stop(self, *, grace_seconds: float) -> None:
        """Ask it to end, then kill it after the grace; returns once it is gone."""
        process = self._process()
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            if not _gone(process, grace_seconds):
                process.kill()
                _gone(process, _KILL_SECONDS)

    def _process(self) -> psutil.Process | subprocess.Popen[bytes] | None:
        child = _children.get(self.pid)
        if child is not None:
            # poll() also collects its end; by its number alone a child of ours would look alive until then.
            if child.poll() is None:
                return child
            _children.pop(self.pid, None)
            return None
        if self.boot_id and not self.visible():
            return None  # whoever has this number here is another process
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            process = psutil.Process(self.pid)
            if _started(self.pid) == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def stop_together(processes: Iterable[ProcessRecord], *, grace_seconds: float) -> None:
    """Ask processes to end, then kill those left after the grace, which all of them share; return once all are gone."""
    stopping = list(processes)
    for process in stopping:
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in stopping:
        process.stop(grace_seconds=max(0.0, deadline - time.monotonic()))


# Our own children: whoever forked a process must also collect its end.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _collect_ended_children() -> None:
    """Collect those whose end nobody asked about: a record that is forgotten would leave a zombie."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def elapsed() -> float:
    """Return the seconds of a clock that nobody sets, and that goes on while the machine is suspended.

    A lease is counted by it: it must run out while its holder sleeps.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot_id() -> str:
    """Return what tells this boot of this machine from all others; nothing on systems that do not tell."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _hidden(pid: int) -> bool:
    """Return whether some process has a number, and /proc does not show it to us (its mount option hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        try:
            _started(pid)
        except (OSError, psutil.Error):
            return True
    except (OSError, OverflowError):
        pass
    return False


def _started(pid: int) -> float:
    """Return when a process was started; psutil tells the time of day, which shifts when the clock is set."""
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 in proc(5); the name before ")" may hold anything


def _gone(process: psutil.Process | subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            process.wait(min(left, _ZOMBIE_SECONDS))
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            # A process that ended stays there as a zombie until its parent, maybe not we, collects it.
            if isinstance(process, psutil.Process) and process.status() == psutil.STATUS_ZOMBIE:
                return True
            if not left:
                return False
        else:
            return True


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    outlive_us: bool = False,
    write_down: Callable[[ProcessRecord], object] = lambda _: None,
) -> ProcessRecord:
    """Start a program by its absolute path and return at once; its record says which process it is.

    Args:
        argv: Program and arguments.
        log: File that its output is appended to.
        env: Variables to set beside the inherited ones.
        cwd: Working directory, by default ours.
        outlive_us: Keep it when this process ends (``clusterguard cluster up``); otherwise it dies with us.
        write_down: Called with its record before the program begins, so that what outlives us is always known.
    """
    words = [str(word) for word in argv]
    _require_program(words[0])
    _collect_ended_children()
    gate, opener = os.pipe()
    command = _launched(words, dies_with_us=not outlive_us, gate=gate)

    def start() -> subprocess.Popen[bytes]:
        with _start_errors(words[0]), log.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we decide the order of the end.
            return subprocess.Popen(
                command,
                pass_fds=(gate,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    try:
        process = _forking_thread().submit(start).result()
        _children[process.pid] = process
        record = ProcessRecord.of(process.pid)
        write_down(record)
        # Until this byte comes the program waits: were we killed before its record is written, nobody would know of it.
        with contextlib.suppress(BrokenPipeError):  # it was killed already
            os.write(opener, b"!")
    finally:
        os.close(gate)
        os.close(opener)
    return record


def stream_lines(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[str]:
    """Run a program and yield the lines of both its streams until it ends; abandoning the iteration kills it."""
    words = [str(word) for word in argv]
    name = Path(words[0]).name
    recent: list[str] = []
    with _start_errors(words[0]):
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker; PIPE was asked for
        for line in process.stdout:
            recent = [*recent[-40:], line]
            yield line.rstrip("\n")
        code = process.wait()
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                # With all that it started: `go build` has compilers of its own.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if code:
        output = "".join(recent)[-_TAIL_BYTES:].strip()
        raise _failure(name, code, output)


def tail(log: Path, *, lines: int = 12, start: int = 0) -> str:
    """Return the last lines of a log file, none from before the byte ``start``, or a remark when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log was written)"
    return "\n".join(text.splitlines()[-lines:]) or "(it printed nothing)"


def dying_with_us(argv: Sequence[str | Path]) -> list[str]:
    """Return the command by which a library starts a program, named by its path, so that the kernel ends it with us.

    The library must start it from a thread that waits for its end.
    """
    return _launched([str(word) for word in argv], dies_with_us=True)


@contextmanager
def _start_errors(program: str) -> Iterator[None]:
    """Say what is missing or forbidden: the program, its working directory, or a file that it is fed or writes to."""
    try:
        yield
    except OSError as error:
        name, path = Path(program).name, error.filename or program
        if isinstance(error, FileNotFoundError) and path == program:
            raise _missing(f"{name}: no such program ({program})", program) from error
        raise ProgramError(f"{name} cannot be started: {path}: {error.strerror or error}") from error


def _require_program(path: str) -> None:
    # Before the launcher starts, whose own failure would be Python's and not name what is missing.
    if not os.access(path, os.X_OK):
        raise _missing(f"{path}: no such program", path)


def _missing(message: str, program: str) -> ProgramError:
    return ProgramError(
        message, code="program-missing", fields={"program": program}, hint="clusterguard toolchain install"
    )


def _launched(words: Sequence[str], *, dies_with_us: bool, gate: int = 0) -> list[str]:
    parent = os.getpid() if dies_with_us and sys.platform == "linux" else 0
    # Nothing of the environment or the working folder is imported: it only executes the program, and must start fast.
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(parent), str(gate), *words]


def _ending(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


@lru_cache(maxsize=1)
def _forking_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="clusterguard-spawn")
