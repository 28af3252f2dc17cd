"""The access list of a run: what follows from the table of topics, worked by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.errors import ConfigurationError
from schemas.rights import Grant, Principals, grants
from schemas.topics import TOPICS, Names

NAMES = Names("trial")
SITES = ["hospital-a", "hospital-ab"]
"""One site's name is how the other's begins."""
ENTITIES = ["hospital-a/ct", "hospital-ab/ct", "hospital-ab/mr"]

A, AB = "hospital-a", "hospital-ab"
READ, WRITE, BOTH, LET_GO = "read", "write", "read write", "read delete"
ERASE = "read write alter-configs describe-configs"
MAY = {
    "aggregator": {
        "rounds": BOTH, "models": BOTH, "metrics": BOTH, "dead-letters": BOTH, "teachers": READ,
        **{f"classes.{site}": READ for site in SITES},
        **{f"updates.{site}": LET_GO for site in SITES},
    },
    "proxy": {
        "teachers": BOTH, "metrics": BOTH, "dead-letters": BOTH, "rounds": READ, "models": READ,
        **{f"prototypes.{site}": LET_GO for site in SITES},
    },
    **{
        f"site-{site}": {
            "rounds": READ, "models": READ, "teachers": READ, "metrics": BOTH,
            "dead-letters": READ,
            f"classes.{site}": BOTH, f"updates.{site}": BOTH, f"prototypes.{site}": WRITE,
            f"metrics.{site}": BOTH, f"dead-letters.{site}": BOTH,
            **{f"samples.{site}.{each}": f"{ERASE} delete" for each in theirs},
            **{f"twin-state.{site}.{each}": ERASE for each in theirs},
        }
        for site, theirs in ((A, ["ct"]), (AB, ["ct", "mr"]))
    },
    **{
        f"producers-{site}": {
            "rounds": READ, "metrics": BOTH, **{f"samples.{site}.{each}": BOTH for each in theirs},
        }
        for site, theirs in ((A, ["ct"]), (AB, ["ct", "mr"]))
    },
}  # fmt: skip
"""Who may read, write and let go what, of a run with two sites and three entities. All else: no."""


def everything(**more: object) -> list[Grant]:
    """The lists of both clusters."""
    known = Principals.model_validate(more)
    return [
        *grants(NAMES, "federation", SITES, ENTITIES, known),
        *grants(NAMES, "site", SITES, ENTITIES, known),
    ]


def of(who: str, found: list[Grant], kind: str = "topic") -> dict[str, set[str]]:
    """What somebody may do, by name without prefix and run."""
    told: dict[str, set[str]] = {}
    for each in found:
        if each.principal == f"User:fedtwin-{who}" and each.kind == kind:
            short = each.name.removeprefix("fedtwin.trial.")
            told.setdefault(short, set()).add(each.operation)
    return told


@pytest.mark.parametrize("who", MAY)
def test_each_side_may_do_what_the_table_says_and_nothing_else(who: str) -> None:
    """Worked by hand: each of seven sides, each topic."""
    assert of(who, everything()) == {name: {*may.split()} for name, may in MAY[who].items()}


def test_nobody_else_has_any_right() -> None:
    """Besides those seven there is the operator alone."""
    known = {f"User:fedtwin-{who}" for who in (*MAY, "operator")}

    assert {each.principal for each in everything()} == known


def test_gradients_are_read_by_the_proxy_alone() -> None:
    """Not by the site that wrote them, nor by an operator: nearly the image is as bad as it."""
    read = [each for each in everything() if "prototypes" in each.name and each.operation == "read"]

    assert {each.principal for each in read} == {"User:fedtwin-proxy"}
    assert len(read) == 2


def test_an_operator_keeps_every_topic_and_sees_no_image() -> None:
    """It makes, mends and takes away all of them, commands in two, and reads no site's streams."""
    found = of("operator", everything())
    keeping = {"create", "delete", "alter-configs", "describe-configs"}

    assert len(found) == 5 + 3 * 2 + 2 * 3 + 2 * 2
    assert all(may >= keeping for may in found.values())
    unread = {name.split(".")[0] for name, may in found.items() if "read" not in may}
    written = {name for name, may in found.items() if "write" in may}
    assert unread == {"prototypes", "samples", "twin-state"}
    assert written == {"rounds", "models", "metrics"}
    assert of("operator", everything(), "cluster") == {
        "kafka-cluster": {"describe", "describe-configs"}
    }


def test_only_who_is_none_of_them_may_change_the_list() -> None:
    """Nobody is given a right to give rights, or one about all topics, or under part of a name."""
    found = everything()

    assert not [each for each in found if each.operation in ("alter", "all")]
    assert not [each for each in found if "*" in each.name or each.name.endswith(".")]
    assert {each.name for each in found if each.kind == "cluster"} == {"kafka-cluster"}


def test_a_sites_twins_are_dealt_in_its_own_group() -> None:
    """And in nobody else's."""
    assert of(f"site-{A}", everything(), "group") == {f"twins.{A}": {"read"}}
    assert of(f"site-{AB}", everything(), "group") == {f"twins.{AB}": {"read"}}


def test_every_line_of_the_table_is_in_the_list() -> None:
    """A topic that is put into the table tomorrow is in the list tomorrow."""
    for row in TOPICS:
        named = {name for name, _ in NAMES.each(row, SITES, ENTITIES)}
        mine = [each for each in everything() if each.name in named]
        writers = {each.principal for each in mine if each.operation == "write"}

        assert {each.name for each in mine} == named
        assert writers - {"User:fedtwin-operator"}


def test_a_camera_of_its_own_writes_its_own_stream_only() -> None:
    """Per entity where somebody wants that; the site's other entities are its producers'."""
    found = everything(producers={"hospital-ab/ct": "User:CN=ct,O=hospital"})
    ct = {each.name: each for each in found if each.principal == "User:CN=ct,O=hospital"}

    assert [name for name in ct if "samples" in name] == ["fedtwin.trial.samples.hospital-ab.ct"]
    assert "fedtwin.trial.rounds" in ct
    assert of("producers-hospital-ab", found).keys() == {
        "rounds", "metrics", "samples.hospital-ab.mr",
    }  # fmt: skip


def test_a_site_makes_the_list_of_its_own_cluster() -> None:
    """It names its entities alone; other sites' are somebody else's to grant."""
    found = grants(NAMES, "site", [A], ENTITIES, Principals())

    assert not [each for each in found if AB in each.name or AB in each.principal]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"sites": {"hospital": "User:h"}}, "hospital is no site or entity of this run"),
        ({"producers": {"hospital-a/pet": "User:h"}}, "hospital-a/pet is no site or entity"),
        ({"sites": {A: "User:h", AB: "User:h"}}, f"User:h stands for {A} and for {AB}"),
        ({"sites": {A: "User:h"}, "producers": {f"{AB}/mr": "User:h"}}, "each could write as"),
    ],
)
def test_principals_that_do_not_fit_are_refused(told: dict[str, object], words: str) -> None:
    """A site that the run does not have was mistyped; two sites in one could not be told apart."""
    with pytest.raises(ConfigurationError, match=words):
        everything(**told)


@pytest.mark.parametrize("name", ["fedtwin", "User:", "User:*", "User:a*", "Group:a", "User: a"])
def test_everybody_is_no_principal(name: str) -> None:
    """To a broker `User:*` is whoever comes."""
    with pytest.raises(ValidationError):
        Principals.model_validate({"proxy": name})
