"""For tests of what is built on clusterguard: contracts to inherit. Needs ``clusterguard[pytest]``."""

from __future__ import annotations

import pytest

# Before the import, so that a failing assertion in a contract shows its values.
pytest.register_assert_rewrite("clusterguard.testing.store_contract")

from clusterguard.testing.store_contract import ObjectStoreContract  # noqa: E402 - see above

__all__ = ["ObjectStoreContract"]
