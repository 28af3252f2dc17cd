"""The digital twins of a site, or some of them: each notices new classes, remembers and trains.

With NAMES this program hosts exactly these entities. Without, it takes its share of the site's:
started several times, the programs share them, and take over from one that dies.
"""

from __future__ import annotations

from infra.stopping import stoppable_from_the_start

stoppable_from_the_start(__name__)

import sys

USUAL = 1  # threads of a training; a recipe that asks for another number costs a second start

if __name__ == "__main__" and not {"-h", "--help"} & {*sys.argv}:
    from infra.early import begin

    begin("twins.worker", USUAL)  # it imports torch for seconds, while this file imports the rest

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack, closing

from infra.beginning import start_of
from infra.forkserver import ForkServer
from infra.points import Hook, no_hook
from infra.program import (
    arguments,
    ended,
    life,
    on_kafka,
    patience_of,
    run_opened,
    serve,
    stoppable,
    surroundings,
)
from infra.serve import Surroundings, System
from infra.settings import Settings, read_settings
from infra.slots import Shared, Slots
from infra.transport.clusters import connect, kafka_settings
from infra.transport.group import POLLED, SESSION, Group
from infra.workers import Start, WorkerProcesses
from schemas.errors import ConfigurationError, DataError
from schemas.messages import RunOpened
from schemas.topics import Names, parted
from twins.twins import Twins

LOOK = 0.2  # seconds between two looks at the group
LOST = 5.0  # seconds in which a decision that was read once is seen again, or is gone


def main(
    given: Sequence[str] | None = None,
    *,
    hook: Hook = no_hook,
    start_worker: Start | None = None,
) -> int:
    """Run the program; gives its exit code. `start_worker` begins a worker process."""
    parser = arguments("twins", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="entities of the site")
    parser.add_argument("--site", metavar="NAME", help="the site; otherwise FEDTWIN_SITE, or local")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="trainings side by side on this machine, whoever of its programs trains (1)",
    )
    parser.add_argument(
        "--session",
        type=float,
        default=SESSION,
        metavar="SECONDS",
        help=f"of silence, after which others take over its twins ({SESSION:g})",
    )
    parser.add_argument(
        "--max-poll-interval",
        type=float,
        default=POLLED,
        metavar="SECONDS",
        help=f"in which the program must have looked at its group ({POLLED:g})",
    )
    return ended("twins", lambda: _serve(parser.parse_args(given), hook, start_worker))


def _serve(given: Namespace, hook: Hook, start_worker: Start | None) -> None:
    settings = read_settings()
    names, site = Names(given.run or settings.run), given.site or settings.site
    with stoppable() as stopped, ExitStack() as held:
        # First of all: they import torch, if they have not begun to, while we ask what the run is.
        processes = held.enter_context(closing(_workers(USUAL, given, start_worker)))
        transport = held.enter_context(
            closing(connect(settings, site=True, stopped=stopped, hook=hook, **on_kafka(given)))
        )
        vitals = held.enter_context(life(transport, names, given, settings, role="twins"))
        opened = run_opened(transport, names)
        configuration = opened.configuration
        around = surroundings(configuration, opened.data, transport, names, hook=hook)
        twins = Twins(names, site, around.shelf, _named(opened, site, given.names))
        share = _Share(twins, around, names.federation("rounds"))
        if not given.names:
            share.group = held.enter_context(closing(_group(settings, names, site, given)))
        if configuration.threads != USUAL:
            processes.close()
            processes = _workers(configuration.threads, given, start_worker)
        workers = Shared(processes, Slots(given.workers))
        held.enter_context(closing(workers))
        serve(
            twins,
            around,
            workers,
            names,
            process=given.process,
            patience=patience_of(configuration),
            vitals=vitals,
            each_turn=share.look,
            start=start_of(given, transport, names, around),
        )


def _workers(threads: int, given: Namespace, start: Start | None) -> WorkerProcesses:
    return WorkerProcesses(start or ForkServer("twins.worker", threads), given.workers)


def _named(opened: RunOpened, site: str, wanted: Sequence[str]) -> list[str]:
    """The full names of entities. Raises ConfigurationError for one that the run does not have."""
    found = [f"{site}/{each.removeprefix(f'{site}/')}" for each in wanted]
    if opened.configuration.live:
        if site not in opened.sites:
            raise ConfigurationError(
                f"{site} is no site of this run; there are {', '.join(opened.sites)}"
            )
        return [f"{site}/{parted(entity)[1]}" for entity in found]
    here = [entity for entity in opened.schedule.entities if parted(entity)[0] == site]
    if unknown := [entity for entity in found if entity not in here]:
        raise ConfigurationError(
            f"{unknown[0]} is no entity of this run; site {site} has {', '.join(here[:5])}"
            + ("" if len(here) <= 5 else f" and {len(here) - 5} more")
        )
    return found


def _group(settings: Settings, names: Names, site: str, given: Namespace) -> Group:
    return Group(
        kafka_settings(settings.site_kafka),
        names,
        site,
        given.process,
        session=given.session,
        polled=given.max_poll_interval,
    )


class _Share:
    """Tells the twins who of them lives here, as often as the group is asked."""

    def __init__(self, twins: Twins, around: Surroundings, rounds: str) -> None:
        self.group: Group | None = None
        self._rounds = rounds
        self._ahead: dict[str, int] = {}
        self._since = 0.0
        self._twins = twins
        self._shelf, self._clock = around.shelf, around.clock
        self._due = 0.0
        self._hosted: frozenset[str] = frozenset()

    def look(self, system: System) -> None:
        """Ask, if it is time to; and let go where models lay that are nowhere any more.

        Raises DataError where the site remembers what the federation has lost.
        """
        self._shelf.stand(self._twins.standing)
        self._compare(system)
        if self.group is None or self._clock() < self._due:
            return
        self._due = self._clock() + LOOK
        if (entities := self.group.entities()) != self._hosted:
            self._hosted = entities
            left = self._twins.host(entities)
            for session in system.sessions:
                session.leave(left)

    def _compare(self, system: System) -> None:
        """Whether a twin's state names a decision that is nowhere: `rounds` was asked for its end
        after the state was read, and has ended before that for a while."""
        now, ahead = self._clock(), self._twins.ahead
        if not ahead or ahead != self._ahead:
            self._ahead, self._since = ahead, now
        elif now >= self._since + LOST and all(
            session.has_read(self._rounds) for session in system.sessions
        ):
            entity, number = max(ahead.items(), key=lambda each: each[1])
            raise DataError(
                f"{entity} has a state that rests on decision {number}, and {self._rounds} ends at"
                f" {self._twins.number}: the federation's cluster was restored from an older copy"
                " than this site's. Restore the site from a copy that is no newer than the"
                " federation's, or begin its cluster empty and stream again (docs/backups.md)"
            )


if __name__ == "__main__":
    sys.exit(main())
