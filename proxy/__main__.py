"""The proxy: rebuilds prototypes from gradients, keeps old models in Redis, and picks the teacher.

A second one beside it is a standby (--standby): it says what the first has not said in time. Which
of them says it changes nothing.
"""

from __future__ import annotations

from infra.stopping import stoppable_from_the_start

stoppable_from_the_start(__name__)

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing

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
from infra.pulse import Probe
from infra.settings import read_settings
from infra.slots import Shared, Slots
from infra.store.dispensable import Dispensable
from infra.store.redis import RedisStore
from infra.transport.clusters import connect
from infra.workers import Start, WorkerProcesses
from proxy.proxy import Proxy
from schemas.topics import Names

LOG = logging.getLogger("proxy")
ASKED = 0.5  # seconds in which Redis answers whether it is there, every other second


def main(
    given: Sequence[str] | None = None,
    *,
    hook: Hook = no_hook,
    start_worker: Start | None = None,
) -> int:
    """Run the program; gives its exit code. `start_worker` begins a worker process."""
    parser = arguments("proxy", __doc__)
    parser.add_argument("--standby", action="store_true", help="be the second one")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="worker processes on this machine (1)"
    )
    return ended("proxy", lambda: _serve(parser.parse_args(given), hook, start_worker))


def _serve(given: Namespace, hook: Hook, start_worker: Start | None) -> None:
    settings = read_settings()
    names = Names(given.run or settings.run)
    with stoppable() as stopped:
        transport = connect(settings, site=False, stopped=stopped, hook=hook, **on_kafka(given))
        with (
            closing(transport),
            life(transport, names, given, settings, role="proxy") as vitals,
            closing(RedisStore(settings.redis, names.run, prefix=names.prefix)) as store,
            closing(RedisStore(settings.redis, names.run, timeout=ASKED, retries=0)) as asked,
        ):
            store.reach()
            opened = run_opened(transport, names)
            configuration = opened.configuration
            sites = opened.all_sites
            around = surroundings(
                configuration,
                opened.data,
                transport,
                names,
                hook=hook,
                store=Dispensable(store, LOG.warning),
                standby_after=configuration.standby_after if given.standby else 0.0,
                missed=Probe("redis", asked.reach),
            )
            start = start_worker or ForkServer("proxy.worker", configuration.threads)
            slots = Slots(given.workers)
            with closing(Shared(WorkerProcesses(start, given.workers), slots)) as workers:
                asks_all = configuration.proxy_eval == "all"
                role = Proxy(names, sites, whole=asks_all)
                serve(
                    role,
                    around,
                    workers,
                    names,
                    process=given.process,
                    patience=patience_of(configuration),
                    vitals=vitals,
                    each_turn=lambda system: around.shelf.stand(role.line.standing),
                    start=None if asks_all else start_of(given, transport, names, around),
                )


if __name__ == "__main__":
    sys.exit(main())
