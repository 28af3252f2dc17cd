"""Which topics a Kafka cluster has, where they begin and where they end: asked, and remembered."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.admin import OffsetSpec

from infra.kafka import Outage, refusal

LASTS = 0.05  # seconds that what was said of an end is told again
LOOK = 0.3  # seconds between two looks at topics that are not there yet


class Offsets:
    """What an admin client says of topics. Each question is asked until there is an answer."""

    def __init__(self, admin: KafkaAdminClient, outage: Outage) -> None:
        self.known: dict[str, int] = {}
        """Topic that is there → its end when we last looked; ends never go back."""
        self._admin = admin
        self._outage = outage
        self._fresh: set[str] = set()
        """Topics whose end was asked since anything happened."""
        self._asked = 0.0
        self._missing: set[str] = set()
        self._looked = 0.0

    def happened(self) -> None:
        """We read, wrote or waited: whatever was said of ends may be otherwise by now."""
        self._fresh.clear()

    def reach(self) -> None:
        """Wait until some broker answers; whether it is the one that was away is not known."""
        self._outage.insist(lambda: self._admin.describe_topics([]), ends=False)

    def end(self, topic: str) -> int:
        """Behind whatever was written last, tombstones too; 0 of a topic that is not there.

        The second topic that is asked about brings the ends of all others that are known: who asks
        about all of them does so with two questions.
        """
        if time.monotonic() > self._asked + LASTS:
            self._fresh.clear()
        if topic not in self._fresh:
            others = self.known.keys() - self._fresh if self._fresh else set()
            self._ask({topic, *others})
        return self.known.get(topic, 0)

    def first(self, topic: str) -> int:
        """Where a topic begins; 0 when it is not there."""
        partition = TopicPartition(topic, 0)
        found = self._listed({topic: OffsetSpec.EARLIEST})
        return 0 if found is None else int(found[partition].offset)

    def there(self, topic: str) -> bool:
        """Whether a topic exists. Those that do not are looked for again and again, together."""
        if topic in self.known:
            return True
        if topic not in self._missing:
            self._ask({topic})
        elif time.monotonic() > self._looked + LOOK:
            self._missing -= self._found(self._missing)
        if topic not in self._missing and topic not in self.known:
            self._ask({topic})
        return topic in self.known

    def written(self, prefix: str) -> list[str]:
        """Every topic under a prefix in which something was ever written, in order of name."""
        while True:
            found = self._outage.insist(self._admin.list_topics)
            names = [name for name in found if name.startswith(prefix)]
            ends = self._listed(dict.fromkeys(names, OffsetSpec.LATEST))
            if ends is not None:  # else one of them was taken away meanwhile
                return sorted(each.topic for each, told in ends.items() if told.offset)

    def _ask(self, topics: set[str]) -> None:
        found = self._listed(dict.fromkeys(topics, OffsetSpec.LATEST)) if topics else {}
        if found is not None:
            for partition, each in found.items():
                self.known[partition.topic] = max(each.offset, self.known.get(partition.topic, 0))
            self._missing -= topics
        elif len(topics) > 1:
            for topic in topics:
                self._ask({topic})
        else:
            self._missing |= topics
            self._found(topics)
        self._fresh |= topics
        self._asked = time.monotonic()

    def _listed(self, wanted: dict[str, Any]) -> dict[Any, Any] | None:
        """What a broker says of offsets; None when one of the topics is not there."""
        specs = {TopicPartition(topic, 0): spec for topic, spec in wanted.items()}

        def ask() -> dict[Any, Any] | None:
            try:
                return dict(self._admin.list_partition_offsets(specs))
            except errors.UnknownTopicOrPartitionError:
                return None

        return self._outage.insist(ask)

    def _found(self, topics: Iterable[str]) -> set[str]:
        """Those of some topics that are there.

        Raises Forbidden for one that we have no right to: to us it would be missing for
        ever, and its consumer silent.
        """
        names = sorted(topics)
        told = self._outage.insist(lambda: self._admin.describe_topics(names))
        self._looked = time.monotonic()
        for each in told:
            if each["error_code"] == errors.TopicAuthorizationFailedError.errno:
                self._missing.discard(each["name"])  # or it would be refused in others' place
                error = errors.TopicAuthorizationFailedError(each["name"])
                raise refusal(error, f"read {each['name']}")
        return {each["name"] for each in told if not each["error_code"]}
