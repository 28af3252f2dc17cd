"""One message of every kind, small and valid, of a run with two stages and two entities."""

from __future__ import annotations

import numpy as np

from schemas.configuration import Configuration, configuration
from schemas.messages import (
    Asked,
    Before,
    DataFacts,
    DeadLetter,
    EntityJoined,
    EntityLeft,
    ExemplarImage,
    Forgotten,
    GlobalModel,
    HeadGrown,
    Heartbeat,
    ImageBatch,
    Look,
    Measured,
    Member,
    Message,
    ModelName,
    ModelUpdate,
    Participant,
    Paused,
    PrototypeGradient,
    RolledBack,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
    StageOpened,
    StageTold,
    Standing,
    StrategyKept,
    StreamEnded,
    StreamImage,
    StreamMarked,
    StreamMoved,
    Taken,
    TeacherChosen,
    Tensors,
    Transforms,
    TwinState,
    WindowJudged,
)
from schemas.schedule import Client, Schedule, Stage

RUN = "f" * 64
NORTH, SOUTH = "local/north", "local/south"


def model(version: int, letter: str = "a") -> ModelName:
    """The name of a version; another letter is another hash."""
    return ModelName(version=version, sha256=f"{version:x}".rjust(63, "0") + letter)


def recipe(**overrides: object) -> Configuration:
    """Two stages of two classes and two rounds, for two entities."""
    values: dict[str, object] = {
        "recipe": "specimen",
        "dataset": "dots",
        "stages": 2,
        "classes_per_stage": 2,
        "rounds_per_stage": 2,
        "clients": 2,
        "new_clients": 0,
        "clients_per_round": 2,
        "learning_rate": 0.5,
    }
    return configuration(values | overrides)


def facts(classes: int = 4) -> DataFacts:
    """Grey images of 4x4 pixels, and rows for four classes more than they have."""
    return DataFacts(
        name="dots",
        sha256="d" * 64,
        channels=1,
        height=4,
        width=4,
        classes=tuple(map(str, range(classes))),
        transforms=Transforms(mean=(0.5,), std=(0.5,)),
        encoder_classes=classes + 4,
    )


def schedule(stages: int = 2, rounds: int = 2) -> Schedule:
    """Both entities see both classes of each stage and train in each round."""
    return Schedule(
        stages=tuple(
            Stage(
                classes=(uids := (str(2 * t), str(2 * t + 1))),
                clients=tuple(
                    Client(entity=entity, group="N" if t == 0 else "B", classes=uids)
                    for entity in (NORTH, SOUTH)
                ),
                sampled=((NORTH, SOUTH),) * rounds,
            )
            for t in range(stages)
        )
    )


def weights(seed: int = 1) -> Tensors:
    """A few tensors of every dtype and dimension that a model has."""
    chance = np.random.Generator(np.random.PCG64(seed))
    return {
        "conv.weight": chance.standard_normal((2, 3, 3)).astype("<f4"),
        "fc.weight": chance.standard_normal((2, 4)).astype("<f4"),
        "fc.bias": np.zeros(2, "<f4"),
        "bn.running_var": np.ones(2, "<f4"),
        "bn.num_batches_tracked": np.array(3, "<i8"),
    }


def opened(**overrides: object) -> RunOpened:
    """The first decision."""
    config = recipe(**overrides)
    return RunOpened(
        run="",
        number=0,
        configuration=config,
        data=facts(),
        schedule=schedule(config.stages, config.rounds_per_stage),
        model=model(0),
    )


def every_kind() -> list[Message]:
    """One of each, in the order of `KINDS`."""
    pixels = np.arange(2 * 16, dtype="|u1").reshape(2, 1, 4, 4)
    return [
        ImageBatch(
            run=RUN,
            source="camera",
            first=0,
            classes=("0", None, "1"),
            reasons=("the shutter stuck",),
            groups={"images": {"images": pixels}},
        ),
        StreamMarked(run=RUN, source="camera", count=3, stage=0),
        StreamEnded(run=RUN, source="camera", count=3),
        EntityJoined(run=RUN, number=0, entity=NORTH),
        EntityLeft(run=RUN, number=2, entity=NORTH),
        WindowJudged(
            run=RUN,
            number=1,
            entity=NORTH,
            stage=0,
            position=3,
            model=model(0),
            images={"0": 1, "1": 1},
            trainable=2,
            entropy=0.5,
            reference=None,
            threshold=1.2,
            first_contact=True,
            reason=None,
            verdict="new",
            classes=("0", "1"),
        ),
        opened(),
        StageOpened(run=RUN, number=1, stage=0, found=((NORTH, 0), (SOUTH, 2))),
        HeadGrown(
            run=RUN,
            number=1,
            stage=0,
            rows={"0": 0, "1": 1},
            prototypes=((NORTH, ("0", "1")), (SOUTH, ("1",))),
            model=model(1),
        ),
        RoundOpened(
            run=RUN,
            number=2,
            stage=0,
            round=0,
            base=model(1),
            teacher=None,
            learning_rate=0.5,
            participants=(
                Participant(entity=NORTH, weight=30, position=3),
                Participant(entity=SOUTH, weight=10, position=3),
            ),
        ),
        RoundClosed(
            run=RUN,
            number=3,
            opened=2,
            stage=0,
            round=0,
            counted=((NORTH, "c" * 64),),
            withheld=((SOUTH, "no image to train on"),),
            model=model(2),
        ),
        StageClosed(run=RUN, number=6, stage=0, candidates=(model(2), model(3)), last=model(3)),
        StageAdded(run=RUN, number=7, looks=(Look(entity=NORTH, source="burst", count=5),)),
        Paused(run=RUN, number=8, entity=NORTH, rests=True),
        RolledBack(run=RUN, number=9, to=model(1), closes=7, model=model(3)),
        Standing(
            run=RUN,
            number=10,
            before=Before(number=4, hash="e" * 64),
            stages=1,
            newest=(
                StageTold(
                    opened=StageOpened(run=RUN, number=1, stage=0, found=((NORTH, 1),)),
                    grown=None,
                    closed=None,
                    rounds=2,
                    base=model(1),
                    first=None,
                    models=(model(3),),
                ),
            ),
            lasts=(),
            rounds=1,
            rows={"0": 0, "1": 1},
            stage_of_row=(0, 0),
            everybody_rests=False,
            resting=(NORTH,),
            members=(
                Member(
                    entity=NORTH,
                    number=4,
                    here=True,
                    moments=3,
                    classes=("0", "1"),
                    verdicts=(),
                    seen=None,
                    taken=Taken(stage=0, opened=1, moment=1),
                    armed=None,
                    missed=None,
                    asked=(Asked(opened=7, stage=0, base=model(1), position=40),),
                    counted=(3, "c" * 64),
                ),
            ),
            teachers=(),
            model=model(3),
            kept=(model(1), model(3)),
        ),
        GlobalModel(run=RUN, version=1, groups={"model": weights()}),
        ModelUpdate(
            run=RUN,
            opened=2,
            entity=NORTH,
            base=model(1),
            measured={"loss": 0.25},
            groups={"model": weights(2)},
        ),
        PrototypeGradient(
            run=RUN,
            entity=NORTH,
            stage=0,
            place=1,
            psnr=21.5,
            groups={"gradient": {"head.bias": np.array([0.5, -0.5], "<f4")}},
        ),
        TeacherChosen(
            run=RUN,
            number=0,
            stage=1,
            teacher=model(3),
            scores=((2, 0.5), (3, 0.75)),
            used=("e" * 64,),
            withheld=((SOUTH, 0, "no image of this class is left"),),
        ),
        TwinState(
            run=RUN,
            entity=NORTH,
            number=1,
            stage=0,
            current=("0", "1"),
            learned=(),
            exemplars={"0": (("camera", 0),)},
            settled={"0": 3},
            sources={"camera": 3},
            marks=((1, "camera", 6),),
            trimmed=0,
            offset=0,
        ),
        ExemplarImage(
            run=RUN,
            entity=NORTH,
            source="camera",
            image=0,
            label="0",
            groups={"images": {"images": pixels[:1]}},
        ),
        StrategyKept(
            run=RUN,
            entity=NORTH,
            opened=2,
            update="b" * 64,
            groups={"drift": {"fc.bias": np.ones(2, "<f4")}},
        ),
        Measured(run="", name="model/1", values={"confusion": ((1, 0), (0, 2)), "stage": 0}),
        Heartbeat(
            run="",
            process="twins-1",
            role="twins",
            at=1790000000.5,
            in_work=("learn local/north 7",),
            waits=(("twins waits for local/south: the mark of stage 1", 2.5),),
        ),
        DeadLetter(
            run="",
            topic="fedtwin.story.rounds",
            offset=4,
            about="HeadGrown/1",
            hash="9" * 64,
            size=12,
            reason="out-of-line",
            detail="rows are not the next",
        ),
        Forgotten(run=RUN, entity=NORTH, label="0", images={"camera": (0, 6)}, before=4),
        StreamImage(
            run=RUN,
            entity=NORTH,
            source="camera",
            image=1,
            label="1",
            position=1,
            groups={"images": {"images": pixels[:1]}},
        ),
        StreamMoved(
            run=RUN,
            entity=NORTH,
            offset=4,
            position=6,
            sources={"camera": 6},
            marks={"camera": 6},
        ),
    ]


def specimen(kind: type[Message]) -> Message:
    """The one of a kind."""
    return next(each for each in every_kind() if type(each) is kind)
