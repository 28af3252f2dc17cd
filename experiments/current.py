"""A model of a run, straight from its log: the newest, or a version that is still kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from experiments.folder import RunFolder, as_safetensors
from experiments.outside import Named, Outside, on_kafka, seen
from experiments.prediction import Model, model_file, read_model
from experiments.registry import registry
from infra.program import First
from schemas.datasets import KNOWN
from schemas.errors import ConfigurationError, DataError
from schemas.messages import HeadGrown, ModelName
from schemas.tensors import model_sha256

UNKNOWN = "not known; ask the owners of the data"


def model_of(run: Path, version: int | None = None) -> Model:
    """The model of a run: by its folder, by the name of one on Kafka, or a file of a model.

    Without a version a folder's is the one that the run ended with, and of a name the newest.
    Raises ConfigurationError and DataError where there is none such, ServiceError.
    """
    named = on_kafka(run)
    finished = named is None or (named.folder is not None and named.folder.model.exists())
    if version is None and finished:
        return read_model(
            model_file(run if named is None or not named.folder else named.folder.path)
        )
    if run.is_file():
        raise ConfigurationError(f"{run} holds one version of a model: --version is for a run")
    if named is not None:
        with seen(named, site=False) as outside:
            return current(outside, version)
    folder = RunFolder(run)
    names = folder.names()
    with closing(folder.opened()) as log:
        first = First(log, names)
        opened = first.look()
        if opened is None:
            raise DataError(f"{run} was not opened yet: `fedtwin resume {run}` goes on with it")
        return current(Outside(log, names, opened, first.hash), version)


@contextmanager
def model_at(run: Path, version: int | None = None) -> Iterator[Path]:
    """The same as a file: the run's own, or one that is gone with this context."""
    named = on_kafka(run)
    if version is None and (file := _finished(run, named)):
        yield file
        return
    model = model_of(run, version)
    arrays = {name: np.asarray(array, order="C") for name, array in model.weights.items()}
    with TemporaryDirectory() as made:
        file = Path(made) / "model.safetensors"
        file.write_bytes(as_safetensors(arrays, model.registry))
        yield file


def _finished(run: Path, named: Named | None) -> Path | None:
    """The file of the model that a run ended with; None for a run that is known by name alone, or
    goes on. Raises DataError for a folder without one."""
    if named is None:
        return model_file(run)
    return named.folder.model if named.folder and named.folder.model.exists() else None


def current(outside: Outside, version: int | None = None) -> Model:
    """A version of a run's model, or the newest. Raises DataError where it is not there."""
    line = outside.standing.line
    models, rows = _models(outside)
    newest = max(models)
    wanted = newest if version is None else version
    if wanted not in models:
        raise DataError(f"{outside.names.run} has come to version {newest}, not to {wanted}")
    name = models[wanted]
    try:
        weights = outside.around.shelf.model(name)
    except LookupError:
        kept = sorted({each.version for each in outside.around.shelf.names()})
        raise DataError(
            f"version {wanted} of {outside.names.run} is no longer kept; kept are"
            f" {', '.join(map(str, kept)) or 'none'}"
        ) from None
    told = registry(
        line,
        outside.standing.verdicts,
        _called(outside),
        licence=UNKNOWN,
        citation=UNKNOWN,
        rows=rows[wanted],
    )
    return Model(weights, {**told, "version": str(wanted), "sha256": model_sha256(weights)})


def _models(outside: Outside) -> tuple[dict[int, ModelName], dict[int, dict[str, int]]]:
    """Of each version its name, and the rows that it has."""
    models: dict[int, ModelName] = {}
    rows: dict[int, dict[str, int]] = {}
    grown: dict[str, int] = {}
    for decision in outside.standing.line.decisions.values():
        if isinstance(decision, HeadGrown):
            grown = grown | decision.rows
        model = getattr(decision, "model", None)
        if isinstance(model, ModelName):
            models[model.version] = model
            rows.setdefault(model.version, grown)
    return models, rows


def _called(outside: Outside) -> dict[str, str]:
    """What people call the classes, where that is known without the data."""
    known = KNOWN.get(outside.opened.data.name)
    return dict(zip(known.uids, known.names, strict=True)) if known and known.names else {}
