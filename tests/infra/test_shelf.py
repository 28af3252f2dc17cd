"""Models by name: what a key claims, what a message is, and what of it lies in the log."""

from __future__ import annotations

import random

import numpy as np
import pytest

from infra.pieces import Pieces, fetched, gathered
from infra.promises import Place
from infra.shelf import HELD, Shelf
from infra.transport.base import Stored
from infra.transport.embedded import Embedded
from infra.transport.unkind import Unkind
from schemas import codec
from schemas.codec import Record, cut, piece, records
from schemas.messages import EntityJoined, GlobalModel, ModelName
from schemas.tensors import Tensors, groups_sha256, model_sha256

TOPIC = "fedtwin.run.models"
MOST = 1 << 20
RUN = "a" * 64


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 1000 bytes, so that a small model has several."""
    monkeypatch.setattr(codec, "PIECE_BYTES", 1000)


def tensors(seed: int, numbers: int = 1000) -> Tensors:
    """Some weights: 4 bytes a number."""
    return {"weight": np.random.default_rng(seed).random(numbers, np.float32)}


def message(version: int, seed: int) -> GlobalModel:
    """A model as it is published."""
    return GlobalModel(run=RUN, version=version, groups={"model": tensors(seed)})


def name(version: int, seed: int) -> ModelName:
    """What the model is called."""
    return ModelName(version=version, sha256=model_sha256(tensors(seed)))


def published(version: int, seed: int, key: str | None = None) -> list[Record]:
    """The records of a model, under its own key or another."""
    key = key or name(version, seed).key
    return records(message(version, seed), source="aggregator", key=key)[1]


class Counting(Embedded):
    """A log that counts how often it is read."""

    reads = 0

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        self.reads += 1
        return super().read(topic, place, max_bytes)


def same(found: Tensors, seed: int) -> bool:
    """Whether these are the weights of a seed."""
    return np.array_equal(found["weight"], tensors(seed)["weight"])


# --- models ---------------------------------------------------------------------------------------


def test_a_model_is_found_by_version_and_hash() -> None:
    """Two models of one version and one of the next: each name gives its own weights."""
    log = Embedded()
    for version, seed in ((1, 1), (1, 2), (2, 3)):
        log.append(TOPIC, published(version, seed))
    shelf = Shelf(log, TOPIC, MOST)

    assert same(shelf.model(name(1, 2)), 2)
    assert same(shelf.model(name(1, 1)), 1)
    assert same(shelf.groups(name(2, 3))["model"], 3)
    assert not shelf.has(name(2, 1))
    with pytest.raises(LookupError, match=r"model version 2 \(\w{12}\) is not in the log"):
        shelf.model(name(2, 1))


def test_a_model_that_comes_later_is_found_then() -> None:
    """Asked too early, the shelf says no; after the aggregator has published it, yes."""
    log = Embedded()
    shelf = Shelf(log, TOPIC, MOST)
    assert not shelf.has(name(1, 1))

    log.append(TOPIC, published(1, 1))

    assert shelf.has(name(1, 1))


def test_what_only_claims_to_be_a_model_is_passed_over() -> None:
    """Under the honest key lie other weights, another version, another kind, and broken bytes."""
    log = Embedded()
    key = name(1, 1).key
    joined = EntityJoined(run=RUN, number=0, entity="local/entity-000")
    log.append(TOPIC, published(1, 2, key))
    log.append(TOPIC, published(2, 1, key))
    log.append(TOPIC, records(joined, source="twins", key=key)[1])
    log.append(TOPIC, [Record(f"{key}/0", cut(b"no message at all").pieces[0])])
    log.append(TOPIC, [Record(f"{key}/0", b"not even a piece")])
    shelf = Shelf(log, TOPIC, MOST)
    assert not shelf.has(name(1, 1))

    log.append(TOPIC, published(1, 1))

    assert same(shelf.model(name(1, 1)), 1)


def test_what_a_strategy_keeps_beside_a_model_is_part_of_its_name() -> None:
    """Under the honest key lie the same weights alone, and with other values beside them."""
    log = Embedded()
    beside = {"drift": {"drift": np.arange(3, dtype=np.float32)}}
    true = message(1, 1).model_copy(update={"groups": {**message(1, 1).groups, **beside}})
    other = {"drift": {"drift": np.ones(3, np.float32)}}
    forged = true.model_copy(update={"groups": {**true.groups, **other}})
    both = ModelName(version=1, sha256=groups_sha256(true.groups))
    for each in (message(1, 1), forged):
        log.append(TOPIC, records(each, source="stranger", key=both.key)[1])
    shelf = Shelf(log, TOPIC, MOST)
    assert not shelf.has(both)

    log.append(TOPIC, records(true, source="aggregator", key=both.key)[1])

    assert np.array_equal(shelf.groups(both)["drift"]["drift"], np.arange(3))
    assert same(shelf.model(both), 1)


def test_pieces_of_a_sender_that_died_are_completed_by_its_successor() -> None:
    """One wrote three of five pieces, the next one all five: the model is found."""
    log = Embedded()
    made = published(1, 1)
    assert len(made) == 5
    log.append(TOPIC, made[:3])
    shelf = Shelf(log, TOPIC, MOST)
    assert not shelf.has(name(1, 1))

    log.append(TOPIC, made)

    assert same(shelf.model(name(1, 1)), 1)


def test_a_copy_that_was_let_go_does_not_hide_a_sound_one() -> None:
    """Two aggregators published the model; of the first copy a piece was trimmed away."""
    log = Embedded()
    log.append(TOPIC, published(1, 1))
    log.append(TOPIC, published(1, 1))
    shelf = Shelf(log, TOPIC, MOST)
    assert shelf.names() == {name(1, 1): 5}

    log.trim(TOPIC, 2)

    assert same(shelf.model(name(1, 1)), 1)


def test_a_shelf_that_begins_on_a_trimmed_topic_begins_where_it_begins() -> None:
    """What was trimmed before it looked is not there, and what follows is."""
    log = Embedded()
    log.append(TOPIC, published(1, 1))
    log.append(TOPIC, published(2, 2))
    log.trim(TOPIC, 5)
    shelf = Shelf(log, TOPIC, MOST)

    assert shelf.names().keys() == {name(2, 2)}


def test_names_are_what_the_topic_claims_and_in_how_many_pieces() -> None:
    """For whoever lets models go: junk keys name nothing, and none crashes the reader."""
    log = Embedded()
    log.append(TOPIC, published(1, 1))
    sha256 = name(1, 1).sha256
    for junk in (
        f"01/{sha256}",
        f"-1/{sha256}",
        f"{2**60}/{sha256}",
        "1/" + "z" * 64,
        "1",
        "",
        "x/y/z",
    ):
        log.append(TOPIC, [Record(f"{junk}/0", cut(b"junk").pieces[0])])
    shelf = Shelf(log, TOPIC, MOST)

    assert shelf.names() == {name(1, 1): 5}


def test_a_model_that_was_dropped_is_named_again_when_it_is_published_again() -> None:
    """The other aggregator was late: its copy, too, has to be let go."""
    log = Embedded()
    log.append(TOPIC, published(1, 1))
    shelf = Shelf(log, TOPIC, MOST)
    assert shelf.has(name(1, 1))
    log.forget(TOPIC, *(f"{name(1, 1).key}/{index}" for index in range(5)))
    shelf.drop(name(1, 1))
    assert (shelf.names(), shelf.has(name(1, 1))) == ({}, False)

    log.append(TOPIC, published(1, 1))

    assert shelf.names() == {name(1, 1): 5}


def test_models_in_use_are_held_and_others_read_again() -> None:
    """Base and teacher are asked for by each twin of a round: they are read from the log once."""
    log = Counting()
    for seed in range(HELD + 1):
        log.append(TOPIC, published(seed, seed))
    shelf = Shelf(log, TOPIC, MOST)
    for seed in range(HELD):
        shelf.model(name(seed, seed))

    before = log.reads
    for _ in range(3):
        for seed in range(HELD):
            shelf.model(name(seed, seed))
    assert log.reads == before

    shelf.model(name(HELD, HELD))
    assert log.reads > before
    before = log.reads
    shelf.model(name(0, 0))  # used longest ago, so it gave way
    assert log.reads > before


def test_a_model_is_found_though_reads_give_nothing_yet() -> None:
    """Over a transport that delays and cuts: an empty read is no proof that nothing is there."""
    for seed in range(30):
        log = Unkind(Embedded(), random.Random(seed), trouble=0.6)
        log.append(TOPIC, published(1, 1))
        shelf = Shelf(log, TOPIC, MOST)

        assert same(shelf.model(name(1, 1)), 1)


# --- pieces ---------------------------------------------------------------------------------------


def test_pieces_come_in_any_order_and_say_where_they_lie() -> None:
    """The third, the first, the first again, the second: three offsets, of the repeat the later."""
    made = cut(bytes(range(250)) * 10).pieces
    parts = [piece(value, MOST) for value in made]
    pieces = Pieces()

    added = [
        pieces.add(parts[index], offset) for index, offset in ((2, 7), (0, 8), (0, 9), (1, 12))
    ]

    assert added == [None, None, None, (9, 12, 7)]
    assert not list(pieces.unfinished())


def test_what_was_trimmed_completes_nothing() -> None:
    """Two pieces of three were trimmed: the third alone is nothing; written again, all is there."""
    parts = [piece(value, MOST) for value in cut(bytes(2500)).pieces]
    other = [piece(value, MOST) for value in cut(bytes(1500)).pieces]
    pieces = Pieces()
    pieces.add(parts[0], 1)
    pieces.add(parts[1], 2)
    pieces.add(other[0], 3)

    pieces.trimmed(2)
    assert [each.offsets for each in pieces.unfinished()] == [(3,)]
    pieces.trimmed(4)
    assert not list(pieces.unfinished())

    assert pieces.add(parts[2], 5) is None
    assert pieces.add(parts[0], 6) is None
    assert pieces.add(parts[1], 7) == (6, 7, 5)


def test_a_message_is_read_again_from_where_it_lies() -> None:
    """Its pieces lie among others, and not in their order."""
    log = Embedded()
    made = published(1, 1)
    others = published(2, 2)
    for index in (4, 0, 2, 1, 3):
        log.append(TOPIC, [made[index], others[index]])
    place = Place(TOPIC, (2, 6, 4, 8, 0))

    found = fetched(log, place, MOST)
    assert isinstance(found, GlobalModel)
    assert same(found.groups["model"], 1)
    assert gathered(log, place, MOST).offsets == place.offsets


@pytest.mark.parametrize("gone", ["forgotten", "forgotten last", "trimmed", "never there"])
def test_a_message_of_which_a_piece_is_gone_is_a_lookup_error(gone: str) -> None:
    """Whichever way it went: nobody is given half a message, and nobody waits for the rest."""
    log = Embedded()
    made = published(1, 1)
    log.append(TOPIC, made)
    place = Place(TOPIC, (0, 1, 2, 3, 4))
    match gone:
        case "forgotten":
            log.forget(TOPIC, made[2].key)
        case "forgotten last":
            log.forget(TOPIC, made[4].key)
        case "trimmed":
            log.trim(TOPIC, 3)
        case _:
            place = Place(TOPIC, (0, 1, 2, 3, 9))

    with pytest.raises(LookupError):
        fetched(Unkind(log, random.Random(1)), place, MOST)
