"""A live federation as a file tells it: who takes part, with what, and what happens when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from experiments.recipes import recipe
from schemas.configuration import Configuration, Frozen
from schemas.errors import ConfigurationError
from schemas.topics import NAME

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Uids = Annotated[tuple[str, ...], Field(min_length=1)]
ALIVE: dict[str, object] = {
    "live": True,
    "lr_schedule": "constant",
    "threshold_mode": "relative",
    "keep_rounds": "all",  # so that every sum can be made again at the end
}
"""What a live run takes in place of its recipe's."""
ENCODER_CLASSES = 256
"""Of a live run: rows of the proxy's encoder, also for classes that nobody knows yet."""
ROLES = ("aggregator", "producers", "proxy", "twins")


class Entity(Frozen):
    """One entity, and what streams to it when it joins."""

    site: Name
    dataset: str
    classes: Uids


class Inject(Frozen):
    """Images of classes of a data set, under these or other names."""

    classes: Uids
    images: Annotated[int, Field(ge=1)]
    """Of all classes together, at most."""
    under: Annotated[dict[str, str], Field(alias="as", default_factory=dict)]
    """Class of the data set → class uid of the federation, where those are not the same."""


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
        if self.kill is not None and self.kill not in ROLES:
            raise ValueError(f"kill names a role: {', '.join(ROLES)}")
        return self

    @property
    def about(self) -> str | None:
        """The entity that it is about."""
        return self.entity or self.join or self.leave


class Scenario(Frozen):
    """The whole file."""

    recipe: str
    seed: int = 2021
    minutes: Annotated[float, Field(gt=0)]
    keys: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Keys of the configuration that are not the recipe's."""
    entities: Annotated[dict[Name, Entity], Field(min_length=1)]
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
    def sites(self) -> tuple[str, ...]:
        """The sites of all entities."""
        return tuple(sorted({each.site for each in self.entities.values()}))

    @property
    def later(self) -> frozenset[str]:
        """Entities that are not there from the beginning, for an event lets them join."""
        return frozenset(event.join for event in self.events if event.join)

    def full(self, name: str) -> str:
        """An entity's full name."""
        return f"{self.entities[name].site}/{name}"

    def configuration(self) -> Configuration:
        """Of the live run. Raises ConfigurationError for keys that it cannot have."""
        own = {"seed": self.seed, "encoder_classes": ENCODER_CLASSES, **ALIVE, **self.keys}
        return recipe(self.recipe, overrides=own)


def read_scenario(file: Path) -> Scenario:
    """A scenario from a YAML file. Raises ConfigurationError, with the place, for what is none."""
    try:
        told = yaml.safe_load(file.read_text())
        return Scenario.model_validate(told)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is no YAML: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is no text") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{file}: {where}: {said}") from None
