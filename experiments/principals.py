"""As whom brokers know each side of a run: a file that is given to `fedtwin topics apply`."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from schemas.errors import ConfigurationError
from schemas.rights import Principals


def read_principals(file: Path) -> Principals:
    """What a YAML file says. Raises ConfigurationError, with the place, for what cannot be meant.

    aggregator: User:CN=aggregator
    sites: {north: User:CN=north}
    producers: {north: User:north-cameras, north/ct-1: User:ct-1}
    """
    try:
        return Principals.model_validate(yaml.safe_load(file.read_text("utf-8")) or {})
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is no text") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is no YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        told = "a principal is User: and a name, such as User:fedtwin-proxy"
        said = told if first["type"] == "string_pattern_mismatch" else first["msg"]
        raise ConfigurationError(f"{file}: {where}: {said}") from None
