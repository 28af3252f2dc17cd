"""What a run is opened with, as a file: whoever starts the aggregator writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from aggregator.aggregator import Opening
from learning.strategies.choice import chosen
from schemas.configuration import Configuration, Frozen
from schemas.errors import ConfigurationError
from schemas.federation import Federation
from schemas.messages import DataFacts, RunOpened
from schemas.schedule import Schedule


class _File(Frozen):
    number: Literal[1] = Field(default=1, alias="schema")
    configuration: Configuration
    data: DataFacts
    schedule: Schedule
    sites: tuple[str, ...] = ()


def write_opening(opening: Opening, file: Path) -> None:
    """Write it as JSON."""
    written = _File(
        configuration=opening.configuration,
        data=opening.data,
        schedule=opening.schedule,
        sites=opening.sites,
    )
    file.write_text(written.model_dump_json(by_alias=True, indent=1) + "\n")


def read_opening(file: Path) -> Opening:
    """Read it again. Raises ConfigurationError for what is no such file."""
    try:
        read = _File.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"{file} opens no run: {where}: {first['msg']}") from None
    return Opening(read.configuration, read.data, read.schedule, read.sites)


def live_opening(federation: Federation) -> Opening:
    """What a live federation is opened with. Raises ConfigurationError for what cannot be."""
    facts, own = federation.data(), federation.configuration()
    if chosen(own.strategy, {}).pooled:
        raise ConfigurationError(
            f"strategy {own.strategy} is one node that has everybody's images: a recipe can pool"
            " them, a live federation cannot"
        )
    return Opening(own, facts, Schedule(stages=()), federation.sites)


def differences(opening: Opening, opened: RunOpened) -> list[str]:
    """In what a run that is open differs from what somebody would open, in words."""
    found = [
        *_differing(opened.configuration, opening.configuration),
        *_differing(opened.data, opening.data),
    ]
    if opened.sites != opening.sites:
        found.append(f"sites is {_list(opened.sites)} there and {_list(opening.sites)} here")
    return found


def _differing(there: BaseModel, here: BaseModel) -> list[str]:
    before, now = (each.model_dump(mode="json") for each in (there, here))
    return [
        f"{key} is {before[key]!r} there and {now[key]!r} here"
        for key in before
        if before[key] != now[key]
    ]


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"
