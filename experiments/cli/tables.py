"""The object of a run as a person reads it. Stages and rounds count from 0, as everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.cli.words import facts, in_a_line, table
from experiments.numbers import NOTHING, counted, duration, lost, percent, size, speed

if TYPE_CHECKING:
    from rich.console import Console

PLURAL = ("producers", "twins")
SHOWN_CLASSES = 8
"""Uids of classes in a line before the rest is counted."""


def run(out: Console, told: dict[str, Any]) -> None:
    """What a run came to: a line for each stage, and what holds for all of it."""
    if told["stages"]:
        teachers = {each["stage"]: each for each in told["teachers"]}
        table(
            out,
            (">stage", "new classes", ">accuracy", ">macro F1", ">taught by"),
            (
                (
                    str(each["stage"]),
                    some(each["classes"]),
                    percent(each["accuracy"]),
                    percent(each["macro_f1"]),
                    _teacher(teachers.get(each["stage"])),
                )
                for each in told["stages"]
            ),
        )
        out.print()
    facts(out, _about(told))


def entities(out: Console, told: dict[str, Any]) -> None:
    """Each entity's twin, a line each."""
    table(
        out,
        ("entity", ">classes", ">judged stage", "verdict", ">rounds"),
        (
            (
                each["entity"],
                str(len(each["classes"])),
                NOTHING if each["judged_stage"] is None else str(each["judged_stage"]),
                each["verdict"] or NOTHING,
                str(each["rounds"]),
            )
            for each in told["entities"]
        ),
    )


def waiting(out: Console, told: dict[str, Any]) -> None:
    """What each role waits for, if any does."""
    found = [
        (role, f"wait{'' if role in PLURAL else 's'} for {'; '.join(what)}")
        for role, what in told["waits"].items()
        if what
    ]
    if found:
        out.print()
        facts(out, found)


def some(uids: list[str]) -> str:
    """Class uids, or the first of many."""
    more = len(uids) - SHOWN_CLASSES
    return ", ".join(uids[:SHOWN_CLASSES]) + (f" and {more} more" if more > 0 else "")


def _teacher(choice: dict[str, Any] | None) -> str:
    if choice is None:
        return NOTHING
    score = "last" if choice["score"] is None else f"score {choice['score']:.0f} %"
    return f"v{choice['version']} ({score})"


def _about(told: dict[str, Any]) -> list[tuple[str, str]]:
    detector, letters = told["detector"], told["dead_letters"]
    forgetting = told["forgetting"]
    return [
        ("run", f"{told['run']}, {told['status']}"),
        ("data", told["dataset"]),
        ("why", in_a_line(told["why"] or "")),
        ("average", _average(told["average_accuracy"])),
        ("forgetting", "" if forgetting is None else lost(forgetting)),
        (
            "new classes",
            f"entropy rule: {counted(detector['hits'], 'hit')},"
            f" {counted(detector['misses'], 'miss', 'misses')},"
            f" {counted(detector['false_alarms'], 'false alarm')}",
        ),
        ("untested", some(told["untested_classes"])),
        (
            "dead letters",
            ", ".join(f"{count} {reason}" for reason, count in letters.items()) or "none",
        ),
        (
            "traffic",
            f"{size(told['bytes_up'])} up, {size(told['bytes_down'])} down,"
            f" {counted(told['rounds'], 'round')}",
        ),
        ("time", f"{duration(told['wall_seconds'])}{_speed(told['images_per_second'])}"),
        ("model", _model(told)),
        ("report", told["report"] or ""),
    ]


def _average(accuracy: float | None) -> str:
    return NOTHING if accuracy is None else f"{percent(accuracy)} over the closed stages"


def _model(told: dict[str, Any]) -> str:
    if told["model_sha256"] is None:
        return "none yet"
    return f"version {told['model_version']}, sha256 {told['model_sha256']}"


def _speed(images_per_second: float | None) -> str:
    return "" if images_per_second is None else f", {speed(images_per_second)}"
