"""Is there a new class? (docs/method.md 3)"""

import math

import pytest

from experiments.recipes import recipe
from schemas.configuration import Configuration
from twins.novelty import judged, threshold


def with_(**values: object) -> Configuration:
    """The tiny recipe with some keys changed."""
    return recipe("tiny", overrides=values)


def test_labels_decide_that_there_is_a_new_class_and_which() -> None:
    """Entropy saw nothing, 8 images of class 7 did: the verdict is new, and names it."""
    found = judged({"3": 40, "7": 8}, ["3"], 0.2, 0.1, 0.5, with_())

    assert (found.verdict, found.classes, found.jump) == ("new", ("7",), False)


def test_a_class_with_too_few_images_waits() -> None:
    """Seven of eight images are not enough, however many others there are."""
    found = judged({"3": 400, "7": 7}, ["3"], 0.2, 0.1, 0.5, with_())

    assert (found.verdict, found.classes) == ("known", ())


def test_a_jump_without_a_label_is_only_suspected() -> None:
    """Entropy rises by 0.9 over a threshold of 0.5, and every label is known."""
    found = judged({"3": 40}, ["3"], 1.0, 0.1, 0.5, with_())

    assert (found.verdict, found.classes, found.jump) == ("suspected", (), True)


def test_the_label_rule_alone_suspects_nothing() -> None:
    """detector=label: a jump is recorded, and the verdict stays known."""
    found = judged({"3": 40}, ["3"], 1.0, 0.1, 0.5, with_(detector="label"))

    assert (found.verdict, found.jump) == ("known", True)


def test_a_rise_of_exactly_the_threshold_is_no_jump() -> None:
    """The rule says: more than r_h."""
    found = judged({"3": 40}, ["3"], 0.75, 0.25, 0.5, with_())

    assert not found.jump


@pytest.mark.parametrize(
    ("entropy", "verdict", "classes"), [(1.0, "new", ("7", "10")), (0.2, "known", ())]
)
def test_the_entropy_rule_alone_takes_every_unseen_label(
    entropy: float, verdict: str, classes: tuple[str, ...]
) -> None:
    """detector=entropy acts on the jump, and takes even a class of one image; in order of value."""
    found = judged({"10": 1, "7": 9, "3": 4}, ["3"], entropy, 0.1, 0.5, with_(detector="entropy"))

    assert (found.verdict, found.classes) == (verdict, classes)


def test_first_contact_with_three_classes_needs_no_entropy() -> None:
    """ln 3 = 1.10 can never exceed 1.2; nothing is known yet, so the rule fires unconditionally."""
    counts = {"0": 20, "1": 20, "2": 20}
    found = judged(counts, [], math.log(3), None, 1.2, with_(detector="entropy"))

    assert (found.verdict, found.classes) == ("new", ("0", "1", "2"))


def test_without_an_entropy_labels_decide_alone() -> None:
    """No entropy could be taken: also detector=entropy goes by labels then."""
    found = judged({"7": 8}, ["3"], None, None, 0.5, with_(detector="entropy"))

    assert (found.verdict, found.classes, found.jump) == ("new", ("7",), False)


def test_new_classes_come_in_the_order_of_their_value() -> None:
    """Nine before ten, and words behind numbers, by their bytes."""
    found = judged({"b": 8, "10": 8, "a": 8, "9": 8}, [], 1.0, None, 0.5, with_())

    assert found.classes == ("9", "10", "a", "b")


def test_a_relative_threshold_grows_with_the_number_of_classes() -> None:
    """0.3 * ln(5 + 5) = 0.6908; the absolute one stays at 1.2 for any number of classes."""
    absolute = with_(threshold_mode="absolute")

    assert threshold(with_(), 5, 5) == pytest.approx(0.6908, abs=1e-4)
    assert threshold(absolute, 5, 5) == threshold(absolute, 50, 5) == 1.2
    assert threshold(with_(), 0, 0) == threshold(with_(), 1, 0) == 0
