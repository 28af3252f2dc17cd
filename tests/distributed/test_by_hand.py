"""A live federation as somebody brings it up by hand: each program from the environment alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from experiments.outside import Named, Outside, seen
from infra.kafka import KafkaSettings
from infra.program import First
from infra.transport.kafka import Kafka
from producers.streaming import Streaming
from schemas.tensors import model_sha256
from schemas.topics import Names
from tests.distributed.federation import Zygote, digits
from tests.experiments.hands import fedtwin, told
from tests.services import have, kafka_address, new_run, some_redis, swept

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
CONFIG = """
recipe: tiny
seed: 7
keys: {quorum: 2, growth_window: 2, deadline: 20, standby_after: 2, keep_rounds: all}
entities:
  ward: {site: north, dataset: digits, classes: ["0", "1"]}
  icu: {site: north, dataset: digits, classes: ["0", "2"]}
  east: {site: south, dataset: digits, classes: ["1", "2"]}
"""
PATIENCE = 300.0  # seconds for anything, on a machine that is busy with others


class Hands:
    """Programs of one federation, each started and killed by hand."""

    def __init__(self, zygote: Zygote, folder: Path, kafka: str | None = None) -> None:
        self._zygote, self._folder = zygote, folder
        self.names = Names(new_run())
        self.kafka = KafkaSettings(kafka or have(kafka_address))
        self.environment = {
            "FEDTWIN_KAFKA": self.kafka.servers,
            "FEDTWIN_REDIS": have(some_redis).address,
            "FEDTWIN_RUN": self.names.run,
            "FEDTWIN_DATA_DIR": str(folder),
        }
        self._pids: dict[str, int] = {}

    def start(self, role: str, *words: str, name: str, **environment: str) -> None:
        """Start a program."""
        self._pids[name] = self._zygote.ask(
            start=role,
            words=[*words, "--process", name],
            environment=self.environment | environment,
            log=str(self._folder / f"{name}.log"),
        )["pid"]

    def kill(self, name: str) -> None:
        """It has no time to say anything."""
        os.kill(self._pids[name], signal.SIGKILL)
        self.ended(name)

    def ended(self, name: str) -> int:
        """Wait until a program has ended; gives its exit code."""
        code: list[int] = []

        def over() -> bool:
            found = self._zygote.ask(poll=self._pids[name])["code"]
            code.extend([] if found is None else [found])
            return bool(code)

        self.until(over)
        del self._pids[name]
        return code[0]

    def stop_all(self) -> None:
        """Whoever runs is told to stop, and does."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGTERM)
        for name in list(self._pids):
            self.ended(name)

    def kill_all(self) -> None:
        """Whoever still runs."""
        for name in list(self._pids):
            self.kill(name)

    def end(self) -> None:
        """Whoever still runs is killed, and the topics are taken away."""
        self.kill_all()
        swept(self.kafka, self.names)

    def said(self, name: str) -> str:
        """A program's words."""
        file = self._folder / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds. Fails with what the programs said."""
        late = time.monotonic() + PATIENCE
        while not holds():
            words = {each.stem: each.read_text()[-500:] for each in self._folder.glob("*.log")}
            assert time.monotonic() < late, words
            time.sleep(0.1)

    def sees(self, holds: Callable[[Outside], bool]) -> None:
        """Wait until somebody from outside sees that something holds."""
        with closing(Kafka(self.kafka)) as log:
            first = First(log, self.names)
            self.until(lambda: first.look() is not None)
        with seen(Named(self.names, None), site=True) as outside:

            def looked() -> bool:
                outside.look()
                return holds(outside)

            self.until(looked)


@pytest.fixture
def hands(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    """Nobody runs yet; commands find the services and the federation in the environment."""
    made = Hands(zygote, tmp_path)
    for variable, value in made.environment.items():
        monkeypatch.setenv(variable, value)
    yield made
    made.end()


def appear(folder: Path, label: str, uid: int, numbers: range) -> None:
    """Images of a class, larger than the federation takes them."""
    (folder / label).mkdir(parents=True, exist_ok=True)
    rows = np.flatnonzero(digits().train.labels == uid)
    for number in numbers:
        image = Image.fromarray(digits().train.images[rows[number], 0]).resize((40, 40))
        image.save(folder / label / f"{number:03}.png")


def test_a_federation_brought_up_by_hand(hands: Hands, tmp_path: Path) -> None:
    """Opened by one aggregator and joined by its standby, which goes on when the first is killed;
    who follows a folder is killed twice, and each image is streamed once; of two programs that
    share a site's twins the one that hosts an entity is killed for good while images are injected
    into it, and all that was injected is found by the other; the newest model says what it sees
    and is exported by the federation's name; the log comes to the same bytes. Another file of the
    same name is refused."""
    config = tmp_path / "live.yaml"
    config.write_text(CONFIG)
    live = ("--live", str(config))
    for site in ("north", "south"):
        hands.start("producers", *live, name=f"producers-{site}", FEDTWIN_SITE=site)
    for name, site in (("one", "north"), ("two", "north"), ("three", "south")):
        hands.start("twins", name=f"twins-{name}", FEDTWIN_SITE=site)
    hands.start("proxy", name="proxy-1")
    hands.start("aggregator", *live, name="aggregator-1")
    hands.sees(lambda seen: {"0", "1", "2"} <= grown(seen))
    assert hands.ended("producers-north") == 0
    hands.start("aggregator", *live, name="aggregator-2")
    hands.until(lambda: "joins" in hands.said("aggregator-2"))
    hands.kill("aggregator-1")

    config.write_text(CONFIG.replace("seed: 7", "seed: 8"))
    hands.start("aggregator", *live, name="other")
    assert hands.ended("other") == 2
    assert "seed is 7 there and 8 here" in hands.said("other")

    images = tmp_path / "images"
    appear(images, "seven", 7, range(30))
    (images / "classes.yaml").write_text("seven: 7\n")
    words = ("--folder", str(images), "--entity", "ward", "--site", "north", "--rate", "20")
    for round in (1, 2):
        hands.start("producers", *words, name=f"folder-{round}")
        hands.until(lambda: streamed(hands) >= 10 * round)  # noqa: B023
        hands.kill(f"folder-{round}")
        appear(images, "seven", 7, range(30 * round, 30 * round + 30))
    hands.start("producers", *words, name="folder-3")
    hands.sees(lambda seen: "7" in grown(seen))
    hands.until(lambda: streamed(hands) == 90)
    (journal,) = (images / ".fedtwin").iterdir()
    files = [json.loads(line)["file"] for line in journal.read_text().splitlines()[1:]]
    assert len(files) == len({*files}) == 90

    hands.until(lambda: {host(hands, "ward"), host(hands, "icu")} == {"twins-one", "twins-two"})
    hosting = host(hands, "icu")
    into_icu = ("inject", "--entity", "icu", "--classes", "5", "--images", "60")
    with ThreadPoolExecutor(1) as pool:
        injecting = pool.submit(told, *into_icu, "--rate", "20")
        hands.until(lambda: streamed(hands, "icu", "inject-") >= 10)
        hands.kill(hosting)
    fed = injecting.result()
    assert (fed["run"], fed["entity"], fed["new_images"]) == (hands.names.run, "north/icu", 60)
    more = told("inject", "--entity", "ward", "--classes", "6", "--images", "40")
    assert more["new_images"] == 40
    hands.sees(lambda seen: {"5", "6"} <= grown(seen) and {"north/icu", "north/ward"} <= last(seen))
    hands.sees(lambda seen: (judged(seen, "icu", "5"), judged(seen, "ward", "6")) == (60, 40))
    assert told(*into_icu)["new_images"] == 0

    said = told("predict", hands.names.run, images / "seven" / "000.png")
    assert said["model_version"] > 3
    assert said["resized"] == 1
    older = told("predict", hands.names.run, images / "seven" / "000.png", "--version", "1")
    assert older["model_version"] == 1
    assert fedtwin("predict", hands.names.run, images, "--version", "999").exit_code == 4

    before, while_it_lives = newest(hands), exported(hands, tmp_path / "while-it-lives")
    assert before[0] <= while_it_lives[0] <= newest(hands)[0]

    hands.kill_all()
    assert exported(hands, tmp_path / "at-its-end") == newest(hands)
    again = told("replay", hands.names.run)
    assert again["equal"]
    assert again["summed"] > 3


def newest(hands: Hands) -> tuple[int, str]:
    """Version and hash of the newest model, as `show` tells them."""
    shown = told("show", hands.names.run)
    return shown["model_version"], shown["model_sha256"]


def exported(hands: Hands, folder: Path) -> tuple[int, str]:
    """Export the newest model by the federation's name: its version, and the hash to which the
    values come that were written."""
    folder.mkdir()
    words = ("--out", folder / "newest", "--format", "safetensors")
    (each,) = told("export", hands.names.run, *words)["exported"]
    version = json.loads(Path(each["facts"]).read_text())["model"]["version"]
    return version, model_sha256(load_file(each["model"]))


def grown(seen: Outside) -> set[str]:
    """The classes that have rows."""
    return {*seen.standing.line.rows}


def last(seen: Outside) -> set[str]:
    """Who was counted in the newest round that has closed."""
    rounds = [each.closed for stage in seen.standing.line.stages for each in stage.rounds]
    closed = [each for each in rounds if each is not None]
    return {entity for entity, _ in closed[-1].counted} if closed else set()


def judged(seen: Outside, entity: str, uid: str) -> int:
    """How many images of a class a twin of the north has judged: each once."""
    verdicts = seen.standing.verdicts.line(f"north/{entity}").verdicts.values()
    return sum(each.images.get(uid, 0) for each in verdicts)


def host(hands: Hands, entity: str) -> str:
    """The program in which a twin of the north lives, as `watch` sees it."""
    seen = json.loads(fedtwin("watch", hands.names.run, "--once", "--json").stdout)
    (found,) = (each["program"] for each in seen["entities"] if each["name"] == f"north/{entity}")
    return str(found)


def streamed(hands: Hands, entity: str = "ward", source: str = "folder-") -> int:
    """How many images of such a source have come to a twin of the north, those included that it has
    let go."""
    with closing(Kafka(hands.kafka)) as log:
        first = First(log, hands.names)
        first.look()
        counts = Streaming(log, hands.names, first.hash).counts(f"north/{entity}")
    return sum(count for name, count in counts.items() if name.startswith(source))
