"""What is said at the end of the services that tests had."""

from __future__ import annotations

import pytest

from tests.services import NOT_ASKED, merged

NATIVE = "7.0.15 (native, 127.0.0.1:4)"
NONE = "none: no container engine answers"


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([NOT_ASKED, NATIVE], f"redis: {NATIVE}"),
        ([NATIVE, NATIVE], f"redis: {NATIVE}"),
        ([NATIVE, "8 (native, 127.0.0.1:5)"], f"redis: {NATIVE}; 8 (native, 127.0.0.1:5)"),
        ([NOT_ASKED, NOT_ASKED], f"redis: {NOT_ASKED}"),
        ([NONE, NATIVE, NONE], f"redis: {NATIVE}"),
        ([NONE, NOT_ASKED], f"redis: {NONE}"),
    ],
)
def test_several_processes_tell_of_a_service_in_one_line(answers: list[str], line: str) -> None:
    """Which each had, once; none, where nobody had one; nothing, where nobody asked."""
    assert merged([[f"redis: {each}"] for each in answers]) == [line]
