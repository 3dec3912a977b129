"""What kinds a cluster serves: the answers of discovery, sorted out. Pure; `KubeClient` asks.

Sources of facts: kubernetes.io/docs/reference/using-api/api-concepts (aggregated discovery), and its older form, a
list for each group and version.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["ApiResource", "Discovery", "Json", "aggregated", "classic", "did_you_mean", "group_versions"]

Json: TypeAlias = dict[str, Any]
"""One decoded JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResource:
    """One kind as this cluster serves it.

    Attributes:
        group: API group, ``""`` for the core group.
        version: Such as ``v1``.
        kind: Such as ``Deployment``.
        plural: Its name in paths, such as ``deployments``.
        namespaced: Whether its objects live in namespaces.
        verbs: What the server can do with it, such as ``list``; not what we are allowed to.
        aliases: Singular and short names, such as ``deploy``.
        subresources: Such as ``status`` and ``scale``.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]
    aliases: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()

    @property
    def api_version(self) -> str:
        """Group and version as manifests write them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the path of a collection, an object, or a subresource of it."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a cluster serves: every kind in its best version and by group and version; what did not answer is a gap."""

    preferred: tuple[ApiResource, ...]
    by_version: Mapping[str, tuple[ApiResource, ...]]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[ApiResource | str]) -> Discovery:
        """Sort out what discovery yielded: kinds, best version first, and versions without an answer."""
        preferred: dict[tuple[str, str], ApiResource] = {}
        by_version: dict[str, list[ApiResource]] = {}
        gaps: list[str] = []
        for item in found:
            if isinstance(item, str):
                gaps.append(item)
                continue
            preferred.setdefault((item.group, item.plural), item)
            by_version.setdefault(item.api_version, []).append(item)
        return cls(
            preferred=tuple(preferred.values()),
            by_version={version: tuple(items) for version, items in by_version.items()},
            gaps=tuple(gaps),
        )

    def find(self, text: str, api_version: str | None) -> ApiResource | None:
        """Return the kind that a text names, or None; Kubernetes' own go first, and several are a ConfigError."""
        candidates = self.preferred if api_version is None else self.by_version.get(api_version, ())
        matches = [resource for resource in candidates if _answers_to(resource, text.lower())]
        own = [resource for resource in matches if _is_kubernetes_own(resource.group)]
        if own or len(matches) == 1:
            return (own or matches)[0]
        if matches:
            names = ", ".join(str(resource) for resource in matches)
            raise ConfigError(
                f"{text} may be any of {names}",
                code="ambiguous-kind",
                fields={"candidates": [str(resource) for resource in matches]},
                hint="write one of these",
            )
        return None


def _answers_to(resource: ApiResource, text: str) -> bool:
    name, _, group = text.partition(".")
    names = {resource.kind.lower(), resource.plural.lower(), *resource.aliases}
    if name not in names:
        return False
    # "deployments.v1.apps" is understood too, as kubectl does.
    return group in {"", resource.group, f"{resource.version}.{resource.group}".rstrip(".")}


def _is_kubernetes_own(group: str) -> bool:
    return "." not in group or group.endswith(".k8s.io")


def aggregated(answer: Json) -> Iterator[ApiResource | str]:
    """Yield the kinds of an aggregated answer, and the group-versions that it has no fresh word of."""
    for item in answer.get("items") or []:
        group = (item.get("metadata") or {}).get("name", "")
        for version in item.get("versions") or []:
            if version.get("freshness") == "Stale":
                yield f"{group}/{version['version']}"
            for entry in version.get("resources") or []:
                if "responseKind" not in entry:
                    continue  # a resource that exists for its subresources alone
                singular = entry.get("singularResource", "")
                yield ApiResource(
                    group=group,
                    version=version["version"],
                    kind=entry["responseKind"]["kind"],
                    plural=entry["resource"],
                    namespaced=entry.get("scope") == "Namespaced",
                    verbs=frozenset(entry.get("verbs") or ()),
                    aliases=tuple(alias for alias in (singular, *(entry.get("shortNames") or ())) if alias),
                    subresources=frozenset(sub["subresource"] for sub in entry.get("subresources") or ()),
                )


def group_versions(answer: Json) -> Iterator[str]:
    """Yield the group-versions of an older server, each group's preferred one first."""
    yield from answer.get("versions") or () if answer.get("kind") == "APIVersions" else ()
    for group in answer.get("groups") or ():
        best = group.get("preferredVersion", {}).get("groupVersion")
        versions = [version["groupVersion"] for version in group.get("versions") or ()]
        yield from sorted(versions, key=lambda version: version != best)


def classic(listing: Json, group_version: str) -> Iterator[ApiResource]:
    """Yield the kinds of one group-version of an older server."""
    group, _, version = group_version.rpartition("/")
    entries = listing.get("resources") or ()
    subresources: dict[str, set[str]] = {}
    for entry in entries:
        plural, _, subresource = entry["name"].partition("/")
        subresources.setdefault(plural, set()).update({subresource} - {""})
    for entry in entries:
        if "/" in entry["name"]:
            continue
        singular = entry.get("singularName", "")
        yield ApiResource(
            group=group,
            version=version,
            kind=entry["kind"],
            plural=entry["name"],
            namespaced=bool(entry.get("namespaced")),
            verbs=frozenset(entry.get("verbs") or ()),
            aliases=tuple(alias for alias in (singular, *(entry.get("shortNames") or ())) if alias),
            subresources=frozenset(subresources[entry["name"]]),
        )


def did_you_mean(kind: str, known: Iterable[ApiResource]) -> str:
    """Return a hint for a kind that there is not."""
    names = {
        name.lower(): str(resource) for resource in known for name in (str(resource), resource.kind, resource.plural)
    }
    close = difflib.get_close_matches(kind.lower(), names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(dict.fromkeys(names[name] for name in close)) + "?"
    return "kubectl api-resources lists what this cluster has; a custom resource needs its definition first"
