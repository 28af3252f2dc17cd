"""Messages that name what was not read yet: where they lie, and when to hear them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from infra.promises import NotYet, Place


class Waiting:
    """What one role has to hear again. Only places are kept, never a message.

    Those that wait for the same are asked about together: a look costs as much as there are things
    that are waited for, however many messages wait for each.
    """

    def __init__(self) -> None:
        self._groups: dict[str, tuple[NotYet, list[Place]]] = {}
        """What is waited for, in words → when to look again, and who waits for it."""

    def add(self, place: Place, wait: NotYet) -> None:
        """A message has to wait."""
        self._groups.setdefault(str(wait), (wait, []))[1].append(place)

    def ready(self) -> list[Place]:
        """Those that need not wait any more, each topic's in its order; they are given once."""
        due = [what for what, (wait, _) in self._groups.items() if wait.until()]
        places = [place for what in due for place in self._groups.pop(what)[1]]
        return sorted(places, key=lambda place: (place.topic, place.offsets))

    def __iter__(self) -> Iterator[tuple[Place, str]]:
        """Each with what it waits for."""
        for what, (_, places) in self._groups.items():
            for place in places:
                yield place, what

    def let_go(self, gone: Callable[[Place], bool]) -> None:
        """Nobody will hear these any more."""
        for what, (wait, places) in list(self._groups.items()):
            left = [place for place in places if not gone(place)]
            self._groups[what] = wait, left
            if not left:
                del self._groups[what]
