"""How well new classes are noticed: what a score counts, what a stream holds, how rules listen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from experiments.detection import rules
from experiments.detection.model import divided, loaded
from experiments.detection.pages import cells, page
from experiments.detection.rules import Family, Heard, TwinRule, families, of_a_twin
from experiments.detection.scenarios import QUIET, SCENARIOS, SPREAD, STRETCH, Classes
from experiments.detection.score import Trial, scored, tried
from experiments.detection.study import Case, best
from experiments.recipes import recipe
from schemas.errors import ConfigurationError
from tests.experiments.hands import fedtwin, told
from tests.test_floors import ROOT
from twins.novelty import Judgement

KNOWN = [False] * 6
SOME = Classes(known=("0", "1"), away="2", new="3")
POOLS = {uid: np.arange(10 * i, 10 * i + 10) for i, uid in enumerate("0123")}


# --- scores ---------------------------------------------------------------------------------------


def test_an_alarm_before_the_new_class_is_false_and_the_first_behind_it_counts() -> None:
    """Alarms at 2, 7 and 9 where image 6 is the first of a new class: one false, delay 1."""
    trial = tried([*KNOWN, True, False, True, True], [9, 2, 7])

    assert trial == Trial(known=6, false_alarms=1, new=True, delay=1)


@pytest.mark.parametrize(
    ("new", "alarms", "expected"),
    [
        ([*KNOWN, True], [6], Trial(known=6, false_alarms=0, new=True, delay=0)),
        ([*KNOWN, True], [5], Trial(known=6, false_alarms=1, new=True, delay=None)),
        (KNOWN, [0, 5], Trial(known=6, false_alarms=2, new=False, delay=None)),
        ([True], [], Trial(known=0, false_alarms=0, new=True, delay=None)),
    ],
)
def test_a_new_class_is_found_from_its_first_image_on(
    new: list[bool], alarms: list[int], expected: Trial
) -> None:
    """At that image the delay is 0; one image earlier it is chance, and the class is missed."""
    assert tried(new, alarms) == expected


def test_an_alarm_that_no_image_can_have_caused_is_a_mistake_of_the_caller() -> None:
    """Place 6 of 6 images."""
    with pytest.raises(ValueError, match=r"6 in a stream of 6"):
        tried(KNOWN, [6])


def test_a_score_counts_over_all_streams() -> None:
    """Two of three found after 4 and 10 images; 3 false alarms in 500 images: 60 in 10,000."""
    score = scored(
        [
            Trial(known=100, false_alarms=0, new=True, delay=4),
            Trial(known=150, false_alarms=1, new=True, delay=10),
            Trial(known=50, false_alarms=0, new=True, delay=None),
            Trial(known=200, false_alarms=2, new=False, delay=None),
        ]
    )

    assert score.recall == pytest.approx(100 * 2 / 3)
    assert score.false_alarm_rate == pytest.approx(60)
    assert score.delay == 7


def test_what_could_not_be_is_not_nought() -> None:
    """Without a new class there is no recall, without a known image no rate, without a find no
    delay."""
    score = scored([Trial(known=0, false_alarms=0, new=False, delay=None)])

    assert (score.recall, score.false_alarm_rate, score.delay) == (None, None, None)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_new_in_a_stream_before_the_new_class(name: str) -> None:
    """Each image is of the class that it is said to be, and those of the new class alone are
    new."""
    stream = SCENARIOS[name](SOME, POOLS, np.random.default_rng(1))

    assert stream.new == tuple(uid == "3" for uid in stream.uids)
    assert [str(place // 10) for place in stream.places_N] == list(stream.uids)
    assert QUIET <= stream.new.index(True) < QUIET + SPREAD + 2 * STRETCH


def test_the_scenarios_differ_in_what_comes_behind_the_quiet() -> None:
    """All at once it is the new class alone; trickling in it is rare at first; a class that comes
    back makes half of what comes before the new one."""
    made = {name: SCENARIOS[name](SOME, POOLS, np.random.default_rng(1)).uids for name in SCENARIOS}

    assert set(made["all at once"][-STRETCH:]) == {"3"}
    trickle = made["trickling in"][-2 * STRETCH :]
    assert trickle[:STRETCH].count("3") < 0.2 * STRETCH < trickle[STRETCH:].count("3")
    back = Counter(made["coming back"][-2 * STRETCH : -STRETCH])
    assert 0.4 * STRETCH < back["2"] < 0.6 * STRETCH
    assert back["3"] == 0 == Counter(made["coming back"][-STRETCH:])["2"]


def test_what_is_new_was_neither_learned_nor_chosen_by() -> None:
    """Of ten digits six are learned, two serve choices and two scores; none does both."""
    configuration = recipe("smoke")
    data = loaded(configuration, Path())
    split = divided(data, configuration, 2021)

    assert sorted((*split.known, *split.to_choose, *split.to_score)) == list("0123456789")
    assert [len(part) for part in (split.known, split.to_choose, split.to_score)] == [6, 2, 2]
    assert len(data.validation) > 200


def test_too_few_classes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three classes none would be left to score."""
    from dataclasses import replace

    configuration = recipe("smoke")
    few = replace(loaded(configuration, Path()), class_uids=("0", "1", "2"))

    with pytest.raises(ConfigurationError, match="digits has 3 classes; detection takes at least"):
        divided(few, configuration, 2021)


# --- rules ----------------------------------------------------------------------------------------


def heard(uids: list[str], entropies: list[float], reference: float = 0.1) -> Heard:
    """A stream past a model of the classes 0 and 1, with one virtual row."""
    return Heard(
        tuple(uids), np.array(entropies), reference, frozenset("01"), virtual_rows=1, seed=7
    )


def of(name: str, **values: object) -> Family:
    """A family under windows of four images, of which two are enough."""
    found = of_a_twin(recipe("smoke", overrides={"n_min": 4, "n_lab": 2, **values}))
    return next(each for each in found if each.name == name)


def test_labels_speak_at_the_end_of_the_window_in_which_there_are_enough() -> None:
    """One image of class 3 in the first window, one in the second: together they are two."""
    stream = heard(["0", "3", "0", "1", "1", "1", "3", "0", "0", "0", "0", "0"], [0.1] * 12)

    assert of("label").make(0.0).alarms(stream) == [7, 11]


def test_a_jump_is_a_window_s_mean_above_the_reference() -> None:
    """Means of 0.1 and 0.5 nats against 0.1: above 0.3 nats, and not above 0.4."""
    stream = heard(["0"] * 8, [0.1] * 4 + [0.2, 0.8, 0.2, 0.8])
    jump = of("jump, absolute")

    assert jump.make(0.3).alarms(stream) == [7]
    assert jump.make(0.41).alarms(stream) == []
    # rho 0.3 of ln(2 + 1) is 0.33 nats, and 0.4 of it 0.44
    assert of("jump, relative").make(0.3).alarms(stream) == [7]
    assert of("jump, relative").make(0.4).alarms(stream) == []


def test_hybrid_also_tells_what_it_suspects_and_entropy_acts_on_unseen_labels_alone() -> None:
    """A jump over known classes is a suspicion, which `entropy` passes over; with one image of
    class 3 in it `entropy` acts, though labels want two."""
    stream = heard(["0"] * 4 + ["0", "0", "0", "3"], [0.9] * 8)

    assert of("hybrid").make(0.3).alarms(stream) == [3, 7]
    assert of("entropy").make(0.3).alarms(stream) == [7]
    assert of("label").make(0.0).alarms(stream) == []


def test_at_most_n_window_images_are_looked_at() -> None:
    """Of four images two are drawn, so their mean is that of two."""
    stream = heard(["0"] * 4, [0.0, 0.0, 0.0, 4.0])
    seen: list[Judgement] = []

    def note(judgement: Judgement) -> bool:
        seen.append(judgement)
        return judgement.jump

    values = {"n_min": 4, "n_window": 2, "threshold_mode": "absolute", "entropy_threshold": 1.5}
    rule = TwinRule(recipe("smoke", overrides=values), note)
    jumps = [
        bool(rule.alarms(Heard(stream.uids, stream.entropies_N, 0.0, stream.known, 1, seed)))
        for seed in range(12)
    ]

    assert len(seen) == 12
    assert {True, False} == set(jumps)  # a mean of 2 or of 0 nats; of all four it would be 1


def test_the_peers_hear_one_entropy_after_another() -> None:
    """Both of river's detectors speak soon behind a rise, and never before it."""
    pytest.importorskip("river", reason="the extra is not installed: fedtwin[detection]")
    chance = np.random.default_rng(0)
    entropies = [*chance.normal(0.2, 0.1, 500), *chance.normal(1.0, 0.1, 100)]
    stream = heard(["0"] * 600, entropies)

    peers = [each for each in families(recipe("smoke")) if each.name.startswith("river")]
    first = [each.make(each.usual).alarms(stream)[0] for each in peers]

    assert len(peers) == 2
    assert all(500 <= place < 600 for place in first)


def test_a_number_is_chosen_by_recall_then_delay_under_a_bound_of_false_alarms() -> None:
    """Low thresholds hear too much, high ones miss or come late: of 0.2 to 0.6 it is 0.4."""
    quiet = [0.1, 0.1, 0.1, 0.1, 0.35, 0.35, 0.35, 0.35]  # a rise of 0.25 that is nothing
    stream = heard(["0"] * 8 + ["3"] * 8, quiet + [0.55] * 4 + [0.8] * 4)
    case = Case("a", stream, (False,) * 8 + (True,) * 8)
    jump = of("jump, absolute")

    found = best(Family("", "", 0.0, (0.2, 0.6, 0.4), jump.make), [case])

    assert found == 0.4


# --- the command ----------------------------------------------------------------------------------

STORED = ROOT / "experiments" / "results" / "detection" / "studies.jsonl"
QUICK = ("detection", "tiny", "--seeds", "1", "-o", "images_per_class=20", "-o", "width=4")


def test_without_the_extra_our_rules_are_scored_and_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table, the page and the object are of the same numbers, and equal at equal seeds."""
    monkeypatch.setattr(rules, "PEERS_NEED", ("no_such_package",))
    monkeypatch.setattr("experiments.detection.study.STREAMS", 2)
    out = tmp_path / "found"

    first = told(*QUICK, "--out", out)
    shown = fedtwin(*QUICK)

    assert [row for row in shown.stdout.splitlines() if row.startswith("label ")]
    assert all(word in shown.stdout for row in cells(first) for word in row)
    assert {line["rule"] for line in first["lines"]} == {
        "label", "hybrid", "entropy", "jump, relative", "jump, absolute",
    }  # fmt: skip
    assert "no_such_package: pip install 'fedtwin[detection]'" in shown.stdout
    assert json.loads((out / "detection.json").read_text()) == first
    assert (out / "detection.md").read_text() == page(first)
    assert page(first).count("\n") == 2 + len(first["lines"])
    label = first["lines"][0]["scores"]["all at once"]
    assert label["recall"] == 100
    assert label["false_alarms"] == 0


def test_a_model_that_diverged_is_no_basis_for_scores() -> None:
    """One line that names seed, stage and rate; exit code 1, as of a run."""
    answered = fedtwin(*QUICK, "-o", "learning_rate=1e30")

    assert answered.exit_code == 1
    assert answered.stderr.startswith("fedtwin: seed 2021, stage 0: the model's answers are not")
    assert "learning_rate than 1e+30" in answered.stderr


def test_the_page_shows_what_is_stored() -> None:
    """Each stored study is a table of docs/detection.md, and there is no other."""
    written = (ROOT / "docs" / "detection.md").read_text()
    stored = [json.loads(line) for line in STORED.read_text().splitlines()]

    assert [each["data"] for each in stored] == ["digits", "cifar100", "npz:pbc-blood.npz"]
    assert all(page(each) in written for each in stored)
    assert written.count("| rule | number |") == len(stored)
    assert all(len(each["seeds"]) == 3 and each["missing"] is None for each in stored)
