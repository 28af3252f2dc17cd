"""The pages of docs/ say what works: each command is typed, and each file they link to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import blocks, checkout, leave, typed
from tests.test_floors import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if blocks(page))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SERVICES = "make up"


def marked(page: Path) -> object:
    """A page takes its time, and some need services, which they bring up."""
    marks = [pytest.mark.slow]
    if any(SERVICES in block for block in blocks(page)):
        marks += [pytest.mark.kafka, pytest.mark.redis]
    return pytest.param(page, marks=marks, id=page.stem)


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_every_command_of_a_page_can_be_typed(page: Path, tmp_path: Path) -> None:
    """In the order in which they stand there, in a checkout that nobody has used."""
    folder = checkout(tmp_path)
    try:
        code, words = typed(blocks(page), folder)
    finally:
        leave(folder)
    assert code == 0, words[-3000:]


@pytest.mark.parametrize(
    "page", [*DOCS.glob("**/*.md"), *ROOT.glob("*.md")], ids=lambda page: page.stem
)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    """Other pages, code, pictures; addresses of the web are not asked."""
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]

    assert [link for link in links if not (page.parent / link).exists()] == []
