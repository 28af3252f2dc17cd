"""The producers of a site: each entity streams its images to its twin.

In a run of a recipe they follow its schedule. In a live federation they stream what a file says
that the entities have from their first day (--live CONFIG). They stream what the topics do not hold
yet, so they may be started again at any time.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.points import Hook, no_hook
from infra.program import (
    NoWorkers,
    arguments,
    ended,
    on_kafka,
    opened_as,
    patience_of,
    serve,
    stoppable,
    surroundings,
)
from infra.settings import Settings, read_settings
from infra.topics import make_topics
from infra.transport.base import Transport
from infra.transport.clusters import connect, kafka_settings
from infra.yaml_file import read_yaml
from producers.datasets import load
from producers.entity import Producers
from producers.images import Dataset
from producers.live import CAMERA, first_day
from producers.streaming import Streaming, source_of
from schemas.errors import ConfigurationError, DataError
from schemas.federation import Entity, Federation
from schemas.messages import RunOpened
from schemas.schedule import sorted_uids
from schemas.topics import Names


def main(given: Sequence[str] | None = None, *, hook: Hook = no_hook) -> int:
    """Run the program; gives its exit code."""
    parser = arguments("producers", __doc__)
    parser.add_argument("--site", metavar="NAME", help="the site; otherwise FEDTWIN_SITE, or local")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where data lie; otherwise FEDTWIN_DATA_DIR"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="where the run's data lie, if not under its own name"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="with --live: only these of the site's entities"
    )
    parser.add_argument(
        "--live",
        type=Path,
        metavar="CONFIG",
        help="in a live federation: stream what this YAML file has for the site, and end",
    )
    return ended("producers", lambda: _serve(parser.parse_args(given), hook))


def _serve(given: Namespace, hook: Hook) -> None:
    settings = read_settings()
    names, site = Names(given.run or settings.run), given.site or settings.site
    if given.names and not given.live:
        raise ConfigurationError(f"{given.names[0]}: entities are named with --live alone")
    with stoppable() as stopped:
        streams = _first_days(settings, names, site, given) if given.live else {}
        transport = connect(settings, site=True, stopped=stopped, hook=hook, **on_kafka(given))
        try:
            opened, run = opened_as(transport, names)
            _check_kind(opened, site, given)
            if given.live:
                _stream_first_days(
                    Streaming(transport, names, run), opened, streams, settings, given
                )
            else:
                _follow_schedule(transport, names, opened, site, settings, given, hook)
        finally:
            transport.close()


def _check_kind(opened: RunOpened, site: str, given: Namespace) -> None:
    """Raises ConfigurationError for what this run does not have."""
    if opened.configuration.live and not given.live:
        raise ConfigurationError(
            "this is a live federation, which has no schedule: --live CONFIG streams what the file"
            " has for the site's entities"
        )
    if given.live and not opened.configuration.live:
        raise ConfigurationError(
            "this is a run of a recipe, whose producers follow its schedule: leave --live out"
        )
    if site not in opened.all_sites:
        raise ConfigurationError(
            f"{site} is no site of this run; there are {', '.join(opened.all_sites)}: set"
            " FEDTWIN_SITE, or --site"
        )


def _folder(settings: Settings, given: Namespace) -> Path:
    folder: Path | None = given.data_dir or settings.data_dir
    if folder is None:
        raise ConfigurationError("where do data lie? Set FEDTWIN_DATA_DIR, or --data-dir")
    return folder


# --- a recipe's schedule --------------------------------------------------------------------------


def _follow_schedule(
    transport: Transport,
    names: Names,
    opened: RunOpened,
    site: str,
    settings: Settings,
    given: Namespace,
    hook: Hook,
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
        pulse=given.pulse,
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


def _first_days(settings: Settings, names: Names, site: str, given: Namespace) -> dict[str, Entity]:
    """Full name → entity, of those that the file has for the site; they get their topics."""
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
    entities = {federation.full(name): own[name] for name in wanted}
    make_topics(kafka_settings(settings.site_kafka), names, "site", [site], list(entities))
    return entities


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
        told = f"{name}: {len(images)} images of {', '.join(sorted_uids({*uids}))}; {new} were new"
        print(f"producers: {told}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
