"""What the proxy does in worker processes: rebuild prototypes, score candidates. Needs torch."""

from __future__ import annotations

import numpy as np

from infra.promises import Result, Task
from learning.augmentation import Transform
from learning.encoder import encoder_weights
from learning.nets import from_weights
from proxy.reconstruction import rebuild, to_bytes
from proxy.scoring import score, views
from schemas.configuration import Configuration
from schemas.limits import most_classes
from schemas.messages import DataFacts
from schemas.seeds import generator


def reconstruct(task: Task) -> Result:
    """The images behind a batch of gradients, in their order (docs/method.md 6.5)."""
    configuration, data, values = _configuration(task), _data(task), task.values
    gradients = [task.groups[f"gradient/{index}"] for index in range(len(values["rows"]))]
    seed = configuration.encoder_seed
    chance = generator(configuration.seed if seed is None else seed, "encoder")
    classes = most_classes(configuration, data)
    when = (values["stage"], _round(task))
    images = rebuild(
        encoder_weights(data.channels, data.height, data.width, classes, chance),
        gradients,
        values["rows"],
        height=data.height,
        width=data.width,
        steps=configuration.recon_steps,
        start=configuration.recon_init,
        generators=[
            generator(configuration.seed, f"recon_init/{place}", "", *when)
            for place in values["places"]
        ],
    )
    return Result({}, {"rebuilt": {"images": images}})


def score_candidate(task: Task) -> Result:
    """The share of rebuilt prototypes that a candidate puts into their class (method.md 6.5)."""
    configuration, data, rows = _configuration(task), _data(task), list(task.values["rows"])
    facts = data.transforms
    transform = Transform(
        facts.mean, facts.std, facts.crop_padding, facts.horizontal_flip, facts.brightness
    )
    copies = configuration.aug_copies if transform.augments else 1
    chances = [
        generator(configuration.seed, f"score_augment/{place}", "", stage, _round(task))
        for stage, place in task.values["places"]
    ]
    seen = views(
        to_bytes(task.groups["rebuilt"]["images"]), transform.augment, chances, copies=copies
    )
    value = score(
        from_weights(task.groups["model"]),
        seen,
        [int(row) for row in np.repeat(rows, copies)],
        class_balanced=configuration.proxy_eval == "all",
    )
    return Result({"score": value}, {})


def _round(task: Task) -> int | str:
    """The round that the gradients belong to; nothing where they are the whole stage's."""
    round: int | None = task.values["round"]
    return "" if round is None else round


def _configuration(task: Task) -> Configuration:
    return Configuration.model_validate(task.values["configuration"])


def _data(task: Task) -> DataFacts:
    return DataFacts.model_validate(task.values["data"], strict=False)
