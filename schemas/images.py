"""When images may be taken: asked in the same words by who streams and by the twin that reads."""

from __future__ import annotations

from schemas.errors import Refused
from schemas.messages import DataFacts, Groups, ImageBatch


def check_batch(batch: ImageBatch, pieces: int, data: DataFacts) -> None:
    """Whether every image of a batch is one of this run's; a refused batch fills no number.

    Raises Refused: too-large for a batch of more than one piece, unreadable, wrong-shape,
    wrong-dtype.
    """
    with_content = sum(uid is not None for uid in batch.classes)
    if pieces > 1:
        raise Refused("too-large", f"a batch of {pieces} pieces")
    if not batch.classes or len(batch.reasons) != len(batch.classes) - with_content:
        raise Refused("unreadable", f"{len(batch.classes)} numbers, {len(batch.reasons)} reasons")
    check_images(batch.groups, with_content, data)


def check_images(groups: Groups, count: int, data: DataFacts) -> None:
    """Whether groups hold so many images of a run's shape, and nothing else.

    Raises Refused: wrong-shape, wrong-dtype.
    """
    images = groups.get("images", {}).get("images")
    shape = (count, data.channels, data.height, data.width)
    if images is None or set(groups) != {"images"} or images.shape != shape:
        got = None if images is None else images.shape
        raise Refused("wrong-shape", f"images {got}, expected {shape}")
    if images.dtype.str != "|u1":
        raise Refused("wrong-dtype", f"images are {images.dtype.str}, expected |u1")
