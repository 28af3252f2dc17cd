"""What a run is opened with, as a file: whoever starts the aggregator writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from aggregator.aggregator import Opening
from schemas.configuration import Configuration, Frozen
from schemas.errors import ConfigurationError
from schemas.messages import DataFacts
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
