"""The aggregator: opens the run, averages what the twins learned, grows the model.

A second one beside it is a standby (--standby): it says what the first has not said in time. Which
of them says it changes nothing.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from aggregator.aggregator import Aggregator
from aggregator.opening import read_opening
from infra.points import Hook, no_hook
from infra.program import (
    NoWorkers,
    arguments,
    ended,
    on_kafka,
    run_opened,
    serve,
    stoppable,
    surroundings,
)
from infra.settings import read_settings
from infra.transport.clusters import connect
from schemas.topics import Names


def main(given: Sequence[str] | None = None, *, hook: Hook = no_hook) -> int:
    """Run the program; gives its exit code."""
    parser = arguments("aggregator", __doc__)
    parser.add_argument("--standby", action="store_true", help="be the second one")
    parser.add_argument(
        "--opening",
        type=Path,
        metavar="FILE",
        help="open the run as this file says, unless it is open; otherwise wait until it is",
    )
    return ended("aggregator", lambda: _serve(parser.parse_args(given), hook))


def _serve(given: Namespace, hook: Hook) -> None:
    settings = read_settings()
    names = Names(given.run or settings.run)
    opening = read_opening(given.opening) if given.opening else None
    with stoppable() as stopped:
        transport = connect(settings, site=False, stopped=stopped, hook=hook, **on_kafka(given))
        try:
            told = opening or run_opened(transport, names)
            configuration = told.configuration
            sites = told.all_sites
            around = surroundings(
                configuration,
                told.data,
                transport,
                names,
                hook=hook,
                standby_after=configuration.standby_after if given.standby else 0.0,
            )
            serve(
                Aggregator(names, sites, opening, around.shelf),
                around,
                NoWorkers(),
                names,
                process=given.process,
                patience=configuration.patience,
                pulse=given.pulse,
            )
        finally:
            transport.close()


if __name__ == "__main__":
    sys.exit(main())
