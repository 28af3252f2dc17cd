"""Global models by name, read from the topic `models` and checked against their hash."""

from __future__ import annotations

from collections import OrderedDict

from infra.pieces import Pieces, fetched
from infra.promises import Place
from infra.transport.base import Stored, Transport, Trimmed
from schemas.codec import piece
from schemas.errors import Refused
from schemas.messages import GlobalModel, Groups, ModelName, Standing, Tensors
from schemas.tensors import groups_sha256

READ_BYTES = 16 * 1024 * 1024
HELD = 3  # base, teacher and what is being made of them


class Shelf:
    """Every process has one: it knows where each model lies, and holds the few in use.

    A record's key only says which model its message claims to be. What it is shows when it is
    loaded.
    """

    def __init__(self, transport: Transport, topic: str, max_bytes: int) -> None:
        self._transport = transport
        self._topic = topic
        self._max_bytes = max_bytes
        self._place = 0
        self._pieces = Pieces()
        self._claims: dict[str, list[Place]] = {}
        self._held: OrderedDict[ModelName, Groups] = OrderedDict()
        self._standing: Standing | None = None

    def model(self, name: ModelName) -> Tensors:
        """The values of a model. Raises LookupError when no sound copy is in the topic."""
        return self.groups(name)["model"]

    def groups(self, name: ModelName) -> Groups:
        """All groups of a model's message: `model` and what a strategy declares besides.

        Raises LookupError when no sound copy is in the topic.
        """
        found = self._held[name] if name in self._held else self._load(name)
        self._held[name] = found
        self._held.move_to_end(name)
        while len(self._held) > HELD:
            self._held.popitem(last=False)
        return found

    def has(self, name: ModelName) -> bool:
        """Whether a sound copy of the model is in the topic."""
        try:
            self.groups(name)
        except LookupError:
            return False
        return True

    def at_hand(self, name: ModelName) -> bool:
        """Whether a sound copy is in what can be read at once.

        What another program has written just now may be missed: for who would then write it again.
        """
        while self._read_on():
            pass
        claims = self._claims.get(name.key, [])
        return name in self._held or any(self._sound(name, each) is not None for each in claims)

    def names(self, *, at_hand: bool = False) -> dict[ModelName, int]:
        """Every model that the topic claims to hold, and of how many pieces.

        With `at_hand` those that can be read at once: a moment later there may be more.
        """
        while self._read_on() or (not at_hand and self._behind):
            pass
        return {
            name: max(len(place.offsets) for place in places)
            for key, places in self._claims.items()
            if (name := _name_in(key)) is not None
        }

    def drop(self, name: ModelName) -> None:
        """The model was let go."""
        self._claims.pop(name.key, None)
        self._held.pop(name, None)

    def stand(self, standing: Standing | None) -> None:
        """A live run stands so: what it had no need of at the Standing before either is nowhere any
        more, and where it lay is forgotten. The aggregator's own shelf is told by `drop`."""
        before, self._standing = self._standing, standing
        if before is None or before is standing or standing is None:
            return
        kept = {name.key for name in (*before.kept, *standing.kept)}
        for key in [key for key in self._claims if key not in kept]:
            name = _name_in(key)
            if name is not None and name.version <= before.model.version:
                self.drop(name)

    def _load(self, name: ModelName) -> Groups:
        """The log is asked for its end only if the model is not in what can be read at once."""
        tried = 0
        while True:
            claims = self._claims.get(name.key, [])
            for place in claims[tried:]:
                if (groups := self._sound(name, place)) is not None:
                    return groups
            tried = len(claims)
            if not self._read_on() and not self._behind:
                raise LookupError(
                    f"model version {name.version} ({name.sha256[:12]}) is not in the log"
                )

    def _sound(self, name: ModelName, place: Place) -> Groups | None:
        """What lies there, if it is that model."""
        try:
            found = fetched(self._transport, place, self._max_bytes)
        except (LookupError, Refused):
            return None
        if not isinstance(found, GlobalModel) or found.version != name.version:
            return None
        groups = found.groups
        sound = "model" in groups and groups_sha256(groups) == name.sha256
        return groups if sound else None

    @property
    def _behind(self) -> bool:
        return self._place < self._transport.end(self._topic)

    def _read_on(self) -> bool:
        """Read a little, and note who claims to be what; whether there was something."""
        try:
            found = self._transport.read(self._topic, self._place, READ_BYTES)
        except Trimmed as trimmed:
            self._place = trimmed.first
            return True
        for stored in found:
            self._place = stored.offset + 1
            self._note(stored)
        return bool(found)

    def _note(self, stored: Stored) -> None:
        try:
            part = piece(stored.record.value, self._max_bytes)
        except Refused:
            return
        if (offsets := self._pieces.add(part, stored.offset)) is not None:
            claim = stored.record.key.rpartition("/")[0]
            self._claims.setdefault(claim, []).append(Place(self._topic, offsets))


def _name_in(key: str) -> ModelName | None:
    """The model that a key names, if it is a key as we write them."""
    version, _, sha256 = key.partition("/")
    try:
        name = ModelName(version=int(version), sha256=sha256)
    except ValueError:
        return None
    return name if name.key == key else None
