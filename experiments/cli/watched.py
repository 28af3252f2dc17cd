"""How a view of a federation is shown: whole, as a picture that changes, or line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from experiments.numbers import NOTHING, counted, duration, percent, size
from experiments.view import EntityView, ProgramView, View
from schemas.plain import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BLANKS = 2  # between two columns
ROOM = 12  # lines of a picture that are always there
Rows = Sequence[Sequence[str]]


def told(seen: View, entities: int | None = None) -> Iterator[Text]:
    """A view as lines, with at most so many entities; those that something is wrong with first."""
    yield _line(headline(seen), "bold")
    yield _line(accuracy(seen))
    if seen.worse:
        yield _line(f"WORSE {seen.worse.words}", "bold yellow")
    if seen.round:
        yield _line(_round(seen))
    for failed in seen.failed:
        yield _line(f"FAILED {failed.part}: {failed.cause}", "bold red")
    if not seen.failed:
        yield _line("nothing has failed", "green")
    if seen.entities:
        yield _line()
        yield from _entities(seen, entities)
    if seen.programs:
        yield _line()
        yield from _programs(seen)
    yield _line()
    yield _line(letters(seen))
    for topic, why in seen.unread.items():
        yield _line(f"not read: {topic}: {why}")


def _line(text: str = "", style: str = "") -> Text:
    """One line, whatever programs say of themselves."""
    from rich.text import Text

    return Text(plain(text), style=style)


def picture(seen: View, width: int, height: int) -> Text:
    """A view that fits on a terminal."""
    from rich.text import Text

    others = ROOM + len(seen.programs) + len(seen.failed) + len(seen.unread)
    lines = list(told(seen, entities=max(3, height - others)))
    for each in lines:
        each.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines[:height])


def headline(seen: View) -> str:
    """What is true of the run as a whole."""
    parts = [f"{seen.run}: {'live, ' if seen.live else ''}{seen.status}"]
    if seen.stage is not None:
        parts.append(f"stage {seen.stage}")
    parts.append(f"{counted(seen.rounds, 'round')} closed")
    if seen.version is not None:
        parts.append(f"version {seen.version} with {counted(len(seen.head), 'class', 'classes')}")
    return ", ".join(parts)


def accuracy(seen: View) -> str:
    """Of the newest model that most twins have scored; of a newer one so far, and of one before."""
    now = seen.held_out
    if now is None:
        return f"accuracy held out at the sites: {NOTHING}"
    text = f"{percent(now.percent)} of {counted(now.images, 'image')} (version {now.version},"
    text += f" {now.entities} of {counted(len(seen.entities), 'entity', 'entities')})"
    others = [
        f"; version {each.version}{' so far' * (each.version > now.version)}:"
        f" {percent(each.percent)}"
        for each in seen.accuracy
        if each.version != now.version
    ]
    return f"accuracy held out at the sites: {text}{''.join(others[:2])}"


def letters(seen: View) -> str:
    """How many, and the newest."""
    if not seen.newest_letter:
        return f"dead letters: {seen.dead_letters}"
    newest = seen.newest_letter
    return (
        f"dead letters: {seen.dead_letters}, the newest {duration(newest.seconds)} ago:"
        f" {newest.reason} in {newest.topic} at {newest.offset}: {newest.detail}"
    )


def _round(seen: View) -> str:
    assert seen.round is not None
    told = seen.round
    since = "" if told.seconds is None else f" since {duration(told.seconds)}"
    missing = f"; {_some(told.missing)} not yet" if told.missing else ""
    return (
        f"{told.name} open{since}: {len(told.answered)} of {told.participants} have answered"
        + missing
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


# --- tables ---------------------------------------------------------------------------------------


def _entities(seen: View, most: int | None) -> Iterator[Text]:
    failed = {each.part for each in seen.failed}
    lost = {each.name: each.state for each in seen.programs if each.state != "alive"}

    def urgency(entity: EntityView) -> bool:
        return entity.name not in failed and entity.program not in lost

    shown = sorted(seen.entities, key=urgency)[:most]
    rows = [_entity(each, lost.get(each.program, "")) for each in shown]
    yield from _table(("entity", "state", ">buffered", ">held out", "lives in", "known"), rows)
    if len(shown) < len(seen.entities):
        yield _line(f"and {len(seen.entities) - len(shown)} more entities")


def _entity(entity: EntityView, lost: str) -> tuple[str, ...]:
    known = entity.known
    classes = _some(known, most=10) if known else NOTHING
    return (
        entity.name,
        entity.state,
        NOTHING if entity.buffered is None else f"{entity.buffered:,}",
        percent(entity.held_out),
        f"{entity.program} ({lost})" if lost else entity.program or NOTHING,
        f"{len(known)}: {classes}" if known else NOTHING,
    )


def _programs(seen: View) -> Iterator[Text]:
    rows = [_program(each) for each in seen.programs]
    columns = ("program", "state", ">heard", ">memory", "unread", "does, or waits for")
    yield from _table(columns, rows)


def _program(program: ProgramView) -> tuple[str, ...]:
    lag = ", ".join(f"{kind} {count}" for kind, count in sorted(program.lag.items()))
    return (
        program.name,
        program.state,
        f"{duration(program.age)} ago",
        size(program.memory) if program.memory else NOTHING,
        lag or NOTHING,
        _doing(program),
    )


def _doing(program: ProgramView) -> str:
    if program.why:
        return program.why
    parts = list(program.in_work[:2])
    if len(program.in_work) > 2:
        parts.append(f"{len(program.in_work) - 2} more")
    if program.queued:
        parts.append(f"{program.queued} queued")
    parts += [f"{each.what} since {each.seconds:.0f} s" for each in program.waits[:1]]
    if len(program.waits) > 1:
        parts.append(f"{len(program.waits) - 1} more")
    if program.before:
        parts.append(f"(before: {program.before})")
    return "; ".join(parts) or NOTHING


def _table(columns: Sequence[str], rows: Rows) -> Iterator[Text]:
    """Rows under their headings; a heading that begins with '>' has its column to the right."""
    names = [each.removeprefix(">") for each in columns]
    rows = [[plain(cell) for cell in row] for row in rows]
    wide = [max(len(row[i]) for row in (names, *rows)) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(row, wide, columns, strict=True)
        )
        return (" " * BLANKS).join(cells).rstrip()

    yield _line(line(names), "bold")
    for row in rows:
        yield _line(line(row))


# --- line by line ---------------------------------------------------------------------------------


class Lines:
    """Where no terminal shows a picture: a line for each thing that has changed."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._last = ""
        self._failed: dict[str, str] = {}
        self._letters = 0
        self._worse: int | None = None
        self._missing = False

    def tell(self, seen: View, there: bool | None) -> bool:
        """Tell what is new; says whether the run has ended."""
        self._tell_of_failures(seen)
        if there is False and not seen.services:
            if not self._missing:
                self._say(f"{seen.run}: there is no such run yet")
            self._missing = True
            return False
        now = self._standing(seen)
        if now != self._last:
            self._say(now)
            self._last = now
        self._tell_of_a_worse_model(seen)
        if seen.dead_letters > self._letters:
            self._say(letters(seen))
            self._letters = seen.dead_letters
        return seen.status in ("over", "ended")

    def _standing(self, seen: View) -> str:
        here = sum(each.state == "present" for each in seen.entities)
        parts = [headline(seen), f"{here} of {counted(len(seen.entities), 'entity', 'entities')}"]
        if seen.round:
            parts.append(f"{seen.round.name} open")
        now = seen.held_out
        held = f"{percent(now.percent)} (version {now.version})" if now else NOTHING
        return ", ".join([*parts, f"held out {held}"])

    def _tell_of_failures(self, seen: View) -> None:
        now = {each.part: each.cause for each in seen.failed}
        for part, cause in now.items():
            if part not in self._failed:
                self._say(f"FAILED {part}: {cause}")
        for part in self._failed.keys() - now.keys():
            self._say(f"well again: {part}")
        self._failed = now

    def _tell_of_a_worse_model(self, seen: View) -> None:
        worse = seen.worse.version if seen.worse else None
        if seen.worse and worse != self._worse:
            self._say(f"WORSE {seen.worse.words}")
        if worse is None and self._worse is not None and seen.held_out is not None:
            self._say(f"no longer worse: version {seen.held_out.version}")
        self._worse = worse

    def _say(self, text: str) -> None:
        self._out.print(plain(text), soft_wrap=True)
