"""Global models by name, read from the topic `models` and checked against their hash."""

from __future__ import annotations

from collections import OrderedDict

from infra.promises import Place
from infra.transport.base import Stored, Transport, Trimmed
from schemas.codec import Assembler, piece, unpack
from schemas.errors import Refused
from schemas.messages import GlobalModel, Groups, Message, ModelName, Tensors
from schemas.tensors import model_sha256

READ_BYTES = 16 * 1024 * 1024
HELD = 3  # base, teacher and what is being made of them


class Shelf:
    """Every process has one: it knows where each model lies, and holds the few in use.

    A record's key only says which model its message claims to be. What it is shows when it is loaded.
    """

    def __init__(self, transport: Transport, topic: str, max_bytes: int) -> None:
        self._transport = transport
        self._topic = topic
        self._max_bytes = max_bytes
        self._place = 0
        self._open: dict[str, dict[int, int]] = {}
        self._claims: dict[str, list[Place]] = {}
        self._held: OrderedDict[ModelName, Groups] = OrderedDict()

    def model(self, name: ModelName) -> Tensors:
        """The values of a model. Raises LookupError when no sound copy is in the topic."""
        return self.groups(name)["model"]

    def groups(self, name: ModelName) -> Groups:
        """All groups of a model's message: `model` and what a strategy declares besides."""
        if name not in self._held:
            self._held[name] = self._load(name)
        self._held.move_to_end(name)
        while len(self._held) > HELD:
            self._held.popitem(last=False)
        return self._held[name]

    def has(self, name: ModelName) -> bool:
        """Whether a sound copy of the model is in the topic."""
        try:
            self.groups(name)
        except LookupError:
            return False
        return True

    def names(self) -> dict[ModelName, int]:
        """Every model that the topic claims to hold, and of how many pieces."""
        self._look_on()
        found = {}
        for key, places in self._claims.items():
            version, _, sha256 = key.partition("/")
            if version.isdecimal() and len(sha256) == 64:
                name = ModelName(version=int(version), sha256=sha256)
                found[name] = max(len(place.offsets) for place in places)
        return found

    def drop(self, name: ModelName) -> None:
        """The model was let go."""
        self._claims.pop(name.key, None)
        self._held.pop(name, None)

    def message(self, place: Place) -> Message:
        """Any message that was read before, from where it lies. Raises LookupError."""
        return fetched(self._transport, place, self._max_bytes)

    def _load(self, name: ModelName) -> Groups:
        self._look_on()
        for place in self._claims.get(name.key, []):
            try:
                found = self.message(place)
            except (LookupError, Refused):
                continue
            if isinstance(found, GlobalModel) and found.version == name.version:
                groups = found.groups
                if model_sha256(groups.get("model", {})) == name.sha256:
                    return groups
        raise LookupError(f"model version {name.version} ({name.sha256[:12]}) is not in the log")

    def _look_on(self) -> None:
        while found := self._read():
            for stored in found:
                self._place = stored.offset + 1
                self._note(stored)

    def _read(self) -> list[Stored]:
        try:
            return self._transport.read(self._topic, self._place, READ_BYTES)
        except Trimmed as trimmed:
            self._place = trimmed.first
            return self._transport.read(self._topic, self._place, READ_BYTES)

    def _note(self, stored: Stored) -> None:
        try:
            part = piece(stored.record.value, self._max_bytes)
        except Refused:
            return
        offsets = self._open.setdefault(part.message, {})
        offsets.setdefault(part.index, stored.offset)
        if len(offsets) == part.count:
            del self._open[part.message]
            claim = stored.record.key.rpartition("/")[0]
            ordered = tuple(offsets[index] for index in range(part.count))
            self._claims.setdefault(claim, []).append(Place(self._topic, ordered))


def fetched(transport: Transport, place: Place, max_bytes: int) -> Message:
    """Read a message again from where it lies. Raises LookupError when it is no longer there."""
    assembler = Assembler(max_bytes)
    for offset in place.offsets:
        found = transport.read(place.topic, offset, 1)
        if not found or found[0].offset != offset:
            raise LookupError(f"{place.topic} no longer holds offset {offset}")
        if whole := assembler.add(offset, found[0].record.value):
            return unpack(whole.payload, max_bytes)
    raise LookupError(f"{place.topic}: a piece is missing")
