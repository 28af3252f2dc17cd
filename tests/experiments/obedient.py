"""A program that ends as it is told: python -m tests.experiments.obedient CODE [WORDS ...]."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    """`0` ends with 0, `killed` by a signal, `once FILE` by a signal the first time, then with 0,
    `sleeps` not by itself, another number with it and with words on standard error. What it is told
    of the environment it says first: FEDTWIN_… among its words."""
    what, *words = sys.argv[1:]
    for each in words:
        if each.startswith("FEDTWIN_"):
            print(f"{each}={os.environ.get(each)}", flush=True)
    if what == "sleeps":
        time.sleep(60)
    if what == "killed" or (what == "once" and not Path(words[0]).exists()):
        if what == "once":
            Path(words[0]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what.isdecimal() and what != "0":
        print(f"tests.experiments.obedient: {words[0]}", file=sys.stderr)
        sys.exit(int(what))


main()
