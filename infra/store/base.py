"""What every store of old models promises. tests/contracts/test_store.py asks it of each one.

1. What was put under (version, hash) is got under it, bit for bit; putting it again is harmless.
2. What is not there is a LookupError, never another model.
3. What is there but is not what its hash says is a LookupError too: a store is only a view of the
   log, and putting the model again mends it.
4. `list` names what is there, by version. `forget` lets one go; letting it go twice is harmless.
5. A store without room raises DiskFull; what was put before stands.
"""

from __future__ import annotations

from typing import Protocol

from schemas.messages import Groups, ModelName


class ModelStore(Protocol):
    """Old global models under version and hash."""

    def put(self, model: ModelName, groups: Groups, stage: int) -> None:
        """Keep a model of a stage; -1 where the stage is not known. Promises 1, 3, 5.

        `groups` are all that its message holds, for its hash covers them all.
        """

    def get(self, model: ModelName) -> Groups:
        """All groups of the model. Raises LookupError. Promises 1, 2, 3."""

    def list(self) -> list[ModelName]:
        """What is there, by version and hash. Promise 4."""

    def forget(self, model: ModelName) -> None:
        """Let a model go. Promise 4."""

    def close(self) -> None:
        """Let the store go; what was put stays."""
