"""Text that others have written, before it is shown on a terminal."""

from __future__ import annotations

import pytest

from schemas.plain import plain


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("version 3, 75.0 %", "version 3, 75.0 %"),
        ("\x1b]0;owned\x07\x1b[2Jtwins", r"\x1b]0;owned\x07\x1b[2Jtwins"),
        ("twins\nFAILED nothing\r", r"twins\nFAILED nothing\r"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("Kamera \u00d6st, \u30ab\u30e1\u30e9", "Kamera \u00d6st, \u30ab\u30e1\u30e9"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(said: str, shown: str) -> None:
    """And nothing else is touched."""
    assert plain(said) == shown


def test_our_own_lines_may_stay() -> None:
    """Where several lines are told at once."""
    assert plain("one\n\x1btwo", keep="\n") == "one\n\\x1btwo"
