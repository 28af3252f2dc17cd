"""A run in one object: what `--json` prints, what the tables show, and what the Python API returns.

It is read from the run folder alone, so it is the same for a run that just ended, goes on, was
stopped or failed, whoever asks. Shares are in percent, None where there is nothing to tell yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from experiments.folder import RunFolder, is_done
from experiments.measures import Measures, measure
from experiments.observer import Observer
from schemas.line import RoundsLine

SCHEMA = 1
Json = dict[str, Any]
Status = Literal["running", "done", "failed", "diverged", "stopped"]
"""`stopped`: interrupted, killed or injected into; resume goes on. So it does where it `failed`;
what `diverged` would only do so again, and is begun anew with a smaller learning_rate."""


def summary(folder: Path) -> Json:
    """What a run came to, or has come to so far. Raises DataError for what is no run folder."""
    run_folder = RunFolder(folder)
    return _summary(run_folder, run_folder.read_manifest(), run_folder.observed())


def details(folder: Path) -> Json:
    """The summary, and where a run stands: stages, rounds, entities, what each role waits for."""
    run_folder = RunFolder(folder)
    observer = run_folder.observed()
    whole = _summary(run_folder, run_folder.read_manifest(), observer)
    return {
        **whole,
        "position": position(observer.line),
        "entities": _entities(observer),
        "waits": waits(observer),
    }


def glance(folder: Path) -> Json:
    """What a list of runs tells of one, without reading what it sent about."""
    run_folder = RunFolder(folder)
    manifest, line = run_folder.read_manifest(), run_folder.decided()
    return {
        **_names(run_folder, manifest, line),
        "position": position(line),
        "model_version": line.model.version if line.model else None,
        "run_dir": str(folder),
    }


def position(line: RoundsLine) -> Json:
    """How far a run is: stages and rounds that are closed, and of how many."""
    if line.opened is None:
        return {"stages": 0, "of_stages": 0, "rounds": 0, "of_rounds": 0}
    return {
        "stages": sum(stage.closed is not None for stage in line.stages),
        "of_stages": line.total_stages,
        "rounds": _closed_rounds(line),
        "of_rounds": line.total_stages * line.opened.configuration.rounds_per_stage,
    }


def waits(observer: Observer) -> dict[str, list[str]]:
    """Role → whose word it waits for, as far as the decision lines tell; what is in work is not."""
    line = observer.line
    found: dict[str, list[str]] = {"producers": [], "twins": [], "aggregator": [], "proxy": []}
    if line.opened is None:
        return {role: ["the run to be opened"] for role in found}
    if line.over:
        return {**found, "aggregator": ["an injection"], "twins": ["an injection"]}
    if opened := line.open_round:
        answered = observer.answered.get(opened.number, set())
        missing = [each.entity for each in opened.participants if each.entity not in answered]
        found["aggregator"] = [f"updates of round {opened.stage}.{opened.round}: {_some(missing)}"]
        found["proxy"] = [f"the end of stage {opened.stage}"]
        return found
    stage = line.stage
    if stage is None or stage.closed:
        return found | _between(observer, len(line.stages))
    return found


def _between(observer: Observer, stage: int) -> dict[str, list[str]]:
    """What a stage's beginning waits for."""
    marked = observer.line.marked(stage)
    silent = [each for each in marked if observer.verdicts.verdict(each, stage) is None]
    missing = [f"verdicts of stage {stage}: {_some(silent)}"] if silent else []
    if stage and observer.teachers.of(stage) is None:
        missing.append(f"the teacher of stage {stage}")
    return {"aggregator": missing, "twins": [f"the first round of stage {stage}"]}


def _summary(folder: RunFolder, manifest: Mapping[str, Any], observer: Observer) -> Json:
    names = _names(folder, manifest, observer.line)
    past = {name: manifest.get(name) for name in ("seconds", "wall_seconds", "trainings")}
    report = str(folder.report) if folder.report.exists() and names["status"] == "done" else None
    ends = {"seconds": past["seconds"] or {}, "run_dir": str(folder.path), "report": report}
    if observer.line.opened is None:
        return {**names, **_EMPTY, **ends}
    measures = measure(
        observer, past["seconds"] or {}, past["wall_seconds"] or 0.0, past["trainings"]
    )
    return {**names, **_measured(measures), **ends}


def _names(folder: RunFolder, manifest: Mapping[str, Any], line: RoundsLine) -> Json:
    configuration = manifest["configuration"]
    status = _status(folder, manifest, line)
    return {
        "schema": SCHEMA,
        "run": manifest["run"],
        "status": status,
        "why": manifest.get("why") if status in ("failed", "diverged") else None,
        "dataset": manifest["data"]["name"],
        **{key: configuration[key] for key in ("recipe", "strategy", "seed")},
    }


def _status(folder: RunFolder, manifest: Mapping[str, Any], line: RoundsLine) -> Status:
    if folder.running:
        return "running"
    if is_done(manifest, line):
        return "done"
    match manifest["state"]:
        case "failed" | "diverged" as ended:
            return ended
        case _:
            return "stopped"


def _measured(measures: Measures) -> Json:
    last = measures.stages[-1] if measures.stages else None
    return {
        "stages": [
            {
                "stage": each.stage,
                "classes": list(each.classes),
                "accuracy": each.accuracy,
                "macro_f1": each.macro_f1,
                "best_round_accuracy": each.best_round_accuracy,
            }
            for each in measures.stages
        ],
        "rounds": len(measures.rounds),
        "average_accuracy": measures.average_accuracy,
        "forgetting": measures.forgetting,
        "macro_f1": last.macro_f1 if last else None,
        "detector": asdict(measures.detector),
        "teachers": [
            {"stage": each.stage, "version": each.version, "score": each.score}
            for each in measures.teachers
        ],
        "untested_classes": list(measures.untested_classes),
        "dead_letters": dict(measures.dead_letters),
        "bytes_up": measures.bytes_up,
        "bytes_down": measures.bytes_down,
        "images_per_second": measures.images_per_second,
        "wall_seconds": measures.wall_seconds,
        "model_version": measures.model_version,
        "model_sha256": measures.model_sha256,
    }


_EMPTY: Mapping[str, Any] = {
    "stages": [],
    "rounds": 0,
    "average_accuracy": None,
    "forgetting": None,
    "macro_f1": None,
    "detector": {"hits": 0, "misses": 0, "false_alarms": 0},
    "teachers": [],
    "untested_classes": [],
    "dead_letters": {},
    "bytes_up": 0,
    "bytes_down": 0,
    "images_per_second": None,
    "wall_seconds": 0.0,
    "model_version": None,
    "model_sha256": None,
}
"""Of a run that was not opened yet."""


def _entities(observer: Observer) -> list[Json]:
    """Each entity's twin: what it knows, what it judged last, in how many rounds it was counted."""
    counted = Counter(
        entity
        for stage in observer.line.stages
        for each in stage.rounds
        if each.closed
        for entity, _ in each.closed.counted
    )
    return [
        {
            "entity": entity,
            "classes": list(line.known),
            "judged_stage": line.judged if line.verdicts else None,
            "verdict": line.verdicts[line.judged].verdict if line.verdicts else None,
            "rounds": counted[entity],
        }
        for entity in observer.line.entities
        for line in [observer.verdicts.line(entity)]
    ]


def _closed_rounds(line: RoundsLine) -> int:
    return sum(each.closed is not None for stage in line.stages for each in stage.rounds)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
