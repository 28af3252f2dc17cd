"""A YAML file as a validated value; what is wrong with it is said in one line, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from schemas.errors import ConfigurationError

T = TypeVar("T")


def read_yaml(file: Path, kind: type[T] | Any) -> T:
    """Read it. Raises ConfigurationError for what cannot be read, is no YAML or no such value."""
    try:
        found: T = TypeAdapter(kind).validate_python(yaml.safe_load(file.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{file} is no YAML: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is no text") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{file}: {where}: {said}") from None
    return found
