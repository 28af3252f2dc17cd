"""How good a global model is on test images; only the runner of a recipe has them. Needs torch."""

from __future__ import annotations

import numpy as np

from infra.promises import Result, Task
from learning.nets import features_and_logits, from_weights
from schemas.messages import DataFacts
from twins.learner import transform_of


def evaluate(task: Task) -> Result:
    """The confusion matrix (rows: true, columns: predicted) over all rows of a model's head."""
    data = DataFacts.model_validate(task.values["data"], strict=False)
    net = from_weights(task.groups["model"], task.values["device"])
    true = task.groups["test"]["rows"]
    _, logits = features_and_logits(net, task.groups["test"]["images"], transform_of(data))
    confusion = np.zeros((logits.shape[1],) * 2, np.int64)
    if len(true):  # before the first class is announced there is no row to be the largest
        np.add.at(confusion, (true, logits.argmax(axis=1)), 1)
    return Result({}, {"confusion": {"confusion": confusion}})
