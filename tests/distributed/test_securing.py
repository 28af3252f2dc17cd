"""docs/securing.md, said word by word: its commands are run, one block after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.native.programs import running, stop
from tests.guarded import telling
from tests.pages import SECONDS
from tests.services import have, jars

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "securing.md"
LOOKS = """
cp -r .native/accounts before
(as fedtwin-site-north fedtwin inject --entity ward --classes 4 --images 20 --data-dir .)
(as fedtwin-operator fedtwin history federation)
(as fedtwin-operator fedtwin rollback federation 2)
(as fedtwin-operator fedtwin --debug show federation --json)
for address in $(grep -oh "http://[^ ]*/metrics" aggregator.log proxy.log north.log south.log); do
    python -c "import urllib.request as u; print(u.urlopen('$address').read().decode())"
done > metrics.txt
find .native/kafka/data -path "*/fedtwin.*" -name "*.log" -exec cat {} + > flowed.bin
"""
"""What somebody looks at besides, before a password is exchanged."""


def test_the_page_on_securing_does_what_it_says(tmp_path: Path) -> None:
    """Every block that is a shell's, in one shell; then nothing runs any more.

    Who had no right was told so with exit code 3, the operator saw the topics, and the rest of the
    federation went on.
    """
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / ".native").mkdir()
    (tmp_path / ".native" / "libs").symlink_to(have(jars))
    script = tmp_path / "page.sh"
    typed = [f"echo '## {n}'\n{block}" for n, block in enumerate(blocks, 1)]
    typed.insert(8, LOOKS)
    script.write_text("set -euo pipefail\n" + "\n".join(typed))
    named = {each: "" for each in os.environ if each.startswith("FEDTWIN_")}
    try:
        done = subprocess.run(
            ["bash", script.name],
            cwd=tmp_path,
            env=os.environ
            | named
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "FEDTWIN_METRICS_PORT": "0",  # a free one for each
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        left = [name for name in ("kafka", "redis") if running(tmp_path / ".native" / name)]
        for name in left:
            stop(tmp_path / ".native" / name)

    logs = {each.name: each.read_text() for each in tmp_path.glob("*.log")}
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    assert not left
    assert len(blocks) == 10
    part = dict(zip(range(11), done.stdout.split("## "), strict=True))
    assert "account: .native/accounts/fedtwin-proxy.env" in part[2]
    assert "User:fedtwin-site-north" in part[3]
    assert re.search(r"granted +\d{3} rights", part[4])
    assert "twins: Kafka gives no right to read fedtwin.federation.classes.north" in part[6]
    assert "exit code 3" in part[6]
    assert "Principal = User:fedtwin-site-south is Denied" in part[6]
    assert "fedtwin.federation.updates.south" in part[7]
    assert "opens federation, sites north, south" in logs["aggregator.log"]
    assert "504 were new" in logs["cameras-north.log"]
    assert "of which it held 1 image" in part[8]
    assert "in segments that were closed and cleaned" in part[8]
    assert "taken away: 19 topics of federation" in part[10]
    assert re.search(r"withdrawn: \d{3} rights", part[10])
    others = ("aggregator.log", "proxy.log", "north.log", "south.log", "cameras-north.log")
    assert not [name for name in others if "no right" in logs[name] or "Traceback" in logs[name]]
    _tells_no_secret(tmp_path, done.stdout + done.stderr)
    assert (tmp_path / ".native" / "accounts" / "fedtwin-proxy").stat().st_mode & 0o077 == 0


def _tells_no_secret(folder: Path, printed: str) -> None:
    """No password, old or new, and no key stands in what was printed and told, or has flowed."""
    native = folder / ".native"
    accounts = [*(folder / "before").iterdir(), *(native / "accounts").iterdir()]
    secrets = {str(each): each.read_text() for each in accounts if each.suffix != ".env"}
    secrets |= {
        each.name: each.read_text().splitlines()[1] for each in (native / "papers").glob("*.key")
    }
    left = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    left |= {"broker": (native / "kafka" / "log.txt").read_bytes(), "printed": printed.encode()}

    assert len({*secrets.values()}) == 7 + 1 + 2
    assert "back to version 2" in " ".join(printed.split())
    assert left["metrics.txt"].count(b"fedtwin_program_info{") == 4
    assert len(left["flowed.bin"]) > 100_000
    assert {"aggregator.log", "proxy.log", "north.log", "refused.log"} <= left.keys()
    assert not {name: telling(secrets, each) for name, each in left.items()
                if telling(secrets, each)}  # fmt: skip
