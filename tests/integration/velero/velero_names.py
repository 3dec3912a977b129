"""Names that no other test and no earlier run uses."""

from __future__ import annotations

import uuid


def unique(word):
    return f"{word}-{uuid.uuid4().hex[:8]}"
