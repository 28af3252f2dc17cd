"""The seeds of docs/method.md 5.9: one for each use of chance, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.seeds import PURPOSES, generator, seed

ROUND: dict[str, Any] = {"stage": 3, "round": 7}


def test_a_seed_is_eight_bytes_of_the_hash_of_what_it_is_for() -> None:
    """SHA-256 of `2021|sampling||3|7|` begins f0 d5 83 60 ef 28 5a df: 0xdf5a28ef6083d5f0."""
    assert seed(2021, "sampling", **ROUND) == 0xDF5A28EF6083D5F0


def test_fields_stand_in_their_own_places() -> None:
    """With all in use, `2021|shuffle|local/entity-004|1|2|3`: 0a 57 c5 63 51 7d de ff."""
    assert seed(2021, "shuffle", "local/entity-004", 1, 2, 3) == 0xFFDE7D5163C5570A


def test_the_first_draws_of_a_generator_are_known() -> None:
    """PCG64 with the seed above; another NumPy that draws otherwise shows here first."""
    rng = generator(2021, "sampling", **ROUND)

    assert rng.bytes(8).hex() == "15c83ebadb0240e9"
    assert rng.permutation(10).tolist() == [6, 7, 3, 5, 2, 0, 4, 1, 9, 8]


def test_another_process_draws_the_same() -> None:
    """A new interpreter with another hash seed prints the bytes that this one draws."""
    code = (
        "from schemas.seeds import generator, seed\n"
        "print(seed(7, 'perturb/17', 'north/line-1', 2))\n"
        "print(generator(7, 'perturb/17', 'north/line-1', 2).bytes(16).hex())\n"
    )

    there = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    here = (7, "perturb/17", "north/line-1", 2)
    assert there == [str(seed(*here)), generator(*here).bytes(16).hex()]


def test_a_number_and_its_text_are_one_field() -> None:
    """Numbers are written in decimal: stage 3 and stage "3" are the same use; unused is not 0."""
    assert seed(2021, "sampling", **ROUND) == seed(2021, "sampling", stage="3", round="7")
    assert seed(2021, "sampling", stage="") != seed(2021, "sampling", stage=0)


@settings(deadline=None)
@given(st.sampled_from(PURPOSES), st.integers(0, 99), st.integers(0, 9), st.integers(0, 9))
def test_each_use_has_a_seed_of_its_own(purpose: str, number: int, stage: int, round: int) -> None:
    """Seven uses, each differing from the first in one field, have seven seeds."""
    uses = {
        seed(1, purpose, "a/b", stage, round),
        seed(2, purpose, "a/b", stage, round),
        seed(1, f"{purpose}/{number}", "a/b", stage, round),
        seed(1, purpose, "a/c", stage, round),
        seed(1, purpose, "a/b", stage + 1, round),
        seed(1, purpose, "a/b", stage, round + 1),
        seed(1, purpose, "a/b", stage, round, 0),
    }

    assert len(uses) == 7
    assert all(0 <= use < 2**64 for use in uses)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("shufle", "shuffle"),
        ("init_row", "init_rows"),
        ("teacher", "encoder"),
        ("sampling ", "sampling"),
    ],
)
def test_a_wrong_purpose_is_told_the_nearest(wrong: str, nearest: str) -> None:
    """The list is closed: a slip of the pen must not become a new source of chance."""
    with pytest.raises(ValueError, match=f"the nearest is '{nearest}'"):
        seed(2021, wrong)


@pytest.mark.parametrize(
    "purpose", ["perturb/", "perturb/x", "perturb/01", "perturb/-1", "perturb/٣"]
)
def test_behind_the_slash_stands_a_number_in_decimal(purpose: str) -> None:
    """Otherwise one use could be written in two ways and have two seeds."""
    with pytest.raises(ValueError, match="a number in decimal must follow"):
        generator(2021, purpose)


def test_a_field_cannot_reach_into_the_next() -> None:
    """`a|1` as entity would be the same use as entity `a` in stage 1."""
    with pytest.raises(ValueError, match="separates the fields"):
        seed(2021, "shuffle", "a|1")
