"""New keys for old copies: every copy of a policy is re-encrypted, one after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.policies.copies.rotation import reencrypt_copy
from clusterguard.policies.runs.verify import CopyCheck

if TYPE_CHECKING:
    from clusterguard.policies.runs.session import Session
    from clusterguard.stores.encryption import Encryption

__all__ = ["reencrypt_all"]


def reencrypt_all(session: Session, *, old: Encryption) -> None:
    """Re-encrypt every etcd snapshot in every location that answers; a copy that fails does not keep the others.

    Copies of Velero backups are left as they are, and reported.
    """
    for location in session.locations:
        for source in session.policy.sources:
            for entry in session.catalogs[location.name].of_source(source.name):
                if location not in session.locations:
                    break
                with session.step("reencrypt", source=entry.source, location=location.name, backup=entry.name) as task:
                    if entry.kind != "etcd":
                        task.outcome = "warning"
                        task.detail = "copies of Velero backups are not re-encrypted: they go with time, by retention"
                        continue
                    confirm = partial(session.require_lease, location)
                    confirm()
                    stored = reencrypt_copy(
                        location.root, entry.source, entry.name, old=old, new=session.encryption, confirm=confirm
                    )
                    task.digest, task.size, task.detail = stored.sha256, stored.size, "re-encrypted and read back"
                    encrypted = session.encryption.suffix.endswith(".age")
                    changed = replace(entry, sha256=stored.sha256, size=stored.size, encrypted=encrypted)
                    read_back = CopyCheck(state="intact", depth="bytes", detail=task.detail)
                    session.know(location, [read_back.noted_in(changed, now=session.now())])
                if task.outcome == "failed":
                    session.answers(location)
