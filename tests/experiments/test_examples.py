"""Every example of every help can be copied as it is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from experiments.cli.app import app
from experiments.cli.words import overrides
from experiments.recipes import RECIPES, recipe
from experiments.runner import Local, load_data, opened_with

EXAMPLE = re.compile(r"(?:make up && )?(fedtwin\b[^|]*?)(?: \| jq .*)?")
"""What of a line is ours."""
RUN = re.compile(r"fedtwin run (?!--help)")


def leaves(command: Any) -> Iterator[Any]:
    """All commands below one, and itself if there are none."""
    below = getattr(command, "commands", {})
    for each in below.values():
        yield from leaves(each)
    if not below:
        yield command


def helps() -> Iterator[str]:
    """What each command says of itself, `fedtwin` first."""
    root: Any = typer.main.get_command(app)
    yield from (each.help for each in (root, *leaves(root)))


def examples(text: str) -> list[str]:
    """The lines behind `Examples:`, up to an empty one."""
    block = text.partition("Examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


LINES = [line for text in helps() for line in examples(text)]
EXAMPLES = [found[1] for line in LINES if (found := EXAMPLE.fullmatch(line))]


def test_every_help_has_examples_and_none_is_overlooked() -> None:
    """Each of their lines is a command of ours, perhaps behind `make up` or before a filter."""
    assert all(examples(text) for text in helps())
    assert len(EXAMPLES) == len(LINES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_understood(example: str) -> None:
    """It is given to the command line, whose commands do nothing here but tell their names."""
    root: Any = typer.main.get_command(app)
    heard: list[str] = []
    for leaf in leaves(root):
        leaf.callback = lambda **words: heard.append("understood")

    words = shlex.split(example, comments=True)[1:]
    root.main(args=words if "--help" not in words else words[:-1], standalone_mode=False)

    assert heard == ["understood"] or words[-1] == "--help"


def cells(file: Path) -> None:
    """Eight kinds of cells, ten images of each, as MedMNIST has them."""
    labels = np.repeat(np.arange(8), 10)
    images = np.zeros((80, 28, 28, 3), np.uint8)
    arrays = {f"{part}_{what}": array for part in ("train", "test")
              for what, array in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(file, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("example", [each for each in EXAMPLES if RUN.match(each)])
def test_an_example_of_a_run_can_begin(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys are known, and fit each other and their data, as far as those are here."""
    monkeypatch.chdir(tmp_path)
    cells(tmp_path / "cells.npz")
    words = shlex.split(example, comments=True)
    given = [value for option, value in pairwise(words) if option == "-o"]

    configuration = recipe(words[2], None, overrides(given))

    if configuration.dataset not in {str(each["dataset"]) for each in RECIPES.values()} - {
        "digits"
    }:
        opened_with(configuration, load_data(configuration, configuration.dataset, Local(tmp_path)))
