"""Arguments of a Velero server that lives for one drill, beside a cluster or in it."""

from __future__ import annotations

__all__ = ["FAST_SERVER_ARGS"]

# Looking at locations and for backups in them stays at once a minute: whoever needs it sooner asks for it, and
# each look writes the location's credentials anew, in place, under the eyes of a backup that reads them.
FAST_SERVER_ARGS = (
    "--resource-timeout=1m",
    "--terminating-resource-timeout=1m",
    "--item-operation-sync-frequency=1s",
    # A restore into a namespace that it has just made meets the default service account, which a controller
    # makes meanwhile; the cache may not have it yet, and then the restore warns of an object that is fine.
    "--disable-informer-cache=true",
    # With the default of 100 requests a second, and two for each object, a restore makes 50 objects a second.
    "--client-qps=5000",
    "--client-burst=5000",
)
