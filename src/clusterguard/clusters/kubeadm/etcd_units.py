"""etcd as a systemd unit of its host: read what it is started with, stop it so that it stays off, start it. No I/O.

To stay off over a reboot and whatever else may start it, it is not just stopped: a drop-in of ours has a condition that
never holds, as a static pod's manifest is moved aside.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from clusterguard.clusters.kubeadm.commands import POLL, Command, in_shell, until
from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup, Identity, read_flags, told_by_flags
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterguard.clusters.kubeadm.commands import Timeouts

__all__ = [
    "DROP_IN",
    "PROPERTIES",
    "STOPPED_WITH_IT",
    "UNIT",
    "UNITS",
    "EtcdUnit",
    "is_in_use",
    "start_unit",
    "stop_unit",
]

UNIT = "etcd.service"
UNITS = "/etc/systemd/system"
DROP_IN = f"{UNITS}/{UNIT}.d/clusterguard.conf"
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "User", "ExecStart", "Environment", "EnvironmentFiles")
# What systemd stops together with a unit, by how its own properties call that; started it is not.
STOPPED_WITH_IT = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
_NEVER = (
    "[Unit]\\n# A restore by clusterguard is at work; clusterguard etcd recover ends it.\\nConditionPathExists=!/\\n"
)
_TLS = ("cert-file", "key-file", "trusted-ca-file", "client-cert-file", "client-key-file")
# What becomes a part of commands must mean itself to every shell.
_PLAIN_PATH = re.compile(r"/[\w./@:+-]*")
_PLAIN_URL = re.compile(r"https?://[\w.:\[\]-]+")
_PLAIN_USER = re.compile(r"[\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdUnit(EtcdSetup):
    """A member that is a systemd unit.

    Attributes:
        user: Whom it runs as, or ``""`` for root.
        program: The path of etcd.
        certificates: The files of its certificates and authorities.
    """

    user: str
    program: str
    certificates: tuple[str, ...]

    @classmethod
    def parse(cls, told: Mapping[str, Sequence[str]], *, read: Callable[[str], str | None], where: str) -> EtcdUnit:
        """Return what a unit starts etcd with: flags, then ``ETCD_…`` variables, or the file that either names.

        Args:
            told: The properties that systemd tells of it (`PROPERTIES`), with all values of each.
            read: Gives the text of a file there, or None where there is none.
            where: How messages call the unit.

        Raises:
            ClusterError: It starts something else, or what it starts etcd with cannot be read.
        """
        environment = _environment(told, read=read, where=where)
        program, *words = _command(told, environment, where=where)
        flags = {
            name.removeprefix("ETCD_").lower().replace("_", "-"): value
            for name, value in environment.items()
            if name.startswith("ETCD_")
        } | read_flags(words)
        if path := flags.get("config-file"):  # then etcd reads nothing else
            flags = _from_file(path, read=read, where=where)
        return cls._of(flags, user=next(iter(told.get("User", ())), ""), program=program, where=where)

    @classmethod
    def _of(cls, flags: Mapping[str, str], *, user: str, program: str, where: str) -> EtcdUnit:
        fields = told_by_flags(flags, where=where, required=("advertise-client-urls",))
        place, url = fields["data_dir"].rstrip("/"), fields["advertised_url"].rstrip("/")
        if not _PLAIN_PATH.fullmatch(place):
            raise _unreadable(where, f"its data directory is {place!r}, and not a plain absolute path")
        if not _PLAIN_URL.fullmatch(url):
            raise _unreadable(where, f"it advertises {url!r}, and not the URL of a host")
        if not (_PLAIN_USER.fullmatch(user) and _PLAIN_PATH.fullmatch(program)):
            raise _unreadable(where, f"it runs {program!r} as {user!r}")
        identity = _identity(flags, where=where) if url.startswith("https://") else Identity()
        more = (flags.get(name, "") for name in ("cert-file", "peer-cert-file", "peer-trusted-ca-file"))
        files = (identity.ca, identity.cert, *filter(_PLAIN_PATH.fullmatch, more))
        return cls(
            **fields,
            host_dir=place,
            # Not loopback: the certificate need not be for that, and others come by this one.
            client_url=url,
            identity=identity,
            user=user,
            program=program,
            certificates=tuple(dict.fromkeys(filter(None, files))),
        )


def is_in_use(told: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether this host runs its etcd by the unit, or would at its next start; `DROP_IN` tells the same.

    A package may have brought a unit that nobody uses.
    """
    first = {name: next(iter(values), "") for name, values in told.items()}
    return first.get("LoadState") == "loaded" and (
        first.get("ActiveState", "inactive") != "inactive" or first.get("UnitFileState", "").startswith("enabled")
    )


def stop_unit(timeouts: Timeouts, *, patience: int = 0) -> tuple[Command, ...]:
    """Stop etcd, keep it off, and see it gone; killed after so many seconds of patience, by default ``stubborn``."""
    folder = DROP_IN.rpartition("/")[0]
    script = (
        f"mkdir -p {folder} && printf '{_NEVER}' > {DROP_IN}.part && sync {DROP_IN}.part && "
        f"mv -fT {DROP_IN}.part {DROP_IN} && sync {folder} {UNITS} && "
        f"systemctl daemon-reload && systemctl stop --no-block {UNIT}"
    )
    gone = (
        f"end=$(($(date +%s) + {patience or timeouts.stubborn})); "
        f"while state=$(systemctl show --property=ActiveState --value {UNIT}) || exit 1; "
        f"case $state in inactive|failed) false ;; esac; do sleep {POLL}; "
        f"if test $(date +%s) -ge $end; then systemctl kill --signal=SIGKILL {UNIT}; fi; done"
    )
    return (
        in_shell("systemd stops etcd, and does not start it by itself", script),
        until(gone, "see it gone: etcd", seconds=timeouts.gone),
    )


def start_unit() -> tuple[Command, ...]:
    """Let etcd start again; safe to repeat."""
    # Without --no-block it would wait for a quorum, which the other hosts may be slower to give.
    folder = DROP_IN.rpartition("/")[0]
    script = (
        f"rm -f {DROP_IN} {DROP_IN}.part && {{ rmdir {folder} 2>/dev/null || true; }} && sync {UNITS} && "
        f"systemctl daemon-reload && {{ systemctl reset-failed {UNIT} 2>/dev/null || true; }} && "
        f"systemctl start --no-block {UNIT}"
    )
    return (in_shell("systemd starts etcd", script),)


def _command(told: Mapping[str, Sequence[str]], environment: Mapping[str, str], *, where: str) -> list[str]:
    lines = told.get("ExecStart", ())
    found = re.search(r"path=(\S+) ; argv\[\]=(.*?) ; ignore_errors=", lines[0]) if len(lines) == 1 else None
    if found is None:
        raise _unreadable(where, f"{len(lines)} commands start it; one is expected")
    path, line = found.groups()
    if path.rpartition("/")[2] != "etcd":
        raise _unreadable(where, f"it starts {path}, and only that knows what etcd is started with")
    _, *words = _split(line, where=where)
    return [path, *(each for word in words for each in _expanded(word, environment))]


def _expanded(word: str, environment: Mapping[str, str]) -> list[str]:
    """Put variables in as systemd does: ``$NAME`` as a word of its own is split at blanks, ``${NAME}`` never."""
    if alone := re.fullmatch(r"\$(\w+)", word):
        return environment.get(alone[1], "").split()
    return [re.sub(r"\$\{(\w+)\}", lambda found: environment.get(found[1], ""), word)]


def _environment(told: Mapping[str, Sequence[str]], *, read: Callable[[str], str | None], where: str) -> dict[str, str]:
    pairs = [word for line in told.get("Environment", ()) for word in _split(line, where=where)]
    for line in told.get("EnvironmentFiles", ()):
        path, _, rest = line.partition(" ")
        text = read(path)
        if text is None and "ignore_errors=yes" not in rest:
            raise _unreadable(where, f"there is no {path}")
        lines = (text or "").replace("\\\n", "").splitlines()
        pairs += [
            "".join(_split(each, where=f"{where}: {path}", whole=True))
            for each in map(str.strip, lines)
            if each and each[0] not in "#;"
        ]
    return {name: value for name, given, value in (pair.partition("=") for pair in pairs) if given}


def _split(line: str, *, where: str, whole: bool = False) -> list[str]:
    """Split a line into words as a shell does, or only take its quotes off (``whole``)."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=False)
    reader.whitespace_split, reader.commenters = True, ""
    if whole:
        reader.whitespace = ""
    try:
        return list(reader)
    except ValueError as error:
        raise _unreadable(where, f"{line[:80]!r} has {str(error).lower()}") from error


def _from_file(path: str, *, read: Callable[[str], str | None], where: str) -> dict[str, str]:
    text = read(path)
    if text is None:
        raise _unreadable(where, f"there is no {path}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unreadable(where, f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise _unreadable(where, f"{path} is not a mapping")
    flags = {str(name): _flag(value) for name, value in content.items()}
    for section, prefix in (("client-transport-security", ""), ("peer-transport-security", "peer-")):
        security = content.get(section)
        flags |= {f"{prefix}{name}": _flag(security[name]) for name in _TLS if security and name in security}
    return flags


def _flag(value: Any) -> str:  # noqa: ANN401 - whatever YAML may hold
    return "" if value is None else str(value)


def _identity(flags: Mapping[str, str], *, where: str) -> Identity:
    # With its own certificate etcd asks itself, too: its JSON gateway could not, if it were not for clients as well.
    files = {
        "ca": flags.get("trusted-ca-file", ""),
        "cert": flags.get("client-cert-file") or flags.get("cert-file", ""),
        "key": flags.get("client-key-file") or flags.get("key-file", ""),
    }
    if not all(map(_PLAIN_PATH.fullmatch, files.values())):
        raise _unreadable(where, "by which files it lets clients in is not told as plain absolute paths: "
                          "--trusted-ca-file, --cert-file, --key-file")  # fmt: skip
    return Identity(**files)


def _unreadable(where: str, what: str) -> ClusterError:
    return ClusterError(
        f"{where}: what etcd is started with cannot be told: {what}",
        code="etcd-unit-unreadable",
        fields={"reason": what},
        hint="start etcd by ExecStart, with its flags, its ETCD_ variables or its --config-file; if it is the etcd of "
        "something else, leave its host out",
    )
