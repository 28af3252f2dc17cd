"""Every store of old models keeps what infra/store/base.py promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.store.base import About, ModelStore
from schemas.messages import Groups, ModelName
from schemas.tensors import groups_sha256
from tests.contracts.conftest import STORES_ON_DISK, OpenStore, until_full


def model(seed: int) -> Groups:
    """A small model with every dtype that models have."""
    chance = np.random.default_rng(seed)
    return {
        "model": {
            "head.weight": chance.normal(size=(3, 4)).astype(np.float32),
            "norm.running_var": chance.random(4, np.float32),
            "norm.num_batches_tracked": np.array(seed, np.int64),
        }
    }


def head(groups: Groups) -> np.ndarray:
    """What tells two of these models apart."""
    return groups["model"]["head.weight"]


def name_of(version: int, groups: Groups) -> ModelName:
    """What the model is called."""
    return ModelName(version=version, sha256=groups_sha256(groups))


def test_what_was_put_is_got_bit_for_bit(open_store: OpenStore) -> None:
    """Put by one process and got by another: every tensor has its name, dtype, shape and bytes."""
    groups = model(1)
    open_store().put(name_of(4, groups), groups, 2)

    found, tensors = open_store().get(name_of(4, groups)), groups["model"]

    assert (found.keys(), found["model"].keys()) == (groups.keys(), tensors.keys())
    assert all(found["model"][name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert all(np.array_equal(found["model"][name], tensor) for name, tensor in tensors.items())


def test_what_a_strategy_keeps_beside_a_model_is_put_with_it(open_store: OpenStore) -> None:
    """The name covers all groups; under it without one of them, nothing is found."""
    both = {**model(1), "drift": {"drift": np.arange(3, dtype=np.float32)}}
    open_store().put(name_of(4, both), both, 2)
    assert np.array_equal(open_store().get(name_of(4, both))["drift"]["drift"], np.arange(3))

    open_store().put(name_of(4, both), model(1), 2)

    with pytest.raises(LookupError, match="is not what its hash says"):
        open_store().get(name_of(4, both))


def test_putting_a_model_again_is_harmless(store: ModelStore) -> None:
    """Two proxies keep the same model: it is there once, and it is the same."""
    groups = model(1)
    for stage in (2, 2, -1):
        store.put(name_of(4, groups), groups, stage)

    assert store.list() == [name_of(4, groups)]
    assert groups_sha256(store.get(name_of(4, groups))) == name_of(4, groups).sha256


def test_two_models_of_one_version_are_two(store: ModelStore) -> None:
    """A version that was published twice with other values: the hash tells which is which."""
    first, second = model(1), model(2)
    store.put(name_of(4, first), first, 2)
    store.put(name_of(4, second), second, 2)

    assert np.array_equal(head(store.get(name_of(4, second))), head(second))
    assert np.array_equal(head(store.get(name_of(4, first))), head(first))


@pytest.mark.parametrize("asked", [(5, 1), (4, 2)], ids=["other version", "other hash"])
def test_what_is_not_there_is_never_another_model(
    store: ModelStore, asked: tuple[int, int]
) -> None:
    """The same values under another version, or other values under the same, are not an answer."""
    store.put(name_of(4, model(1)), model(1), 2)

    with pytest.raises(LookupError, match=f"version {asked[0]} is not in the store"):
        store.get(name_of(asked[0], model(asked[1])))


def test_what_is_not_what_its_hash_says_is_not_given(store: ModelStore) -> None:
    """Somebody put other values under an honest name; the log's copy, put again, mends it."""
    honest, other = model(1), model(2)
    name = name_of(4, honest)
    store.put(name, other, 2)
    with pytest.raises(LookupError, match="version 4 in the store is not what its hash says"):
        store.get(name)

    store.put(name, honest, 2)

    assert np.array_equal(head(store.get(name)), head(honest))


def test_the_list_names_what_is_there_by_version(store: ModelStore) -> None:
    """Put as 10, 9 and 100; listed as numbers, not as texts."""
    kept = [name_of(version, model(version)) for version in (10, 9, 100)]
    for name in kept:
        store.put(name, model(name.version), 0)

    assert store.list() == sorted(kept, key=lambda name: name.version)


def test_letting_a_model_go_leaves_the_others(open_store: OpenStore) -> None:
    """It is gone for everybody, and letting it go again or one that never was changes nothing."""
    store = open_store()
    kept = [name_of(version, model(version)) for version in (1, 2)]
    for name in kept:
        store.put(name, model(name.version), 0)

    for name in (kept[0], kept[0], name_of(3, model(3))):
        store.forget(name)

    assert open_store().list() == [kept[1]]
    with pytest.raises(LookupError, match="not in the store"):
        open_store().get(kept[0])


# --- what is told of a model ----------------------------------------------------------------------


def test_stage_round_and_scores_are_told_beside_a_model(open_store: OpenStore) -> None:
    """Scored at two stages, at one of them twice: the later score stands, for whoever looks."""
    name = name_of(4, model(1))
    open_store().put(name, model(1), 2, 1)
    for stage, score in ((2, 0.25), (3, 0.1 + 0.2), (2, 0.75)):
        open_store().score(name, stage, score)

    assert open_store().about(name) == About(2, 1, {2: 0.75, 3: 0.1 + 0.2})


def test_who_knows_less_of_a_model_takes_nothing_away(store: ModelStore) -> None:
    """Put back from the log, where neither stage nor round is told: what was known stands."""
    name = name_of(4, model(1))
    store.put(name, model(1), -1)
    assert store.about(name) == About(-1, -1, {})

    store.put(name, model(1), 0, 0)
    store.score(name, 0, 0.5)
    store.put(name, model(1), -1)

    assert store.about(name) == About(0, 0, {0: 0.5})


def test_scores_go_with_their_model_and_do_not_come_without(store: ModelStore) -> None:
    """Scored after it was let go: there is nothing to tell, also not when it is put again."""
    name, other = name_of(4, model(1)), name_of(4, model(2))
    store.put(name, model(1), 2, 1)
    store.put(other, model(2), 2, 1)
    for each in (name, other):
        store.score(each, 2, 0.5)

    store.forget(name)
    store.score(name, 2, 0.75)

    with pytest.raises(LookupError, match="version 4 is not in the store"):
        store.about(name)
    assert store.list() == [other]
    store.put(name, model(1), -1)
    assert store.about(name) == About(-1, -1, {})
    assert store.about(other) == About(2, 1, {2: 0.5})


# --- without room ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES_ON_DISK)
def test_a_store_without_room_keeps_what_it_has(
    kind: Callable[[Path], OpenStore], small_disk: Path
) -> None:
    """Models of 400 kB on a disk of 8 MiB: at last there is no room, and those put before stand."""
    open_store = kind(small_disk)
    store = open_store()
    large = {"model": {"head.weight": np.random.default_rng(0).random(100_000, np.float32)}}
    kept = until_full(lambda version: store.put(name_of(version, large), large, 0))
    store.close()

    again = open_store()
    assert again.list() == [name_of(version, large) for version in range(kept)]
    assert kept > 2
    assert np.array_equal(head(again.get(name_of(kept - 1, large))), head(large))
    again.close()
