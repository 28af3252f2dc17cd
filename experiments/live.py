"""A live federation on this machine: its programs, what a scenario does to it, and what came of it.

Every role is a process of its own, on the services that the environment or `make up` names. This
one streams to the entities, decides nothing, and replays the log when the time is over.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aggregator.aggregator import Opening
from aggregator.opening import differences, live_opening, write_opening
from experiments.folder import LOGS, OPENING, Listener
from experiments.forgetting import told as of_request
from experiments.processes import Processes
from experiments.replay import Replay
from experiments.runner import check_machine
from experiments.scenario import Event, Scenario
from experiments.scenario_progress import Progress
from infra.program import First, run_opened, surroundings
from infra.promises import Arrived
from infra.serve import System
from infra.settings import Settings, read_settings
from infra.topics import Administration, Cluster, plan
from infra.transport.base import Transport
from infra.transport.clusters import connect, kafka_settings
from infra.workers import Inline
from producers.datasets import load
from producers.images import Dataset
from producers.live import CAMERA, check_classes, drawn, first_day
from producers.streaming import Streaming, source_of
from schemas.codec import records
from schemas.configuration import Configuration
from schemas.errors import ConfigurationError, RunFailed
from schemas.heldout import WORDS, HeldOut
from schemas.line import RoundsLine
from schemas.messages import (
    DataFacts,
    DeadLetter,
    Decision,
    EntityJoined,
    EntityLeft,
    HeadGrown,
    Measured,
    Paused,
    RolledBack,
    RoundClosed,
    TwinDecision,
    WindowJudged,
)
from schemas.schedule import sorted_uids
from schemas.topics import Names
from schemas.verdicts import VerdictLines

AGAIN = 0.2  # seconds between two looks
KEPT = 2.0  # seconds after which it is kept how far the scenario is
TRIES = 20
SLACK = 30.0  # seconds beyond its deadline in which the last round closes
SCORED = 15.0  # seconds behind its end in which the last model is scored

Tell = Callable[[str], None]


@dataclass
class Standing:
    """What everybody may read of a live federation."""

    names: Names
    sites: list[str]
    line: RoundsLine = field(default_factory=RoundsLine)
    verdicts: VerdictLines = field(init=False)
    letters: dict[tuple[str, int], DeadLetter] = field(default_factory=dict)
    held_out: HeldOut = field(init=False)
    """How good each model is at the sites."""
    forgotten: dict[tuple[str, str], int] = field(default_factory=dict)
    """Entity and request → how many images its site was asked to forget by it."""
    told: list[Decision] = field(default_factory=list)
    """Decisions that nobody was told of yet."""

    def __post_init__(self) -> None:
        self.verdicts = VerdictLines(self.line)
        self.held_out = HeldOut(self.line, most=None)

    @property
    def topics(self) -> list[str]:
        """Where it reads."""
        of_site = [self.names.of_site(each, site) for site in self.sites
                   for each in ("classes", "dead-letters")]  # fmt: skip
        of_all = [self.names.federation(each) for each in ("dead-letters", "metrics")]
        return [self.names.federation("rounds"), *of_site, *of_all]

    def hear(self, arrived: Arrived) -> None:
        """Take what lies in one of them."""
        match arrived.message:
            case DeadLetter() as letter:
                self.letters.setdefault((letter.topic, letter.offset), letter)
            case Measured(name=name, values=values) as measured:
                self.held_out.hear(name, values, arrived.place.offsets[-1])
                if asked := of_request(measured):
                    self.forgotten[asked.entity, asked.request] = asked.images
            case TwinDecision() as verdict:
                self.verdicts.hear(arrived.place.topic.rsplit(".", 1)[1], verdict)
                self.told.append(verdict)
            case Decision() as decision:
                if self.line.hear(decision, arrived.hash):
                    self.verdicts.again()
                    self.told.append(decision)

    @property
    def present(self) -> list[str]:
        """Entities that have joined, and not left since."""
        return sorted(entity for entity, line in self.verdicts.of.items() if line.here)

    def scored(self, version: int) -> bool:
        """Whether every entity that is present has scored a model."""
        return set(self.present) <= set(self.held_out.entities(version))

    @property
    def rounds(self) -> int:
        """Rounds that closed."""
        return sum(bool(each.closed) for stage in self.line.stages for each in stage.rounds)

    def found(self, entity: str) -> set[str]:
        """Classes that an entity's twin has announced and that have rows."""
        return {*self.verdicts.line(entity).known} & self.line.rows.keys()


@dataclass(frozen=True)
class Injected:
    """A scenario's injection, and whether its twin noticed."""

    at: float
    entity: str
    classes: tuple[str, ...]
    images: int


@dataclass
class Outcome:
    """What a live federation came to."""

    run: str
    entities: dict[str, list[str]]
    """Full name → the classes that it has announced."""
    stages: int
    rounds: int
    injected: list[Injected]
    detected: list[list[str]]
    """Of each injection, the classes that the entity announced and that have rows."""
    dead_letters: int
    held_out_accuracy: float | None
    """In percent, held out at the sites, of the newest version that all present entities scored; if
    there is none, of the newest that any did."""
    held_out_version: int | None
    held_out_images: int
    held_out_entities: int
    """How many have scored it."""
    present_entities: int
    worse: list[str]
    """In words, the models that lost more than `alarm_points` against the best before them."""
    model_version: int
    model_sha256: str
    replay_sha256: str
    summed: int
    different: list[str]


@dataclass
class _Federation:
    """The programs and hands of one live federation."""

    scenario: Scenario
    configuration: Configuration
    data: DataFacts
    datasets: Mapping[str, Dataset]
    """Of its entities, by name."""
    settings: Settings
    names: Names
    folder: Path
    tell: Tell
    progress: Progress
    injected: list[Injected] = field(default_factory=list)


def live(
    scenario: Scenario,
    name: str,
    folder: Path,
    data_dir: Path,
    *,
    minutes: float | None = None,
    tell: Tell = lambda text: None,
    fresh: bool = False,
    enough: Callable[[Standing], bool] = lambda standing: False,
) -> Outcome:
    """Begin a live federation, follow the scenario, end it, and replay its log.

    It ends when its minutes are over, or when everything was done that the scenario tells and
    somebody has seen `enough`. `folder` gets what its programs say, and how far the scenario is: if
    a runner was killed, the next one goes on with what it left.

    Raises ConfigurationError for a scenario that cannot be or a name that is taken, ServiceError,
    and what a program ended with.
    """
    settings = read_settings()
    _ = settings.kafka, settings.redis  # each says when it is missing
    opening, names = live_opening(scenario), Names(name)
    check_machine(opening.configuration)
    datasets = _datasets(scenario, opening.data, data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    progress = None if fresh else _left(settings, names, opening, folder, tell)
    if progress is None:
        _prepare(settings, names, scenario, fresh=fresh)
    write_opening(opening, folder / OPENING)
    around = _Federation(
        scenario,
        opening.configuration,
        opening.data,
        datasets,
        settings,
        names,
        folder,
        tell,
        progress or Progress(folder),
    )
    seconds = 60 * (minutes or scenario.minutes)
    with (
        closing(connect(settings, site=True)) as transport,
        _programs(around) as programs,
    ):
        standing = _watched(around, transport, programs, seconds, enough)
        model = standing.line.model
        assert model is not None
        tell("replaying the log")
        replayed = Replay(transport, names).fold()
    around.progress.over()
    held, present = standing.held_out, standing.present
    scored = held.newest_of(present)
    accuracy = None if scored is None else held.of(scored)
    return Outcome(
        run=name,
        entities={e: list(line.known) for e, line in sorted(standing.verdicts.of.items())},
        stages=len(standing.line.stages),
        rounds=standing.rounds,
        injected=around.injected,
        detected=[
            sorted(standing.found(each.entity) & {*each.classes}) for each in around.injected
        ],
        dead_letters=len(standing.letters),
        held_out_accuracy=accuracy.percent if accuracy else None,
        held_out_version=scored,
        held_out_images=accuracy.images if accuracy else 0,
        held_out_entities=len(held.entities(-1 if scored is None else scored)),
        present_entities=len(present),
        worse=[loss.words for loss in held.losses()],
        model_version=model.version,
        model_sha256=model.sha256,
        replay_sha256=replayed.model_sha256,
        summed=replayed.summed,
        different=replayed.different,
    )


def _datasets(scenario: Scenario, data: DataFacts, data_dir: Path) -> dict[str, Dataset]:
    """The data sets of the entities. Raises ConfigurationError where one lacks a class."""
    used = sorted({each.dataset for each in scenario.entities.values()})
    datasets = {name: load(name, data_dir, image_size=data.height) for name in used}
    for name, entity in scenario.entities.items():
        injected = [each.inject for each in scenario.events if each.entity == name and each.inject]
        for classes in (entity.classes, *(each.classes for each in injected)):
            check_classes(datasets[entity.dataset], classes)
    return datasets


def _left(
    settings: Settings, names: Names, opening: Opening, folder: Path, tell: Tell
) -> Progress | None:
    """What a runner that was killed has left of this very federation; its programs are ended."""
    progress = Progress.kept(folder)
    if progress is None:
        return None
    with closing(connect(settings, site=False)) as transport:
        first = First(transport, names)
        opened = first.look()
    if opened is None or first.hash != progress.run or differences(opening, opened):
        return None
    tell(f"going on with {names.run}, which was left after {progress.seconds:.0f} s")
    if ended := progress.end_programs():
        tell(f"ended what its runner had left: {', '.join(ended)}")
    return progress


def _prepare(settings: Settings, names: Names, scenario: Scenario, *, fresh: bool) -> None:
    """Make the topics. Raises ConfigurationError where there are some of this name."""
    clusters: list[tuple[Cluster, object]] = [
        ("federation", settings.kafka), ("site", settings.site_kafka),
    ]  # fmt: skip
    for cluster, service in clusters:
        kafka = kafka_settings(service)  # type: ignore[arg-type]
        with closing(Administration(kafka)) as administration:
            there = administration.ls(names) if cluster == "federation" else []
            if there and not fresh:
                raise ConfigurationError(
                    f"Kafka holds {len(there)} topics of a run {names.run}: --name takes another"
                    f" name, --fresh replaces it, `fedtwin topics rm {names.run}` takes it away"
                )
            while there and administration.rm(names):
                time.sleep(AGAIN)
            entities = [scenario.full(each) for each in scenario.entities]
            planned = plan(names, cluster, scenario.sites, entities, kafka)
            administration.apply(planned)


@contextmanager
def _programs(around: _Federation) -> Iterator[Processes]:
    """Every role's process, which ends with this context."""
    programs = Processes(around.folder / LOGS, around.names.run, around.tell)
    try:
        programs.start("aggregator-1", "aggregator", "--opening", str(around.folder / OPENING))
        for site in around.scenario.sites:
            programs.start(f"twins-{site}", "twins", "--site", site, "--workers", "2")
        programs.start("proxy-1", "proxy", "--workers", "1")
        yield programs
    finally:
        programs.end()


def _watched(
    around: _Federation,
    transport: Transport,
    programs: Processes,
    seconds: float,
    enough: Callable[[Standing], bool],
) -> Standing:
    """Do what the scenario tells, when it tells it; gives how it stands at the end."""
    opened = run_opened(transport, around.names)
    standing = Standing(around.names, opened.all_sites)
    shared = surroundings(opened.configuration, opened.data, transport, around.names)
    reader = System([Listener(standing.hear, standing.topics)], shared, Inline({}))
    progress, events = around.progress, around.scenario.events
    for index in progress.done:
        _done(around, events[index])
    left = (index for index in range(len(events)) if index not in progress.done)
    due = sorted(left, key=lambda index: events[index].at)
    streaming: Streaming | None = None
    began = time.monotonic() - progress.seconds
    until = began + seconds
    kept, rests = 0.0, False
    teller = _Teller(around, standing)
    while True:
        now = time.monotonic()
        programs.look()
        reader.step()
        if streaming is None and standing.line.opened:
            progress.run = standing.line.run
            streaming = Streaming(transport, around.names, standing.line.run)
            for name in around.scenario.entities:
                if name not in around.scenario.later:
                    _join(around, streaming, name)
        while streaming and due and now >= began + events[due[0]].at and not rests:
            _do(around, streaming, programs, events[due[0]])
            progress.done.add(due.pop(0))
            kept = 0.0
        if streaming and now >= kept + KEPT:
            kept, progress.seconds = now, now - began
            progress.keep(programs.pids())
        for decision in standing.told:
            if said := _in_words(decision):
                around.tell(f"{now - began:6.1f} s  {said}")
        standing.told.clear()
        teller.look(now - began)
        if not rests and (now >= until or (streaming and not due and enough(standing))):
            rests, until = True, now
            _rest(around, transport, standing, reader)
        if rests and standing.line.open_round is None:
            model = standing.line.model
            if model is None or standing.scored(model.version) or now >= until + SCORED:
                return standing
        if rests and now >= until + around.configuration.deadline + SLACK:
            raise RunFailed(f"the last round did not close: {around.folder / LOGS} has the words")
        transport.wait(AGAIN)


@dataclass
class _Teller:
    """Tells how good each model is, once all who are there have scored it, and which are worse."""

    around: _Federation
    standing: Standing
    told: int = -1
    """The newest version of which it has told."""

    def look(self, at: float) -> None:
        """Tell what there is to tell."""
        held = self.standing.held_out
        for version in held.versions:
            if version <= self.told or not self.standing.scored(version):
                continue
            self.told = version
            accuracy = held.of(version)
            if accuracy is None:
                continue
            said = f"{accuracy.percent:.1f} % of {accuracy.images} images {WORDS}"
            self.around.tell(f"{at:6.1f} s  version {version}: {said}")
            if loss := held.loss(version):
                self.around.tell(f"{at:6.1f} s  {loss.words}")


def _rest(around: _Federation, transport: Transport, standing: Standing, reader: System) -> None:
    """Decide that everybody rests, so that no other round opens."""
    for _ in range(TRIES):
        if standing.line.all_rest:
            return
        number = standing.line.number + 1
        said = Paused(run=standing.line.run, number=number, entity=None, rests=True)
        transport.append(around.names.federation("rounds"), records(said, source="operator")[1])
        while reader.step():
            pass
    raise RunFailed(f"{TRIES} other decisions came before the one that ends the run")


# --- what a scenario does -------------------------------------------------------------------------


def _do(around: _Federation, streaming: Streaming, programs: Processes, event: Event) -> None:
    at = f"{event.at:6.1f} s  "
    if event.inject:
        _inject(around, streaming, event)
    elif event.join:
        around.tell(f"{at}{around.scenario.full(event.join)} begins to stream")
        _join(around, streaming, event.join, f"{CAMERA}-{event.at:g}")
    elif event.leave:
        around.tell(f"{at}{around.scenario.full(event.leave)} says that it leaves")
        streaming.end(around.scenario.full(event.leave))
    elif event.kill:
        pids = {n: pid for n, pid in programs.pids().items() if n.startswith(event.kill)}
        if not pids:
            around.tell(f"{at}no program of {event.kill} runs")
        for name, pid in list(pids.items())[:1]:
            around.tell(f"{at}{name} is killed")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _inject(around: _Federation, streaming: Streaming, event: Event) -> None:
    entity, images, uids = _images(around, event)
    told = _done(around, event)
    around.tell(f"{event.at:6.1f} s  {len(images)} images of {', '.join(told)} come to {entity}")
    source = source_of(f"inject-{event.at:g}", entity, images, uids)
    streaming.complete(entity, source, images, uids)


def _done(around: _Federation, event: Event) -> tuple[str, ...]:
    """Note what an event has injected, if it is one that does; gives the classes."""
    if event.inject is None:
        return ()
    entity, images, uids = _images(around, event)
    told = sorted_uids({*uids})
    around.injected.append(Injected(event.at, entity, told, len(images)))
    return told


def _images(around: _Federation, event: Event) -> tuple[str, NDArray[np.uint8], list[str]]:
    """The entity, and images of its data set under the names that the event or it has for them."""
    scenario, wanted = around.scenario, event.inject
    assert event.entity is not None
    assert wanted is not None
    entity, time = scenario.full(event.entity), 1 + scenario.events.index(event)
    dataset = around.datasets[scenario.entities[event.entity].dataset]
    seed, data = around.configuration.seed, around.data
    images, labels = drawn(
        dataset, wanted.classes, data, entity, seed, time=time, most=wanted.images
    )
    return entity, images, [scenario.injected(event, label) for label in labels]


def _join(around: _Federation, streaming: Streaming, name: str, source: str = CAMERA) -> None:
    """What an entity has from its first day."""
    full, entity = around.scenario.full(name), around.scenario.entities[name]
    dataset = around.datasets[entity.dataset]
    images, uids = first_day(full, entity, dataset, around.data, around.configuration.seed)
    streaming.complete(full, source_of(source, full, images, uids), images, uids)


def _in_words(decision: Decision) -> str:
    """What a decision means to whoever watches; nothing for those that say nothing new."""
    match decision:
        case EntityJoined(entity=entity):
            return f"{entity} has joined"
        case EntityLeft(entity=entity):
            return f"{entity} has left"
        case WindowJudged(entity=entity, verdict="new", classes=classes):
            return f"{entity} has found {', '.join(classes)}"
        case HeadGrown(rows=rows, model=model):
            return f"the head grows by {', '.join(rows)}: version {model.version}"
        case RoundClosed(stage=stage, round=round, counted=counted, missing=missing, model=model):
            without = f", without {', '.join(missing)}" if missing else ""
            return f"round {stage}.{round} counts {len(counted)}{without}: version {model.version}"
        case RolledBack(to=to, closes=closes, model=model):
            uncounted = "" if closes is None else ", and the open round ends uncounted"
            return (
                f"an operator goes back to version {to.version}{uncounted}: version {model.version}"
            )
    return ""
