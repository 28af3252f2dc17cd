"""What a program takes from its environment: addresses, names and secrets, and nothing else.

    FEDTWIN_KAFKA             the federation's brokers, host:port[,host:port…]
    FEDTWIN_SITE_KAFKA        the site's, where those are others
    FEDTWIN_REDIS             the proxy's server, host:port
    …_USER, …_PASSWORD_FILE   of each of the three: who we are. The secret is what the file holds
    …_CA_FILE                 of each: TLS, and whom we trust as a server; a file in PEM, such as
                              the system's own list
    …_CERT_FILE, …_KEY_FILE   of each: TLS, and a certificate that says who we are
    …_MECHANISM               of the two of Kafka: how user and password are proved, SCRAM-SHA-512,
                              SCRAM-SHA-256 or PLAIN                              (SCRAM-SHA-512)
    FEDTWIN_RUN               the run that the program belongs to
    FEDTWIN_SITE              its site                                                    (local)
    FEDTWIN_DATA_DIR          where data sets lie
    FEDTWIN_METRICS_PORT      where a program tells Prometheus how it goes; none unless it is set
    FEDTWIN_METRICS_HOST      at which address                                  (127.0.0.1)

Certificates and the secret are read anew for each connection, so a program need not be ended for
another one.

Where the environment names none of the three addresses, they are read from `.services.json` of the
current folder, which `make up` has written. They are never mixed: a broker that somebody named is
not joined by a server that happens to run on this machine. An empty variable is one that is unset.

FEDTWIN_SITE_KAFKA is FEDTWIN_KAFKA unless it is set, and then has the same secrets unless it has
some of its own: one cluster may know the site's side by another name. Secrets of one cluster are
never shown to another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.passwords import written
from schemas.errors import ConfigurationError, ServiceError
from schemas.topics import NAME

SERVICES_FILE = Path(".services.json")
"""Written by `make up` (infra/native)."""
PREFIX = "FEDTWIN_"
KAFKA, SITE_KAFKA, REDIS = "FEDTWIN_KAFKA", "FEDTWIN_SITE_KAFKA", "FEDTWIN_REDIS"
ONE = r"(?:\[[0-9a-fA-F:.]+\]|[^\s,:/@\[\]]+):[0-9]{1,5}"
"""A host and a port; an address of IPv6 stands in brackets."""
ADDRESS = re.compile(rf"{ONE}(?:,{ONE})*")
Compression = Literal["gzip", "zstd"]
COMPRESSIONS = get_args(Compression)
"""How a program may compress what it writes to Kafka."""
LOOPBACK = "127.0.0.1"
REQUEST = 10.0  # seconds after which an unanswered request to Kafka is sent anew
DELIVERY = 30.0  # seconds after which a record is given up, and sent by another connection
Mechanism = Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]
"""How user and password are proved to Kafka. PLAIN shows the password to the broker and, unless it
is encrypted, to everybody between; some hosted clusters want it."""
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is, and who we are to it."""

    variable: str
    """The environment's name for its address; those of its secrets begin with it."""
    address: str
    """One host:port, or several with commas between them."""
    user: str = ""
    password: SecretStr | None = field(default=None, repr=False, hash=False)
    """One that stands in no file."""
    password_file: Path | None = None
    """Where it stands; read anew for each connection."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    mechanism: Mechanism = "SCRAM-SHA-512"
    """Of Kafka's."""

    @property
    def tls(self) -> bool:
        """Whether what is said to it is encrypted: where a certificate of either side is named."""
        return self.ca_file is not None or self.cert_file is not None

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Its addresses, taken apart."""
        parts = [each.rpartition(":") for each in self.address.split(",")]
        return [(host.strip("[]"), int(port)) for host, _, port in parts]

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says."""

    services: Mapping[str, Service]
    """By the variable that names them."""
    hint: str = ""
    """What to say besides when one of them is missing."""
    run_name: str | None = None
    site: str = "local"
    data_dir: Path | None = None
    metrics_port: int | None = None
    """Where a program tells Prometheus how it goes; 0 finds a free port."""
    metrics_host: str = LOOPBACK

    @property
    def kafka(self) -> Service:
        """The federation's cluster. Raises ServiceError where nobody names one."""
        return self._named(KAFKA, "Kafka")

    @property
    def site_kafka(self) -> Service:
        """The site's cluster. Raises ServiceError where nobody names one."""
        return self._named(SITE_KAFKA if SITE_KAFKA in self.services else KAFKA, "Kafka")

    @property
    def redis(self) -> Service:
        """The server of old models. Raises ServiceError where nobody names one."""
        return self._named(REDIS, "Redis")

    @property
    def run(self) -> str:
        """The run that the program belongs to. Raises ConfigurationError where nobody names one."""
        if self.run_name is None:
            raise ConfigurationError("which run? Set FEDTWIN_RUN to its name")
        return self.run_name

    def _named(self, variable: str, what: str) -> Service:
        if (service := self.services.get(variable)) is None:
            raise ServiceError(
                f"no address of {what}: set {variable} to its host:port, or start one on this"
                f" machine with `make up`{self.hint}"
            )
        return service


def read_settings(folder: Path = Path()) -> Settings:
    """Read the environment, once, in a program's first lines; and `.services.json` in `folder`.

    Raises ConfigurationError, in one line, for what cannot be meant.
    """
    names = _read(_Names, PREFIX)
    if os.environ.get(SITE_KAFKA) == "":  # a script's address that was not found
        raise ConfigurationError(
            f"{SITE_KAFKA} is set and empty, and images would go to the federation's Kafka: give it"
            " the site's host:port, or unset it"
        )
    asked = {KAFKA: names.kafka, SITE_KAFKA: names.site_kafka, REDIS: names.redis}
    found = {variable: address for variable, address in asked.items() if address}
    access: dict[str, _Access] = {
        variable: _read(_Access if variable == REDIS else _KafkaAccess, f"{variable}_")
        for variable in asked
    }
    hint = f" (the environment names {', '.join(found)} alone)" if found else ""
    addresses = found or _written(folder / SERVICES_FILE)
    services = {
        variable: access[variable].to(variable, address) for variable, address in addresses.items()
    }
    if KAFKA in services and SITE_KAFKA not in services and access[SITE_KAFKA].given:
        services[SITE_KAFKA] = access[SITE_KAFKA].to(SITE_KAFKA, services[KAFKA].address)
    return Settings(
        services,
        hint,
        names.run,
        names.site,
        names.data_dir,
        names.metrics_port,
        names.metrics_host,
    )


# --- as they are written --------------------------------------------------------------------------


def _address(text: str) -> str:
    if "@" in text:  # and what stands before it is nothing to print
        raise ValueError("no user or password stands in an address: set _USER and _PASSWORD_FILE")
    ports = [each.rpartition(":")[2] for each in text.split(",")]
    if not ADDRESS.fullmatch(text) or not all(0 < int(port) < 65536 for port in ports):
        raise ValueError(f"{text!r} is not host:port, nor several with commas between them")
    return text


def _single(text: str) -> str:
    if "," in text:
        raise ValueError(f"{text!r} are several servers, and there is one")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not 1 to 63 lower-case letters, digits and '-'")
    return text


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not there, or no file")
    return path


def _secret(path: Path) -> Path:
    """A file that holds something which we may read; what, is read at each connection."""
    try:
        written(path)
    except (OSError, UnicodeDecodeError) as error:
        # A decoding error's own words quote what it could not read.
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"{str(path)!r} cannot be read: {why}") from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} {error}") from None
    return path


Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, AfterValidator(_name)]
Place = Annotated[Path, AfterValidator(Path.expanduser)]
File = Annotated[Place, AfterValidator(_file)]
Secret = Annotated[Place, AfterValidator(_secret)]


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(env_ignore_empty=True)


class _Names(_Environment):
    kafka: Address | None = None
    site_kafka: Address | None = None
    redis: Annotated[Address, AfterValidator(_single)] | None = None
    run: Name | None = None
    site: Name = "local"
    data_dir: Place | None = None
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    metrics_host: str = LOOPBACK


class _Access(_Environment):
    """How one service lets us in."""

    user: str = ""
    password_file: Secret | None = None
    ca_file: File | None = None
    cert_file: File | None = None
    key_file: File | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Access:
        if self.user and self.password_file is None:
            raise ValueError("_USER is set, and _PASSWORD_FILE is not")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("_CERT_FILE and _KEY_FILE belong together, and one of them is not set")
        return self

    @property
    def given(self) -> bool:
        """Whether anything of it is set."""
        return bool(self.model_fields_set)

    def to(self, variable: str, address: str) -> Service:
        """The service that it belongs to."""
        files = self.ca_file, self.cert_file, self.key_file
        return Service(variable, address, self.user, None, self.password_file, *files)


class _KafkaAccess(_Access):
    """Kafka's know several ways to prove a password."""

    mechanism: Mechanism = "SCRAM-SHA-512"

    def to(self, variable: str, address: str) -> Service:
        """The service that it belongs to."""
        return replace(super().to(variable, address), mechanism=self.mechanism)


class _Written(BaseModel):
    """What `make up` writes."""

    number: Literal[1] = Field(alias="schema")
    addresses: dict[Literal["FEDTWIN_KAFKA", "FEDTWIN_REDIS"], Address]


def _written(file: Path) -> dict[str, str]:
    try:
        written = _Written.model_validate_json(file.read_bytes())
        return {str(name): address for name, address in written.addresses.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else _in_words(error, "")
        raise ConfigurationError(
            f"{file} cannot be read ({why}): `make up` writes it anew"
        ) from None


def _read(kind: type[T], prefix: str) -> T:
    values: dict[str, Any] = {"_env_prefix": prefix}
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigurationError(_in_words(error, prefix)) from None


def _in_words(error: ValidationError, prefix: str) -> str:
    """A clause for each variable; never what it holds, but where our own words quote it."""
    return "; ".join(
        f"{_variable(each['loc'], prefix)}: {each['msg'].removeprefix('Value error, ')}"
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _variable(loc: tuple[int | str, ...], prefix: str) -> str:
    if not prefix:
        return ".".join(map(str, loc)) or "the file"
    return f"{prefix}{str(loc[0]).upper()}" if loc else prefix.removesuffix("_")
