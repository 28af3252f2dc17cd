"""A federation whose programs show certificates, each its own, as docs/securing.md says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ServiceError
from schemas.messages import RoundClosed
from tests.distributed.conftest import Found
from tests.distributed.federation import ROOT, Federation, ended_as_undisturbed, of_kind
from tests.guarded import Guarded

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
PAGE = ROOT / "docs" / "securing.md"
SITES = ("north", "south")
NORTH = "/C=NL/O=North Hospital/CN=twins"
SECONDS = 300.0  # for what is typed: on a machine that is busy with others
LONG = 60.0  # seconds in which whoever is refused has ended, on a machine that does other things


class Desk:
    """The folder of whoever types what the page says about certificates."""

    def __init__(self, folder: Path, guarded: Guarded, run: Federation) -> None:
        folder.mkdir()
        self.folder, self._guarded, self._run = folder, guarded, run
        for name in ("ca.pem", "ca.key"):
            (folder / name).symlink_to(guarded.authority.ca.with_name(name))
        (folder / f"{run.names.run}.yaml").write_text(
            "recipe: tiny\nentities:\n"
            + "".join(
                f"  {name}: {{site: {site}, dataset: digits, classes: ['0']}}\n"
                for site, name in (each.split("/") for each in run.entities)
            )
        )
        (_, part) = PAGE.read_text().split("\n## Certificates instead of passwords\n")
        part = part.partition("\n## ")[0].replace("federation.yaml", f"{run.names.run}.yaml")
        part = part.replace("topics ls federation", f"topics ls {run.names.run}")
        self._blocks = re.findall(r"^```shell\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
        assert len(self._blocks) == 3

    def types(self, *numbers: int) -> str:
        """Some of the page's blocks, in one shell; gives what they print."""
        given = {name: each for name, each in os.environ.items() if name[:8] != "FEDTWIN_"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(self._blocks[n - 1] for n in numbers)],
            cwd=self.folder,
            env=given
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "FEDTWIN_KAFKA": self._guarded.mutual,
                "COLUMNS": "200",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def exchanges(self) -> None:
        """The third block; the shell knows its word from the first."""
        paper = self._blocks[0].partition("\nfor ")[0]
        self._blocks[2] = f"{paper}\n{self._blocks[2]}"
        self.types(3)

    def coming(self, name: str, **more: str) -> dict[str, str]:
        """The environment of a program that shows the certificate of somebody."""
        return self._guarded.shown(self.folder / f"{name}.pem") | more


def start_all(run: Federation, desk: Desk, *besides: str) -> None:
    """One program of each role, those of sites at both."""
    for role in ("aggregator", "proxy"):
        if role not in besides:
            run.start(role, environment=desk.coming(f"fedtwin-{role}"))
    for site in SITES:
        for role, name in (("twins", site), ("producers", f"{site}-cameras")):
            here = desk.coming(name, FEDTWIN_SITE=site)
            run.start(role, name=f"{role}-{site}", environment=here)


def refused(run: Federation, name: str) -> str:
    """A program that was started in vain: exit code 3, and this is its line."""
    program = run.programs[name]
    run.until(lambda: program.code is not None, LONG)
    (line,) = run.words(name)
    assert program.code == ServiceError.exit_code, line
    del run.programs[name]
    return line


def test_each_shows_a_certificate_and_one_is_exchanged_in_mid_run(
    found: Found, guarded: Guarded, tmp_path: Path
) -> None:
    """Two sites end with the bytes of the recipe in one process; nobody is started again.

    The twins of north come with a certificate by an authority that is given up in mid-run: theirs
    is exchanged, every connection ends, and who still has the old one is told so. South's does not
    open north's topics.
    """
    run = found(guarded=guarded, sites=SITES)
    desk = Desk(tmp_path / "desk", guarded, run)
    printed = desk.types(1, 2)
    assert "subject=CN=twins,O=North Hospital,C=NL" in printed
    granted, withdrawn = re.findall(r"(?:granted|withdrawn) +(\d+) rights", printed)
    assert granted == withdrawn != "0"
    assert run.names.of_site("updates", "south") in printed
    shown, old = desk.folder / "north.pem", guarded.former.papers("twins", NORTH).in_one
    shown.write_text(old.read_text())

    start_all(run, desk, "proxy")
    run.until(lambda: of_kind(run, RoundClosed) >= 1)

    before = len(guarded.said())
    run.start("twins", "entity-000", name="wrong-site",
              environment=desk.coming("south", FEDTWIN_SITE="north"))  # fmt: skip
    line = refused(run, "wrong-site")
    assert f"Kafka gives no right to read {run.names.of_site('classes', 'north')}" in line
    assert "Principal = User:CN=south is Denied" in guarded.said()[before:]

    desk.exchanges()
    guarded.trusts(guarded.authority)
    guarded.restart()
    try:
        late = guarded.shown(old) | {"FEDTWIN_SITE": "north"}
        run.start("twins", "entity-000", name="late", environment=late)
        assert "it does not trust our certificate" in refused(run, "late")
        run.start("proxy", environment=desk.coming("fedtwin-proxy"))
        run.finish()
    finally:
        guarded.trusts(guarded.authority, guarded.former)

    assert not [each for program in run.programs.values() for each in program.ends]
    ended_as_undisturbed(run)
    assert run.letters() == []
