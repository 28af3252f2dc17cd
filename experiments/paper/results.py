"""What finished runs came to, as JSON lines: a line a run, added when it ends and never changed."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from experiments.folder import RunFolder, add_to, is_done
from experiments.measures import Measures, StageMeasures, measure
from experiments.recipes import departures
from schemas.configuration import Configuration, configuration
from schemas.datasets import own_data
from schemas.errors import DataError

SCHEMA = 1
ENDING = ".jsonl"
METRICS = {
    "accuracy": "average_accuracy", "macro_f1": "average_macro_f1", "forgetting": "forgetting",
    "backward_transfer": "backward_transfer", "new_class_accuracy": "new_class_accuracy",
}  # fmt: skip
"""What two methods are compared by, and under which key a line has it."""


@dataclass(frozen=True)
class Result:
    """One line: a run that is over."""

    line: Mapping[str, Any]

    @cached_property
    def configuration(self) -> Configuration:
        return configuration(dict(self.line["configuration"]))

    @property
    def identity(self) -> str:
        return str(self.line["identity"])

    @property
    def strategy(self) -> str:
        return self.configuration.strategy

    @property
    def seed(self) -> int:
        return self.configuration.seed

    def value(self, metric: str) -> float | None:
        """The mean over stages of a metric of `METRICS`, in percent."""
        found: float | None = self.line[METRICS[metric]]
        return found

    def stages(self, metric: str) -> list[float | None]:
        """`accuracy` or `macro_f1` after each stage, in percent."""
        return [stage[metric] for stage in self.line["stages"]]


def identity(own: Configuration, evaluate_on: str) -> str:
    """Tells runs of one configuration: SHA-256 over it, and over the images that score it.

    A file or folder of one's own counts by its name, wherever it lies; keys at their defaults do
    not, so that a key which is added later leaves stored results what they are.
    """
    usual = own.model_dump(mode="json", exclude_defaults=True)
    values = {key: value for key, value in _portable(own).items() if key in usual}
    text = json.dumps([values, evaluate_on], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def of_folder(path: Path) -> Result:
    """The line of a run folder, also of a run that diverged: that is a result as well.

    Raises DataError where there is no run, or it is not over.
    """
    folder = RunFolder(path)
    manifest = folder.read_manifest()
    if manifest["state"] == "diverged":
        return Result(_diverged(manifest, folder.configuration()))
    seen = folder.observed()
    if not is_done(manifest, seen.line):
        raise DataError(f"{path} is not over: `fedtwin resume {path}` goes on with it")
    own = manifest["wall_seconds"], manifest["trainings"]
    measures = measure(seen, manifest["seconds"], *own)
    return Result(line_of(manifest, measures, folder.configuration()))


def line_of(manifest: Mapping[str, Any], measures: Measures, own: Configuration) -> dict[str, Any]:
    """What is stored of a run: who it was, what it came to, and what it took."""
    stages = [each for each in measures.stages if each.closed]
    return {
        **_who(manifest, own),
        "state": "done",
        "schedule_sha256": manifest["schedule_sha256"],
        "run_hash": manifest["run_hash"],
        "model_version": manifest["model_version"],
        "model_sha256": manifest["model_sha256"],
        "average_accuracy": measures.average_accuracy,
        "average_macro_f1": _mean(each.macro_f1 for each in stages),
        "best_round_average": _mean(each.best_round_accuracy for each in stages),
        "forgetting": measures.forgetting,
        "backward_transfer": measures.backward_transfer,
        "new_class_accuracy": measures.new_class_accuracy,
        "rank_correlation": measures.rank_correlation,
        "empty_maps": measures.empty_maps,
        "stages": [_stage(each) for each in stages],
        "matrix": measures.matrix,
        "rounds": [each.accuracy for each in measures.rounds],
        "teachers": [[each.stage, each.version] for each in measures.teachers],
        "undrawn_classes": measures.undrawn_classes,
        "detector": asdict(measures.detector),
        "images": sum(each.images for each in measures.rounds),
        "steps": sum(each.steps for each in measures.rounds),
        "bytes_up": measures.bytes_up,
        "bytes_down": measures.bytes_down,
        "bytes_prototypes": measures.bytes_prototypes,
        "trainings": manifest["trainings"],
        "seconds": measures.seconds,
        "wall_seconds": measures.wall_seconds,
    }


def _who(manifest: Mapping[str, Any], own: Configuration) -> dict[str, Any]:
    evaluated = manifest.get("evaluate_on", "test")
    return {
        "schema": SCHEMA,
        "identity": identity(own, evaluated),
        "command": command(own, evaluated),
        "configuration": _portable(own),
        "data": {key: manifest["data"][key] for key in ("name", "sha256", "version", "citation")},
        "evaluate_on": evaluated,
        "software": manifest["software"],
    }


def _diverged(manifest: Mapping[str, Any], own: Configuration) -> dict[str, Any]:
    """What is stored of a run whose training went beyond all numbers: no accuracy, and why."""
    unknown = dict.fromkeys([*METRICS.values(), "best_round_average", "rank_correlation"])
    took = {key: manifest[key] for key in ("seconds", "wall_seconds", "trainings")}
    none: dict[str, Any] = {"model_sha256": None, "stages": [], "matrix": [], "rounds": []}
    return {**_who(manifest, own), **unknown, **none, **took, "images": 0,
            "state": "diverged", "why": manifest["why"]}  # fmt: skip


def command(own: Configuration, evaluate_on: str = "test") -> str:
    """What a person types to have the same run."""
    keys = {key: each for key, each in departures(own).items() if key not in ("strategy", "seed")}
    if "dataset" in keys:
        keys["dataset"] = _portable(own)["dataset"]
    if evaluate_on != "test":
        keys["evaluate_on"] = evaluate_on
    words = ["fedtwin", "run", own.recipe, "--strategy", own.strategy, "--seed", str(own.seed)]
    for key, value in keys.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["-o", shlex.quote(f"{key}={text}")]
    return " ".join(words)


def read(path: Path) -> list[Result]:
    """Every line of a file but one that was not written to its end; no file, no line.

    Raises DataError for a line that is none of ours.
    """
    if not path.exists():
        return []
    found = []
    whole = path.read_text()
    for number, text in enumerate(whole.removesuffix(_torn(whole)).splitlines(), start=1):
        try:
            line = json.loads(text)
            known = line["schema"] == SCHEMA and line["identity"] and line["configuration"]
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise DataError(f"{path}, line {number}, is no result of a run: take it out")
        found.append(Result(line))
    return found


def stored(own: Path | None = None) -> list[Result]:
    """The results that come with the program, and those in a folder of one's own.

    Of one run told twice the own line counts.
    """
    found: dict[str, Result] = {}
    shipped = files("experiments").joinpath("results")
    with as_file(shipped) as place:
        folders = [place, *([own] if own else [])]
        for folder in folders:
            for path in sorted(folder.glob(f"*{ENDING}")):
                found |= {each.identity: each for each in read(path)}
    return list(found.values())


def add(path: Path, result: Result) -> None:
    """Add a line, whole or not at all, behind what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and (torn := _torn(path.read_text())):
        os.truncate(path, path.stat().st_size - len(torn.encode()))
    add_to(path, (json.dumps(result.line, sort_keys=True) + "\n").encode())


def _torn(text: str) -> str:
    """A last line that was not written to its end; one that was ends in a line break."""
    return text[text.rfind("\n") + 1 :]


def by_seed(results: Iterable[Result], metric: str) -> dict[int, float]:
    """Seed → a metric's value, of runs that have one."""
    found = {each.seed: each.value(metric) for each in results}
    return {seed: value for seed, value in found.items() if value is not None}


def _portable(own: Configuration) -> dict[str, Any]:
    """A configuration without where files of one's own lie."""
    values = own.model_dump(mode="json")
    form, path = own_data(own.dataset)
    if path:
        values["dataset"] = f"{form}:{Path(path).name}"
    return values


def _stage(stage: StageMeasures) -> dict[str, Any]:
    return {
        "classes": stage.classes,
        "accuracy": stage.accuracy,
        "macro_f1": stage.macro_f1,
        "best_round_accuracy": stage.best_round_accuracy,
        "old_accuracy": stage.old_accuracy,
        "new_accuracy": stage.new_accuracy,
        "old_as_new": stage.old_as_new,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
