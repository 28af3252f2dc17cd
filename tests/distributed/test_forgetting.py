"""Forgotten images are gone from a real broker's disk: its files are searched for their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaAdminClient

from experiments.replay import Replay
from infra.kafka import KafkaSettings
from infra.transport.kafka import Kafka
from schemas.messages import TwinState
from tests.distributed.federation import Zygote
from tests.distributed.test_by_hand import CONFIG, Hands, grown
from tests.experiments.hands import fedtwin, told
from tests.flows.federation import messages

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def hands(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    """Nobody runs yet; commands find the services and the federation in the environment."""
    made = Hands(zygote, tmp_path)
    for variable, value in (made.environment | {"FEDTWIN_SITE": "north"}).items():
        monkeypatch.setenv(variable, value)
    yield made
    made.end()


def files(kafka: KafkaSettings, run: str) -> list[bytes]:
    """All that a broker's disk holds of a run; skips the test where it is another machine's."""
    with closing(KafkaAdminClient(**kafka.client())) as admin:
        logs = [Path(each["log_dir"]) for broker in admin.describe_log_dirs()
                for each in broker["log_dirs"]]  # fmt: skip
    found = [folder for log in logs for folder in log.glob(f"fedtwin.{run}.*")]
    if not found:
        pytest.skip("the broker's disk cannot be looked at from here")
    return [file.read_bytes() for folder in found for file in folder.iterdir()]


def test_forgotten_images_are_gone_from_the_brokers_disk(hands: Hands, tmp_path: Path) -> None:
    """Forty images of noise are learned as class 9. One is forgotten while all are in the stream;
    the class when it is old, and some are exemplars or held out. Each time exactly those bytes are
    gone, with two copies of the twin up, and the federation learns on."""
    config = tmp_path / "live.yaml"
    config.write_text(CONFIG.replace("keys: {", "keys: {keep_rounds: all, "))
    live = ("--live", str(config))
    hands.start("aggregator", *live, name="aggregator-1")
    hands.start("proxy", name="proxy-1")
    for site in ("north", "south"):
        hands.start("producers", *live, name=f"producers-{site}", FEDTWIN_SITE=site)
    hands.start("twins", "east", name="twins-south", FEDTWIN_SITE="south")
    for copy in (1, 2):
        hands.start("twins", "ward", name=f"twins-north-{copy}", FEDTWIN_SITE="north")
    hands.sees(lambda seen: {"0", "1", "2"} <= grown(seen))
    noise = np.random.Generator(np.random.PCG64(5)).integers(0, 256, (40, 16, 16), np.uint8)
    np.savez(tmp_path / "noise.npz", train_images=noise, train_labels=np.zeros(40, np.uint8))
    told("inject", "--entity", "ward", "--npz", tmp_path / "noise.npz", "--classes", "0",
         "--as", "9", "--source", "noise")  # fmt: skip
    hands.sees(lambda seen: "9" in grown(seen))

    def on_disk() -> list[int]:
        there = files(hands.kafka, hands.names.run)
        return [n for n, each in enumerate(noise) if any(each.tobytes() in one for one in there)]

    assert on_disk() == [*range(40)]
    done = told("forget", "--entity", "ward", "--image", "noise/3")
    assert (done["asked"], done["images"], done["gone_from_disk"]) == ("one image", 1, True)
    assert done["words"] == f"gone from the disk after {done['seconds']:.0f} s"
    assert on_disk() == [n for n in range(40) if n != 3]

    told("inject", "--entity", "ward", "--classes", "5", "--images", "40")
    hands.sees(lambda seen: "5" in grown(seen))
    hands.until(lambda: "9" in old(hands))
    done = told("forget", "--entity", "ward", "--class", "9")
    assert done["asked"] == "class 9"
    assert 0 < done["images"] <= 39
    assert done["gone_from_disk"]
    assert on_disk() == []

    told_of = [each for each in told("history")["decisions"] if each["line"] == "forgotten"]
    assert [each["what"] for each in told_of] == [
        "north/ward forgets one image: 1 image",
        f"north/ward forgets class 9: {done['images']} images",
    ]
    shown = {each["entity"]: each for each in told("show", hands.names.run)["entities"]}
    assert shown["north/ward"]["forgotten_images"] == 1 + done["images"]
    told("inject", "--entity", "ward", "--classes", "6", "--images", "40")
    hands.sees(lambda seen: "6" in grown(seen))
    with closing(Kafka(hands.kafka)) as log:
        replayed = Replay(log, hands.names).fold()
    assert replayed.different == []
    assert replayed.summed > 3
    refused = fedtwin("forget", "--entity", "ward", "--class", "99")
    assert refused.exit_code == 2
    assert "north/ward has seen no image of class '99'" in refused.output


def old(hands: Hands) -> set[str]:
    """The classes of which the ward's twin has chosen exemplars, and let its stream go."""
    topic, found = hands.names.of_entity("twin-state", "north/ward"), set[str]()
    with closing(Kafka(hands.kafka)) as log:
        for message, _ in messages(log, topic):
            if isinstance(message, TwinState):
                found |= {*message.learned}
    return found
