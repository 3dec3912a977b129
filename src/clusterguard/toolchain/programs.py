"""Which programs there are, which versions of them will do, and what each is compiled from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from clusterguard.errors import ConfigError
from clusterguard.model.support import VersionRange

__all__ = ["API_SERVERS", "PROGRAMS", "ModuleSet", "Program", "named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSet:
    """Programs compiled together from one pinned go.mod and go.sum, found in ``modules/<name>/``."""

    name: str
    version: str
    ldflags: str = ""
    tags: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """What decides which source files are compiled."""
        return (f"-tags={self.tags}",) if self.tags else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program: what it is compiled from, the versions that will do, and how it prints its version, if at all.

    What there is in several minor versions has the others under names such as ``kube-apiserver@1.34``.
    """

    name: str
    modules: ModuleSet
    package: str
    accepts: VersionRange
    version_args: tuple[str, ...] | None = ("--version",)

    @property
    def file(self) -> str:
        """What its file is called."""
        return self.name.partition("@")[0]

    @property
    def is_other_version(self) -> bool:
        """Whether it is beside the version that is used by default."""
        return self.file != self.name


def named(name: str) -> Program:
    """Return a program by its name; the default version may be named, too, as ``kube-apiserver@1.36``."""
    try:
        return PROGRAMS[_BY_VERSION.get(name, name)]
    except KeyError:
        near = difflib.get_close_matches(name, PROGRAMS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(PROGRAMS)}"
        raise ConfigError(f"{name!r} is not a program of the toolchain", hint=hint) from None


_ETCD = ModuleSet(name="etcd", version="3.7.3")


def _kubernetes(name: str, version: str, tags: str = "") -> ModuleSet:
    # An unstamped Kubernetes calls itself v0.0.0-master, and clients then misjudge what it can do.
    stamp = (
        f"-X k8s.io/component-base/version.gitVersion=v{version}"
        " -X k8s.io/component-base/version.gitMajor=1"
        f" -X k8s.io/component-base/version.gitMinor={version.split('.')[1]}"
    )
    return ModuleSet(name=name, version=version, ldflags=stamp, tags=tags)


_KUBERNETES = _kubernetes("kubernetes", "1.36.3")
_KWOK = ModuleSet(name="kwok", version="0.8.0")
_KIND = ModuleSet(name="kind", version="0.33.0")
_VELERO = ModuleSet(
    name="velero",
    version="1.18.3",
    ldflags="-X github.com/vmware-tanzu/velero/pkg/buildinfo.Version=v1.18.3",
)
_VELERO_AWS = ModuleSet(name="velero-plugin-for-aws", version="1.14.3")
# The fork that Velero 1.18 is built from (the `replace` of its go.mod): kopia's own module is not what writes the
# repositories. Without the web page, which is most of what there is to compile and to carry.
_KOPIA = ModuleSet(
    name="kopia",
    version="0.22.3",
    ldflags="-X github.com/kopia/kopia/repo.BuildVersion=0.22.3",
    tags="nohtmlui",
)
# Nothing of clusterguard runs it: tests and benchmarks show with it that the stock program reads what we encrypt.
_AGE = ModuleSet(name="age", version="1.3.2", ldflags="-X main.Version=v1.3.2")
_VERSITYGW = ModuleSet(name="versitygw", version="1.8.0", ldflags="-X main.Version=v1.8.0")

# Snapshots of etcd 3.6 and 3.7 have one format, and their etcdutl can bump revisions on restore.
_ANY_ETCD = VersionRange((3, 6), (4,))
_ANY_AGE = VersionRange((1, 1), (2,))
_VELERO_1_18 = VersionRange((1, 18), (1, 19))
_AWS = "github.com/vmware-tanzu/velero-plugin-for-aws"
# One minor for all: a controller manager or scheduler must not be newer than its API server
# (https://kubernetes.io/releases/version-skew-policy/).
_KUBERNETES_1_36 = VersionRange((1, 36), (1, 37))

# API servers for rehearsals: everything that is supported and not the default.
_OTHER_KUBERNETES = ("1.30.14", "1.31.14", "1.32.13", "1.33.13", "1.34.4", "1.35.4", "1.37.2")
# 1.30 still has cloud providers, in a module that is not published.
_TAGS = {"1.30": "providerless"}

_ROWS = (
    ("etcd", _ETCD, "go.etcd.io/etcd/server/v3", _ANY_ETCD),
    ("etcdctl", _ETCD, "go.etcd.io/etcd/etcdctl/v3", _ANY_ETCD, "version"),
    ("etcdutl", _ETCD, "go.etcd.io/etcd/etcdutl/v3", _ANY_ETCD, "version"),
    ("kube-apiserver", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver", _KUBERNETES_1_36),
    ("kube-controller-manager", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-controller-manager", _KUBERNETES_1_36),
    ("kube-scheduler", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-scheduler", _KUBERNETES_1_36),
    # kubectl may be one minor older or newer than the API server.
    ("kubectl", _KUBERNETES, "k8s.io/kubernetes/cmd/kubectl", VersionRange((1, 35), (1, 38)), "version --client"),
    ("kwok", _KWOK, "sigs.k8s.io/kwok/cmd/kwok", VersionRange((0, 8), (0, 9))),
    ("kind", _KIND, "sigs.k8s.io/kind", VersionRange((0, 30), (1,)), "version"),
    ("velero", _VELERO, "github.com/vmware-tanzu/velero/cmd/velero", _VELERO_1_18, "version --client-only"),
    # It speaks only to a Velero server that started it.
    ("velero-plugin-for-aws", _VELERO_AWS, f"{_AWS}/velero-plugin-for-aws", VersionRange((1, 14), (1, 15)), ""),
    ("versitygw", _VERSITYGW, "github.com/versity/versitygw/cmd/versitygw", VersionRange((1, 6), (2,))),
    # Since 0.22 `snapshot verify` and `ls` print what is read of them here.
    ("kopia", _KOPIA, "github.com/kopia/kopia", VersionRange((0, 22), (1,))),
    ("age", _AGE, "filippo.io/age/cmd/age", _ANY_AGE),
    ("age-keygen", _AGE, "filippo.io/age/cmd/age-keygen", _ANY_AGE),
)


def _program(
    name: str, modules: ModuleSet, package: str, accepts: VersionRange, version_args: str = "--version"
) -> Program:
    return Program(
        name=name,
        modules=modules,
        package=package,
        accepts=accepts,
        version_args=tuple(version_args.split()) or None,
    )


def _other_api_server(version: str) -> Program:
    minor = version.rpartition(".")[0]
    number = int(minor.partition(".")[2])
    modules = _kubernetes(f"kubernetes-{minor}", version, _TAGS.get(minor, ""))
    accepts = VersionRange((1, number), (1, number + 1))
    return _program(f"kube-apiserver@{minor}", modules, "k8s.io/kubernetes/cmd/kube-apiserver", accepts)


PROGRAMS: dict[str, Program] = {row[0]: _program(*row) for row in _ROWS}
PROGRAMS |= {program.name: program for program in map(_other_api_server, _OTHER_KUBERNETES)}

API_SERVERS: dict[tuple[int, ...], str] = {
    program.accepts.at_least: name for name, program in PROGRAMS.items() if program.file == "kube-apiserver"
}
"""What API servers are called here, by minor version."""

_BY_VERSION = {f"kube-apiserver@{major}.{minor}": name for (major, minor), name in API_SERVERS.items()}
