"""The producers of a site: each entity streams its images, stage by stage, by the run's schedule.

They stream what the topics do not hold yet, so they may be started again at any time.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

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
from producers.datasets import load
from producers.entity import Producers
from producers.images import Dataset
from schemas.errors import ConfigurationError, DataError
from schemas.messages import RunOpened
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
    return ended("producers", lambda: _serve(parser.parse_args(given), hook))


def _serve(given: Namespace, hook: Hook) -> None:
    settings = read_settings()
    names = Names(given.run or settings.run)
    with stoppable() as stopped:
        transport = connect(settings, site=True, stopped=stopped, hook=hook, **on_kafka(given))
        try:
            opened = run_opened(transport, names)
            folder = given.data_dir or settings.data_dir
            if folder is None:
                raise ConfigurationError("where do data lie? Set FEDTWIN_DATA_DIR, or --data-dir")
            dataset = _data(opened, given.dataset, folder)
            configuration = opened.configuration
            around = surroundings(configuration, opened.data, transport, names, hook=hook)
            site = given.site or settings.site
            serve(
                Producers(names, site, dataset, configuration.images_per_class),
                around,
                NoWorkers(),
                names,
                process=given.process,
                patience=configuration.patience,
                pulse=given.pulse,
            )
        finally:
            transport.close()


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


if __name__ == "__main__":
    sys.exit(main())
