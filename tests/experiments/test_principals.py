"""Who may do what in a run, as the command line plans it; no broker is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.yaml_file import read_yaml
from schemas.errors import ConfigurationError
from schemas.rights import Principals
from tests.experiments.hands import fedtwin, told

FEDERATION = """
recipe: smoke
minutes: 1
entities:
  ct: {site: hospital-a, dataset: digits, classes: ["0"]}
  mr: {site: hospital-b, dataset: digits, classes: ["1"]}
"""


def test_a_plan_says_who_may_do_what(tmp_path: Path) -> None:
    """Of a live federation's file, by cluster; a line each, in the words of the broker."""
    federation, known = tmp_path / "north.yaml", tmp_path / "principals.yaml"
    federation.write_text(FEDERATION)
    known.write_text("proxy: User:CN=proxy,O=hospital-a\nsites: {hospital-b: User:b}\n")

    planned = told("topics", "plan", federation, "--acl", "--principals", known)

    assert planned["run"] == "north"
    assert "User:CN=proxy,O=hospital-a read topic fedtwin.north.prototypes.hospital-a" in (
        rights := planned["grants"]["federation"]
    )
    assert "User:b write topic fedtwin.north.updates.hospital-b" in rights
    assert (
        "User:fedtwin-site-hospital-a read topic fedtwin.north.samples.hospital-a.ct"
        in (planned["grants"]["site"])
    )
    assert "grants" not in told("topics", "plan", federation)
    federation.write_text(FEDERATION.replace("minutes: 1\n", ""))
    assert told("topics", "plan", federation)["topics"] == planned["topics"]


def test_a_person_reads_the_same() -> None:
    """As a table under the topics; a recipe has one site, which is called local."""
    shown = fedtwin("topics", "plan", "tiny", "--acl").stdout

    assert "rights in the site's cluster" in shown
    assert "User:fedtwin-site-local" in shown
    assert shown.splitlines()[-1].startswith("next: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("proxy: fedtwin", "proxy: a principal is User: and a name"),
        ("sites: {north: 'User:*'}", "sites.north: a principal is User: and a name"),
        ("broker: User:b", "broker: Extra inputs are not permitted"),
        ("proxy: [", "is no YAML"),
        ("- a", "the file: Input should be"),
    ],
)
def test_a_file_that_cannot_be_meant_is_told_with_its_place(
    tmp_path: Path, text: str, words: str
) -> None:
    """In one line; a mistyped principal would be a right of nobody's, or of everybody's."""
    file = tmp_path / "principals.yaml"
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=words):
        read_yaml(file, Principals)


def test_a_site_that_the_run_does_not_have_is_refused(tmp_path: Path) -> None:
    """Exit code 2; so is a name of a federation for a recipe's run."""
    known = tmp_path / "principals.yaml"
    known.write_text("sites: {south: User:s}")
    answered = fedtwin("topics", "plan", "tiny", "--principals", known)

    assert answered.exit_code == 2
    assert "south is no site or entity of this run; its sites are local" in answered.stderr
    assert fedtwin("topics", "plan", "tiny", "--name", "north").exit_code == 2
