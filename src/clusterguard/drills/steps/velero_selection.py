"""What ``veleroBackup`` and ``veleroRestore`` have in common: which objects, and the rest in Velero's own words."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from clusterguard.documents.model import Name, Omitted, Selector, wrong
from clusterguard.drills.steps.base import Requirement
from clusterguard.drills.steps.fields import Kind, NamespaceGlob, is_glob
from clusterguard.drills.steps.judged import Judged
from clusterguard.errors import DrillError
from clusterguard.validate.system import chosen_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.options import BackupOptions, RestoreOptions

__all__ = ["VeleroSelection"]


class VeleroSelection(Judged):
    """Which objects a backup or a restore is about."""

    own_keys: ClassVar[dict[str, str]] = {
        "includedNamespaces": "namespaces",
        "excludedNamespaces": "excludedNamespaces",
        "includedResources": "kinds",
        "excludedResources": "excludedKinds",
        "labelSelector": "selector",
        "includeClusterResources": "clusterScoped",
        "hooks": "hooks",
        "resourcePolicy": "resourcePolicy",
    }
    """Fields of Velero's spec that have a key here, so that `extra` must not have them."""

    namespaces: tuple[NamespaceGlob, ...] = ()
    """Names or globs, as in spec.scope; all namespaces when left out. A glob never means a system namespace."""
    excluded_namespaces: tuple[NamespaceGlob, ...] = ()
    """Names or globs of those that are left out."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds, cluster-scoped ones among them; all kinds when left out."""
    excluded_kinds: tuple[Kind, ...] = ()
    """Kinds that are left out."""
    selector: Selector | Omitted = None
    """Only objects with these labels."""
    cluster_scoped: bool | Omitted = None
    """true: all cluster-scoped objects; false: none; left out: those that the chosen namespaces need, all where no
    namespace is chosen."""
    hooks: tuple[dict[str, Any], ...] = ()
    """Commands to run in Pods, each as Velero's `spec.hooks.resources` has it."""
    resource_policy: Name | Omitted = None
    """A ConfigMap in Velero's namespace with rules for volumes, or filters."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of Velero's spec, as they are; the cluster must know each of them."""

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        for word, key in self.own_keys.items():
            if word in self.extra:
                raise wrong(f"`{word}` has a key of its own: write `{key}`", key="extra")
        self._leave_something()
        if problems := list(self.options({}).problems()):
            raise wrong("; ".join(problems))
        return self

    def _leave_something(self) -> None:
        named = [each for each in self.namespaces if not is_glob(each)]
        gone = [each for each in named if _matches(each, self.excluded_namespaces)]
        if gone and len(gone) == len(self.namespaces):
            raise wrong(f"it leaves nothing of `namespaces`: {', '.join(gone)}", key="excludedNamespaces")

    def options(self, chosen: Mapping[str, Any]) -> BackupOptions | RestoreOptions:
        """Return what Velero is asked for.

        Args:
            chosen: What only the cluster can tell, by the names of `BackupOptions` and `RestoreOptions`.
        """
        raise NotImplementedError

    def asked(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that both have; those that ``chosen`` has are taken from there."""
        from clusterguard.drills.velero import label_selector

        return {
            "included_namespaces": self.namespaces,
            "excluded_namespaces": self.excluded_namespaces,
            "included_resources": self.kinds,
            "excluded_resources": self.excluded_kinds,
            "label_selector": label_selector(self.selector),
            "include_cluster_resources": self.cluster_scoped,
            "hooks": self.hooks,
            "resource_policy": self.resource_policy or "",
            **chosen,
        }

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out on purpose."""
        limits = ("namespaces", "excluded_namespaces", "kinds", "excluded_kinds", "selector", "extra")
        return self.cluster_scoped is not False and not any(getattr(self, name) for name in limits)

    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Requirement.CONTAINERS} if self.hooks else ())

    # ---- what only a cluster can tell ----------------------------------------------------------------------

    def chosen(self, client: VeleroClient, present: Callable[[], Iterable[str]]) -> dict[str, Any]:
        """Return what it selects: globs replaced by names, kinds as Velero writes them.

        Args:
            client: Velero in the cluster.
            present: Returns the namespaces that a glob may mean; called only where there is one.

        Raises:
            DrillError: A glob of `namespaces` matches nothing, or everything that it matches is left out.
        """
        from clusterguard.drills.velero import plurals

        included, excluded = self._namespaces(present)
        return {
            "included_namespaces": included,
            "excluded_namespaces": excluded,
            "included_resources": plurals(client, self.kinds),
            "excluded_resources": plurals(client, self.excluded_kinds),
        }

    def _namespaces(self, present: Callable[[], Iterable[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the namespaces to include and to exclude; Velero before 1.18 takes no globs."""
        if not any(map(is_glob, (*self.namespaces, *self.excluded_namespaces))):
            return self.namespaces, self.excluded_namespaces
        there = sorted(present())
        included = [name for pattern in self.namespaces for name in _meant(pattern, there)]
        if not self.namespaces:
            return (), tuple(name for name in there if _matches(name, self.excluded_namespaces))
        left = tuple(name for name in dict.fromkeys(included) if not _matches(name, self.excluded_namespaces))
        if not left:
            raise DrillError(
                f"`excludedNamespaces` leaves nothing of {', '.join(included)}",
                code="namespaces-left-out",
                hint="name what belongs to it in `namespaces`",
            )
        return left, ()

    # ---- words ---------------------------------------------------------------------------------------------

    def limits(self) -> str:
        """Return what it is limited to, for the end of a phrase."""
        return "".join(f", {each}" for each in self._limits())

    def _limits(self) -> Iterator[str]:
        if self.excluded_namespaces:
            yield f"without namespaces {', '.join(self.excluded_namespaces)}"
        if self.kinds:
            yield f"only kinds {', '.join(self.kinds)}"
        if self.excluded_kinds:
            yield f"without kinds {', '.join(self.excluded_kinds)}"
        if self.selector:
            yield f"only objects {self.selector}"
        if self.cluster_scoped is not None:
            yield f"{'all' if self.cluster_scoped else 'no'} cluster-scoped objects"
        if self.hooks:
            yield f"{len(self.hooks)} hook(s)"
        if self.resource_policy:
            yield f"by the rules in ConfigMap {self.resource_policy}"
        if self.extra:
            yield f"in Velero's own words {', '.join(self.extra)}"
        yield from self.limits_of_outcome()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _meant(pattern: str, there: Iterable[str]) -> Sequence[str]:
    """Return the namespaces that a name or a glob means; whether a name is there is for Velero's outcome to tell."""
    if not is_glob(pattern):
        return [pattern]
    found = [name for name in there if chosen_namespace(name, [pattern])]
    if not found:
        known = ", ".join(sorted(there)) or "none"
        raise DrillError(
            f"no namespace matches {pattern}",
            code="glob-matches-nothing",
            hint=f"there are {known}; a glob never means a system namespace",
        )
    return found
