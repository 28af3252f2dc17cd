"""Whatever becomes of Redis, a run comes to the same; and whoever looks into it sees the same."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from infra.store.base import About, ModelStore
from infra.store.dispensable import Dispensable
from infra.store.sqlite import SqliteStore
from infra.transport.embedded import Embedded as Log
from schemas.messages import ModelName
from tests.flows.federation import Outcome, Told, outcome, put_together, small
from tests.services import Server

pytestmark = pytest.mark.redis

Trouble = Callable[[Server, int], None]


def shown(store: ModelStore) -> dict[ModelName, About]:
    """All that there is to see."""
    return {name: store.about(name) for name in store.list()}


def seen_through(store: ModelStore, hook: Callable[[str], None] = lambda point: None) -> Outcome:
    """A run with this store."""
    run = put_together(small(), Log(), Told(hook=hook), store=store)
    run.system.run()
    return outcome(run)


def test_redis_shows_what_sqlite_shows(quiet: Outcome, server: Server) -> None:
    """The same models, with their stages, rounds and scores; the scores are those of the choice."""
    sqlite, redis = SqliteStore(), server.store()

    assert seen_through(sqlite) == seen_through(redis) == quiet
    assert shown(sqlite) == shown(redis)
    assert any(about.scores for about in shown(redis).values())
    assert all(about.round >= 0 for about in shown(redis).values())


def emptied(server: Server, times: int) -> None:
    """Each time."""
    server.told("FLUSHALL")


def killed(server: Server, times: int) -> None:
    """Once, and for good."""
    if times == 1:
        server.signal(signal.SIGKILL)


def restarted(server: Server, times: int) -> None:
    """Killed each time, and back at once."""
    server.signal(signal.SIGKILL)
    server.start()


def put_to_sleep(server: Server, times: int) -> None:
    """Every other time; then it is awake again."""
    server.signal(signal.SIGSTOP if times % 2 else signal.SIGCONT)


def filled(server: Server, times: int) -> None:
    """No room for anything but what is there."""
    server.told("CONFIG", "SET", "maxmemory", "1")


@pytest.mark.parametrize("trouble", [emptied, killed, restarted, put_to_sleep, filled])
def test_whatever_becomes_of_redis_a_run_ends_the_same(
    quiet: Outcome, server: Server, trouble: Trouble
) -> None:
    """It is mistreated whenever an old model was just put there, before that is read."""
    told: list[str] = []
    store = Dispensable(server.store(timeout=0.3, retries=0), told.append, rest=0)
    puts = 0

    def hook(point: str) -> None:
        nonlocal puts
        if point == "store:put":
            puts += 1
            trouble(server, puts)

    assert seen_through(store, hook) == quiet
    assert puts >= 2
    assert bool(told) == (trouble in (killed, put_to_sleep, filled))
