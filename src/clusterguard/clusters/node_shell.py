"""Commands as root on one node: of a kind cluster, this very host, or any host that OpenSSH reaches.

A node is asked little: a shell and the everyday programs of a Linux host. What is copied there appears under its
name whole or not at all, and stays across a power cut: temporary name, size compared, fsync, rename.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import shlex
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from clusterguard.errors import ClusterError, ConfigError, ProgramError
from clusterguard.process import attached, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from clusterguard.process import Attached

__all__ = ["DockerNodeShell", "LocalNodeShell", "NodeShell", "SshNodeShell", "open_node_shell", "open_node_shells"]

_SECONDS = 60.0
_CONNECT_SECONDS = 10
_ALIVE_SECONDS = 5
_ALIVE_TIMES = 6
# The slowest disk and line that a snapshot is copied over: 1 MiB a second.
_SLOWEST_BYTES_PER_SECOND = 1024 * 1024
_TAIL = 4096
_SSH_FAILED = 255  # ssh's own exit code, whatever the command's would have been
_LOCK_TAKEN = 75  # EX_TEMPFAIL of sysexits.h, which no step of flock or sh uses otherwise

# $1 target, $2 mode, $3 size. The size is compared because a copy whose sender was killed ends early, too.
_RECEIVE = (
    'set -e; umask 077; cat > "$1.part"; test "$(stat -c %s "$1.part")" = "$3"; '
    'chmod "$2" "$1.part"; sync "$1.part"; mv -fT "$1.part" "$1"; sync "$(dirname "$1")"'
)
# $1 lock file, $2 seconds, $3 whose line it is, $4 process of a line that broke. The shell that holds the lock reads
# commands from the pipe that we feed: when we are killed it ends its last command, reads the end of the pipe and lets
# go. Its commands hold the lock as well, so nobody ever finds it free and a command at work: not even when that shell
# is killed, which our own next line does, because a node may never learn that the first one broke.
_HOLD = (
    'exec 9>"$1"; if grep -qs "$3" "/proc/$4/cmdline"; then kill -9 "$4"; fi; '
    'flock --exclusive --timeout "$2" --conflict-exit-code 75 9 || exit; '
    't=$(mktemp -d) || exit; export t; echo "$$"; exec sh -s "$3"'
)
_TIDY = "trap 'rm -rf \"$t\"' EXIT\n"
_ASK = '{command} </dev/null >"$t/out" 2>"$t/err"; echo "$? $(base64 -w 0 <"$t/out") $(base64 -w 0 <"$t/err")"\n'


def _no_objection() -> None:
    """Let commands go on under a lock that was taken again."""


class NodeShell(Protocol):
    """Runs commands as root on one node."""

    @property
    def name(self) -> str:
        """How messages call the node."""

    def run(self, argv: Sequence[str], *, stdin: bytes | None = None, timeout_seconds: float = _SECONDS) -> str:
        """Run a command to its end and return its output; a ProgramError has the end of its standard error."""

    def put(self, source: Path, target: str, *, mode: int = 0o600) -> None:
        """Copy a file to the node; it appears under its name whole or not at all."""

    def read(self, path: str) -> bytes:
        """Return the content of a small file."""

    def lock(
        self, path: str, *, wait_seconds: float = 0, regained: Callable[[], object] = _no_objection
    ) -> AbstractContextManager[NodeShell]:
        """Hold a lock file on the node while the ``with`` block runs; released however we end.

        What is given runs commands in one shell on the node, which holds the lock: no connection for each command,
        and none is still at work when somebody else gets the lock. Where the connection breaks, the command at work
        fails, and the next one first takes the lock again. Then ``regained`` is called, and what it raises keeps every
        further command from running: somebody else may have held the lock meanwhile.

        Raises:
            ClusterError: Another process holds it.
        """

    def describe(self, argv: Sequence[str]) -> str:
        """Return the command line that a person would type at this machine."""

    def describe_put(self, source: Path, target: str, *, mode: int = 0o600) -> str:
        """Return the command line by which a person would copy a file there."""


class _Shell:
    """What the three have in common: everything but how a command gets there."""

    name: str

    def run(self, argv: Sequence[str], *, stdin: bytes | None = None, timeout_seconds: float = _SECONDS) -> str:
        """Run a command to its end and return what it printed on standard output."""
        return self._run(argv, stdin=stdin, seconds=timeout_seconds)

    def put(self, source: Path, target: str, *, mode: int = 0o600) -> None:
        """Copy a file to the node; it appears under its name whole or not at all."""
        size = source.stat().st_size
        seconds = _SECONDS + size / _SLOWEST_BYTES_PER_SECOND
        self._run(["sh", "-c", _RECEIVE, "put", target, f"{mode:o}", str(size)], stdin=source, seconds=seconds)

    def read(self, path: str) -> bytes:
        """Return the content of a small file."""
        text = self._run(["base64", path], stdin=None, seconds=_SECONDS)
        try:
            return base64.b64decode(text)
        except binascii.Error as error:
            raise ProgramError(f"{self.name}: base64 {path} printed something else: {text[:80]!r}") from error

    @contextmanager
    def lock(
        self, path: str, *, wait_seconds: float = 0, regained: Callable[[], object] = _no_objection
    ) -> Iterator[NodeShell]:
        """Hold a lock file on the node while the ``with`` block runs, and give a shell that runs under it."""
        locked = _LockedShell(
            outside=self, path=path, wait_seconds=wait_seconds, regained=regained, attach=self._attach
        )
        locked.take()
        try:
            yield locked
        finally:
            locked.let_go()

    def describe(self, argv: Sequence[str]) -> str:
        """Return the command line that a person would type at this machine."""
        return shlex.join(argv)

    def describe_put(self, source: Path, target: str, *, mode: int = 0o600) -> str:
        """Return the command line by which a person would copy a file there."""
        install = ["install", "-D", "-m", f"{mode:o}", "/dev/stdin", target]
        return f"{self.describe(install)} < {shlex.quote(str(source))}"

    def _argv(self, argv: Sequence[str]) -> list[str]:
        return list(argv)

    def _attach(self, argv: Sequence[str]) -> AbstractContextManager[Attached]:
        return attached(self._argv(argv))

    def _run(self, argv: Sequence[str], *, stdin: bytes | Path | None, seconds: float) -> str:
        try:
            return run(self._argv(argv), stdin=stdin, timeout_seconds=seconds).stdout
        except ProgramError as error:
            raise self.explained(error, argv[0]) from error

    def explained(self, error: ProgramError, program: str) -> ProgramError:
        """Return a failure in words that name the node and the program on it."""
        if error.exit_code is None:
            return ProgramError(f"{self.name}: {error.message}", hint=error.hint, code=error.code, fields=error.fields)
        return ProgramError(
            f"{self.name}: {program}: exit code {error.exit_code}: {error.output or 'it printed nothing'}",
            exit_code=error.exit_code,
            output=error.output,
            fields={"node": self.name, "program": program},
            hint=self._hint(error),
        )

    def _hint(self, error: ProgramError) -> str | None:
        return error.hint


@dataclass(slots=True, kw_only=True)
class _LockedShell:
    """Runs commands in the one shell that holds the lock; what needs input goes its own way, while that holds it."""

    outside: _Shell
    path: str
    wait_seconds: float
    regained: Callable[[], object]
    attach: Callable[[Sequence[str]], AbstractContextManager[Attached]]
    _token: str = field(default_factory=lambda: secrets.token_hex(8))
    _process: str = ""  # of the shell on the node
    _line: ExitStack = field(default_factory=ExitStack)
    _holder: Attached | None = None

    @property
    def name(self) -> str:
        return self.outside.name

    def take(self) -> None:
        """Open a connection to the node and take the lock there."""
        words = ["lock", self.path, f"{self.wait_seconds:g}", self._token, self._process]
        with ExitStack() as line:
            holder = line.enter_context(self.attach(["sh", "-c", _HOLD, *words]))
            try:
                self._process = holder.read_line(timeout_seconds=_SECONDS + self.wait_seconds)
                holder.write_line(_TIDY)
            except ProgramError as error:
                if error.exit_code == _LOCK_TAKEN:
                    raise ClusterError(
                        f"{self.name}: another process holds {self.path}",
                        code="restore-running",
                        hint="wait until it has ended, then try again",
                    ) from error
                raise self.outside.explained(error, "flock") from error
            self._holder, self._line = holder, line.pop_all()

    def let_go(self) -> None:
        """Close the line; the node gives the lock up once the command at work there has ended."""
        self._holder = None
        self._line.close()

    def run(self, argv: Sequence[str], *, stdin: bytes | None = None, timeout_seconds: float = _SECONDS) -> str:
        # The input of the shell that holds the lock is its commands, so other bytes go by a connection of their own.
        if stdin is not None:
            self._make_sure_of_the_lock()
            return self.outside.run(argv, stdin=stdin, timeout_seconds=timeout_seconds)
        holder = self._held()
        try:
            holder.write_line(_ASK.replace("{command}", shlex.join(argv)))
            code, *output = holder.read_line(timeout_seconds=timeout_seconds).split(" ")
            printed, complaint = (base64.b64decode(each).decode(errors="replace") for each in output)
        except BaseException as error:
            # A late answer must not pass for that of the next command, not after Ctrl-C either.
            self.let_go()
            self.wait_seconds = max(self.wait_seconds, timeout_seconds)
            if isinstance(error, (ProgramError, ValueError)):
                raise ProgramError(
                    f"{self.name}: {argv[0]}: the connection to the node broke: {error}", code="node-connection-lost"
                ) from error
            raise
        if code != "0":
            told = (complaint.strip() or printed.strip())[-_TAIL:]
            raise self.outside.explained(ProgramError(told, exit_code=int(code), output=told), argv[0])
        return printed

    def put(self, source: Path, target: str, *, mode: int = 0o600) -> None:
        self._make_sure_of_the_lock()
        self.outside.put(source, target, mode=mode)

    def read(self, path: str) -> bytes:
        return self.outside.read(path)

    def lock(
        self, path: str, *, wait_seconds: float = 0, regained: Callable[[], object] = _no_objection
    ) -> AbstractContextManager[NodeShell]:
        return self.outside.lock(path, wait_seconds=wait_seconds, regained=regained)

    def describe(self, argv: Sequence[str]) -> str:
        return self.outside.describe(argv)

    def describe_put(self, source: Path, target: str, *, mode: int = 0o600) -> str:
        return self.outside.describe_put(source, target, mode=mode)

    def _held(self) -> Attached:
        """Return the shell that holds the lock, which is taken again where the connection broke."""
        if self._holder is None:
            self.take()
            try:
                self.regained()
            except BaseException:
                self.let_go()  # who steps aside must not keep the lock from the one that goes on
                raise
        assert self._holder is not None  # noqa: S101 - for the type checker; `take` sets it, or raises
        return self._holder

    def _make_sure_of_the_lock(self) -> None:
        self.run(["true"])


class LocalNodeShell(_Shell):
    """This very host: clusterguard runs on the control-plane node, as root."""

    def __init__(self) -> None:
        self.name = "this host"


class DockerNodeShell(_Shell):
    """A node that is a container, as those of kind are; ``docker`` may be podman."""

    def __init__(self, container: str, *, docker: str = "docker") -> None:
        self.name = container
        self._docker = docker

    def describe(self, argv: Sequence[str]) -> str:
        """Return the ``docker exec`` that runs a command there."""
        return shlex.join(self._argv(argv))

    def _argv(self, argv: Sequence[str]) -> list[str]:
        # Not docker cp: it writes below what is mounted in the node.
        return [self._docker, "exec", "--interactive", self.name, *argv]

    def _hint(self, error: ProgramError) -> str | None:
        if "No such container" in error.output or "is not running" in error.output:
            return f"docker ps --all --filter name={self.name}"
        return error.hint


class SshNodeShell(_Shell):
    """A host that the OpenSSH program reaches without asking for anything: key or agent, known host key.

    Args:
        host: Its name or address, or a name from ``~/.ssh/config``.
        user: Whom to log in as; by default what ssh's configuration says.
        port: Likewise.
        identity: File with the private key; likewise.
        ssh: The ssh program.
        sudo: Become root by ``sudo -n``, unless ``user`` is root.
    """

    def __init__(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        identity: Path | None = None,
        ssh: str = "ssh",
        sudo: bool = True,
    ) -> None:
        if not host or host.startswith("-"):
            raise ConfigError(f"{host!r} is not a host")
        self.name = host
        self._ssh = ssh
        self._options = [*(["-p", str(port)] if port else []), *(["-i", str(identity)] if identity else [])]
        self._target = f"{user}@{host}" if user else host
        self._sudo = ["sudo", "-n", "--"] if sudo and user != "root" else []

    def describe(self, argv: Sequence[str]) -> str:
        """Return the ``ssh`` that runs a command there."""
        return shlex.join([self._ssh, *self._options, self._target, shlex.join([*self._sudo, *argv])])

    def _argv(self, argv: Sequence[str]) -> list[str]:
        unattended = {
            "BatchMode": "yes",
            "ConnectTimeout": _CONNECT_SECONDS,
            "ServerAliveInterval": _ALIVE_SECONDS,
            "ServerAliveCountMax": _ALIVE_TIMES,
        }
        options = [word for key, value in unattended.items() for word in ("-o", f"{key}={value}")]
        # ssh hands one line to the login shell of the other side.
        return [self._ssh, *options, *self._options, "--", self._target, shlex.join([*self._sudo, *argv])]

    def _hint(self, error: ProgramError) -> str | None:
        if error.exit_code == _SSH_FAILED:
            return f"ssh {self._target} true must work without a question, on this machine and as this user"
        if self._sudo and "sudo:" in error.output:
            return "let this user run sudo without a password, or log in as root"
        return error.hint


def open_node_shells(node_refs: str) -> tuple[NodeShell, ...]:
    """Return the shells of nodes by their references, as of `open_node_shell`, with blanks between them.

    ``ssh:ops@{cp-1,cp-2}`` stands for one with each word between the braces, as in a shell.
    """
    return tuple(open_node_shell(each) for word in node_refs.split() for each in _braces_expanded(word))


def _braces_expanded(word: str) -> list[str]:
    before, opened, rest = word.partition("{")
    words, closed, after = rest.partition("}")
    if not (opened and closed):
        return [word]
    return [before + each + end for each in words.split(",") for end in _braces_expanded(after)]


def open_node_shell(node_ref: str, *, port: int | None = None, identity: Path | None = None) -> NodeShell:
    """Return the shell of a node by its reference: ``local``, ``docker:NAME`` or ``ssh:[USER@]HOST``."""
    kind, _, rest = node_ref.partition(":")
    match kind, bool(rest):
        case "local", False:
            return LocalNodeShell()
        case "docker", True:
            return DockerNodeShell(rest)
        case "ssh", True:
            user, _, host = rest.rpartition("@")
            return SshNodeShell(host, user=user or None, port=port, identity=identity)
        case _:
            raise ConfigError(
                f"{node_ref!r} is not a valid node reference",
                code="invalid-node-reference",
                hint="write local, docker:NAME or ssh:[USER@]HOST",
            )
