"""``writeFile``: write a file into a container."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from clusterguard.documents.model import REFERENCE_PATTERN, Omitted
from clusterguard.drills.files import random_bytes, write_file
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.containers import ExecTarget
from clusterguard.drills.steps.fields import ContainerPath

_SIZE: Final = re.compile(r"([0-9]{1,9})(|Ki|Mi)")
_SIZE_PATTERN: Final = rf"^([0-9]{{1,9}}(Ki|Mi)?{REFERENCE_PATTERN})$"
_LARGEST_FILE: Final = 256 << 20
_SHORTEST_SECONDS: Final = 10.0


def _size(written: object) -> int:
    match = _SIZE.fullmatch(str(written)) if isinstance(written, (str, int)) and not isinstance(written, bool) else None
    if match is None:
        raise ValueError("a size is expected here, such as 4096, 512Ki or 8Mi")
    size = int(match[1]) << (10 * ("", "Ki", "Mi").index(match[2]))
    if not 0 < size <= _LARGEST_FILE:
        raise ValueError("a file has at least one byte, and at most 256Mi: it passes through the API server")
    return size


Size: TypeAlias = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema({
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE_PATTERN}],
        "examples": ["512Ki", "8Mi"],
    }),
]  # fmt: skip


class WriteFile(Action):
    """Write a file into a container, such as into a volume that is mounted there."""

    phases = ("setup",)
    requires = frozenset({Requirement.CONTAINERS})

    in_: Annotated[ExecTarget, Field(alias="in")]
    """Where; the container needs `sh`, `head`, `mv`, `dirname`, `sync` and `sha256sum`."""
    path: ContainerPath
    """The file, by its path in the container; the directories on the way are made."""
    size: Size | Omitted = None
    """How many random bytes, new in every run: what an earlier run left cannot pass for them."""
    content: str | Omitted = None
    """The text to write in place of random bytes."""

    @model_validator(mode="after")
    def _one_source(self) -> WriteFile:
        self.need_one("size", "content")
        return self

    def plan(self) -> str:
        what = f"{self.size:,} random bytes" if self.size else "a text"
        return f"write {what} to {self.path} in {self.in_}, and note the digest"

    def perform(self, here: StepContext) -> str:
        api = here.api
        container = self.in_.wait(api, seconds=here.seconds)
        if self.content is not None:
            data = self.content.encode()
        else:
            data = random_bytes(self.size or 0, seed=f"{here.run.run_id} {self.in_.namespace} {self.path}")
        digest = write_file(api, container, self.path, data, seconds=here.run.at_least(here.seconds, _SHORTEST_SECONDS))
        return f"{self.path} in {container}: {len(data):,} bytes, sha256 {digest[:16]}…"
