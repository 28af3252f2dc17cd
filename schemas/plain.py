"""Text that moves no cursor and begins no line: for names, and for what others say of anything.

Whoever may write a message chooses the words in it, and a terminal obeys some of them.
"""

from __future__ import annotations

import re

_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters, ends of lines and paragraphs, and what turns the direction of writing."""
PRINTABLE = f"^[^{_CONTROLS}]*$"
"""A text without any of them."""
_CONTROL = re.compile(f"[{_CONTROLS}]")


def plain(text: str, keep: str = "") -> str:
    r"""The text with each of them written out, as \x1b, but for those to keep."""
    return _CONTROL.sub(lambda found: _written(found[0], keep), text)


def _written(character: str, keep: str) -> str:
    return character if character in keep else ascii(character)[1:-1]
