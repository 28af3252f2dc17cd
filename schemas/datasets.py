"""What is known of images without having them: of data sets that have a name, and of any others.

Whoever opens a live federation has no image. What it says of them follows from this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.messages import Transforms

BRIGHTNESS = 63 / 255
"""Jitter of the FedKA lineage, in parts of the image's own brightness."""
OWN_FORMS = ("npz", "folder")
"""How data of one's own are named: `npz:PATH`, `folder:PATH`."""
ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)


@dataclass(frozen=True)
class Known:
    """A data set's images and classes, without an image."""

    channels: int
    side: int
    """Pixels, height and width alike."""
    classes: int
    """Their uids are the numbers below this."""
    transforms: Transforms
    names: tuple[str, ...] = ()
    """What people call the classes, where that is known without its file."""

    @property
    def uids(self) -> tuple[str, ...]:
        """What a class is called in messages, in natural order."""
        return tuple(map(str, range(self.classes)))


def plain_transforms(channels: int, height: int, width: int) -> Transforms:
    """What is safe for any image: no mirroring, for left and right may be classes
    (docs/method.md 1.5)."""
    return Transforms(
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        crop_padding=min(height, width) // 14,  # 2 at 28 pixels
        brightness=BRIGHTNESS,
    )


def in_size(transforms: Transforms, before: int, side: int) -> Transforms:
    """The same for images that were brought from one height to another: the crop grows with it."""
    padding = transforms.crop_padding * side // before
    return transforms.model_copy(update={"crop_padding": padding})


def own_data(name: str) -> tuple[str, str]:
    """`npz` or `folder`, and the path behind it; two empty strings for a named data set."""
    form, _, path = name.partition(":")
    return (form, path) if form in OWN_FORMS and path else ("", "")


_ORGAN = Known(1, 28, len(ORGANS), plain_transforms(1, 28, 28), ORGANS)
KNOWN = {
    "digits": Known(1, 16, 10, Transforms(mean=(0.3,), std=(0.35,)), tuple(map(str, range(10)))),
    "cifar100": Known(
        3,
        32,
        100,
        Transforms(
            mean=(0.5071, 0.4867, 0.4408),
            std=(0.2675, 0.2565, 0.2761),
            crop_padding=4,
            horizontal_flip=True,
            brightness=BRIGHTNESS,
        ),
    ),
    "organamnist": _ORGAN,
    "organcmnist": _ORGAN,
    "organsmnist": _ORGAN,
}
