"""A live federation as a file tells it: who takes part, with what, and what happens when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from infra.yaml_file import read_yaml
from schemas.configuration import Frozen
from schemas.federation import ALIVE, Entity, Federation, Name, Uids, Under

__all__ = ["Entity", "Event", "Inject", "Scenario", "read_scenario"]

ROLES = ("aggregator", "proxy", "twins")
"""Those of which programs run: who follows a scenario streams itself."""


class Inject(Frozen):
    """Images of classes of a data set, under these or other names."""

    classes: Uids
    images: Annotated[int, Field(ge=1)]
    """Of all classes together, at most."""
    under: Under


class Event(Frozen):
    """Something that happens; exactly one of the four."""

    at: Annotated[float, Field(ge=0)]
    """Seconds after the begin."""
    entity: Name | None = None
    inject: Inject | None = None
    join: Name | None = None
    leave: Name | None = None
    kill: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.inject, self.join, self.leave, self.kill]
        if sum(each is not None for each in given) != 1:
            raise ValueError("an event is one of inject, join, leave and kill")
        if (self.entity is None) != (self.inject is None):
            raise ValueError(
                "`entity` says who gets what `inject` tells, and stands with nothing else"
            )
        if self.kill == "producers":
            raise ValueError(
                f"at {self.at:g} s: no program of producers runs, for who follows a scenario"
                f" streams; kill names one of {', '.join(ROLES)}"
            )
        if self.kill is not None and self.kill not in ROLES:
            raise ValueError(f"kill names a role: {', '.join(ROLES)}")
        return self

    @property
    def about(self) -> str | None:
        """The entity that it is about."""
        return self.entity or self.join or self.leave


class Scenario(Federation):
    """The whole file."""

    minutes: Annotated[float, Field(gt=0)]
    events: tuple[Event, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Self:
        for event in self.events:
            if event.about is not None and event.about not in self.entities:
                raise ValueError(
                    f"at {event.at:g} s: no entity is called {event.about!r}; there are"
                    f" {', '.join(self.entities)}"
                )
        return self

    @property
    def later(self) -> frozenset[str]:
        """Entities that are not there from the beginning, for an event lets them join."""
        return frozenset(event.join for event in self.events if event.join)

    @property
    def _alive(self) -> dict[str, object]:
        """It has an end, at which every sum is made again: so every update is kept."""
        return {**ALIVE, "keep_rounds": "all"}

    def _streamed(self) -> Iterator[tuple[str, str]]:
        yield from super()._streamed()
        for event in self.events:
            for label in event.inject.classes if event.inject else ():
                yield f"at {event.at:g} s", self.injected(event, label)

    def injected(self, event: Event, label: str) -> str:
        """What the federation calls a class that an event injects: as the event says, or else as
        its entity does."""
        assert event.inject is not None
        assert event.entity is not None
        return event.inject.under.get(label) or self.entities[event.entity].uid(label)


class AnyFile(Scenario):
    """A live federation's file, with events or without: for whoever asks who takes part."""

    minutes: Annotated[float, Field(gt=0)] = 1.0


def read_scenario(file: Path) -> Scenario:
    """A scenario from a YAML file. Raises ConfigurationError, with the place, for what is none."""
    return read_yaml(file, Scenario)
