"""Trainings that methods have in common, made once: those of which no method shows yet.

Until somebody teaches and until a twin has learned a class, every sample weighs 1 and one term is
left: mean D_CE with the method's own coefficient (docs/method.md 5.4, 7). So in the first stage
`fedavg`, `icarl`, `lwm`, `glfc` and `lga` train alike, and so do FedKA and its ablations. What such
a training came to lies in a folder, under a name that tells all that its bytes depend on: what it
was given, the libraries, the processor, and this program's own code.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from experiments.folder import code, processor, write_whole
from infra.promises import Result, Task
from infra.workers import Function
from learning.strategies.choice import chosen
from schemas.codec import plain, read_plain
from schemas.configuration import Configuration
from schemas.errors import FedtwinError, Refused

MEMORY = "FEDTWIN_TRAININGS"
"""Of the environment: the folder."""
LEARN = "learn"
COMMON = (
    "seed", "threads", "local_epochs", "batch_size", "weight_decay", "clip_norm", "precision",
    "device", "width", "wire", "agg_weight",
)  # fmt: skip
"""What a training takes from the configuration besides its method."""


def remembering(functions: Mapping[str, Function], folder: str | None) -> dict[str, Function]:
    """The same functions, of which the training looks into a folder first, if there is one."""
    if not folder:
        return dict(functions)
    return {**functions, LEARN: _Remembering(functions[LEARN], Path(folder))}


class _Remembering:
    def __init__(self, train: Function, folder: Path) -> None:
        self._train = train
        self._folder = folder

    def __call__(self, task: Task) -> Result:
        name = common_name(task)
        if name is None:
            return self._train(task)
        file = self._folder / name
        with suppress(FileNotFoundError, Refused):
            return Result(*read_plain(file.read_bytes()))
        result = self._train(task)
        with suppress(FedtwinError, OSError):  # what is not written down is made again
            self._folder.mkdir(parents=True, exist_ok=True)
            own = self._folder / f"{name}.{os.getpid()}"  # another run may write the same training
            write_whole(own, bytes(plain(result.values, result.groups)))
            own.replace(file)
        return result


def common_name(task: Task) -> str | None:
    """Under which name a training is found again, whatever its method; None if methods show."""
    own = Configuration.model_validate(task.values["configuration"])
    strategy = chosen(own.strategy, own.switches, own.teacher)
    alone = not (strategy.term or strategy.correction or strategy.groups)
    given = task.groups.keys() - {"model", "data"}
    if given or not alone or task.values["old_classes"] or task.values["signal"]:
        return None
    objective = strategy.objective
    method = [objective.alone, objective.family, objective.reduction, objective.cls_rows]
    values = {key: value for key, value in task.values.items() if key != "configuration"}
    common = {key: getattr(own, key) for key in COMMON}
    content = {"values": values, "common": common, "method": method, "here": _here()}
    return blake3(plain(content, task.groups)).hexdigest()


@cache
def _here() -> list[str]:
    """What else bytes depend on: libraries, instructions, and the code that trains."""
    capability: Any = torch.backends.cpu.get_cpu_capability()
    return [torch.__version__, np.__version__, platform.machine(), processor(), capability, code()]


def kept(folder: Path) -> int:
    """How many trainings lie in a folder."""
    return len(os.listdir(folder)) if folder.exists() else 0
