"""The producers of a site: each entity streams its images to its twin.

In a run of a recipe they follow its schedule. In a live federation they stream what a file says
that the entities have from their first day (--live CONFIG), or follow a folder for one of them
(--folder DIR): each image that appears as DIR/LABEL/* is brought to the run's size and sent, once.
They stream what the topics do not hold yet, so they may be started again at any time.
"""

from __future__ import annotations

from infra.stopping import stoppable_from_the_start

stoppable_from_the_start(__name__)

import math
import os
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Annotated

from pydantic import BeforeValidator, Field

from infra.kafka import KafkaSettings
from infra.places import usual_data_dir
from infra.points import Hook, no_hook
from infra.program import (
    NoWorkers,
    arguments,
    ended,
    life,
    on_kafka,
    opened_as,
    patience_of,
    serve,
    stoppable,
    surroundings,
)
from infra.settings import Settings, read_settings
from infra.topics import entities_there, make_topics
from infra.transport.base import Transport
from infra.transport.clusters import connect, kafka_settings
from infra.vitals import Vitals
from infra.yaml_file import read_yaml
from producers.datasets import load
from producers.entity import Producers
from producers.following import Feed, Following
from producers.images import LONGEST_UID, Dataset
from producers.journal import Journal
from producers.live import CAMERA, first_day
from producers.streaming import Streaming, source_of
from producers.watching import CLASSES, Folder
from schemas.configuration import nearest
from schemas.errors import ConfigurationError, DataError
from schemas.federation import Entity, Federation
from schemas.messages import RunOpened
from schemas.schedule import sorted_uids
from schemas.topics import Names, parted

MOST = 5  # entities that are named
STATE = ".fedtwin"
"""In a folder that is followed: where its journal is, unless somebody names another place."""
Word = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(min_length=1, max_length=200),
]
"""A label or a uid: in YAML a digit without quotes is a number."""


def main(given: Sequence[str] | None = None, *, hook: Hook = no_hook) -> int:
    """Run the program; gives its exit code."""
    parser = arguments("producers", __doc__)
    parser.add_argument("--site", metavar="NAME", help="the site; otherwise FEDTWIN_SITE, or local")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where data lie; otherwise FEDTWIN_DATA_DIR, or fedtwin in the cache folder",
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="where the run's data lie, if not under its own name"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="with --live: only these of the site's entities"
    )
    streams = parser.add_mutually_exclusive_group()
    streams.add_argument(
        "--live",
        type=Path,
        metavar="CONFIG",
        help="in a live federation: stream what this YAML file has for the site, and end",
    )
    streams.add_argument(
        "--folder", type=Path, metavar="DIR", help="in a live federation: follow DIR/LABEL/*"
    )
    follow = parser.add_argument_group("with --folder")
    follow.add_argument("--entity", metavar="NAME", help="whose images they are")
    follow.add_argument(
        "--new", action="store_true", help="an entity that the federation does not know yet"
    )
    follow.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="YAML, label: class uid of the federation; otherwise DIR/classes.yaml, and where that"
        " is not there labels are uids",
    )
    follow.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where it keeps which file has which number; otherwise DIR/.fedtwin",
    )
    follow.add_argument(
        "--rate", type=_positive, metavar="PER_SECOND", help="at most so many images a second"
    )
    follow.add_argument(
        "--settle",
        type=_positive,
        default=1.0,
        metavar="SECONDS",
        help="without a change, after which a file is whole (1)",
    )
    follow.add_argument(
        "--give-up",
        type=_positive,
        default=30.0,
        metavar="SECONDS",
        help="without a change, after which what cannot be decoded is no image (30)",
    )
    follow.add_argument(
        "--source",
        metavar="NAME",
        help="what the stream is called; otherwise folder- and a number that nobody else has",
    )
    return ended("producers", lambda: _serve(parser.parse_args(given), hook))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text} is not more than 0")
    return value


def _serve(given: Namespace, hook: Hook) -> None:
    settings = read_settings()
    names, site = Names(given.run or settings.run), given.site or settings.site
    if given.names and not given.live:
        raise ConfigurationError(f"{given.names[0]}: entities are named with --live alone")
    if given.new and not given.folder:
        raise ConfigurationError("--new is of an entity whose folder is followed: --folder DIR")
    if given.folder and not given.entity:
        raise ConfigurationError("whose images are they? --entity names an entity of the site")
    first_days = _first_days(site, given) if given.live else {}
    followed = _full(site, given.entity) if given.folder else ""
    with stoppable() as stopped:
        transport = connect(settings, site=True, stopped=stopped, hook=hook, **on_kafka(given))
        with (
            closing(transport),
            life(transport, names, given, settings, role="producers") as vitals,
        ):
            opened, run = opened_as(transport, names)
            _check_kind(opened, site, given)
            kafka = kafka_settings(settings.site_kafka)
            if followed:
                _check_known(kafka, names, followed, new=given.new)
                _follow(transport, names, opened, run, followed, given, hook, vitals, kafka)
            elif given.live:
                make_topics(kafka, names, "site", [site], list(first_days))
                streaming = Streaming(transport, names, run)
                _stream_first_days(streaming, opened, first_days, settings, given)
            else:
                _follow_schedule(transport, names, opened, site, settings, given, hook, vitals)


def _full(site: str, name: str) -> str:
    """The full name of an entity of the site. Raises ConfigurationError for what may be none."""
    full = f"{site}/{name.removeprefix(f'{site}/')}"
    parted(full)
    return full


def _check_known(kafka: KafkaSettings, names: Names, entity: str, *, new: bool) -> None:
    """Raises ConfigurationError for an entity that nobody has streamed to or told of: whoever names
    it has most likely mistyped it, and no command takes one away."""
    if new:
        return
    known = entities_there(kafka, names, parted(entity)[0])
    if entity not in known:
        more = f" and {len(known) - MOST} more" * (len(known) > MOST)
        raise ConfigurationError(
            f"{names.run} has no entity {entity!r}{nearest(entity, known)}; it has"
            f" {', '.join(known[:MOST]) or 'none at this site'}{more}. --new brings another one in"
        )


def _check_kind(opened: RunOpened, site: str, given: Namespace) -> None:
    """Raises ConfigurationError for what this run does not have."""
    if opened.configuration.live and not (given.live or given.folder):
        raise ConfigurationError(
            "this is a live federation, which has no schedule: --live CONFIG streams what the file"
            " has for the site's entities, --folder DIR --entity NAME follows a folder"
        )
    if (given.live or given.folder) and not opened.configuration.live:
        raise ConfigurationError(
            "this is a run of a recipe, whose producers follow its schedule: leave --live and"
            " --folder out"
        )
    if site not in opened.all_sites:
        raise ConfigurationError(
            f"{site} is no site of this run; there are {', '.join(opened.all_sites)}: set"
            " FEDTWIN_SITE, or --site"
        )


def _folder(settings: Settings, given: Namespace) -> Path:
    folder: Path | None = given.data_dir or settings.data_dir
    return folder or usual_data_dir(os.environ)


# --- a recipe's schedule --------------------------------------------------------------------------


def _follow_schedule(
    transport: Transport,
    names: Names,
    opened: RunOpened,
    site: str,
    settings: Settings,
    given: Namespace,
    hook: Hook,
    vitals: Vitals,
) -> None:
    dataset = _data(opened, given.dataset, _folder(settings, given))
    configuration = opened.configuration
    serve(
        Producers(names, site, dataset, configuration.images_per_class),
        surroundings(configuration, opened.data, transport, names, hook=hook),
        NoWorkers(),
        names,
        process=given.process,
        patience=patience_of(configuration),
        vitals=vitals,
    )


def _data(opened: RunOpened, place: str | None, folder: Path) -> Dataset:
    """The run's own data. Raises DataError when what lies there are others."""
    configuration = opened.configuration
    dataset = load(
        place or configuration.dataset,
        folder,
        image_size=configuration.image_size,
        organ_hflip=configuration.organ_hflip,
    )
    if dataset.sha256 != opened.data.sha256:
        raise DataError(
            f"{place or configuration.dataset} in {folder} has the SHA-256 {dataset.sha256}, the"
            f" run began with {opened.data.sha256}: give the data that it began with"
        )
    return dataset


# --- a live federation's first day ----------------------------------------------------------------


def _first_days(site: str, given: Namespace) -> dict[str, Entity]:
    """Full name → entity, of those that the file has for the site.

    Raises ConfigurationError where it has none, or none of a name that was given.
    """
    federation: Federation = read_yaml(given.live, Federation)
    own = {name: each for name, each in federation.entities.items() if each.site == site}
    wanted = [each.removeprefix(f"{site}/") for each in given.names] or list(own)
    if not own or (unknown := [each for each in wanted if each not in own]):
        raise ConfigurationError(
            f"{given.live} has no entity {unknown[0]!r} at {site}; it has {', '.join(own)}"
            if own
            else f"{given.live} has no entity at {site}; its sites are"
            f" {', '.join(federation.sites)}: set FEDTWIN_SITE, or --site"
        )
    return {federation.full(name): own[name] for name in wanted}


def _stream_first_days(
    streaming: Streaming,
    opened: RunOpened,
    entities: Mapping[str, Entity],
    settings: Settings,
    given: Namespace,
) -> None:
    for name, entity in entities.items():
        dataset = load(entity.dataset, _folder(settings, given), image_size=opened.data.height)
        seed = opened.configuration.seed
        images, uids = first_day(name, entity, dataset, opened.data, seed)
        source = source_of(CAMERA, name, images, uids)
        new = streaming.complete(name, source, images, uids)
        _tell(f"{name}: {len(images)} images of {', '.join(sorted_uids({*uids}))}; {new} were new")


# --- a live federation's folder -------------------------------------------------------------------


def _follow(
    transport: Transport,
    names: Names,
    opened: RunOpened,
    run: str,
    entity: str,
    given: Namespace,
    hook: Hook,
    vitals: Vitals,
    kafka: KafkaSettings,
) -> None:
    root: Path = given.folder
    folder = Folder(root, opened.data, _classes(given), settle=given.settle, give_up=given.give_up)
    source = given.source or f"folder-{token_hex(4)}"
    if not 1 <= len(source) <= LONGEST_UID or not source.isprintable():
        raise ConfigurationError(
            f"--source takes 1 to {LONGEST_UID} printable characters, not {source!r}"
        )
    path = (given.state or root / STATE) / f"{run[:16]}.{entity.replace('/', '.')}.journal"
    journal = Journal(path, {"run": run, "entity": entity}, source, point=hook)
    folder.check_labels(journal.files)
    make_topics(kafka, names, "site", [parted(entity)[0]], [entity])
    sent = Streaming(transport, names, run).count(entity, journal.source)
    around = surroundings(opened.configuration, opened.data, transport, names, hook=hook)
    feed = Feed(names, entity)
    feed.idle = f"new files in {root}"
    following = Following(
        feed, folder, journal, opened.data, run, sent=sent, clock=around.clock,
        rate=given.rate, tell=_tell,
    )  # fmt: skip
    known = f", of which {journal.count} are numbered and {sent} sent" * bool(journal.count)
    _tell(f"{entity}: follows {root} as {journal.source}{known}")
    serve(
        feed,
        around,
        NoWorkers(),
        names,
        process=given.process,
        patience=patience_of(opened.configuration),
        vitals=vitals,
        each_turn=lambda system: following.turn(),
    )


def _classes(given: Namespace) -> dict[str, str] | None:
    """Label → class uid; None where no file says it."""
    file: Path = given.classes or given.folder / CLASSES
    if given.classes is None and not file.exists():
        return None
    found: dict[str, str] = read_yaml(file, dict[Word, Word])
    return found


def _tell(text: str) -> None:
    print(f"producers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
