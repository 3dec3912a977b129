"""Look at a node in one round trip, touching nothing, and judge what was seen."""

from __future__ import annotations

import base64
import json
import shlex
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509

from clusterguard.clusters.kubeadm.restore_commands import JOURNAL, MANIFESTS, PODS, STAGING_DIR
from clusterguard.errors import ClusterError
from clusterguard.model.support import ETCDUTL_BUMPS_REVISIONS, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PROGRAMS", "Seen", "complaints", "fits", "minor", "survey_script"]

PROGRAMS = (
    *("awk", "base64", "chown", "curl", "date", "df", "flock", "grep", "kubectl"),
    *("sed", "stat", "sync", "systemctl", "timeout"),
)
_ASKED_FOR = (*PROGRAMS, "crictl", "ctr", "pgrep", "etcdutl")
# etcdutl writes the database and a small WAL beside the copy of the snapshot; the rest is rounding.
_MARGIN_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """The answers, by question, and when they were asked for, in seconds of this machine's clock: begin and end."""

    answers: Mapping[str, Sequence[str]]
    asked: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def parse(cls, text: str) -> Seen:
        """Read what the survey script printed."""
        answers: defaultdict[str, list[str]] = defaultdict(list)
        for line in text.splitlines():
            key, given, value = line.partition("=")
            # A question that the node cannot answer leaves nothing behind its =, which is as good as a no.
            if given and value:
                answers[key].append(value)
        return cls(dict(answers))

    def all(self, key: str) -> Sequence[str]:
        """Return every answer to a question."""
        return self.answers.get(key, ())

    def one(self, key: str) -> str:
        """Return the answer to a question, or ``""``."""
        return next(iter(self.all(key)), "")

    @property
    def members(self) -> tuple[Mapping[str, Any], ...] | None:
        """The members of the cluster as this one knows them, with or without a quorum; None if it does not answer."""
        try:
            listed = json.loads(self.one("members"))["members"]
        except (ValueError, KeyError, TypeError):
            return None
        return tuple(listed)

    @property
    def clock_ahead(self) -> float:
        """By how many seconds at least the node's clock differs from this machine's: negative if it is behind."""
        try:
            there = float(self.one("now"))
        except ValueError:
            return 0.0
        began, ended = self.asked
        # Somewhere in between the node looked at its clock.
        return there - ended if there > ended else min(0.0, there - began)

    def expired(self, now: datetime) -> tuple[str, ...]:
        """Return the certificates (paths on the node) that have run out, of those that could be read."""
        found = []
        for line in self.all("certificate"):
            path, _, text = line.partition(" ")
            with suppress(ValueError):
                if x509.load_pem_x509_certificate(base64.b64decode(text)).not_valid_after_utc < now:
                    found.append(path)
        return tuple(found)


def survey_script(*, data_dir: str, target: str, ask_etcd: str, etcd_pki: str, api_pki: str) -> str:
    """Return the shell code that answers every question about a node at once."""
    data, new, programs = shlex.quote(data_dir), shlex.quote(target), " ".join(_ASKED_FOR)
    return "\n".join(
        (
            "exec 2>/dev/null",
            "echo uid=$(id -u)",
            "echo arch=$(uname -m)",
            f'for each in {programs}; do command -v $each >/dev/null && echo "program=$each"; done',
            # Aside where a rollback could not be finished: they have to come back all the same.
            f"for each in {' '.join(PODS)}; do",
            f'{{ test -e {MANIFESTS}/$each.yaml || test -e {STAGING_DIR}/manifests/$each.yaml; }} && echo "pod=$each"',
            "done",
            f'for each in {MANIFESTS} /etc/kubernetes; do test -w $each && echo "writable=$each"; done',
            # A lost data directory is created again; a read-only one is not.
            f'test -w {data} && echo "writable={data_dir}"; test -e {data} || echo "writable={data_dir}"',
            # What an interrupted restore has aside, or not yet renamed back.
            f"grep -Eq 'switching|replacing' {JOURNAL} &&",
            f"ls -d {STAGING_DIR}/manifests/*.yaml {data}/.clusterguard/before | sed 's/^/aside=/'",
            f'test -e {etcd_pki}/healthcheck-client.key && echo "identity={etcd_pki}"',
            f"for each in {etcd_pki}/*.crt {api_pki}/*.crt; do",
            'test -e "$each" && echo "certificate=$each $(base64 -w 0 "$each")"; done',
            "echo now=$(date +%s.%N)",
            'test -e /etc/kubernetes/admin.conf && echo "admin=yes"',
            f"echo manifests_device=$(stat -c %d {MANIFESTS})",
            f"echo aside_device=$(stat -c %d {STAGING_DIR} || stat -c %d /etc/kubernetes)",
            f"echo data_device=$(stat -c %d {data})",
            f"echo member_device=$(stat -c %d {data}/member)",
            f'test -e {new}/member && echo "member={target}"',
            f'place={new}; while ! test -e "$place"; do place=$(dirname "$place"); done',
            'test -w "$place" && echo "target_writable=$place"',
            'echo free=$(df --output=avail -B1 "$place" | tail -n 1)',
            "echo etcdutl=$(etcdutl version | sed -n 's/^etcdutl version: //p')",
            f'echo etcd=$({ask_etcd}/version | sed -n \'s/.*"etcdserver":"\\([^"]*\\)".*/\\1/p\')',
            f"echo members=$({ask_etcd}/v3/cluster/member/list --data '{{}}')",
            # A read that a majority has to agree to, in the words that every version of etcd understands.
            f"""echo quorum=$({ask_etcd}/v3/kv/range --data '{{"key":"AA=="}}')""",
            "echo kubelet=$(systemctl is-active kubelet)",
            "true",
        )
    )


_READ_ONLY = "a read-only file system? mount it writable"


def complaints(seen: Seen, *, data_dir: str, target: str, needed_bytes: int) -> list[ClusterError]:
    """Return what stands in the way of a restore; nothing was touched so far."""
    found = [*_means(seen), *_places(seen, data_dir=data_dir, target=target)]
    if aside := seen.all("aside"):
        # The journal of another restore would say in its place that nothing was stopped and nothing swapped.
        found.append(
            (
                "rollback-incomplete",
                f"an interrupted restore was not brought back there whole: {', '.join(aside)}",
                "clusterguard etcd recover, with all nodes named; what it says has to be mended first",
            )
        )
    if expired := seen.expired(datetime.now(UTC)):
        found.append(
            (
                "certificate-expired",
                f"certificates have run out: {', '.join(expired)}",
                "kubeadm certs renew all, there",
            )
        )
    return [ClusterError(message, code=code, hint=hint) for code, message, hint in found] + _space(
        seen, target=target, needed_bytes=needed_bytes
    )


def _means(seen: Seen) -> Iterator[tuple[str, str, str]]:
    if seen.one("uid") != "0":
        yield "not-root", f"commands run there as user {seen.one('uid')}, not as root", "log in as root, or use sudo"
    missing = sorted(set(PROGRAMS) - set(seen.all("program")))
    if missing:
        yield "program-missing", f"the node has no {', '.join(missing)}", "install them there"
    if not {"crictl", "ctr", "pgrep"} & set(seen.all("program")):
        yield (
            "program-missing",
            "the node has none of crictl, ctr and pgrep, so it cannot be seen when containers have ended",
            "install crictl",
        )
    if seen.one("kubelet") in {"inactive", "failed"}:
        yield (
            "kubelet-not-running",
            "its kubelet does not run, so it would start nothing of what is stopped",
            "systemctl start kubelet, there",
        )
    if not seen.one("identity"):
        yield (
            "no-health-certificate",
            "etcd's health check certificate is not where kubeadm puts it",
            "kubeadm certs renew all, there",
        )
    if not seen.one("admin"):
        yield (
            "no-admin-kubeconfig",
            "the administrator's kubeconfig is not where kubeadm puts it",
            "kubeadm init phase kubeconfig admin, there",
        )


def _places(seen: Seen, *, data_dir: str, target: str) -> Iterator[tuple[str, str, str]]:
    sealed = [place for place in (MANIFESTS, "/etc/kubernetes", data_dir) if place not in seen.all("writable")]
    if sealed:
        yield "not-writable", f"not writable, or not there: {', '.join(sealed)}", _READ_ONLY
    elif not seen.one("target_writable"):
        yield "not-writable", f"{target} cannot be written", _READ_ONLY
    if seen.one("manifests_device") != seen.one("aside_device"):
        yield (
            "own-file-system",
            f"{MANIFESTS} is a file system of its own, so manifests cannot be moved aside in one step",
            "unmount it",
        )
    if seen.one("member_device") and seen.one("member_device") != seen.one("data_device"):
        yield "own-file-system", f"{data_dir}/member is a file system of its own", "restore elsewhere: --data-dir"
    if target != data_dir and seen.one("member"):
        yield "target-taken", f"{target} holds an etcd member already", "name an empty or new directory"


def minor(version: str) -> str:
    """Return ``3.6`` of ``3.6.8``; ``""`` where that is not a version."""
    parts = version.removeprefix("v").split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and all(part.isdigit() for part in parts[:2]) else ""


def fits(etcdutl: str, etcd: str, *, same_minor: bool = False) -> bool:
    """Return whether an etcdutl builds data for an etcd (``""`` if unknown): it raises revisions, and is not older."""
    program, server = parse_version(etcdutl), parse_version(etcd)
    if program is None or program < ETCDUTL_BUMPS_REVISIONS:
        return False
    if server is None:
        return True
    return program[:2] == server[:2] or (program[:2] > server[:2] and not same_minor)


def _space(seen: Seen, *, target: str, needed_bytes: int) -> list[ClusterError]:
    free = seen.one("free")
    if not free.isdigit():
        return [ClusterError(f"how much is free in {target} could not be asked")]
    # The copy of the snapshot and the database that is built from it lie there at the same time.
    wanted = 2 * needed_bytes + _MARGIN_BYTES
    if int(free) >= wanted:
        return []
    return [
        ClusterError(
            f"the copy of the snapshot and the restored database need {wanted:,} bytes in {target}, "
            f"and {int(free):,} are free",
            code="no-room",
            fields={"needed": wanted, "free": int(free)},
            hint="make room there, or restore into another file system (--data-dir)",
        )
    ]
