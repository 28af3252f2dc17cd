"""The report of a run: one HTML file that needs nothing else, for people who know none of the code.

Styles and plots are inside the file, there is no script, and nothing is fetched. The words stand in
templates/report.html; here is what they are filled with.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.folder import write_whole
from experiments.measures import GROUPS, Measures, Outcome
from experiments.numbers import NOTHING, counted, duration, lost, nats, percent, points, size

Prototypes = Mapping[int, Sequence[tuple[str, NDArray[Any]]]]
"""Stage → class uid and rebuilt image (C, H, W) in [0, 1]."""
REPORT = "report.html"
PIXELS_PER_INCH = 100
MOST_CONFUSIONS = 5
DASH, MINUS, TIED = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
TEMPLATE = "report.html"
PHASES: Mapping[str, str] = {
    "learn": "twins train on their images",
    "reconstruct": "the proxy rebuilds prototypes from gradients",
    "log": "messages are written to the log and read from it",
    "loading": "models and images are fetched for a task",
    "codec": "messages become bytes and are checked",
    "aggregator": "updates are averaged, rounds and stages are decided",
    "judge": "twins look for new classes",
    "evaluate": "global models are tested on test images",
    "prototypes": "twins make prototypes and their gradients",
    "herd": "twins choose the exemplars that they keep",
    "score": "the proxy scores old models on prototypes",
    "producers": "streams are put together",
    "twins": "twins follow the log",
    "proxy": "the proxy follows the log",
    "observer": "measures are taken down",
    "report": "this report",
}
"""What happens in each phase of the stopwatch."""
GROUP_NAMES: Mapping[str, str] = {
    "training": "training",
    "reconstruction": "reconstruction",
    "bookkeeping": "log, codec, aggregation, detection, evaluation",
    "other": "everything else",
}
OUTCOME_NAMES: Mapping[Outcome, str] = {
    "both": "hit",
    "labels only": "miss",
    "entropy only": "false alarm",
    "neither": "quiet",
    "first contact": "first contact",
    "nothing to judge": "nothing to judge",
}
REASONS: Mapping[str, str] = {
    "unreadable": "not what this program writes, or cut short",
    "bad-hash": "changed on its way",
    "too-large": "larger than any message of this run",
    "bomb": "claims more memory than any message of this run",
    "unknown-kind": "of a kind that is not known there",
    "newer-schema": "written by a newer program",
    "unknown-entity": "speaks for somebody who has no part in this",
    "closed-round": "answers a round that was over",
    "wrong-base": "rests on another model than the one asked about",
    "wrong-shape": "tensors of another shape than the model's",
    "wrong-dtype": "numbers of another type than the model's",
    "not-finite": "contains values that are not numbers",
    "out-of-range": "contains values too large to be summed exactly",
    "label-rules-disagree": "a gradient that does not tell its class",
    "unmapped-label": "an image of a class that nobody knows",
    "out-of-line": "a decision that does not follow from those before it",
}
"""What the reasons of dead letters mean (schemas/errors.py lists them)."""


def write_report(
    folder: Path,
    measures: Measures,
    manifest: Mapping[str, Any],
    prototypes: Prototypes | None = None,
) -> Path:
    """Write report.html into a run's folder, and say where it is.

    Rebuilt prototypes are nearly the images that they come from (docs/method.md 6.7): give them
    only when everybody may see those, otherwise None. Raises DiskFull, and ConfigurationError where
    the folder cannot be written to.
    """
    # Imported here because together they take a second that reading a run has no use for.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("experiments"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = _class_names(measures, manifest)
    numbers = (percent, points, lost, nats, size, duration)
    page.filters |= {each.__name__: _on_the_page(each) for each in numbers}
    page.filters |= {each.__name__: each for each in (short, plain)}
    page.filters["counted"] = counted
    page.filters["named"] = lambda uid: names.get(uid, uid)
    text = page.get_template(TEMPLATE).render(
        m=measures,
        manifest=manifest,
        facts=_facts(manifest),
        figures=_figures(measures, [names[uid] for uid in measures.classes]),
        prototypes=_shown(prototypes, measures.classes, names),
        absent=_absent(prototypes or {}, measures),
        confusions=_confusions(measures, names),
        configuration=_flat(measures.configuration),
        total_seconds=sum(measures.seconds.values()),
        nothing=DASH,
        groups=GROUPS,
        group_names=GROUP_NAMES,
        phases=PHASES,
        outcomes=OUTCOME_NAMES,
        reasons=REASONS,
    )
    write_whole(folder / REPORT, text.encode())
    return folder / REPORT


# --- what the page shows --------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A plot as data URIs, for a light page and for a dark one."""

    light: str
    dark: str
    width: int
    """On the page, in pixels: a plot has more, so that it is sharp where it is enlarged."""


@dataclass(frozen=True)
class Prototype:
    """A rebuilt image as a data URI, and its class."""

    name: str
    image: str


def _figures(measures: Measures, names: Sequence[str]) -> dict[str, Picture]:
    """The plots for which there is something to show, by name."""
    from experiments import figures as plots

    drawn = {
        "accuracy": plots.accuracy_by_round,
        "old_and_new": plots.old_and_new_by_round,
        "matrix": plots.stage_matrix,
        "confusion": lambda m, theme: plots.confusion_matrix(m, theme, names),
        "entropy": plots.entropy_rises,
        "scores": plots.scores_and_accuracies,
    }
    found = {}
    for name, plot in drawn.items():
        light, dark = (plot(measures, theme) for theme in (plots.LIGHT, plots.DARK))
        if light and dark:
            bright, dim = plots.png(light), plots.png(dark)
            width = PIXELS_PER_INCH * _width(bright) // plots.DPI
            found[name] = Picture(_uri(bright), _uri(dim), width)
    return found


def _width(png: bytes) -> int:
    """In pixels: a PNG begins with it, behind a signature, a length and a name."""
    return int.from_bytes(png[16:20], "big")


def _shown(
    prototypes: Prototypes | None, classes: Sequence[str], names: Mapping[str, str]
) -> dict[int, list[Prototype]] | None:
    """Stage → images side by side that are of one class, in the order of the model's rows."""
    if prototypes is None:
        return None
    place = {uid: row for row, uid in enumerate(classes)}
    return {
        stage: [
            Prototype(names.get(uid, uid), _uri(_image(array)))
            for uid, array in sorted(images, key=lambda each: place.get(each[0], len(place)))
        ]
        for stage, images in sorted(prototypes.items())
    }


def _absent(prototypes: Prototypes, measures: Measures) -> list[int]:
    """Stages whose prototypes served a choice and are not among these.

    Not told where two slots teach: there a choice does not tell its prototypes' stage.
    """
    if measures.configuration["teacher"] == "slots":
        return []
    adds_up = measures.configuration["proxy_eval"] == "all"
    absent, before = [], 0
    for each in measures.teachers:
        if each.prototypes > before and each.stage - 1 not in prototypes:
            absent.append(each.stage - 1)
        before = each.prototypes if adds_up else 0
    return absent


def _image(array_CHW: NDArray[Any]) -> bytes:
    """A PNG; what was rebuilt may leave [0, 1], and bytes would wrap around."""
    from PIL import Image

    whole = np.nan_to_num(np.asarray(array_CHW, np.float64))
    pixels = np.rint(255 * whole.clip(0, 1)).astype(np.uint8)
    colour = len(pixels) == 3
    held = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0) if colour else pixels[0]).save(held, "PNG")
    return held.getvalue()


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _class_names(measures: Measures, manifest: Mapping[str, Any]) -> dict[str, str]:
    """What people call each class of the data; its uid where the manifest tells no name."""
    known = manifest.get("data", {}).get("class_names", {})
    uids = dict.fromkeys((*measures.data["classes"], *measures.classes, *measures.waiting_classes))
    return {uid: str(known.get(uid, uid)) for uid in uids}


def _confusions(measures: Measures, names: Mapping[str, str]) -> list[tuple[str, str, float]]:
    """The most frequent mistakes: true class, predicted class, percent of the true one's images."""
    uids = measures.classes
    mistakes = [
        (names[uids[true]], names[uids[predicted]], 100 * images / sum(row))
        for true, row in enumerate(measures.confusion)
        for predicted, images in enumerate(row)
        if images and predicted != true
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[2])[:MOST_CONFUSIONS]


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest but for what the page shows elsewhere."""
    data = {k: v for k, v in manifest.get("data", {}).items() if k != "class_names"}
    others = {k: v for k, v in manifest.items() if k not in ("configuration", "data", "seconds")}
    return _flat({**others, "data": data})


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values as one list, with dots in their names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = value
    return flat


# --- how it is written ----------------------------------------------------------------------------


def typeset(written: str) -> str:
    """A number as a page has it: never parted from its unit, with a true minus or a long dash."""
    if written == NOTHING:
        return DASH
    signed = f"{MINUS}{written[1:]}" if written.startswith("-") else written
    return signed.replace(" ", TIED)


def _on_the_page(write: Callable[..., str]) -> Callable[..., str]:
    return lambda number: typeset(write(number))


def short(entity: str) -> str:
    """An entity's name without the site that all entities of an embedded run share."""
    return entity.removeprefix("local/")


def plain(value: object) -> str:
    """A configured value as it would be written in a list."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value)
