"""A live federation as a file tells it: who takes part, with what, and which classes it knows.

All that it is opened with follows from this, so no image has to be where it is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.configuration import Configuration, Frozen, nearest
from schemas.datasets import KNOWN, in_size, own_data, plain_transforms
from schemas.errors import ConfigurationError
from schemas.messages import DataFacts, Transforms
from schemas.recipes import recipe
from schemas.schedule import class_order, sorted_uids
from schemas.topics import NAME

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Uid = Annotated[str, Field(min_length=1, max_length=200)]
Uids = Annotated[tuple[Uid, ...], Field(min_length=1)]
Under = Annotated[dict[Uid, Uid], Field(alias="as", default_factory=dict)]
"""Class of a data set → class uid of the federation, where those are not the same."""
ALIVE: dict[str, object] = {
    "live": True,
    "lr_schedule": "constant",
    "learning_rate": 0.1,  # people use every model: decision 0030
    "threshold_mode": "relative",
}
"""What a live run takes in place of its recipe's."""
ENCODER_CLASSES = 256
"""Of a live run: rows of the proxy's encoder, also for classes that nobody knows yet."""


class Entity(Frozen):
    """One entity, and what streams to it when it joins."""

    site: Name
    dataset: str
    classes: Uids
    """By the data set's own uids."""
    under: Under

    def uid(self, label: str) -> str:
        """What the federation calls a class of its data set."""
        return self.under.get(label, label)


class Federation(Frozen):
    """The whole file."""

    recipe: str
    seed: int = 2021
    minutes: Annotated[float, Field(gt=0)] | None = None
    """For how long, where somebody follows a scenario."""
    keys: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Keys of the configuration that are not the recipe's."""
    entities: Annotated[dict[Name, Entity], Field(min_length=1)]
    classes: tuple[Uid, ...] = ()
    """Class uids that all agree on; where there are none they follow from the data sets."""
    channels: Literal[1, 3] | None = None
    """1 gray, 3 colour; where it is not said it follows from the data sets that have a name."""

    @model_validator(mode="before")
    @classmethod
    def _endless(cls, told: object) -> object:
        if isinstance(told, dict) and "events" in told and "events" not in cls.model_fields:
            raise ValueError(
                "it has events, which `fedtwin live` follows; a federation that does not end has"
                " none: leave them out"
            )
        return told

    @model_validator(mode="after")
    def _one_tongue(self) -> Self:
        """Two data sets that call different things alike have to say which is which."""
        called: dict[str, tuple[str, str]] = {}
        for entity in self.entities.values():
            known = KNOWN.get(entity.dataset)
            for label in entity.classes if known and known.names else ():
                if label not in known.uids:  # type: ignore[union-attr]
                    continue  # which is told where its images are read
                said = known.names[int(label)], entity.dataset  # type: ignore[union-attr]
                before = called.setdefault(entity.uid(label), said)
                if before[0] != said[0]:
                    raise ValueError(
                        f"class {entity.uid(label)} is {before[0]} in {before[1]} and {said[0]} in"
                        f" {said[1]}: `as` gives one of them another uid"
                    )
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of all entities."""
        return tuple(sorted({each.site for each in self.entities.values()}))

    def full(self, name: str) -> str:
        """An entity's full name."""
        return f"{self.entities[name].site}/{name}"

    # --- what the run is opened with --------------------------------------------------------------

    def configuration(self) -> Configuration:
        """Of the live run. Raises ConfigurationError for keys that it cannot have."""
        own = {
            "seed": self.seed,
            "encoder_classes": ENCODER_CLASSES,
            "dataset": self._name,
            **self._alive,
            **self.keys,
        }
        return recipe(self.recipe, overrides=own)

    def data(self) -> DataFacts:
        """What it knows of its images. Their hash is that of these facts, for nobody has them all.

        Raises ConfigurationError where a size, a colour or a class does not follow from the file.
        """
        configuration = self.configuration()
        channels, side = self._channels(), self._side(configuration)
        order = class_order(self._agreed(), configuration.class_order, configuration.seed)
        told = "\0".join((self._name, str(channels), str(side), *order))
        return DataFacts(
            name=self._name,
            sha256=hashlib.sha256(told.encode()).hexdigest(),
            channels=channels,
            height=side,
            width=side,
            classes=order,
            transforms=self._transforms(channels, side),
            encoder_classes=configuration.encoder_classes or ENCODER_CLASSES,
            public=False,
        )

    @property
    def _alive(self) -> dict[str, object]:
        return ALIVE

    @property
    def _datasets(self) -> list[str]:
        return sorted({each.dataset for each in self.entities.values()})

    @property
    def _name(self) -> str:
        """Of all data sets; of one's own data without the place where they lie."""
        return "+".join(dict.fromkeys(map(_without_place, self._datasets)))

    def _channels(self) -> int:
        found = [KNOWN[each].channels for each in self._datasets if each in KNOWN]
        if self.channels is None and not found:
            raise ConfigurationError(
                "channels: 1 for gray or 3 for colour has to be said, for no entity has a data set"
                f" that is known by name ({', '.join(KNOWN)})"
            )
        return self.channels or max(found)

    def _side(self, configuration: Configuration) -> int:
        sides = {KNOWN[each].side for each in self._datasets if each in KNOWN}
        if configuration.image_size is None and len(sides) != 1:
            raise ConfigurationError(
                "keys: image_size has to be said in pixels, for the data sets have"
                f" {' and '.join(map(str, sorted(sides))) or 'sizes that nobody knows here'}"
            )
        return configuration.image_size or sides.pop()

    def _transforms(self, channels: int, side: int) -> Transforms:
        """Those of the data sets, where all have the same; else what is safe for any image."""
        known = [KNOWN.get(each) for each in self._datasets]
        found = [in_size(k.transforms, k.side, side) for k in known if k and k.channels == channels]
        alike = len(found) == len(known) and all(each == found[0] for each in found)
        return found[0] if alike else plain_transforms(channels, side, side)

    def _agreed(self) -> tuple[str, ...]:
        """The class uids of the federation. Raises ConfigurationError for one that is not."""
        if not self.classes:
            return sorted_uids({*self._offered(), *(uid for _, uid in self._streamed())})
        agreed = sorted_uids(set(self.classes))
        for where, uid in self._streamed():
            if uid not in agreed:
                raise ConfigurationError(
                    f"{where}: class {uid!r} is not among `classes`"
                    f"{nearest(uid, list(agreed))}: add it there, or map it with `as`"
                )
        return agreed

    def _offered(self) -> Iterator[str]:
        """Every class of the data sets that have a name, as their entities call them."""
        for entity in self.entities.values():
            if entity.dataset in KNOWN:
                yield from map(entity.uid, KNOWN[entity.dataset].uids)

    def _streamed(self) -> Iterator[tuple[str, str]]:
        """Every class that somebody will stream, and who does."""
        for name, entity in self.entities.items():
            yield from ((name, entity.uid(label)) for label in entity.classes)


def _without_place(dataset: str) -> str:
    form, path = own_data(dataset)
    return f"{form}:{PurePath(path).name}" if path else dataset
