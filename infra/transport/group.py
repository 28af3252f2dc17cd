"""Which twins live in this process: a share of a site's entities, dealt out by Kafka's group.

The group spreads work and takes over from the dead. Nothing's correctness hangs on it: two
processes that both believe to host a twin write the same bytes. Its offsets are not used and
nothing is read through it; a twin goes on from its state.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from infra.kafka import REFUSALS, KafkaSettings, connected, refusal
from schemas.topics import Names

SESSION = 6.0  # seconds after which a process that is not heard of has lost its twins
POLLED = 300.0  # seconds without a look at the group after which it has as well
POLL = 0.02  # seconds for a look: with none at all the client never joins its group
NEW = 5.0  # seconds in which an entity's new topic is noticed
DEALT = 2.0  # seconds for a look while the group deals anew: more than others need to hear of it


class Group:
    """A process's membership. Ask `entities` at least every `polled` seconds, or be left out."""

    def __init__(
        self,
        settings: KafkaSettings,
        names: Names,
        site: str,
        process: str,
        *,
        session: float = SESSION,
        polled: float = POLLED,
    ) -> None:
        """`process` is this member's name: started again under it, it finds its twins as they were.

        Raises ServiceError when the cluster cannot be reached.
        """
        self._prefix = f"{names.prefix}.{names.run}.samples.{site}."
        self._site = site
        self._consumer = connected(
            settings,
            KafkaConsumer,
            group_id=names.group(site),
            group_instance_id=process,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            auto_offset_reset="earliest",  # it must say something; everything is paused
            enable_auto_commit=False,
            heartbeat_interval_ms=round(1000 * min(1.0, session / 3)),
            max_poll_interval_ms=round(1000 * polled),
            metadata_max_age_ms=round(1000 * NEW),
            metrics_enabled=False,
            session_timeout_ms=round(1000 * session),
        )
        pattern = f"^{re.escape(self._prefix)}.*"
        self._consumer.subscribe(pattern=pattern, listener=_Pause(self._consumer))

    def entities(self) -> frozenset[str]:
        """Those dealt to this process now, by full name.

        Raises Forbidden where we have no right to the group.
        """
        try:
            self._join()
            self._consumer.poll(timeout_ms=round(1000 * POLL))
        except errors.RetriableError:
            pass  # the client finds back to its group by itself
        except REFUSALS as error:
            raise refusal(error, f"join the group of {self._site}'s twins") from error
        return frozenset(
            f"{self._site}/{partition.topic.removeprefix(self._prefix)}"
            for partition in self._consumer.assignment()
        )

    @property
    def generation(self) -> int:
        """How often the group has dealt, as this member knows; -1 while it is no member."""
        return int(self._consumer.group_metadata().generation_id)

    def _join(self) -> None:
        """While the group deals anew, wait for what this member gets.

        What is dealt between two looks the client throws away (3.0.12): it joins again, which lets
        the others deal anew, and so on for ever. It has no public word for this wait, which ends as
        soon as the group has dealt.
        """
        coordinator = self._consumer._coordinator
        if coordinator.need_rejoin():
            coordinator.poll(timeout_ms=round(1000 * DEALT))

    def close(self) -> None:
        """Leave at once, whatever the broker does."""
        self._consumer.close(autocommit=False, timeout_ms=500)


class _Pause(ConsumerRebalanceListener):  # type: ignore[misc]
    """What is assigned is never fetched: a twin reads its stream by itself."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if assigned:
            self._consumer.pause(*assigned)

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """They are no longer among what is assigned, and that is all."""

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Likewise."""
