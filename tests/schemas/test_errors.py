"""The tree of errors: what a program ends with, and that its drawing is true."""

from __future__ import annotations

from schemas import errors
from schemas.errors import (
    ConfigurationError,
    DataError,
    DiskFull,
    Diverged,
    FedtwinError,
    Refused,
    RunFailed,
    ServiceError,
    Stalled,
)


def test_each_error_ends_the_program_with_the_code_that_is_documented() -> None:
    """1 a failed run or a full disk, 2 usage, 3 a service, 4 data."""
    codes = {
        error: error.exit_code
        for error in (Diverged, Stalled, DiskFull, ConfigurationError, ServiceError, DataError)
    }

    assert codes == {
        Diverged: 1,
        Stalled: 1,
        DiskFull: 1,
        ConfigurationError: 2,
        ServiceError: 3,
        DataError: 4,
    }


def test_a_run_that_cannot_go_on_is_one_kind_of_error() -> None:
    """Who starts runs catches this one, and the text tells the rest."""
    assert all(issubclass(each, RunFailed) for each in (Diverged, Stalled, DiskFull))
    assert not issubclass(Refused, RunFailed)


def test_the_drawing_at_the_head_of_the_file_shows_every_class() -> None:
    """And each below its own parent."""
    drawing = errors.__doc__ or ""
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    tree = [each for each in classes if issubclass(each, FedtwinError)]
    lines = {
        each: line
        for each in tree
        for line in drawing.splitlines()
        if each.__name__ in line.split()
    }

    assert lines.keys() == set(tree)
    for each in tree:
        parent = each.__mro__[1]
        if parent in lines:
            assert lines[each].index(each.__name__) == lines[parent].index(parent.__name__) + 4


def test_what_is_refused_tells_its_reason_and_its_detail() -> None:
    """The reason is counted, the detail is read."""
    refused = Refused("wrong-base", "trained from version 3")

    assert (refused.reason, refused.detail) == ("wrong-base", "trained from version 3")
    assert str(refused) == "wrong-base: trained from version 3"
