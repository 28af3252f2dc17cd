"""The same recipe ends in the same model, in one process or in many, on one cluster or on two."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from experiments.recipes import recipe
from experiments.replay import Replay
from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports, stop
from infra.transport.base import Transport
from schemas.topics import table_row
from tests.distributed.conftest import Found
from tests.distributed.federation import Federation, digits, ended_as_undisturbed, tiny, undisturbed
from tests.services import have, jars

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


def test_one_process_for_each_role(found: Found) -> None:
    """Aggregator, producers, twins and proxy: the model of one process, byte for byte."""
    run = found()
    run.start_all()
    run.finish()

    ended_as_undisturbed(run)
    assert not run.letters()


def test_every_role_twice(found: Found) -> None:
    """Two that share the twins, two aggregators and two proxies that both think they are first."""
    run = found()
    run.start_all()
    run.start("aggregator", name="aggregator-2")
    run.start("twins", name="twins-2")
    run.start("proxy", name="proxy-2")
    run.finish()

    ended_as_undisturbed(run)


def test_two_that_both_believe_to_host_every_twin_change_nothing(found: Found) -> None:
    """Both are told all names, so both train all twins."""
    names = [f"entity-{number:03d}" for number in range(4)]
    run = found()
    run.start_all("twins")
    run.start("twins", *names, name="twins-1")
    run.start("twins", *names, name="twins-2")
    run.finish()

    ended_as_undisturbed(run)


@pytest.mark.parametrize(
    ("role", "point", "times"), [("aggregator", "said", 8), ("proxy", "task:done", 1)]
)
def test_a_standby_goes_on_when_the_first_is_killed_for_good(
    found: Found, role: str, point: str, times: int
) -> None:
    """No election and no lock: the second says what the first has not, and the run ends as ever."""
    run = found(tiny(standby_after=1.0))
    run.start_all(role)
    first = run.start(role, kill=(point, times))
    run.start(role, "--standby", name=f"{role}-2")
    run.until(lambda: first.code is not None)

    assert first.code == -signal.SIGKILL
    del run.programs[f"{role}-1"]
    run.finish()
    ended_as_undisturbed(run)


@pytest.fixture(scope="module")
def site_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a second cluster."""
    broker = Broker(tmp_path_factory.mktemp("site") / "kafka", have(jars), *free_ports(2))
    have(broker.start)
    yield f"{HOST}:{broker.port}"
    stop(broker.folder)


def test_two_clusters_and_no_image_leaves_its_site(found: Found, site_broker: str) -> None:
    """The site's cluster holds samples and states, the federation's everything else; same bytes.

    A row of sixteen pixels with more than eight different ones is found in no record of the
    federation's; hundreds of them are in the site's.
    """
    run = found(tiny(keep_samples=True), site_kafka=site_broker)
    run.start_all()
    run.finish()

    ended_as_undisturbed(run)
    with run.log() as federation, run.log(site_broker) as site:
        of_federation, of_site = _held(run, federation), _held(run, site)
    assert of_federation.keys() == {"classes", "metrics", "models", "rounds", "teachers", "updates"}
    assert of_site.keys() == {"samples", "twin-state"}
    rows = {row.tobytes() for image in digits().train.images for row in image[0] if row.max() > 200}
    pixels = [row for row in rows if len(set(row)) > 8]
    assert len(pixels) > 1000
    assert sum(row in of_site["samples"] for row in pixels) > 100
    everything = b"".join(of_federation.values())
    assert len(everything) > 1_000_000
    assert not [row for row in pixels if row in everything]


@pytest.mark.parametrize("way", ["one for each role", "every role twice", "two clusters"])
def test_a_recipe_that_learns(found: Found, site_broker: str, way: str) -> None:
    """Images are learnt, prototypes rebuilt and a teacher chosen among several; and the log that
    is left of it replays to the same bytes, with every sum redone."""
    smoke = recipe("smoke", overrides={"keep_rounds": "all", "standby_after": 2.0})
    run = found(smoke, site_kafka=site_broker) if way == "two clusters" else found(smoke)
    run.start_all()
    if way == "every role twice":
        for role in ("aggregator", "twins", "proxy"):
            run.start(role, name=f"{role}-2")
    run.finish(seconds=900)

    ended_as_undisturbed(run)
    with run.log() as log:
        replayed = Replay(log, run.names).fold()
    assert replayed.different == []
    assert replayed.model_sha256 == undisturbed(smoke)
    assert replayed.summed == smoke.stages * smoke.rounds_per_stage


def _held(run: Federation, log: Transport) -> dict[str, bytes]:
    """By line of the table, every byte that this run's topics hold there."""
    found: dict[str, bytes] = {}
    for topic in log.topics():
        if topic.startswith(f"{run.names.prefix}.{run.names.run}."):
            place = log.first(topic)
            while place < log.end(topic):
                for stored in log.read(topic, place, 2**22):
                    place = stored.offset + 1
                    name = table_row(topic).name
                    found[name] = found.get(name, b"") + stored.record.value
    return found
