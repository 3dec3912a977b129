"""Which objects a drill, or one check of it, is about."""

from __future__ import annotations

from clusterguard.documents.model import Model, Omitted, Selector
from clusterguard.drills.steps.fields import Kind, NamespaceGlob
from clusterguard.model.inventory import Scope

__all__ = ["ScopeSpec"]


class ScopeSpec(Model):
    """What must come back; everything that is not system-owned when left out."""

    namespaces: tuple[NamespaceGlob, ...] = ()
    """Names or globs; a glob never means a system namespace."""
    kinds: tuple[Kind, ...] = ()
    """Kinds; all that can be listed when left out."""
    selector: Selector | Omitted = None
    """Only objects with these labels."""
    exclude: tuple[Kind, ...] = ()
    """Kinds that do not belong to it."""

    def scope(self) -> Scope:
        """Return it as `RestoreValidator` takes it."""
        return Scope(namespaces=self.namespaces, kinds=self.kinds, selector=self.selector or "", exclude=self.exclude)

    def words(self) -> str:
        """Return it as the plan words it."""
        namespaces = f"namespaces {', '.join(self.namespaces)}" if self.namespaces else ""
        kinds = f"kinds {', '.join(self.kinds)}" if self.kinds else ""
        labels = f"objects {self.selector}" if self.selector else ""
        without = f"without {', '.join(self.exclude)}" if self.exclude else ""
        words = ", ".join(filter(None, (namespaces, kinds, labels, without)))
        return words or "everything that is not system-owned"
