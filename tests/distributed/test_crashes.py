"""Programs are killed at every moment that has a name, and the run ends as if nothing had been.

Here each comes with its own password through TLS, and may do what the access list says; without all
that `make chaos` does the same, and more of it.
"""

from __future__ import annotations

import signal

import pytest

from tests.distributed.conftest import Found
from tests.distributed.federation import Federation, ended_as_undisturbed, tiny
from tests.guarded import Guarded

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]

SLICE = [
    ("aggregator", "append:before", 2),
    ("aggregator", "append:written", 5),
    ("aggregator", "append:durable", 9),
    ("aggregator", "heard", 12),
    ("aggregator", "said", 4),
    ("aggregator", "forgotten", 1),
    ("producers", "append:written", 3),
    ("producers", "said", 5),
    ("twins", "append:before", 6),
    ("twins", "append:written", 9),
    ("twins", "heard", 40),
    ("twins", "task:prepared", 5),
    ("twins", "task:done", 7),
    ("twins", "trim", 1),
    ("proxy", "task:prepared", 1),
    ("proxy", "task:done", 1),
    ("proxy", "store:put", 1),
    ("proxy", "append:durable", 1),
    ("proxy", "trim", 1),
]
"""One of each kind; `make chaos` asks all of them, and oftener."""


def killed_at(run: Federation, role: str, point: str, times: int) -> None:
    """SIGKILL at the point, a new start, and the undisturbed model; each update counted once."""
    run.start_all(kill={role: (point, times)})
    run.finish()

    assert run.programs[f"{role}-1"].ends == [-signal.SIGKILL]
    ended_as_undisturbed(run)


@pytest.mark.parametrize(("role", "point", "times"), SLICE)
def test_a_program_that_is_killed_goes_on(
    found: Found, guarded: Guarded, role: str, point: str, times: int
) -> None:
    """FedKA: prototypes, memory, a teacher."""
    killed_at(found(guarded=guarded), role, point, times)


@pytest.mark.parametrize(
    ("role", "point", "times"),
    [*(each for each in SLICE if each[0] != "proxy"), ("twins", "append:durable", 12)],
)
def test_what_a_method_keeps_survives_a_killed_program(
    found: Found, guarded: Guarded, role: str, point: str, times: int
) -> None:
    """SCAFFOLD: a control variate at each twin, and one that travels with the model.

    No prototype is asked for, so the proxy has nothing to do that FedKA's has not.
    """
    killed_at(found(tiny(strategy="scaffold"), guarded=guarded), role, point, times)
