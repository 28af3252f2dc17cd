"""Where all chance comes from: one seed for each purpose, entity, stage, round and epoch.

A seed is a hash of what it is for. So nobody shares a generator, nothing depends on who drew first,
and a twin that starts again draws what it drew before (docs/method.md 5.9).
"""

from __future__ import annotations

import difflib
import hashlib
import re

import numpy as np

PURPOSES = (
    "schedule",
    "init_model",
    "init_rows",
    "sampling",
    "shuffle",
    "augment",
    "detect",
    "proto_cap",
    "perturb",
    "encoder",
    "recon_init",
    "score_augment",
)
"""All that chance is used for; `/` and a number follow where one purpose serves several things."""

SEPARATOR = "|"
NUMBER = re.compile(r"0|[1-9][0-9]*")


def seed(
    run_seed: int,
    purpose: str,
    entity: str = "",
    stage: int | str = "",
    round: int | str = "",
    epoch: int | str = "",
) -> int:
    """The seed for one use of chance, in [0, 2^64).

    The first 8 bytes, read little-endian, of the SHA-256 over the six fields joined by `|`: numbers
    in decimal, unused fields empty (`2021|sampling||3|7|`). A live run's moments take the place of
    stages.

    Raises ValueError for a purpose that is not in `PURPOSES` (naming the nearest that is) and for a
    field that contains `|`, which would make two uses the same.
    """
    _known(purpose)
    fields = [_text(field) for field in (run_seed, purpose, entity, stage, round, epoch)]
    digest = hashlib.sha256(SEPARATOR.join(fields).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def generator(
    run_seed: int,
    purpose: str,
    entity: str = "",
    stage: int | str = "",
    round: int | str = "",
    epoch: int | str = "",
) -> np.random.Generator:
    """A fresh PCG64 generator, seeded by `seed` of the same arguments; raises what that raises."""
    return np.random.Generator(
        np.random.PCG64(seed(run_seed, purpose, entity, stage, round, epoch))
    )


def _known(purpose: str) -> None:
    name, slash, number = purpose.partition("/")
    if name not in PURPOSES:
        near = difflib.get_close_matches(name, PURPOSES, n=1, cutoff=0.0)[0]
        raise ValueError(f"chance has no purpose {name!r}; the nearest is {near!r}")
    if slash and not NUMBER.fullmatch(number):
        raise ValueError(f"{purpose!r}: a number in decimal must follow the '/', not {number!r}")


def _text(field: int | str) -> str:
    text = field if isinstance(field, str) else str(int(field))
    if SEPARATOR in text:
        raise ValueError(f"{text!r} contains {SEPARATOR!r}, which separates the fields of a seed")
    return text
