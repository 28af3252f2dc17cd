"""The aggregator: opens the run, averages what the twins learned, grows the model.

A second one beside it is a standby (--standby, and of a live federation without being told): it
says what the first has not said in time. Which of them says it changes nothing.
"""

from __future__ import annotations

from infra.stopping import stoppable_from_the_start

stoppable_from_the_start(__name__)

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from aggregator.aggregator import Aggregator, Opening
from aggregator.opening import differences, live_opening, read_opening
from infra.beginning import start_of
from infra.points import Hook, no_hook
from infra.program import (
    First,
    NoWorkers,
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
from infra.standby import Standby
from infra.topics import make_topics
from infra.transport.base import Transport
from infra.transport.clusters import connect, kafka_settings
from infra.vitals import Vitals
from infra.yaml_file import read_yaml
from schemas.codec import records
from schemas.errors import ConfigurationError
from schemas.federation import Federation
from schemas.messages import Measured, RunOpened
from schemas.topics import Names

MOST = 5  # differences that are told
ALARM = "alarm"
"""Of what is said in `metrics` of a model that is worse: alarm/<version>."""


def main(given: Sequence[str] | None = None, *, hook: Hook = no_hook) -> int:
    """Run the program; gives its exit code."""
    parser = arguments("aggregator", __doc__)
    parser.add_argument("--standby", action="store_true", help="be the second one")
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument(
        "--live",
        type=Path,
        metavar="CONFIG",
        help="a federation that does not end, as this YAML file says: make its topics and open it,"
        " or join it where it is open",
    )
    begun.add_argument(
        "--opening",
        type=Path,
        metavar="FILE",
        help="open the run as this file says, unless it is open; otherwise wait until it is",
    )
    return ended("aggregator", lambda: _serve(parser.parse_args(given), hook))


def _serve(given: Namespace, hook: Hook) -> None:
    settings = read_settings()
    names = Names(given.run or settings.run)
    federation: Federation | None = read_yaml(given.live, Federation) if given.live else None
    opening = live_opening(federation) if federation else None
    if given.opening:
        opening = read_opening(given.opening)
    with stoppable() as stopped:
        transport = connect(settings, site=False, stopped=stopped, hook=hook, **on_kafka(given))
        with (
            closing(transport),
            life(transport, names, given, settings, role="aggregator") as vitals,
        ):
            there = First(transport, names).look() if federation else None
            if opening and there:
                _check_same(opening, there, given.live, names)
            if federation:  # last: who is refused leaves nothing behind
                _make_topics(settings, names, federation)
            told = opening or run_opened(transport, names)
            configuration = told.configuration
            around = surroundings(
                configuration,
                told.data,
                transport,
                names,
                hook=hook,
                standby_after=configuration.standby_after if given.standby else 0.0,
            )
            role = Aggregator(names, told.all_sites, opening, around.shelf)
            looks: list[Callable[[System], None]] = []
            if opening and federation:
                print(f"aggregator: {_begins(names, federation, there)}", file=sys.stderr)
                alone = there is None
                looks.append(_Live(given, names, opening, around, role, alone=alone).look)
            if configuration.live:
                looks.append(Alarm(names, vitals, transport, role).look)
            serve(
                role,
                around,
                NoWorkers(),
                names,
                process=given.process,
                patience=patience_of(configuration),
                vitals=vitals,
                each_turn=lambda system: _look_at(looks, system),
                start=start_of(given, transport, names, around),
            )


def _look_at(looks: Sequence[Callable[[System], None]], system: System) -> None:
    for look in looks:
        look(system)


def _make_topics(settings: Settings, names: Names, federation: Federation) -> None:
    """The federation's, and those of its sites where they lie in the same cluster."""
    entities = [federation.full(each) for each in federation.entities]
    kafka = kafka_settings(settings.kafka)
    make_topics(kafka, names, "federation", federation.sites, entities)
    if settings.site_kafka == settings.kafka:
        make_topics(kafka, names, "site", federation.sites, entities)


def _check_same(opening: Opening, opened: RunOpened, file: Path, names: Names) -> None:
    if differing := differences(opening, opened):
        raise ConfigurationError(
            f"{names.run} is open already, and not as {file} says: {'; '.join(differing[:MOST])}."
            " Set FEDTWIN_RUN to another name, or say under `keys` what it was opened with: where a"
            " file says nothing, a later version of this program may have other values"
        )


def _begins(names: Names, federation: Federation, there: RunOpened | None) -> str:
    return f"{'joins' if there else 'opens'} {names.run}, sites {', '.join(federation.sites)}"


class _Live:
    """What the program of a live federation looks at beside its role."""

    def __init__(
        self,
        given: Namespace,
        names: Names,
        opening: Opening,
        around: Surroundings,
        role: Aggregator,
        *,
        alone: bool,
    ) -> None:
        self._opening, self._file, self._names = opening, given.live, names
        self._role: Aggregator | None = role
        self._standby: Standby | None = None
        if not given.standby:  # else it was told
            after = opening.configuration.standby_after
            self._standby = Standby(
                around, names, role=role.name, process=given.process, after=after, alone=alone
            )

    def look(self, system: System) -> None:
        """Whether somebody opened another run at the same moment, and who leads."""
        if self._role and self._role.line.opened:
            _check_same(self._opening, self._role.line.opened, self._file, self._names)
            self._role = None
        if self._standby:
            self._standby.look()


class Alarm:
    """Says once of each model that it is worse than the best before it, and in `metrics` too."""

    def __init__(
        self, names: Names, vitals: Vitals, transport: Transport, role: Aggregator
    ) -> None:
        self._topic, self._vitals = names.federation("metrics"), vitals
        self._transport, self._role = transport, role
        self._told = -1
        """The newest version of which it has told."""

    def look(self, system: System) -> None:
        """Tell, if there is something new to tell."""
        loss = self._vitals.loss
        if loss is None or loss.version <= self._told:
            return
        self._told = loss.version
        print(f"{self._role.name}: {loss.words}", file=sys.stderr, flush=True)
        values = asdict(loss)
        name = f"{ALARM}/{values.pop('version')}"
        said = Measured(run=self._role.line.run, name=name, values=values)
        self._transport.append(self._topic, records(said, source=self._role.name)[1])


if __name__ == "__main__":
    sys.exit(main())
