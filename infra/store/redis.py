"""Old models in Redis: a view of the topic `models` on one server, with or without replicas.

What lies there, of run R under prefix P:

    P:R:models                      sorted set: `<version>:<sha256>` of each model, by version
    P:R:model:<version>:<sha256>    the model, in the layout of a message's payload
    P:R:about:<version>:<sha256>    hash: `stage`, `round`, and `score/<stage>` for each score

What is put together is put in one transaction. A cluster of Redis, which spreads keys over servers,
has no such transactions; with models by the dozen there is nothing to spread. Reading and letting
go need none, and must not: a server without room refuses every transaction, and is to be emptied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from infra.passwords import Password
from infra.settings import Service
from infra.store.base import About
from schemas.codec import plain, read_plain
from schemas.errors import DiskFull, FedtwinError, Refused, ServiceError
from schemas.messages import Groups, ModelName
from schemas.tensors import groups_sha256
from schemas.topics import PREFIX, checked

MOST = 512 * 1024 * 1024  # bytes of one value: Redis takes no more (its proto-max-bulk-len)
TIMEOUT = 10.0  # s for one answer; a model of 45 MB takes 0.3 s on one machine
CONNECT = 3.0  # s for a connection
RETRIES = 2  # after 0.5 and 1 s: a server that is restarted is back by then
IDLE = 30  # s after which a connection is asked whether it is still one, before a model goes out
T = TypeVar("T")


class RedisStore:
    """The store for a federation. It connects when it is first asked, and again whenever it must.

    A server that cannot be reached is asked `retries` times more; each answer may take `timeout`.
    """

    def __init__(
        self,
        service: Service,
        run: str,
        *,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        most: int = MOST,
    ) -> None:
        """Raises ConfigurationError for a run or prefix that is no name."""
        self._service = service
        self._keys = f"{checked(prefix, 'prefix')}:{checked(run, 'run')}"
        self._redis = client(service, timeout)
        self._retry = Retry(ExponentialBackoff(cap=1.0, base=0.25), retries)
        self._most = most

    def reach(self) -> None:
        """Raise ServiceError unless the server answers: for a program's first lines."""
        self._ask(self._redis.ping)

    def put(self, model: ModelName, groups: Groups, stage: int, round: int = -1) -> None:
        value = plain({"version": model.version}, groups)
        if len(value) > self._most:
            raise DiskFull(
                f"version {model.version} has {len(value):,} bytes, and {self._where} takes no"
                f" value of more than {self._most:,}. What was put stands"
            )
        told = {"stage": stage, "round": round}
        known: dict[Any, Any] = {name: number for name, number in told.items() if number >= 0}

        def write() -> None:
            with self._redis.pipeline() as together:
                together.set(self._key("model", model), value)
                together.zadd(self._index, {_member(model): model.version})
                if known:
                    together.hset(self._key("about", model), mapping=known)
                together.execute()

        self._ask(write)

    def get(self, model: ModelName) -> Groups:
        value = self._ask(lambda: self._value(model))
        if value is None:
            raise LookupError(f"version {model.version} is not in the store")
        try:
            groups = read_plain(value)[1]
        except Refused:
            raise LookupError(f"version {model.version} in the store is damaged") from None
        if groups_sha256(groups) != model.sha256:
            raise LookupError(f"version {model.version} in the store is not what its hash says")
        return groups

    def list(self) -> list[ModelName]:
        """The index may name what the server has let go since, so each of them is asked for."""
        members = self._ask(lambda: list[Any](self._redis.zrange(self._index, 0, -1)))
        names = [name for member in members if (name := _name(member))]

        def look() -> list[int]:
            with self._redis.pipeline(transaction=False) as each:
                for name in names:
                    each.exists(self._key("model", name))
                return each.execute()

        return [name for name, there in zip(names, self._ask(look), strict=True) if there]

    def forget(self, model: ModelName) -> None:
        def write() -> None:
            with self._redis.pipeline(transaction=False) as each:
                each.unlink(self._key("model", model), self._key("about", model))
                each.zrem(self._index, _member(model))  # last: what it names can be let go again
                each.execute()

        self._ask(write)

    def score(self, model: ModelName, stage: int, score: float) -> None:
        there, about = self._key("model", model), self._key("about", model)

        def beside(together: Pipeline) -> None:
            exists = together.exists(there)  # and if it goes now, this is asked once more
            together.multi()
            if exists:
                together.hset(about, f"score/{stage}", repr(float(score)))

        self._ask(lambda: self._redis.transaction(beside, there))

    def about(self, model: ModelName) -> About:
        def look() -> list[Any]:
            with self._redis.pipeline(transaction=False) as each:
                each.exists(self._key("model", model))
                each.hgetall(self._key("about", model))
                return each.execute()

        there, fields = self._ask(look)
        if not there:
            raise LookupError(f"version {model.version} is not in the store")
        return _told({name.decode(): text.decode() for name, text in fields.items()})

    def close(self) -> None:
        self._redis.close()

    # --- the server ------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"Redis at {self._service}"

    @property
    def _index(self) -> str:
        return f"{self._keys}:models"

    def _key(self, what: str, model: ModelName) -> str:
        return f"{self._keys}:{what}:{_member(model)}"

    def _value(self, model: ModelName) -> Any:
        try:
            return self._redis.get(self._key("model", model))
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return b""  # something else lies there: damage like any other
            raise

    def _ask(self, question: Callable[[], T]) -> T:
        """The server's answer. The same question may be asked twice: all of them can bear it."""
        try:
            return self._retry.call_with_retry(lambda: self._once(question), lambda error: None)
        except (ConnectionError, TimeoutError) as error:
            raise ServiceError(f"{self._where} cannot be reached: {error}") from None

    def _once(self, question: Callable[[], T]) -> T:
        """Ask once; what another try would not mend is told in our words."""
        try:
            return question()
        except (AuthenticationError, AuthorizationError, ResponseError) as error:
            raise self._in_words(error) from None

    def _in_words(self, error: redis.RedisError) -> FedtwinError:
        why = str(error).rpartition(" of pipeline caused error: ")[2]
        if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
            name = self._service.variable
            return ServiceError(
                f"{self._where} does not let us in ({why}): {name}_USER and {name}_PASSWORD_FILE"
                " say who we are"
            )
        if isinstance(error, OutOfMemoryError) or why.startswith("MISCONF"):
            return DiskFull(
                f"{self._where} has no room ({why}). What was put stands: give it more memory"
                " (maxmemory) or disk"
            )
        return ServiceError(f"{self._where} refuses: {why}")


def client(service: Service, timeout: float = TIMEOUT) -> redis.Redis:
    """A client that asks once: who asks again is `RedisStore`, in one place and not in several."""
    (host, port), *_ = service.hosts
    return redis.Redis(
        host=host,
        port=port,
        credential_provider=_Proof(service) if service.password or service.password_file else None,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, CONNECT),
        socket_keepalive=True,
        health_check_interval=IDLE,
        retry=Retry(NoBackoff(), 0),
        ssl=service.tls,
        ssl_ca_certs=_text(service.ca_file),
        ssl_certfile=_text(service.cert_file),
        ssl_keyfile=_text(service.key_file),
        ssl_check_hostname=True,
    )


class _Proof(CredentialProvider):
    """Who we are, asked for each connection."""

    def __init__(self, service: Service) -> None:
        self._user = service.user
        self._password = Password(service.password, service.password_file)

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._password.now()
        return (self._user, password) if self._user else (password,)


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def _member(model: ModelName) -> str:
    return f"{model.version}:{model.sha256}"


def _name(member: bytes) -> ModelName | None:
    """The model that a line of the index names, if it names one."""
    version, _, sha256 = member.partition(b":")
    try:
        return ModelName(version=int(version), sha256=sha256.decode())
    except ValueError:
        return None


def _told(fields: dict[str, str]) -> About:
    """What stands beside a model. Raises LookupError when that is not what we wrote."""
    try:
        return About(
            int(fields.get("stage", -1)),
            int(fields.get("round", -1)),
            {int(n.removeprefix("score/")): float(v) for n, v in fields.items() if "/" in n},
        )
    except ValueError:
        raise LookupError("what stands beside the model is not what we wrote") from None
