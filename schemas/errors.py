"""The tree of what the world may do to us.

FedtwinError
├── ConfigurationError   wrong usage or configuration, a second runner, another schema   exit 2
├── DataError            data missing or broken, a run folder of another version         exit 4
├── ServiceError         a service that cannot be reached at the start                   exit 3
│   └── Forbidden        it answers, and does not let us in or gives us no right
├── RunFailed            a run that cannot go on                                         exit 1
│   ├── Diverged         twice in a row every answer of a round came without content
│   ├── Stalled          a set stays open and nothing is in work
│   └── DiskFull         nothing more can be written
└── Refused              one message that is not valid; it is set aside with its reason

A caller's mistake is a ValueError instead.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Reason = Literal[
    "unreadable",
    "bad-hash",
    "too-large",
    "bomb",
    "unknown-kind",
    "newer-schema",
    "unknown-entity",
    "closed-round",
    "wrong-base",
    "wrong-shape",
    "wrong-dtype",
    "not-finite",
    "out-of-range",
    "label-rules-disagree",
    "unmapped-label",
    "out-of-line",
]
"""Why a message was set aside. The list is closed, so that runs can be compared by their counts."""


class FedtwinError(Exception):
    """What the world did to us; the text speaks to the reader and names a remedy."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(FedtwinError):
    """Wrong usage or configuration, a second runner on a run folder, or another schema."""

    exit_code = 2


class ServiceError(FedtwinError):
    """A service that cannot be reached at the start."""

    exit_code = 3


class Forbidden(ServiceError):
    """A service that answers, and does not let us in, or gives us no right to what we asked."""


class DataError(FedtwinError):
    """Data that is missing or broken, or a run folder of another version."""

    exit_code = 4


class RunFailed(FedtwinError):
    """A run that cannot go on: itself where nobody had anything to train on."""


class Diverged(RunFailed):
    """Twice in a row every answer of a round came without content."""


class Stalled(RunFailed):
    """A set stays open, no role can take a step and nothing is in work."""


class DiskFull(RunFailed):
    """Nothing more can be written; what was written stands, and resume goes on from there."""


class Refused(FedtwinError):
    """One message that is not valid. It is set aside with this reason, and the loop goes on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
