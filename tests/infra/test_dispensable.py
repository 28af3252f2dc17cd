"""A store that is away costs nobody a model: what it would give comes from the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from infra.store.base import About, ModelStore
from infra.store.dispensable import Dispensable
from infra.store.sqlite import SqliteStore
from schemas.errors import DiskFull, FedtwinError, ServiceError
from schemas.messages import Groups, ModelName
from schemas.tensors import groups_sha256

MODEL: Groups = {"model": {"weight": np.arange(3, dtype=np.float32)}}
NAME = ModelName(version=4, sha256=groups_sha256(MODEL))
AWAY = ServiceError("Redis at host:6379 cannot be reached: it sleeps")
FULL = DiskFull("Redis at host:6379 has no room")


@dataclass
class Moody:
    """A real store that complains while it has a mood, and counts how often it was asked."""

    mood: FedtwinError | None = None
    inner: ModelStore = field(default_factory=SqliteStore)
    asked: int = 0

    def _ask(self) -> ModelStore:
        self.asked += 1
        if self.mood is not None:
            raise self.mood
        return self.inner

    def put(self, model: ModelName, groups: Groups, stage: int, round: int = -1) -> None:
        self._ask().put(model, groups, stage, round)

    def get(self, model: ModelName) -> Groups:
        return self._ask().get(model)

    def list(self) -> list[ModelName]:
        return self._ask().list()

    def forget(self, model: ModelName) -> None:
        self._ask().forget(model)

    def score(self, model: ModelName, stage: int, score: float) -> None:
        self._ask().score(model, stage, score)

    def about(self, model: ModelName) -> About:
        return self._ask().about(model)

    def close(self) -> None:
        self.inner.close()


@dataclass
class Story:
    """A moody store, who does without it, a clock that is set by hand, and what is told."""

    moody: Moody = field(default_factory=Moody)
    now: float = 0.0
    told: list[str] = field(default_factory=list)
    store: Dispensable = field(init=False)

    def __post_init__(self) -> None:
        self.store = Dispensable(self.moody, self.told.append, rest=30, clock=lambda: self.now)


def test_while_it_is_away_nothing_is_there_and_nobody_fails() -> None:
    """Reading finds nothing, so the log is asked; writing is let go."""
    story = Story()
    story.store.put(NAME, MODEL, 2)
    story.moody.mood = AWAY

    for read in (story.store.get, story.store.about):
        with pytest.raises(LookupError, match="host:6379 cannot be reached"):
            read(NAME)
    assert story.store.list() == []
    story.store.put(NAME, MODEL, 2)
    story.store.score(NAME, 2, 0.5)
    story.store.forget(NAME)

    assert story.moody.inner.list() == [NAME]


def test_what_was_away_is_left_alone_for_a_while() -> None:
    """Each question would cost its time-outs: none for 30 s, then one; then 30 s again."""
    story = Story(Moody(AWAY))
    for now, asked in ((0, 1), (1, 1), (29.9, 1), (30, 2), (59, 2), (60, 3)):
        story.now = now
        story.store.list()

        assert story.moody.asked == asked


def test_it_is_told_once_that_it_went_and_once_that_it_is_back() -> None:
    """Not for every model that is missed meanwhile; "not there" is an answer, too."""
    story = Story(Moody(AWAY))
    for now in (0, 10, 30, 60):
        story.now = now
        story.store.list()
    story.now, story.moody.mood = 90, None

    with pytest.raises(LookupError, match="version 4 is not in the store"):
        story.store.get(NAME)
    story.store.list()

    assert len(story.told) == 2
    assert "cannot be reached: it sleeps. Old models are read from the log" in story.told[0]
    assert story.told[1] == "the store of old models is back"


def test_a_store_without_room_still_gives_what_it_has() -> None:
    """Reading goes on at once, and somebody is told that there is no room."""
    story = Story()
    story.store.put(NAME, MODEL, 2)
    story.moody.mood = FULL
    story.store.put(NAME, MODEL, 2)
    story.moody.mood = None

    assert np.array_equal(story.store.get(NAME)["model"]["weight"], MODEL["model"]["weight"])
    assert story.told == [f"{FULL}. Until then old models are read from the log"]
