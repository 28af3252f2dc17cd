"""The pages of docs/ say what works: each command is typed, and each file they link to exists."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from aggregator.opening import differences, live_opening
from schemas.federation import Federation
from tests.aggregator.test_opening import opened
from tests.pages import blocks, checkout, languages, leave, typed, wrong
from tests.test_floors import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if blocks(page))
EVERY = sorted((*DOCS.glob("**/*.md"), *ROOT.glob("*.md")))
README = ROOT / "README.md"
INDEX = DOCS / "README.md"
UNTYPED = {
    "CONTRIBUTING.md": 1,  # the tests themselves
    "README.md": 6,  # an overview: pages by task have it typed
    "docs/containers.md": 3,  # an engine, root
    "docs/results.md": 1,  # days, a data set
    "docs/securing.md": 3,  # typed by tests/distributed/test_mutual.py, which has the broker
    "docs/watching.md": 2,  # a port of one's own, and two minutes; an engine
}
"""Where blocks of `shell` stand, and how many: who types them, or why nobody does."""
COMPOSED = [README, DOCS / "containers.md"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
WORD = re.compile(r"\w+")
WRITTEN = re.compile(r"^cat > \S+\.yaml <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
"""A file that a page has its reader write."""
COUNTED = ["no", "one", "two", "three", "four", "five", "six"]
SERVICES = "make up"


def name(page: Path) -> str:
    """Where a page is, from the root on."""
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[Path]:
    """What a page links to on this disk, in order."""
    found = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    return [Path(os.path.normpath(page.parent / link)) for link in found]


def serves(page: Path) -> bool:
    """Whether it brings services up."""
    return any(SERVICES in block for block in blocks(page))


def marked(page: Path) -> object:
    """A page takes its time, and some need services, which they bring up."""
    marks = [pytest.mark.slow]
    if serves(page):
        marks += [pytest.mark.kafka, pytest.mark.redis]
    return pytest.param(page, marks=marks, id=page.stem)


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_every_command_of_a_page_can_be_typed(page: Path, tmp_path: Path) -> None:
    """In the order in which they stand there, in a checkout that was set up and not used."""
    folder = checkout(tmp_path, services=serves(page))
    try:
        code, words = typed(blocks(page), folder)
    finally:
        leave(folder)
    assert code == 0, words[-3000:]


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    """Or nobody would try its commands: they are typed (sh, bash), or taken apart (shell)."""
    assert {*languages(page)} <= {"sh", "bash", "shell", "text", "python", "toml"}


def test_what_nobody_types_stands_where_that_is_known() -> None:
    """A page by task cannot get a command that nobody tries without a line in the list above."""
    shell = {name(page): len(blocks(page, "shell")) for page in EVERY}

    assert {page: count for page, count in shell.items() if count} == UNTYPED


def test_what_is_said_to_be_typed_is_typed() -> None:
    """`sh` by the test above, in docs/; `bash` by that of securing.md, on its own cluster."""
    assert [name(page) for page in EVERY if blocks(page) and page not in PAGES] == []
    assert [name(page) for page in EVERY if blocks(page, "bash")] == ["docs/securing.md"]


@pytest.mark.parametrize(
    "page", [page for page in EVERY if blocks(page, "shell")], ids=lambda page: page.stem
)
def test_a_command_that_nobody_types_names_what_is_there(page: Path) -> None:
    """Targets of make and what they read, commands, options, and the grammar of a shell."""
    assert [each for block in blocks(page, "shell") for each in wrong(block)] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("make compose-upp", "make has no target compose-upp"),
        ("make compose-up MONITOR=1", "nobody reads MONITOR"),
        ("make compose-cli ARGS='injekt --entity ward'", "fedtwin has no command injekt"),
        ("make compose-cli ARGS='inject --folder scans'", "Missing parameter: entity"),
        ("fedtwin predict spring scan.png --verzion 3", "No such option: --verzion"),
        ("python -m twins --metric-port 9400 &", "twins has no --metric-port"),
        ("make up && fedtwin injekt x", "fedtwin has no command injekt"),
        ("cat words | fedtwin injekt", "fedtwin has no command injekt"),
        ("for each in a b; do make nonsense; done", "make has no target nonsense"),
        ("it=$(fedtwin injekt)", "fedtwin has no command injekt"),
        ("for each in a b; do echo", "unexpected end of file"),
    ],
)
def test_a_command_that_names_what_is_not_there_is_found(line: str, said: str) -> None:
    """A target, a variable, a command, an option that is missing or misspelt; half a loop."""
    (told,) = wrong(line)

    assert said in told


def test_what_is_there_is_not_found_wrong() -> None:
    """Two commands in a line, what goes into a file, a program of somebody else."""
    assert wrong("make up; make down") == []
    assert wrong("fedtwin methods > list.txt 2>&1 && cat list.txt") == []
    assert wrong("python -m http.server --bind 127.0.0.1") == []


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    """Other pages, code, pictures; addresses of the web are not asked."""
    assert [each for each in links(page) if not each.exists()] == []


@pytest.mark.parametrize("page", COMPOSED, ids=lambda page: page.stem)
def test_what_making_images_needs_stands_where_it_is_named(page: Path) -> None:
    """Root and two programs, all in the paragraph that tells a reader of the target."""
    told = [each for each in page.read_text().split("\n\n") if "compose-images` " in each]

    assert any({"root", "debootstrap", "Maven", "mvn"} <= {*WORD.findall(each)} for each in told)


@pytest.mark.parametrize("page", COMPOSED, ids=lambda page: page.stem)
def test_a_stack_is_looked_at_before_classes_are_injected(page: Path) -> None:
    """Images that come before the first classes are known are no new ones: one waits for these."""
    (block,) = (each for each in blocks(page, "shell") if "ARGS='inject --entity ward --cl" in each)
    before, _ = block.split("ARGS='inject")

    assert re.search(r"make compose-up\b.*\n.*ARGS='watch --once' .*6 classes", before)


@pytest.mark.parametrize(
    "file", ["examples/first.yaml", "examples/soak.yaml", "infra/deploy/federation.yaml"]
)
def test_a_file_says_how_many_take_part(file: str) -> None:
    """Its first line counts the entities and sites that the file then has."""
    text = (ROOT / file).read_text()
    entities = yaml.safe_load(text)["entities"].values()
    sites = {each["site"] for each in entities}

    said = f"{COUNTED[len(entities)].capitalize()} entities of {COUNTED[len(sites)]} site"
    assert text.startswith(f"# {said}")


def test_another_site_is_in_the_file_from_the_opening_on() -> None:
    """The page's file with an entity of another site would open another federation, as it says."""
    page = DOCS / "several-sites.md"
    ((written,),) = (found for each in blocks(page) if (found := WRITTEN.findall(each)))
    told = Federation.model_validate(yaml.safe_load(written))
    ward = told.entities["ward"]
    here = told.model_copy(update={"entities": {**told.entities, "lab": ward}})
    south = ward.model_copy(update={"site": "south"})
    elsewhere = told.model_copy(update={"entities": {**told.entities, "lab": south}})

    assert differences(live_opening(here), opened(told)) == []
    (said,) = differences(live_opening(elsewhere), opened(told))
    assert f"`{said}`" in page.read_text()


def test_every_page_is_reached_from_the_readme() -> None:
    """By links alone; whoever opens the project finds what was written for them."""
    reached, ahead = set[Path](), [README]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead += [each for each in links(page) if each.suffix == ".md"]

    assert [name(each) for each in DOCS.glob("**/*.md") if each not in reached] == []


def test_the_index_names_every_page() -> None:
    """By task, and no page of docs/ is left out: nobody has to come upon it by way of another."""
    named = {INDEX, *links(INDEX)}

    assert INDEX in links(README)
    assert [name(each) for each in DOCS.glob("*.md") if each not in named] == []
