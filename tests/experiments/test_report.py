"""The report: one page that stands alone, tells what was measured, and shows no image unasked."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from experiments.measures import Outcome, measure
from experiments.numbers import percent, points
from experiments.report import (
    DASH,
    OUTCOME_NAMES,
    REASONS,
    Prototypes,
    plain,
    typeset,
    write_report,
)
from schemas.errors import Reason
from tests.experiments.told import NORTH, Told, right, story

MANIFEST = {
    "run": "told-fedka-2021",
    "data": {"licence": "public domain", "class_names": {"a": "apple", "b": "bear"}},
    "software": {"fedtwin": "0.1.0"},
    "data_dir": "data",
    "state": "done",
}
SPENT = {"learn": 30.0, "reconstruct": 5.0, "log": 3.0, "dreams": 2.0}
PREFIX = "data:image/png;base64,"
VOID = {"meta", "img", "source", "br", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: words, tags, where pictures come from. Fails on crossed tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.raw = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._open: list[str] = []
        self.feed(self.raw)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._words))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [values for name, values in self.tags if name == tag]

    def sources(self) -> list[str]:
        return [each["src"] or "" for each in self.of("img")]

    def pictures(self) -> dict[str, str]:
        """Description → source of each picture."""
        return {each["alt"] or "": each["src"] or "" for each in self.of("img")}


def reported(
    folder: Path,
    told: Told,
    prototypes: Prototypes | None = None,
    manifest: dict[str, Any] | None = None,
) -> Page:
    measures = measure(told.observer, SPENT, 25.0)
    return Page(write_report(folder, measures, manifest or MANIFEST, prototypes))


def taught() -> Told:
    """One stage, and a teacher for the next."""
    told = Told("ab", "cd")
    told.grows("a", "b")
    last = told.round(right(10, 10))
    told.ends()
    told.teaches(last, {last: 0.9})
    return told


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix(PREFIX)))))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The story's report."""
    return reported(tmp_path_factory.mktemp("report"), story())


def test_the_page_stands_alone(page: Page) -> None:
    """No script, and nothing that a browser would have to fetch: pictures and targets are in it."""
    tags = {name for name, _ in page.tags}
    addresses = [
        value
        for _, values in page.tags
        for name, value in values.items()
        if name in ("src", "srcset", "href", "action", "data")
    ]

    assert not tags & {"script", "link", "iframe", "object", "form"}
    assert addresses
    assert all((address or "").startswith((PREFIX, "#")) for address in addresses)
    places = {f"#{values['id']}" for _, values in page.tags if "id" in values}
    assert {address for address in addresses if (address or "").startswith("#")} <= places
    assert "url(" not in page.raw
    assert "@import" not in page.raw


def test_plots_are_drawn_for_light_and_for_dark(page: Page) -> None:
    """Six plots; each has its twin for a dark screen, another picture of the same size."""
    dark = page.of("source")
    light = [source for source in page.sources() if source.startswith(PREFIX)]

    assert len(dark) == len(light) == 6
    for there, here in zip(dark, light, strict=True):
        assert "dark" in (there["media"] or "")
        assert there["srcset"] != here
        assert pixels(there["srcset"] or "").shape == pixels(here).shape


@pytest.mark.parametrize(
    "words",
    [
        "4 digital twins learned 4 classes of dots together",
        "Accuracy at the end 70.0 %",
        "Average over the stages 80.0 %",
        "Forgetting 30.0 points",
        "New classes 85.0 %",
        "Novelty seen by entropy 1 of 2",
        "hybrid 100.0 % 200.0 74 entropy 50.0 % 0.0 99",
        "2 windows with images of a class that the twin did not know, however few, and 50 images",
        "Backward transfer is \N{MINUS SIGN}30.0 points",
        "version 3, round 0.1 100.0 % 90.0 % chosen: highest score",
        "1: no image of this class is left",
        "withheld west: training diverged",
        "Most often confused: apple taken for bear (30.0 % of its images)",
        "not-finite contains values that are not numbers 2",
        "training 75.0 %",
        "apple",
        "public domain",
        "learning_rate 0.5",
        "25.0 % of the students' looked nowhere",
    ],
)
def test_the_page_tells_what_was_measured(page: Page, words: str) -> None:
    """Each number of the story stands where a reader looks for it."""
    assert words in page.text


def test_without_prototypes_no_image_is_shown(page: Page) -> None:
    """They were not given, so the page says that they are not shown, and why that may be."""
    assert "Not shown. A prototype is nearly the image" in page.text
    assert not [alt for alt in page.pictures() if "prototype of" in alt]


@pytest.mark.usefixtures("blank_figures_here")
def test_prototypes_come_with_the_honest_sentence(tmp_path: Path) -> None:
    """Gray and colour are shown as rebuilt; values out of [0, 1] are cut off and do not wrap."""
    gray = np.array([[[0.0, 1.01], [0.5, -0.2]]])
    colour = np.zeros((3, 2, 2), np.float32)
    colour[0] = 1.0

    page = reported(tmp_path, taught(), {0: [("a", gray), ("b", colour)]})
    shown = page.pictures()

    assert "A prototype is nearly the image." in page.text
    assert "because this data set is public" in page.text
    found = pixels(shown["rebuilt prototype of class apple"])
    assert found.tolist() == [[0, 255], [128, 0]]
    assert pixels(shown["rebuilt prototype of class bear"])[0, 0].tolist() == [255, 0, 0]


@pytest.mark.usefixtures("blank_figures_here")
def test_prototypes_stand_in_the_order_of_their_classes(tmp_path: Path) -> None:
    """They come twin by twin; on the page those of one class are beside each other."""
    dot = np.zeros((1, 2, 2), np.float32)

    page = reported(tmp_path, taught(), {0: [("b", dot), ("a", dot), ("b", dot)]})

    names = [alt for each in page.of("img") if "prototype of" in (alt := each["alt"] or "")]
    assert [name.split()[-1] for name in names] == ["apple", "bear", "bear"]


@pytest.mark.usefixtures("blank_figures_here")
def test_prototypes_that_are_not_at_hand_are_missed_by_stage(tmp_path: Path) -> None:
    """Choices rested on them, nobody kept them: the page names their stages, and shows the rest."""
    told = Told("ab", "cd", "ef")
    for uids in ("ab", "cd"):
        told.grows(*uids)
        last = told.round(right(*[10] * len(told.observer.line.rows)))
        told.ends()
        told.teaches(last, {last: 0.9})

    dot = np.zeros((1, 2, 2), np.float32)
    none = reported(tmp_path, told, {})
    second = reported(tmp_path, told, {1: [("c", dot)]})

    assert "Not shown for stages 0, 1: what was rebuilt then is no longer at hand" in none.text
    assert "Not shown for stage 0: what was rebuilt then is no longer at hand" in second.text
    assert "rebuilt prototype of class c" in second.pictures()


@pytest.mark.usefixtures("blank_figures_here")
def test_a_run_in_its_midst_is_called_so(tmp_path: Path) -> None:
    """It failed in stage 0: the page says that it is not over, why, and what is there so far."""
    told = Told("ab", "cd", rounds=2)
    told.grows("a", "b")
    told.round(right(10, 10))

    page = reported(tmp_path, told, manifest={**MANIFEST, "state": "failed", "why": "no room"})

    assert "This run is not over." in page.text
    assert "no room" in page.text
    assert "0 (open)" in page.text
    assert "There has been no second stage" in page.text


def test_a_run_without_a_round_has_a_report(tmp_path: Path) -> None:
    """Dashes stand where nothing was measured; no plot, no failure."""
    page = reported(tmp_path, Told("ab"), manifest={"run": "empty"})

    assert f"Accuracy at the end {DASH}" in page.text
    assert page.of("img") == []


@pytest.mark.usefixtures("blank_figures_here")
def test_a_method_without_a_teacher_says_so(tmp_path: Path) -> None:
    """Fine-tuning has two stages and nobody who taught."""
    told = Told("ab", "cd", strategy="fedavg")
    told.grows("a", "b")
    last = told.round(right(10, 10))
    told.ends()
    told.teaches(last, prototypes=0)
    told.grows("c", "d")
    told.round([[0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 9, 1], [0, 0, 1, 9]])
    told.ends()

    page = reported(tmp_path, told)

    assert "This method does without a teacher." in page.text
    assert "Forgetting 100.0 points" in page.text


@pytest.mark.usefixtures("blank_figures_here")
def test_names_from_outside_are_words_and_nothing_else(tmp_path: Path) -> None:
    """A class, a reason and a file name that look like HTML are shown as they are written."""
    evil = '<script>alert("a & b")</script>'
    told = Told((evil, "b"))
    told.judges(NORTH, {evil: 50}, classes=(evil,), first_contact=True)
    told.grows(evil, "b")
    told.round(right(10, 10), withheld={"local/west": evil})

    page = reported(tmp_path, told, manifest={**MANIFEST, "data_dir": evil})

    assert "<script" not in page.raw
    assert page.text.count(evil) >= 4


def test_writing_again_replaces_the_page(tmp_path: Path) -> None:
    """There is one file, whole at any time."""
    before = reported(tmp_path, Told("ab"), manifest={"run": "before"})
    after = reported(tmp_path, Told("ab"), manifest={"run": "after"})

    assert "fedtwin: before" in before.text
    assert "fedtwin: after" in after.text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_every_reason_and_outcome_has_words() -> None:
    """Whoever adds one has to say to people what it means."""
    assert REASONS.keys() == set(get_args(Reason))
    assert OUTCOME_NAMES.keys() == set(get_args(Outcome))


def test_numbers_are_typeset() -> None:
    """A true minus, a long dash for what is not known, and no line break before a unit."""
    assert typeset(points(-30.0)) == "\N{MINUS SIGN}30.0\N{NO-BREAK SPACE}points"
    assert typeset(percent(None)) == DASH
    assert typeset("version-3") == "version-3"
    assert [plain(v) for v in (None, True, False, (), (1, 2), 0.5)] == [
        DASH, "yes", "no", "none", "1, 2", "0.5",
    ]  # fmt: skip
