"""A run's rounds as files that other programs read: metrics.jsonl, metrics.csv, TensorBoard events.

Each says what the log says, so a run that was resumed has every round once, and they are kept up
with a run, so that it can be watched. `KEYS` documents what a line holds; a key without a value is
null in JSON and empty in CSV.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.folder import add_to, write_whole
from experiments.measures import Measures, RoundMeasures, measure
from experiments.observer import Observer

Value = float | int | None
Line = Mapping[str, Value]

PLACE, TEST, STAGES, ROUND, WIRE, TEACHER, ENTROPY, TRAINING = (
    "place", "test", "stages", "round", "wire", "teacher", "entropy", "training",
)  # fmt: skip
"""Headings under which TensorBoard shows the keys; what tells a round's place it does not show."""
KEYS: Mapping[str, tuple[str, str]] = {
    "number": (PLACE, "rounds closed before this one, over all stages"),
    "stage": (PLACE, "stage, from 0"),
    "round": (PLACE, "round of the stage, from 0"),
    "version": (PLACE, "the global model that came of the round"),
    "accuracy": (TEST, "top-1 on test images of all classes with a row (%)"),
    "macro_f1": (TEST, "mean over the tested classes of their F1 (%)"),
    "old_accuracy": (TEST, "top-1 on classes of earlier stages (%)"),
    "new_accuracy": (TEST, "top-1 on classes of this stage (%)"),
    "old_as_new": (TEST, "images of earlier classes taken for classes of this stage (%)"),
    "average_accuracy": (STAGES, "mean accuracy of the stages so far, at their last rounds (%)"),
    "forgetting": (STAGES, "mean loss of earlier stages' classes against their best (points)"),
    "backward_transfer": (
        STAGES,
        "mean change of earlier stages' classes since their end (points)",
    ),
    "new_class_accuracy": (STAGES, "mean top-1 of the stages so far on their own new classes (%)"),
    "twins": (ROUND, "twins whose updates are in the model"),
    "withheld": (ROUND, "twins that answered without content"),
    "images": (ROUND, "images trained on, each time counted"),
    "steps": (ROUND, "training steps of all counted twins"),
    "learning_rate": (ROUND, "step size of the local training"),
    "bytes_up": (WIRE, "what the updates take on the wire (bytes, computed from shapes)"),
    "bytes_down": (WIRE, "what base and teacher take on their way to the twins (bytes, computed)"),
    "teacher": (TEACHER, "the version that taught"),
    "teacher_score": (TEACHER, "its score at the proxy, on rebuilt prototypes (%)"),
    "rank_correlation": (TEACHER, "Spearman's, of the candidates' scores with their accuracies"),
    "entropy_hits": (ENTROPY, "windows of the stage: labels and entropy rule saw a new class"),
    "entropy_misses": (ENTROPY, "windows of the stage: only the labels did"),
    "entropy_false_alarms": (ENTROPY, "windows of the stage: only the entropy rule did"),
}
"""What a line of metrics.jsonl and metrics.csv holds, behind its heading."""
MORE_KEYS: Mapping[str, tuple[str, str]] = {
    "accuracy_stage_": (TEST, "top-1 on the classes of that stage (%)"),
    "training_": (
        TRAINING,
        "mean over the counted twins' steps: the loss, its terms, the norm of the gradient, the"
        " shares of empty attention maps (0 to 1)",
    ),
}
"""Beginnings of further keys: one for each stage so far, and for each thing that twins measure."""
JSONL, CSV = "metrics.jsonl", "metrics.csv"
TENSORBOARD = "tensorboard"
EVENTS = "events.out.tfevents.0.fedtwin"
"""One name, so that a session replaces the last one's file: TensorBoard shows all that it finds."""


class Metrics:
    """The three files of a run's folder, as far as it is.

    A file that only grew is appended to, so that who reads on in it (TensorBoard, `tail -f`) sees
    what comes; anything else is replaced as a whole, so that nobody meets half of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[Path, bytes] = {}
        self._times: list[float] = []
        self._observer: Observer | None = None
        self._heard, self._scored = -1, -1

    def look(self, observer: Observer) -> None:
        """Write what has been scored since the last look; quick, for it is asked every turn.

        Raises DiskFull, and ConfigurationError where the folder cannot be written to.
        """
        self._observer = observer
        if len(observer.measured) != self._heard and observer.line.opened is not None:
            self._heard = len(observer.measured)
            scored = sum(name.startswith("model/") for name in observer.measured)
            if scored != self._scored:
                self._scored = scored
                self.last()

    def last(self) -> None:
        """Write what was there at the last look, also of rounds that nobody has scored."""
        if self._observer is not None and self._observer.line.opened is not None:
            self.write(measure(self._observer, {}, 0.0))

    def write(self, measures: Measures) -> None:
        """Write the three. Raises what `look` raises."""
        lines = [_line(measures, each) for each in measures.rounds]
        while len(self._times) <= len(lines):  # TensorBoard wants times, and a log has none
            self._times.append(time.time())
        self._bring(JSONL, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self._bring(CSV, _table(lines).encode())
        self._bring(f"{TENSORBOARD}/{EVENTS}", _events(lines, self._times))

    def _bring(self, name: str, content: bytes) -> None:
        """Bring a file to what it is to hold."""
        path = self._folder / name
        before = self._written.get(path, b"")
        as_we_left_it = path.exists() and path.stat().st_size == len(before)
        if not (before and as_we_left_it and content.startswith(before)):
            write_whole(path, content)
        elif content != before:
            add_to(path, content[len(before) :])
        self._written[path] = content


def _line(measures: Measures, each: RoundMeasures) -> Line:
    teacher = next((t for t in measures.teachers if t.stage == each.stage), None)
    outcomes = [found.outcome for found in measures.detections if found.stage == each.stage]
    others: Line = {
        "twins": len(each.counted),
        "withheld": len(each.withheld),
        "teacher_score": teacher.score if teacher else None,
        "rank_correlation": teacher.rank_correlation if teacher else None,
        "entropy_hits": outcomes.count("both"),
        "entropy_misses": outcomes.count("labels only"),
        "entropy_false_alarms": outcomes.count("entropy only"),
    }
    return {
        **{name: others[name] if name in others else getattr(each, name) for name in KEYS},
        **{f"accuracy_stage_{j}": share for j, share in enumerate(each.stage_accuracies)},
        **{f"training_{name}": mean for name, mean in sorted(each.training.items())},
    }


def _table(lines: list[Line]) -> str:
    names = dict.fromkeys(name for line in lines for name in line)
    columns = sorted(names or KEYS, key=lambda name: name.startswith("training_"))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue()


def _events(lines: list[Line], times: Sequence[float]) -> bytes:
    """TensorBoard's file of scalars: when it was begun, and one step for each round."""
    # Imported here: half a second that `fedtwin --help` has no use for. None of it needs torch.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    held = io.BytesIO()
    writer = RecordWriter(held)
    writer.write(Event(wall_time=times[0], file_version="brain.Event:2").SerializeToString())
    for step, line in enumerate(lines):
        values = [
            Summary.Value(tag=f"{heading}/{name}", simple_value=value)
            for name, value in line.items()
            if value is not None and (heading := _heading(name)) != PLACE
        ]
        event = Event(wall_time=times[step + 1], step=step, summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return held.getvalue()


def _heading(name: str) -> str:
    known = KEYS.get(name)
    return (known or next(MORE_KEYS[start] for start in MORE_KEYS if name.startswith(start)))[0]
