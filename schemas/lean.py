"""Decisions that stay in memory for as long as a program lives share what they repeat.

Most of a round's decisions stands in those of the round before: names, participants, the model. And
each value notes which of its fields were said, in a set that is larger than many of the values.
"""

from __future__ import annotations

import sys
from typing import TypeVar

from schemas.messages import Decision, Header, ModelName, Participant

MOST = 4096  # values that are known to have been said before
Said = TypeVar("Said", bound=Header)

_fields: dict[frozenset[str], set[str]] = {}
_values: dict[ModelName | Participant, ModelName | Participant] = {}


def lean(decision: Decision) -> Decision:
    """The same decision, with what is known already in place of its equal parts."""
    return _rebuilt(decision)


def _rebuilt(value: Said) -> Said:
    names = frozenset(value.model_fields_set)
    values = {name: _known(each) for name, each in value.__dict__.items()}
    return type(value).model_construct(_fields.setdefault(names, {*names}), **values)


def _known(value: object) -> object:
    if type(value) is str:
        return sys.intern(value)
    if type(value) is tuple:
        return tuple(map(_known, value))
    if not isinstance(value, ModelName | Participant):
        return value
    known = _values.get(value)
    if known is None:
        if len(_values) >= MOST:
            _values.clear()
        known = _rebuilt(value)
        _values[known] = known  # as its own key: the one that came would be held beside it
    return known
