"""Folders of images by class: what is read, how it is split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from producers import folders
from producers.folders import read_folder
from schemas.errors import DataError


def an_image(file: Path, gray: int = 0, size: tuple[int, int] = (6, 6), mode: str = "L") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, gray if mode == "L" else (gray,) * len(mode)).save(file)
    return file


def a_divided_folder(root: Path) -> Path:
    """Classes 2, 10 and moss; two images each to learn from and one for the test."""
    for gray, class_uid in enumerate(("2", "10", "moss")):
        an_image(root / "train" / class_uid / "b.png", gray)
        an_image(root / "train" / class_uid / "a.png", gray + 100)
        an_image(root / "test" / class_uid / "c.png", gray + 200)
    return root


def test_a_class_is_called_what_its_folder_is_called(tmp_path: Path) -> None:
    """Numbers by value, before names; within a class, files by name: a.png before b.png."""
    parts, class_uids = read_folder(a_divided_folder(tmp_path), 6)

    assert class_uids == ("2", "10", "moss")
    assert parts["train"].images[:, 0, 0, 0].tolist() == [100, 0, 101, 1, 102, 2]
    assert parts["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert parts["test"].images[:, 0, 0, 0].tolist() == [200, 201, 202]
    assert parts["validation"].images.shape == (0, 1, 6, 6)


def test_a_validation_folder_is_read_too(tmp_path: Path) -> None:
    """DIR/val/moss/v.png is the one validation image."""
    an_image(a_divided_folder(tmp_path) / "val" / "moss" / "v.png", 77)

    parts, _ = read_folder(tmp_path, 6)

    assert parts["validation"].images.flatten().tolist() == [77] * 36
    assert parts["validation"].labels.tolist() == [2]


def test_a_folder_without_a_test_part_is_split_by_class(tmp_path: Path) -> None:
    """Of 10 and of 2 images, 3 and 1 are drawn for the test: the same ones whenever it is read."""
    for place in range(10):
        an_image(tmp_path / "many" / f"{place}.png", place)
    for place in range(2):
        an_image(tmp_path / "few" / f"{place}.png", place)

    parts, class_uids = read_folder(tmp_path, 6)
    again, _ = read_folder(tmp_path, 6)

    assert class_uids == ("few", "many")
    assert np.bincount(parts["test"].labels).tolist() == [1, 3]
    assert np.bincount(parts["train"].labels).tolist() == [1, 7]
    seen = sorted(
        (label, image[0, 0, 0])
        for part in (parts["train"], parts["test"])
        for label, image in zip(part.labels, part.images, strict=True)
    )
    assert seen == [(0, 0), (0, 1), *((1, place) for place in range(10))]
    assert np.array_equal(parts["test"].images, again["test"].images)


def test_images_are_resized_as_a_whole(tmp_path: Path) -> None:
    """12x4 pixels, black on the left and white on the right, are both at 4x4."""
    a_divided_folder(tmp_path)
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 6:] = 255
    Image.fromarray(wide).save(tmp_path / "train" / "2" / "a.png")

    parts, _ = read_folder(tmp_path, 4)

    assert parts["train"].images.shape == (6, 1, 4, 4)
    assert parts["train"].images[0, 0, 0, [0, 3]].tolist() == [0, 255]


def test_usual_formats_are_read(tmp_path: Path) -> None:
    """8-bit PNG, JPEG, BMP, TIFF and lossless WebP of one gray are that gray."""
    a_divided_folder(tmp_path)
    for place, name in enumerate(("a.png", "b.jpg", "c.bmp", "d.tif", "e.webp", "f.TIFF")):
        file = tmp_path / "train" / "fern" / name
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 6), (80, 80, 80)).save(file, lossless=True)  # only WebP asks
        an_image(tmp_path / "test" / "fern" / f"{place}.tif", 80, mode="1" if place else "L")

    parts, class_uids = read_folder(tmp_path, 6)

    fern = parts["train"].images[parts["train"].labels == class_uids.index("fern")]
    assert np.unique(fern).tolist() == [80]
    assert len(fern) == 6


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path) -> None:
    """A gray pixel of 100 becomes (100, 100, 100) beside images in colour."""
    a_divided_folder(tmp_path)
    an_image(tmp_path / "test" / "2" / "c.png", 9, mode="RGB")

    parts, _ = read_folder(tmp_path, 6)

    assert parts["train"].images[0, :, 0, 0].tolist() == [100, 100, 100]


def test_an_image_is_read_as_viewers_show_it(tmp_path: Path) -> None:
    """EXIF orientation 2 means mirrored: what is stored left is shown right, and read right."""
    a_divided_folder(tmp_path)
    stored = Image.new("L", (6, 6))
    stored.putpixel((0, 0), 250)
    exif = stored.getexif()
    exif[0x0112] = 2
    stored.save(tmp_path / "train" / "2" / "a.png", exif=exif)

    parts, _ = read_folder(tmp_path, 6)

    assert parts["train"].images[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 250]


def test_what_systems_hide_in_folders_is_passed_over(tmp_path: Path) -> None:
    """.DS_Store and Thumbs.db are no images, and nobody put them there."""
    a_divided_folder(tmp_path)
    (tmp_path / "train" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "moss" / "Thumbs.db").write_bytes(b"x")

    parts, _ = read_folder(tmp_path, 6)

    assert len(parts["train"]) == 6


def test_without_an_image_size_all_images_have_one_size(tmp_path: Path) -> None:
    """6x6 is kept; one image of 7x6 among them is named, with what to set."""
    a_divided_folder(tmp_path)

    parts, _ = read_folder(tmp_path, None)
    other = an_image(tmp_path / "test" / "moss" / "z.png", size=(7, 6))

    assert parts["train"].images.shape == (6, 1, 6, 6)
    with pytest.raises(DataError, match="7x6 pixels, other images 6x6; set image_size") as refused:
        read_folder(tmp_path, None)
    assert str(other) in str(refused.value)


def test_dicom_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A file with DICM at byte 128, whatever it is called."""
    file = a_divided_folder(tmp_path) / "train" / "moss" / "scan.png"
    file.write_bytes(bytes(128) + b"DICM" + bytes(100))

    with pytest.raises(DataError, match=r"scan\.png is a DICOM file; export it as PNG with 8 bits"):
        read_folder(tmp_path, 6)


def test_sixteen_bits_are_refused_gray_or_colour(tmp_path: Path) -> None:
    """PNG and TIFF; 16-bit colour too, of which decoders keep half without saying so."""
    a_divided_folder(tmp_path)
    for name in ("gray.png", "gray.tiff"):
        file = tmp_path / "train" / "moss" / name
        Image.fromarray(np.zeros((6, 6), dtype=np.uint16)).save(file)

        with pytest.raises(DataError, match=rf"{name} has 16 bits .* images have 8"):
            read_folder(tmp_path, 6)
        file.unlink()

    file = an_image(tmp_path / "train" / "moss" / "colour.png", mode="RGB")
    content = bytearray(file.read_bytes())
    content[24] = 16  # the header's bit depth; its checksum is not asked before the depth is
    content[29:33] = _crc(bytes(content[12:29]))
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"colour\.png has 16 bits"):
        read_folder(tmp_path, 6)


def _crc(chunk: bytes) -> bytes:
    import zlib

    return zlib.crc32(chunk).to_bytes(4, "big")


def test_numbers_that_are_no_pixels_are_refused(tmp_path: Path) -> None:
    """A TIFF of floats."""
    file = a_divided_folder(tmp_path) / "train" / "moss" / "map.tif"
    Image.fromarray(np.zeros((6, 6), dtype=np.float32)).save(file)

    with pytest.raises(DataError, match=r"map\.tif has 32 bits \(mode F\)"):
        read_folder(tmp_path, 6)


def test_a_stack_of_slices_is_refused(tmp_path: Path) -> None:
    """A TIFF of two pages: which of them would be the image?"""
    file = a_divided_folder(tmp_path) / "train" / "moss" / "stack.tif"
    page = Image.new("L", (6, 6))
    page.save(file, save_all=True, append_images=[page])

    with pytest.raises(DataError, match=r"stack\.tif holds several images"):
        read_folder(tmp_path, 6)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """Text, half a PNG, and a format that is not in the list (GIF)."""
    moss = a_divided_folder(tmp_path) / "train" / "moss"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    half = (tmp_path / "noise.png").read_bytes()[:800]
    (tmp_path / "noise.png").unlink()

    for name, content in (("notes.txt", b"hello"), ("half.png", half), ("old.gif", b"GIF89a")):
        (moss / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} cannot be read as an image"):
            read_folder(tmp_path, 6)
        (moss / name).unlink()


def test_an_image_that_is_too_large_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 pixels against a limit of 35."""
    monkeypatch.setattr(folders, "MOST_PIXELS", 35)

    with pytest.raises(DataError, match="has 6x6 pixels, at most 35 are decoded"):
        read_folder(a_divided_folder(tmp_path), 6)


def test_images_beyond_the_memory_limit_are_refused_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six images of 6x6 take 216 bytes, one more than allowed."""
    monkeypatch.setattr(folders, "LARGEST", 215)

    with pytest.raises(DataError, match="take 216 bytes of memory, the limit is 215"):
        read_folder(a_divided_folder(tmp_path), 6)


def test_every_class_is_in_both_parts(tmp_path: Path) -> None:
    """An empty folder, a class that is only tested, a class with one image and no test part."""
    root = a_divided_folder(tmp_path / "divided")
    (root / "train" / "fern").mkdir()
    with pytest.raises(DataError, match="class 'fern' has no train image"):
        read_folder(root, 6)

    (root / "train" / "fern").rmdir()
    an_image(root / "test" / "oak" / "a.png")
    with pytest.raises(DataError, match="class 'oak' has no train image; add some or remove it"):
        read_folder(root, 6)

    an_image(tmp_path / "single" / "oak" / "a.png")
    with pytest.raises(DataError, match=r"class 'oak' has too few images \(1\); it takes one to"):
        read_folder(tmp_path / "single", 6)


def test_a_folder_of_another_shape_is_explained(tmp_path: Path) -> None:
    """Nothing there, nothing in it, half divided, files beside classes, folders inside classes."""
    with pytest.raises(DataError, match="is not a folder"):
        read_folder(tmp_path / "nowhere", 6)

    with pytest.raises(DataError, match="holds no images; put each into its class's folder"):
        read_folder(tmp_path, 6)

    an_image(tmp_path / "train" / "moss" / "a.png")
    with pytest.raises(DataError, match="has train/ but no test/"):
        read_folder(tmp_path, 6)

    an_image(tmp_path / "flat" / "a.png")
    with pytest.raises(DataError, match="lies beside the classes' folders"):
        read_folder(tmp_path / "flat", 6)

    an_image(tmp_path / "deep" / "moss" / "2024" / "a.png")
    with pytest.raises(DataError, match="2024 is a folder inside a class"):
        read_folder(tmp_path / "deep", 6)


def test_a_class_name_fits_into_a_message(tmp_path: Path) -> None:
    """201 characters are one too many."""
    an_image(a_divided_folder(tmp_path) / "train" / ("m" * 201) / "a.png")

    with pytest.raises(DataError, match="at most 200 characters, this one has 201"):
        read_folder(tmp_path, 6)
