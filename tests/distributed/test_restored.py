"""Two clusters, one of which is restored to an older moment while the other went on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.outside import Outside
from infra.native.kafka import Broker, start_all
from infra.native.programs import free_ports, stop
from schemas.errors import DataError
from tests.distributed.federation import Zygote
from tests.distributed.test_by_hand import Hands, grown, judged
from tests.experiments.hands import fedtwin, told
from tests.services import have, jars

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
CONFIG = """
recipe: tiny
seed: 7
keys: {quorum: 2, growth_window: 1, deadline: 60, standby_after: 2, keep_rounds: all}
entities:
  ward: {site: north, dataset: digits, classes: ["0", "1"]}
  icu: {site: north, dataset: digits, classes: ["0", "2"]}
"""
BOTH = {"north/icu", "north/ward"}


class Clusters:
    """The federation's broker and the hospital's, and copies of their folders."""

    def __init__(self, folder: Path) -> None:
        libs, ports = have(jars), free_ports(4)
        self._folder = folder
        self.federation = Broker(folder / "federation", libs, *ports[:2])
        self.hospital = Broker(folder / "hospital", libs, *ports[2:])

    def start(self) -> None:
        """Both begin, or go on."""
        start_all([self.federation, self.hospital])

    def save(self) -> None:
        """Both are stopped, copied and started."""
        self.end()
        for each in (self.federation, self.hospital):
            shutil.copytree(each.folder, self._saved(each))
        self.start()

    def restore(self, broker: Broker) -> None:
        """One of them loses its disk, and gets what was saved."""
        stop(broker.folder)
        shutil.rmtree(broker.folder)
        shutil.copytree(self._saved(broker), broker.folder)
        broker.start()

    def end(self) -> None:
        """Nobody runs any more."""
        for each in (self.federation, self.hospital):
            stop(each.folder)

    def _saved(self, broker: Broker) -> Path:
        return self._folder / f"saved-{broker.folder.name}"


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    """Both run."""
    made = Clusters(tmp_path / "clusters")
    try:
        made.start()
        yield made
    finally:
        made.end()


@pytest.fixture
def hands(
    zygote: Zygote, clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hands]:
    """Nobody runs yet; commands find both clusters in the environment."""
    made = Hands(zygote, tmp_path, clusters.federation.address)
    made.environment |= {"FEDTWIN_SITE_KAFKA": clusters.hospital.address, "FEDTWIN_SITE": "north"}
    for variable, value in made.environment.items():
        monkeypatch.setenv(variable, value)
    yield made
    made.kill_all()


def learned(seen: Outside, uid: str) -> bool:
    """Whether a class has a row, and a round behind that has counted both."""
    stages = seen.standing.line.stages[-1:]
    closed = [each.closed for stage in stages for each in stage.rounds if each.closed]
    return uid in grown(seen) and any({e for e, _ in each.counted} == BOTH for each in closed)


def test_a_site_is_restored_to_an_older_moment_and_then_the_federation(
    hands: Hands, clusters: Clusters, tmp_path: Path
) -> None:
    """The hospital's disk breaks: its twin says which image it waits for. Injected once more, each
    image is judged once, the next class is learned and the log replays to the same bytes. Then the
    federation's cluster is set back behind the hospital: the twins end, and say so."""
    config = tmp_path / "live.yaml"
    config.write_text(CONFIG)
    seven = ("inject", "--entity", "ward", "--classes", "7", "--images", "40", "--source", "one")

    def programs() -> None:
        hands.start("aggregator", "--live", str(config), name="aggregator-1")
        hands.start("proxy", name="proxy-1")
        hands.start("twins", name="twins-1")

    programs()
    hands.start("producers", "--live", str(config), name="producers")
    hands.sees(lambda seen: learned(seen, "2"))
    hands.stop_all()
    clusters.save()
    programs()
    assert told(*seven)["new_images"] == 40
    hands.sees(lambda seen: learned(seen, "7"))
    hands.stop_all()

    clusters.restore(clusters.hospital)
    programs()
    watch = ("watch", hands.names.run, "--once")
    hands.until(lambda: "of its stream" in fedtwin(*watch).stdout)
    assert told(*seven)["new_images"] == 40
    assert told(*seven)["new_images"] == 0
    five = (*seven[:4], "5", *seven[5:7])
    assert told(*five)["new_images"] == 40
    hands.sees(lambda seen: learned(seen, "5"))
    hands.sees(lambda seen: (judged(seen, "ward", "7"), judged(seen, "ward", "5")) == (40, 40))
    hands.stop_all()
    again = told("replay", hands.names.run)
    assert again["equal"]
    assert again["summed"] > 3

    clusters.restore(clusters.federation)
    hands.start("twins", name="twins-2")
    assert hands.ended("twins-2") == DataError.exit_code
    assert "the federation's cluster was restored from an older copy" in hands.said("twins-2")
