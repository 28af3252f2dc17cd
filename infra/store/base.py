"""What every store of old models promises. tests/contracts/test_store.py asks it of each one.

1. What was put under (version, hash) is got under it, bit for bit; putting it again is harmless.
2. What is not there is a LookupError, never another model.
3. What is there but is not what its hash says is a LookupError too: a store is only a view.
4. `list` names what is there, by version; `forget` lets one go, and letting it go twice is harmless.
"""

from __future__ import annotations

from typing import Protocol

from schemas.messages import ModelName, Tensors


class ModelStore(Protocol):
    """Old global models under version and hash."""

    def put(self, model: ModelName, tensors: Tensors, stage: int) -> None:
        """Keep a model."""

    def get(self, model: ModelName) -> Tensors:
        """The model's values. Raises LookupError."""

    def list(self) -> list[ModelName]:
        """What is there."""

    def forget(self, model: ModelName) -> None:
        """Let a model go."""
