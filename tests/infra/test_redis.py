"""The store on a real Redis server that is locked, encrypted, killed, stopped, emptied and filled.

Each test starts a server of its own, for it does to it what nobody should do to another's.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from infra.native.programs import HOST, free_ports
from infra.promises import Do, Keep
from infra.settings import REDIS, Service
from infra.store.base import About
from infra.store.dispensable import Dispensable
from infra.store.redis import RedisStore
from infra.transport.embedded import Embedded
from schemas.errors import ConfigurationError, DiskFull, ServiceError
from schemas.messages import Groups, ModelName
from schemas.tensors import groups_sha256
from tests.contracts.conftest import until_full
from tests.infra.test_serve import Made, old_model_of, published, system, weights
from tests.papers import Authority, Papers
from tests.services import Server, have

pytestmark = pytest.mark.redis

PROXY = (
    "ACL", "SETUSER", "proxy", "on", ">tulip", "~fedtwin:*", "+@all", "-@admin", "-@dangerous",
    "+info", "+config|get",
)  # fmt: skip
"""As docs/securing.md has it: no more than a proxy needs."""


def model(seed: int, numbers: int = 100) -> Groups:
    """A model of 4 bytes a number."""
    return {"model": {"weight": np.random.default_rng(seed).random(numbers, np.float32)}}


def name_of(version: int, groups: Groups) -> ModelName:
    """What the model is called."""
    return ModelName(version=version, sha256=groups_sha256(groups))


FIRST = name_of(1, model(1))


# --- what lies there ------------------------------------------------------------------------------


def test_an_operator_finds_models_by_run_version_and_hash(server: Server) -> None:
    """Keys and index as the head of redis.py draws them; another run's are another's."""
    store = server.store()
    store.put(FIRST, model(1), 2, 3)
    store.score(FIRST, 2, 0.75)

    member = f"1:{FIRST.sha256}"
    assert server.told("KEYS", "*:model:*") == [f"fedtwin:spring:model:{member}".encode()]
    assert server.told("ZRANGE", "fedtwin:spring:models", "0", "-1") == [member.encode()]
    about = server.told("HGETALL", f"fedtwin:spring:about:{member}")
    assert about == {b"stage": b"2", b"round": b"3", b"score/2": b"0.75"}
    assert RedisStore(server.service, "summer").list() == []
    store.forget(FIRST)
    assert server.told("DBSIZE") == 0


@pytest.mark.parametrize("command", ["SET", "LPUSH"])
def test_what_somebody_else_wrote_there_is_damage_and_is_mended(
    server: Server, command: str
) -> None:
    """Other bytes, or no bytes at all but a list: never given, and gone with the next put."""
    store = server.store()
    store.put(FIRST, model(1), 2)
    key = f"fedtwin:spring:model:1:{FIRST.sha256}"
    server.told("DEL", key)
    server.told(command, key, "junk")
    with pytest.raises(LookupError, match="version 1 in the store is damaged"):
        store.get(FIRST)

    store.put(FIRST, model(1), -1)

    assert groups_sha256(store.get(FIRST)) == FIRST.sha256
    assert store.about(FIRST) == About(2, -1, {})


def test_what_the_index_names_and_nobody_has_is_not_listed(server: Server) -> None:
    """A model that the server let go by itself, and a line of the index that is none of ours."""
    store = server.store()
    kept = [name_of(version, model(version)) for version in (1, 2)]
    for name in kept:
        store.put(name, model(name.version), 0)
    server.told("DEL", f"fedtwin:spring:model:1:{kept[0].sha256}")
    server.told("ZADD", "fedtwin:spring:models", "0", "junk")

    assert store.list() == kept[1:]
    with pytest.raises(LookupError, match="version 1 is not in the store"):
        store.about(kept[0])


def test_a_name_that_could_be_another_runs_keys_is_refused(server: Server) -> None:
    """A colon in a run's name would make it a part of another's."""
    with pytest.raises(ConfigurationError, match="run name 'spring:model'"):
        RedisStore(server.service, "spring:model")


# --- who may come in ------------------------------------------------------------------------------


def test_who_knows_the_password_is_let_in(server: Server) -> None:
    """The server's only password, and a user with one of his own who may do all this."""
    server.told(*PROXY)
    server.told("CONFIG", "SET", "requirepass", "rose")
    for user, password in (("", "rose"), ("proxy", "tulip")):
        service = replace(server.service, user=user, password=SecretStr(password))
        store = server.store(service)
        store.put(FIRST, model(1), 2)

        assert store.list() == [FIRST]
        store.forget(FIRST)
        store.close()


@pytest.mark.parametrize(
    ("user", "password"), [("", "daisy"), ("", None), ("proxy", "rose"), ("nobody", "tulip")]
)
def test_who_does_not_is_told_which_variables_say_who_he_is(
    server: Server, user: str, password: str | None
) -> None:
    """At once, for a second try would be the same; no password is in what is told."""
    server.told(*PROXY)
    server.told("CONFIG", "SET", "requirepass", "rose")
    secret = SecretStr(password) if password else None
    store = server.store(replace(server.service, user=user, password=secret), retries=1_000)

    with pytest.raises(ServiceError, match=r"does not let us in .*_PASSWORD_FILE") as told:
        store.reach()
    assert f"{HOST}:{server.port}" in str(told.value)
    assert not any(each in str(told.value) for each in ("rose", "tulip", "daisy"))


def test_a_user_who_may_not_write_is_told_so(server: Server) -> None:
    """He may read, and gets what is there; what he is refused is named."""
    server.store().put(FIRST, model(1), 2)
    server.told("ACL", "SETUSER", "reader", "on", ">tulip", "~*", "+@read", "+@connection")
    store = server.store(replace(server.service, user="reader", password=SecretStr("tulip")))

    assert groups_sha256(store.get(FIRST)) == FIRST.sha256
    with pytest.raises(ServiceError, match="does not let us in"):
        store.put(FIRST, model(1), 2)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whom both sides trust."""
    return have(lambda: Authority(tmp_path / "house"))


@pytest.fixture
def papers(authority: Authority) -> Papers:
    """An authority's certificate, and one that it signed."""
    return authority.papers("redis")


def encrypted(server: Server, papers: Papers) -> Service:
    """The server's second door: TLS, for whoever shows a certificate of the same authority."""
    (port,) = free_ports(1)
    told = {"ca-cert": papers.ca, "cert": papers.cert, "key": papers.key}
    words = [word for name, path in told.items() for word in (f"tls-{name}-file", str(path))]

    def opened() -> None:
        try:
            server.told("CONFIG", "SET", *words, "tls-port", str(port))
        except Exception as error:
            raise ServiceError(f"this redis-server was built without TLS: {error}") from error

    have(opened)
    return Service(
        REDIS,
        f"{HOST}:{port}",
        ca_file=papers.ca,
        cert_file=papers.cert,
        key_file=papers.key,
    )


def test_models_go_through_tls(server: Server, papers: Papers) -> None:
    """Both sides show a certificate, and what was put is got."""
    store = server.store(encrypted(server, papers))
    store.put(FIRST, model(1), 2)

    assert groups_sha256(store.get(FIRST)) == FIRST.sha256
    store.close()


@pytest.mark.parametrize("wrong", ["another authority", "another host", "no certificate"])
def test_a_stranger_at_either_end_ends_the_talk(server: Server, papers: Papers, wrong: str) -> None:
    """A server whose papers we cannot trust, or that is called otherwise; and we without papers."""
    service = encrypted(server, papers)
    changed = {
        "another authority": replace(service, ca_file=papers.cert),
        "another host": replace(service, address=service.address.replace(HOST, "localhost")),
        "no certificate": replace(service, cert_file=None, key_file=None),
    }
    store = server.store(changed[wrong], retries=0)

    with pytest.raises(ServiceError, match="cannot be reached"):
        store.reach()


def test_a_password_and_a_certificate_at_once_and_both_exchanged(
    server: Server, authority: Authority, papers: Papers, tmp_path: Path
) -> None:
    """A user's password through TLS with a certificate of our own; then others, for the same store.

    The old password opens nothing any more, and nobody had to be started again.
    """
    server.told(*PROXY)
    other = authority.papers("proxy-2")
    service = encrypted(server, papers)
    mine = Papers(papers.ca, tmp_path / "mine.pem", tmp_path / "mine.key")
    secret = tmp_path / "secret"
    for file, old in ((mine.cert, papers.cert), (mine.key, papers.key)):
        file.write_bytes(old.read_bytes())
    secret.write_text("tulip\n")
    service = replace(
        service, user="proxy", password_file=secret, cert_file=mine.cert, key_file=mine.key
    )
    store = server.store(service, retries=0)
    store.put(FIRST, model(1), 2)

    server.told("ACL", "SETUSER", "proxy", "resetpass", ">lily")
    secret.write_text("lily\n")
    for file, new in ((mine.cert, other.cert), (mine.key, other.key)):
        file.write_bytes(new.read_bytes())
    server.told("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with suppress(ServiceError):  # it notices that its connection is gone
        store.list()

    assert groups_sha256(store.get(FIRST)) == FIRST.sha256
    secret.write_text("tulip\n")
    with pytest.raises(ServiceError, match="does not let us in"):
        server.store(service, retries=0).reach()
    store.close()


# --- away -----------------------------------------------------------------------------------------


def test_a_server_that_was_killed_between_two_questions_is_found_again(server: Server) -> None:
    """Killed and started with what it had: the same store goes on, and nothing is lost."""
    store = server.store()
    store.put(FIRST, model(1), 2, 1)
    for _ in range(2):
        server.signal(signal.SIGKILL)
        server.start()

        assert groups_sha256(store.get(FIRST)) == FIRST.sha256
    assert store.about(FIRST) == About(2, 1, {})


def test_a_server_that_is_gone_is_named(server: Server) -> None:
    """Once the tries are used up: its address, and why; when it is back it answers."""
    store = server.store(retries=1)
    store.put(FIRST, model(1), 2)
    server.signal(signal.SIGKILL)

    for question in (store.reach, store.list, lambda: store.get(FIRST)):
        with pytest.raises(ServiceError, match=f"Redis at {HOST}:{server.port} cannot be reached"):
            question()

    server.start()
    assert store.list() == [FIRST]


def test_a_server_that_sleeps_longer_than_we_wait_is_away(server: Server) -> None:
    """It takes connections and does not answer; each try ends by itself, and it wakes as it was."""
    store = server.store(timeout=0.3, retries=1)
    store.put(FIRST, model(1), 2)
    server.signal(signal.SIGSTOP)
    began = time.monotonic()

    with pytest.raises(ServiceError, match="cannot be reached"):
        store.get(FIRST)
    with pytest.raises(ServiceError, match="cannot be reached"):
        store.put(FIRST, model(1), 2)

    assert time.monotonic() - began < 30  # and not for ever, nor as long as TCP would wait
    server.signal(signal.SIGCONT)
    assert groups_sha256(server.store().get(FIRST)) == FIRST.sha256


def test_an_emptied_server_has_nothing_until_it_is_put_again(server: Server) -> None:
    """FLUSHALL: not there, for nobody; the log's copy mends it."""
    store = server.store()
    store.put(FIRST, model(1), 2, 1)
    server.told("FLUSHALL")

    assert store.list() == []
    store.score(FIRST, 2, 0.5)
    with pytest.raises(LookupError, match="version 1 is not in the store"):
        store.get(FIRST)
    store.put(FIRST, model(1), -1)
    assert groups_sha256(store.get(FIRST)) == FIRST.sha256
    assert store.about(FIRST) == About(-1, -1, {})


def test_a_role_gets_its_old_models_while_the_server_is_away_and_after(server: Server) -> None:
    """Kept, then the server is killed, then it is back and empty: three times the same model.

    While it is away the model comes from the log; once it is back it is put there again.
    """
    log, now, told = Embedded(), [0.0], list[str]()
    inner = server.store(retries=0)
    store = Dispensable(inner, told.append, rest=30, clock=lambda: now[0])
    name = published(log, 1)

    def scored(number: int) -> list[float]:
        task = Do(("score", number), old_model_of(name))
        role = Made(todo=[Keep(name, 2, 1), task], until=lambda role: bool(role.results))
        system(log, role, store=store).run()
        return list(role.results["score", number].groups["model"]["weight"])

    found = [scored(0)]
    server.signal(signal.SIGKILL)
    found.append(scored(1))
    server.start()
    server.told("FLUSHALL")
    now[0] = 30
    found.append(scored(2))

    assert found == [list(weights(1)["weight"] * 2)] * 3
    assert inner.list() == [name]
    assert len(told) == 2
    assert "Old models are read from the log until it is back" in told[0]


# --- full -----------------------------------------------------------------------------------------


def test_a_server_without_memory_keeps_what_it_has(server: Server) -> None:
    """Models of 400 kB and 8 MiB more than it has: at last none fits, and those before stand."""
    server.told("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.told("CONFIG", "SET", "maxmemory", str(memory(server) + (8 << 20)))
    store, large = server.store(), model(0, 100_000)

    kept = until_full(lambda version: store.put(name_of(version, large), large, 0))

    assert kept > 2
    assert store.list() == [name_of(version, large) for version in range(kept)]
    assert groups_sha256(store.get(name_of(kept - 1, large))) == groups_sha256(large)
    with pytest.raises(DiskFull, match=rf"{HOST}:{server.port} has no room .*maxmemory"):
        store.put(name_of(kept, large), large, 0)


def test_what_is_let_go_makes_room_in_a_server_that_has_less_than_none(server: Server) -> None:
    """Its limit was lowered below what it has: all can be read and let go, nothing can be put."""
    store, large = server.store(), model(0, 100_000)
    names = [name_of(version, large) for version in range(10)]
    for name in names:
        store.put(name, large, 2, 1)
    server.told("CONFIG", "SET", "maxmemory", str(memory(server) - (1 << 19)))
    with pytest.raises(DiskFull, match="has no room"):
        store.put(names[0], large, 2)
    with pytest.raises(DiskFull, match="has no room"):
        store.score(names[0], 2, 0.5)

    assert store.about(names[9]) == About(2, 1, {})
    for name in names[:9]:
        store.forget(name)

    store.put(names[0], large, 0)
    assert store.list() == [names[0], names[9]]


def test_a_server_without_disk_keeps_what_it_has(small_disk: Path) -> None:
    """It can write down nothing more, says so, and goes on giving."""
    server = Server(small_disk / "redis", *free_ports(1))
    have(lambda: server.start())
    try:
        store, large = server.store(), model(0, 100_000)
        kept = until_full(lambda version: store.put(name_of(version, large), large, 0))

        assert kept > 2
        assert groups_sha256(store.get(name_of(0, large))) == groups_sha256(large)
        with pytest.raises(DiskFull, match=r"has no room \(MISCONF .*No space left"):
            store.score(name_of(0, large), 0, 0.5)
    finally:
        server.end(patience=0.5)  # without disk it does not end when it is asked


def memory(server: Server) -> int:
    """Bytes that it uses."""
    return int(server.told("INFO", "memory")["used_memory"])


def test_a_model_that_redis_does_not_take_is_refused_with_both_sizes(server: Server) -> None:
    """Above 512 MB in the world, above 1,000 bytes here: nothing is sent, what was put stands."""
    store = server.store(most=1_000)
    store.put(FIRST, model(1), 2)
    large = model(2, 1_000)

    with pytest.raises(DiskFull, match=r"version 2 has 4,\d\d\d bytes, .* more than 1,000"):
        store.put(name_of(2, large), large, 2)

    assert store.list() == [FIRST]


def test_a_model_of_the_papers_size_goes_and_comes(server: Server) -> None:
    """45 MB, in the time that one answer may take."""
    large = model(3, 45_000_000 // 4)
    store = RedisStore(server.service, "spring")
    store.put(name_of(3, large), large, 2)

    assert np.array_equal(store.get(name_of(3, large))["model"]["weight"], large["model"]["weight"])
