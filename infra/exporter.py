"""A program's metrics for Prometheus at /metrics, and whether it is well at /healthz.

Names follow Prometheus' own rules. What is told does not grow with entities: five hundred of them
are one sum. Each scrape is answered from a thread of its own, also while the loop stands still.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from infra.vitals import ROUNDS, Vitals
from schemas.errors import ConfigurationError

LOG = logging.getLogger(__name__)
SECONDS = 5.0  # in which whoever asks has to have said what
CAUSE = 120  # characters of a cause in a label
MOST_LOST = 20  # programs that are told as lost


class Told(Collector):
    """What Prometheus is told of a program."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        """Everything, as it stands now."""
        yield from self._program()
        yield from self._messages()
        yield from self._work()
        yield from self._run()

    def _program(self) -> Iterator[Metric]:
        vitals = self._vitals
        about = GaugeMetricFamily(
            "fedtwin_program_info", "Which program this is.",
            labels=["run", "role", "process", "version"],
        )  # fmt: skip
        about.add_metric([vitals.run, vitals.role, vitals.process, metadata.version("fedtwin")], 1)
        yield about
        yield _gauge("heartbeat_age_seconds", "Since its last heartbeat was written.", vitals.age)
        broker = vitals.broker_away
        yield _gauge(
            "broker_away_seconds", "For which Kafka has not answered; 0 while it does.",
            broker.seconds if broker else 0.0,
        )  # fmt: skip
        missed = [each.seconds for each in (vitals.beat.away if vitals.beat else ())]
        yield _gauge(
            "redis_away_seconds", "For which the proxy has missed Redis; 0 while it answers.",
            max(missed, default=0.0),
        )  # fmt: skip
        failed = GaugeMetricFamily(
            "fedtwin_failed", "1 for each part that does not do its work, with its cause.",
            labels=["part", "cause"],
        )  # fmt: skip
        for part, cause, _ in vitals.failures():
            failed.add_metric([part, cause[:CAUSE]], 1)
        yield failed
        lost = GaugeMetricFamily(
            "fedtwin_program_lost_seconds",
            "For which another program has not been heard of, and what it said last.",
            labels=["role", "process", "site", "entities", "state", "cause"],
        )  # fmt: skip
        for *words, seconds in vitals.lost()[:MOST_LOST]:
            lost.add_metric([str(each)[:CAUSE] for each in words], seconds)
        yield lost

    def _messages(self) -> Iterator[Metric]:
        tally = self._vitals.tally
        yield _counter("messages_heard", "Messages taken in, by kind of topic.", "topic",
                       tally.heard)  # fmt: skip
        yield _counter("messages_said", "Messages written, by kind of topic.", "topic",
                       tally.said)  # fmt: skip
        yield _counter("dead_letters", "Messages set aside, by reason.", "reason",
                       tally.letters)  # fmt: skip
        beat = self._vitals.beat
        yield _gauges("unread_records", "Records not read yet, by kind of topic.", "topic",
                      beat.lag if beat else {})  # fmt: skip

    def _work(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield _gauges("in_work", "Tasks that its workers do, by kind.", "task", vitals.in_work)
        yield _gauge(
            "queued_tasks", "Tasks that wait for a worker, or for a place on the machine.",
            vitals.beat.queued if vitals.beat else 0,
        )  # fmt: skip
        yield _gauge("workers_free", "Tasks more that they could do.", vitals.free)
        yield _gauges("wait_seconds", "The longest wait of each kind.", "what", vitals.waits)
        buffered = [n for name, n in vitals.counts.items() if name.startswith("buffered ")]
        yield _gauge("entities", "Entities whose twins live here.", len(buffered))
        yield _gauge("buffered_images", "Images that they hold of their streams.", sum(buffered))

    def _run(self) -> Iterator[Metric]:
        course, accuracy, loss = self._vitals.course, self._vitals.accuracy, self._vitals.loss
        closed = CounterMetricFamily("fedtwin_rounds", "Rounds that have closed.")
        closed.add_metric([], course.closed)
        yield closed
        missed = CounterMetricFamily("fedtwin_answers_missed", "Answers that rounds did without.")
        missed.add_metric([], course.missed)
        yield missed
        yield _gauge("stage", "The newest stage, from 0.", course.stage)
        yield _gauge("model_version", "Of the newest model.", course.version)
        yield _gauge("head_classes", "Classes with a row in the head.", course.classes)
        since = course.opened_at
        yield _gauge(
            "round_open_seconds", "For which the open round has been; 0 while none is.",
            0.0 if since is None else max(0.0, self._vitals.clock() - since),
        )  # fmt: skip
        took = HistogramMetricFamily(
            "fedtwin_round_seconds", "From a round's opening to its close, as this program saw it."
        )
        total, buckets = 0, []
        for bound, count in zip((*map(str, ROUNDS), "+Inf"), course.rounds, strict=True):
            total += count
            buckets.append((bound, total))
        took.add_metric([], buckets, course.seconds)
        yield took
        if accuracy is not None:
            yield _gauge(
                "held_out_accuracy_ratio", "Of the newest model, held out at the sites: 0 to 1.",
                accuracy.percent / 100,
            )  # fmt: skip
            yield _gauge("held_out_images", "Images that this rests on.", accuracy.images)
            yield _gauge("held_out_version", "The model that was scored.", accuracy.version)
            yield _gauge(
                "held_out_lost_ratio",
                "By which it is worse than the best before it, 0 to 1; 0 up to `alarm_points`.",
                loss.points / 100 if loss else 0.0,
            )  # fmt: skip


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fedtwin_{name}", about, value=value)


def _gauges(name: str, about: str, label: str, values: object) -> Metric:
    family = GaugeMetricFamily(f"fedtwin_{name}", about, labels=[label])
    for each, value in sorted(dict(values).items()):  # type: ignore[call-overload]
        family.add_metric([each], value)
    return family


def _counter(name: str, about: str, label: str, values: object) -> Metric:
    family = CounterMetricFamily(f"fedtwin_{name}", about, labels=[label])
    for each, value in sorted(dict(values).items()):  # type: ignore[call-overload]
        family.add_metric([each], value)
    return family


# --- served ---------------------------------------------------------------------------------------


def registry_of(vitals: Vitals) -> CollectorRegistry:
    """All that is told of a program: of its role, and of its process (memory, processor, files)."""
    registry = CollectorRegistry()
    registry.register(Told(vitals))
    ProcessCollector(registry=registry)
    return registry


@contextmanager
def served(vitals: Vitals, host: str, port: int) -> Iterator[int]:
    """Answer at this address as long as the context lasts; gives the port, which is found for 0.

    Raises ConfigurationError where the address cannot be had.
    """
    registry = registry_of(vitals)

    class Answers(BaseHTTPRequestHandler):
        timeout = SECONDS

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                case "/healthz":
                    well, text = vitals.health()
                    told = f"{'well' if well else 'not well'}: {text}\n".encode()
                    self._answer(200 if well else 503, "text/plain; charset=utf-8", told)
                case _:
                    self._answer(404, "text/plain", b"/metrics and /healthz\n")

        def _answer(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            LOG.debug(format, *args)

    try:
        server = ThreadingHTTPServer((host, port), Answers)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"metrics cannot be served at {host}:{port} ({error}): another --metrics-port, or"
            " FEDTWIN_METRICS_PORT; 0 finds a free one"
        ) from None
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="metrics")
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
