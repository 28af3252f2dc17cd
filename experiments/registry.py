"""What whoever uses a model has to know: classes, images, family, and what is new to it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from schemas.line import RoundsLine
from schemas.messages import WindowJudged
from schemas.verdicts import VerdictLines
from twins.novelty import virtual_rows


def registry(
    line: RoundsLine,
    verdicts: VerdictLines,
    called: Mapping[str, str],
    *,
    licence: str,
    citation: str,
    rows: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """The metadata of a model's file. `called` is what people call the classes; `rows`, those of
    the model where that is not the newest."""
    opened, rows = line.opened, line.rows if rows is None else rows
    assert opened is not None
    uids = sorted(rows, key=lambda uid: rows[uid])
    return {
        "classes": json.dumps(uids),
        "class_names": json.dumps([called.get(uid, uid) for uid in uids]),
        "data": opened.data.model_dump_json(),
        "data_licence": licence,
        "data_citation": citation,
        "recipe": opened.configuration.recipe,
        "strategy": opened.configuration.strategy,
        "seed": str(opened.configuration.seed),
        "width": str(opened.configuration.width),
        "family": opened.configuration.family,
        **{name: repr(value) for name, value in _novelty(line, verdicts).items()},
    }


def _novelty(line: RoundsLine, verdicts: VerdictLines) -> dict[str, float]:
    """What makes an image unlike anything known (docs/method.md 3.4): numbers of the last stage, in
    a live run of each twin's last verdict that compared anything.

    Entropy over the rows and `virtual_rows` zero logits, above `reference_entropy` by more than
    `entropy_threshold`, in nats.
    """
    assert line.opened is not None
    judged = _last_verdicts(line, verdicts)
    references = [
        verdict.reference
        for verdict in judged
        if verdict.reference is not None and not verdict.first_contact
    ]
    return {
        "virtual_rows": virtual_rows(line.opened, len(line.stages) - 1),
        "reference_entropy": sum(references) / len(references) if references else 0.0,
        "entropy_threshold": max((verdict.threshold for verdict in judged), default=0.0),
    }


def _last_verdicts(line: RoundsLine, verdicts: VerdictLines) -> list[WindowJudged]:
    if not line.live:
        last = len(line.stages) - 1
        lines = verdicts.of.values()
        return [each.verdicts[last] for each in lines if last in each.verdicts]
    found = []
    for each in verdicts.of.values():
        compared = [v for v in each.verdicts.values() if v.entropy is not None]
        found += compared[-1:]
    return found
