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

from clusterguard.clusters.kubeadm.commands import ASIDE, JOURNAL, MANIFESTS, PODS, STAGING_DIR
from clusterguard.clusters.kubeadm.etcd_units import DROP_IN, STOPPED_WITH_IT, UNIT, UNITS, EtcdUnit
from clusterguard.clusters.kubeadm.manifests import EtcdManifest
from clusterguard.errors import ClusterError
from clusterguard.model.support import ETCDUTL_BUMPS_REVISIONS, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup
    from clusterguard.clusters.kubeadm.manifests import ApiServerManifest
    from clusterguard.clusters.kubeadm.roles import Roles

__all__ = ["PROGRAMS", "Seen", "complaints", "fits", "minor", "survey_script"]

PROGRAMS = (
    *("awk", "base64", "chown", "curl", "date", "df", "flock", "grep"),
    *("sed", "stat", "sync", "systemctl", "timeout"),
)
_ASKED_FOR = (*PROGRAMS, "kubectl", "crictl", "ctr", "pgrep")
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

    def covers(self, path: str, host: str) -> bool:
        """Return whether a certificate (a path on the node) is one for a host or address, or could not be read."""
        text = next((line.partition(" ")[2] for line in self.all("certificate") if line.startswith(f"{path} ")), "")
        try:
            found = x509.load_pem_x509_certificate(base64.b64decode(text))
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            return True
        addresses = map(str, names.get_values_for_type(x509.IPAddress))
        return host in {*names.get_values_for_type(x509.DNSName), *addresses}

    def expired(self, now: datetime) -> tuple[str, ...]:
        """Return the certificates (paths on the node) that have run out, of those that could be read."""
        found = []
        for line in self.all("certificate"):
            path, _, text = line.partition(" ")
            with suppress(ValueError):
                if x509.load_pem_x509_certificate(base64.b64decode(text)).not_valid_after_utc < now:
                    found.append(path)
        return tuple(found)


def survey_script(roles: Roles, *, target: str) -> str:
    """Return the shell code that answers every question about a node at once."""
    etcd, api = roles.etcd, roles.api
    return "\n".join(
        (
            "exec 2>/dev/null",
            "echo uid=$(id -u)",
            "echo arch=$(uname -m)",
            "echo hostname=$(hostname)",
            f'for each in {" ".join(_ASKED_FOR)}; do command -v $each >/dev/null && echo "program=$each"; done',
            # Aside where a rollback could not be finished: they have to come back all the same.
            f"for each in {' '.join(PODS)}; do",
            f'{{ test -e {MANIFESTS}/$each.yaml || test -e {ASIDE}/$each.yaml; }} && echo "pod=$each"',
            "done",
            f'for each in {" ".join(_folders(roles))}; do test -w $each && echo "writable=$each"; done',
            # What an interrupted restore has aside, or not yet renamed back.
            f"grep -Eq 'switching|replacing' {JOURNAL} &&",
            f"ls -d {ASIDE}/*.yaml {DROP_IN} {etcd.host_dir if etcd else ''}/.clusterguard/before | sed 's/^/aside=/'",
            f"for each in {' '.join(_certificates(roles))}; do",
            'test -e "$each" && echo "certificate=$each $(base64 -w 0 "$each")"; done',
            "echo now=$(date +%s.%N)",
            'test -e /etc/kubernetes/admin.conf && echo "admin=yes"',
            f"echo manifests_device=$(stat -c %d {MANIFESTS})",
            f"echo aside_device=$(stat -c %d {STAGING_DIR} || stat -c %d /etc/kubernetes)",
            *(_about_member(etcd, target=target) if etcd else ()),
            *(_members_by_api_server(api) if api and not etcd else ()),
            "echo kubelet=$(systemctl is-active kubelet)",
            "true",
        )
    )


def _about_member(etcd: EtcdSetup, *, target: str) -> Iterator[str]:
    data, new = shlex.quote(etcd.host_dir), shlex.quote(target)
    ask = f"curl --fail --silent --max-time 5 {etcd.identity.curl} {etcd.client_url}"
    # A lost data directory is created again; a read-only one is not.
    yield f'test -w {data} && echo "writable={etcd.host_dir}"; test -e {data} || echo "writable={etcd.host_dir}"'
    yield f'test -e "{etcd.identity.key}" && echo "identity={etcd.identity.key}"'
    yield f"echo data_device=$(stat -c %d {data})"
    yield f"echo member_device=$(stat -c %d {data}/member)"
    yield f'test -e {new}/member && echo "member={target}"'
    yield f'place={new}; while ! test -e "$place"; do place=$(dirname "$place"); done'
    yield 'test -w "$place" && echo "target_writable=$place"'
    yield 'echo free=$(df --output=avail -B1 "$place" | tail -n 1)'
    program = etcd.program if isinstance(etcd, EtcdUnit) else ""
    # Whoever put etcd beside the usual places put etcdutl beside etcd.
    beside = f"{program.rpartition('/')[0]}/etcdutl" if program else ""
    yield f"for each in etcdutl {beside}; do command -v $each >/dev/null && break; done"
    yield "echo etcdutl_path=$each; echo etcdutl=$($each version | sed -n 's/^etcdutl version: //p')"
    if program:
        # A target runs nothing.
        yield f"for each in $(systemctl show {UNIT} --property={','.join(STOPPED_WITH_IT)} | sed 's/^[^=]*=//'); do"
        yield "case $each in *.target) continue ;; esac"
        yield 'case $(systemctl is-active $each) in inactive|failed) ;; *) echo "stopped_with_it=$each" ;; esac; done'
        yield f"echo etcd_program=$({program} --version | sed -n 's/^etcd Version: //p')"
    yield f'echo etcd=$({ask}/version | sed -n \'s/.*"etcdserver":"\\([^"]*\\)".*/\\1/p\')'
    yield f"echo members=$({ask}/v3/cluster/member/list --data '{{}}')"
    # A read that a majority has to agree to, in the words that every version of etcd understands.
    yield f"""echo quorum=$({ask}/v3/kv/range --data '{{"key":"AA=="}}')"""


def _members_by_api_server(api: ApiServerManifest) -> Iterator[str]:
    """Ask for the members as an API server sees them: those that it writes to, whoever was named."""
    ask = f"curl --fail --silent --max-time 5 {api.etcd_identity.curl}"
    urls = " ".join(shlex.quote(url) for url in api.etcd_servers)
    yield f"for each in {urls}; do list=$({ask} $each/v3/cluster/member/list --data '{{}}') && break; done"
    yield "echo members=$list"


def _folders(roles: Roles) -> tuple[str, ...]:
    """Return the folders that a restore has to change."""
    of_pods = (MANIFESTS, "/etc/kubernetes") if _has_pods(roles) else ()
    return (*of_pods, UNITS) if isinstance(roles.etcd, EtcdUnit) else of_pods


def _has_pods(roles: Roles) -> bool:
    return roles.api is not None or isinstance(roles.etcd, EtcdManifest)


def _certificates(roles: Roles) -> Iterator[str]:
    if isinstance(roles.etcd, EtcdUnit):
        yield from roles.etcd.certificates
    elif roles.etcd:
        yield f"{roles.etcd.identity.ca.rpartition('/')[0]}/*.crt"
    if roles.api:
        yield f"{roles.api.pki}/*.crt"


_READ_ONLY = "a read-only file system? mount it writable"


def complaints(seen: Seen, roles: Roles, *, target: str, needed_bytes: int) -> list[ClusterError]:
    """Return what stands in the way of a restore; nothing was touched so far."""
    found = [*_means(seen, roles), *_places(seen, roles, target=target)]
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
                _renewal(roles),
            )
        )
    space = _space(seen, target=target, needed_bytes=needed_bytes) if roles.etcd else []
    own = [ClusterError(message, code=code, hint=hint) for code, message, hint in found]
    return [*own, *_stopped_with_it(seen), *space]


def _renewal(roles: Roles) -> str:
    return "kubeadm certs renew all, there" if _has_pods(roles) else "have them made anew, there"


def _means(seen: Seen, roles: Roles) -> Iterator[tuple[str, str, str]]:
    if seen.one("uid") != "0":
        yield "not-root", f"commands run there as user {seen.one('uid')}, not as root", "log in as root, or use sudo"
    wanted = {*PROGRAMS, "kubectl"} if roles.api else set(PROGRAMS)
    if missing := sorted(wanted - set(seen.all("program"))):
        yield "program-missing", f"the node has no {', '.join(missing)}", "install them there"
    if _has_pods(roles):
        yield from _means_of_pods(seen)
    if roles.etcd and roles.etcd.identity.key and not seen.one("identity"):
        yield (
            "no-health-certificate",
            f"the key by which etcd can be asked is not there: {roles.etcd.identity.key}",
            _renewal(roles),
        )
    if roles.api and not seen.one("admin"):
        yield (
            "no-admin-kubeconfig",
            "the administrator's kubeconfig is not where kubeadm puts it",
            "kubeadm init phase kubeconfig admin, there",
        )


def _means_of_pods(seen: Seen) -> Iterator[tuple[str, str, str]]:
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


def _places(seen: Seen, roles: Roles, *, target: str) -> Iterator[tuple[str, str, str]]:
    data_dir = roles.etcd.host_dir if roles.etcd else ""
    wanted = (*_folders(roles), *([data_dir] if data_dir else ()))
    if sealed := [place for place in wanted if place not in seen.all("writable")]:
        yield "not-writable", f"not writable, or not there: {', '.join(sealed)}", _READ_ONLY
    elif data_dir and not seen.one("target_writable"):
        yield "not-writable", f"{target} cannot be written", _READ_ONLY
    if _has_pods(roles) and seen.one("manifests_device") != seen.one("aside_device"):
        yield (
            "own-file-system",
            f"{MANIFESTS} is a file system of its own, so manifests cannot be moved aside in one step",
            "unmount it",
        )
    if seen.one("member_device") and seen.one("member_device") != seen.one("data_device"):
        yield "own-file-system", f"{data_dir}/member is a file system of its own", "restore elsewhere: --data-dir"
    if target != data_dir and isinstance(roles.etcd, EtcdUnit):
        yield (
            "unit-not-movable",
            f"etcd is a unit of systemd there, and is restored where its data lies: {data_dir}",
            "restore it in place, without --data-dir",
        )
    elif target != data_dir and seen.one("member"):
        yield "target-taken", f"{target} holds an etcd member already", "name an empty or new directory"


def _stopped_with_it(seen: Seen) -> Iterator[ClusterError]:
    if units := ", ".join(dict.fromkeys(seen.all("stopped_with_it"))):
        yield ClusterError(
            f"systemd would stop {units} together with {UNIT}, and not start it again",
            code="unit-required",
            fields={"units": units},
            hint=f"stop it there first, and start it again afterwards: systemctl stop {units.replace(',', '')}; "
            "or let it want etcd and no more (Wants=)",
        )


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
