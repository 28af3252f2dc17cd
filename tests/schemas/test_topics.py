"""The table of topics: names there and back, and who stands where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from schemas.topics import NAME, TOPICS, Names, checked, letters_of, parted, table_row

NAMES_ALLOWED = st.from_regex(NAME, fullmatch=True)


def test_a_topics_name_says_run_kind_site_and_entity() -> None:
    """Prefix first, so that a broker's access lists can speak of all of them."""
    names = Names("winter")

    assert names.federation("rounds") == "fedtwin.winter.rounds"
    assert names.of_site("classes", "north") == "fedtwin.winter.classes.north"
    assert names.of_entity("samples", "north/ct-1") == "fedtwin.winter.samples.north.ct-1"


@given(NAMES_ALLOWED, NAMES_ALLOWED, NAMES_ALLOWED, NAMES_ALLOWED)
def test_every_topic_finds_its_line_of_the_table(
    prefix: str, run: str, site: str, entity: str
) -> None:
    """Whatever its run, site and entity are called; and Kafka takes the name."""
    names = Names(run, prefix)
    for row in TOPICS:
        full = {
            "federation": lambda name: names.federation(name),
            "site": lambda name: names.of_site(name, site),
            "entity": lambda name: names.of_entity(name, f"{site}/{entity}"),
        }[row.scope](row.name)

        assert table_row(full) is row
        assert len(full) <= 249 or len(prefix) > 40


def test_a_name_that_is_too_long_for_a_broker_is_refused_at_once() -> None:
    """The longest name of four parts has 7 + 63 + 10 + 63 + 63 characters and four dots."""
    longest = "x" * 63
    names = Names(longest)

    assert len(names.of_entity("twin-state", f"{longest}/{longest}")) == 210
    with pytest.raises(ConfigurationError, match="use 1 to 63"):
        Names(longest + "x")


@pytest.mark.parametrize(
    "name", ["", "North", "north.east", "-north", "n_orth", "nörth", "north\n"]
)
def test_names_are_plain(name: str) -> None:
    """A dot would part a topic's name in the wrong place."""
    with pytest.raises(ConfigurationError, match="site name"):
        checked(name, "site")
    with pytest.raises(ConfigurationError, match="run name"):
        Names(name)
    with pytest.raises(ConfigurationError, match="prefix name"):
        Names("winter", name)
    with pytest.raises(ConfigurationError):
        Names("winter").of_site("classes", name)


@pytest.mark.parametrize(
    ("refused_in", "told_in"),
    [
        ("samples.north.ct-1", "dead-letters.north"),
        ("twin-state.north.ct-1", "dead-letters.north"),
        ("classes.north", "dead-letters"),
        ("updates.north", "dead-letters"),
        ("prototypes.north", "dead-letters"),
        ("rounds", "dead-letters"),
    ],
)
def test_a_dead_letter_stays_in_the_cluster_of_what_was_refused(
    refused_in: str, told_in: str
) -> None:
    """What is wrong with a hospital's images is told in the hospital."""
    assert letters_of(f"fedtwin.winter.{refused_in}") == f"fedtwin.winter.{told_in}"


def test_an_entity_is_named_with_its_site() -> None:
    """There is a `ct-1` in every hospital."""
    assert parted("north/ct-1") == ("north", "ct-1")
    for wrong in ("ct-1", "north/", "/ct-1", "north/ct-1/a"):
        with pytest.raises(ConfigurationError):
            parted(wrong)


def test_a_topic_that_is_not_in_the_table_is_a_callers_mistake() -> None:
    """Also one of another scope, and a name that somebody else's program wrote."""
    with pytest.raises(ValueError, match="no topic 'rumours' of scope federation"):
        Names("winter").federation("rumours")
    with pytest.raises(ValueError, match="no topic 'rounds' of scope site"):
        Names("winter").of_site("rounds", "north")
    for foreign in (
        "rounds",
        "fedtwin.winter.rumours",
        "fedtwin.winter.rounds.north",
        "a.b.c.d.e.f",
    ):
        with pytest.raises(ValueError, match="is no topic of this system"):
            table_row(foreign)


def test_images_and_what_is_nearly_images_stay_where_they_may() -> None:
    """Pixels never reach the federation's cluster, and gradients are read by the proxy alone."""
    site = {topic.name for topic in TOPICS if topic.cluster == "site"}
    gradients = next(topic for topic in TOPICS if topic.name == "prototypes")

    assert {"samples", "twin-state"} <= site
    assert gradients.readers == ("proxy",)
