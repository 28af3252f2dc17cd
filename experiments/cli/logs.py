"""Where a run's log is, for commands that read it or write into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from experiments.cli.words import command
from schemas.errors import DataError

if TYPE_CHECKING:
    from experiments.folder import RunFolder
    from infra.transport.base import Transport


@contextmanager
def log_of(folder: RunFolder) -> Iterator[Transport]:
    """The log of a run: in its folder, or the topics of a run over Kafka.

    Raises DataError for a run without one, ServiceError where Kafka cannot be reached.
    """
    if folder.read_manifest().get("transport") == "kafka":
        from infra.settings import read_settings
        from infra.transport.clusters import connect

        with closing(connect(read_settings(), site=True)) as transport:
            yield transport
        return
    if not folder.log.exists():
        raise DataError(f"{folder.path} holds no log yet: `{command('resume', folder.path)}`")
    with closing(folder.opened()) as log:
        yield log
