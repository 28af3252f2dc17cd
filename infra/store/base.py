"""What every store of old models promises. tests/contracts/test_store.py asks it of each one.

1. What was put under (version, hash) is got under it, bit for bit; putting it again is harmless.
2. What is not there is a LookupError, never another model.
3. What is there but is not what its hash says is a LookupError too: a store is only a view of the
   log, and putting the model again mends it.
4. `list` names what is there, by version. `forget` lets one go; letting it go twice is harmless.
5. A store without room for a model raises DiskFull; what was put before stands.
6. `about` tells a model's stage, round and scores, as far as they are known. Who puts the model
   again without knowing them takes nothing away; of two scores for one stage the later stands. They
   go with their model, and a score of a model that is not there is let go at once. They are there
   for people to look at: what is decided by them is decided by who made them.
7. A store that cannot be reached raises ServiceError, which names its address.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from schemas.messages import Groups, ModelName


class About(NamedTuple):
    """What is known of a model that is kept."""

    stage: int
    """-1 where it is not known."""
    round: int
    """The one that the model closed; -1 where it is not known, or where it closed none."""
    scores: dict[int, float]
    """Stage at which the proxy scored it → the score, in [0, 1]."""


class ModelStore(Protocol):
    """Old global models under version and hash. Everything raises ServiceError. Promise 7."""

    def put(self, model: ModelName, groups: Groups, stage: int, round: int = -1) -> None:
        """Keep a model of a stage and round; -1 where that is not known. Promises 1, 3, 5, 6.

        `groups` are all that its message holds, for its hash covers them all.
        """

    def get(self, model: ModelName) -> Groups:
        """All groups of the model. Raises LookupError. Promises 1, 2, 3."""

    def list(self) -> list[ModelName]:
        """What is there, by version and hash. Promise 4."""

    def forget(self, model: ModelName) -> None:
        """Let a model go. Promise 4."""

    def score(self, model: ModelName, stage: int, score: float) -> None:
        """Write beside a model what it scored at a stage. Promise 6."""

    def about(self, model: ModelName) -> About:
        """What is known of a model, for people. Raises LookupError. Promises 2, 6."""

    def close(self) -> None:
        """Let the store go; what was put stays."""
