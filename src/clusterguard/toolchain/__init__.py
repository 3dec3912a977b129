"""Where the programs come from: etcd, kube-apiserver, kwok and the others, pinned and verified.

A program is looked for at an explicit path, on ``PATH`` (its version is checked) and in the user's cache;
then its official release is downloaded (its checksum is pinned), or it is compiled from pinned modules.
"""

from __future__ import annotations

from clusterguard.toolchain.programs import API_SERVERS, PROGRAMS
from clusterguard.toolchain.toolchain import (
    FoundProgram,
    ProgramStatus,
    Source,
    Toolchain,
    explicit_paths,
    from_environment,
)

__all__ = [
    "API_SERVERS",
    "PROGRAMS",
    "FoundProgram",
    "ProgramStatus",
    "Source",
    "Toolchain",
    "explicit_paths",
    "from_environment",
]
