"""A finished model says what it sees, and goes elsewhere with all that there is to know."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from experiments import export
from experiments.export import facts
from experiments.folder import RunFolder
from experiments.prediction import Model, model_file, probabilities, read_model, read_pictures
from learning.shapes import dtype_of, first_model, grown, is_statistic, model_shapes
from schemas.errors import ConfigurationError, DataError
from schemas.messages import DataFacts, ModelName, Tensors, Transforms
from schemas.tensors import model_sha256
from tests.experiments.hands import fedtwin, told

CLASSES = ("0", "7", "cat")


def weights(classes: int = 3, bias: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Tensors:
    """A net of width 1 for gray images; its head looks only at the biases."""
    chance = np.random.Generator(np.random.PCG64(classes))
    made: Tensors = {}
    for name, shape in model_shapes(1, 1, classes).items():
        values: NDArray[Any] = chance.random(shape)
        made[name] = values.astype(dtype_of(name))
    made["fc.weight"] = np.zeros((classes, made["fc.weight"].shape[1]), np.float32)
    made["fc.bias"] = np.array(bias[:classes], np.float32)
    return made


def seeing() -> Tensors:
    """A net of width 8 that looks: its statistics are not trivial, and no two images are alike."""
    chance = np.random.Generator(np.random.PCG64(11))
    made = dict(grown(first_model(1, 8, chance), len(CLASSES), chance))
    for name in filter(is_statistic, made):
        noise = chance.random(made[name].shape, dtype=np.float32) - np.float32(0.5)
        made[name] = made[name] + noise / 2
    made["fc.weight"] = made["fc.weight"] * np.float32(3)
    return made


def registry(**changed: str) -> dict[str, str]:
    """What a run writes into its model's metadata."""
    data = DataFacts(
        name="dots", sha256="0" * 64, channels=1, height=8, width=8, classes=CLASSES,
        transforms=Transforms(mean=(0.5,), std=(0.25,)), encoder_classes=3,
    )  # fmt: skip
    return {
        "classes": json.dumps(CLASSES),
        "class_names": json.dumps(["zero", "seven", "cat"]),
        "data": data.model_dump_json(),
        "data_licence": "CC0",
        "data_citation": "nobody",
        "recipe": "tiny",
        "strategy": "fedka",
        "seed": "1",
        "width": "1",
        "family": "bce",
        "virtual_rows": "2",
        "reference_entropy": "0.5",
        "entropy_threshold": "0.25",
        **changed,
    }


def written(folder: Path, tensors: Tensors, **changed: str) -> Path:
    """The model as a run leaves it; gives its file."""
    run = RunFolder(folder)
    name = ModelName(version=4, sha256=model_sha256(tensors))
    run.write_model(name, tensors, registry(**changed))
    return run.model


def grays(*values: int) -> NDArray[np.uint8]:
    """Images of one gray each, (N, 1, 8, 8)."""
    return np.stack([np.full((1, 8, 8), value, np.uint8) for value in values])


# --- what it says ---------------------------------------------------------------------------------


def test_each_class_has_a_sigmoid_of_its_own_in_one_family() -> None:
    """Logits 0 and ln 3 are 1/2 and 3/4."""
    found = probabilities(np.array([[0.0, math.log(3)]]), "bce")

    assert found[0] == pytest.approx([0.5, 0.75])


def test_classes_share_one_whole_in_the_other() -> None:
    """Logits 0 and ln 3 are 1 to 3: 1/4 and 3/4; also where they are too large for exp."""
    found = probabilities(np.array([[0.0, math.log(3)], [1000.0, 1000.0 + math.log(3)]]), "softmax")

    assert found[0] == pytest.approx([0.25, 0.75])
    assert found[1] == pytest.approx([0.25, 0.75])


def test_a_prediction_names_class_chance_and_doubt() -> None:
    """Logits 0, ln 3, 0 and two virtual zeros: parts 1 3 1 1 1 of 7, of which the entropy is
    4/7 ln 7 + 3/7 ln 7/3 = 1.475 nats; the limit is 0.5 + 0.25."""
    model = Model(weights(bias=(0.0, math.log(3), 0.0)), registry())

    (said,) = model.predictions(grays(100))

    assert (said.uid, said.name) == ("7", "seven")
    assert said.probability == pytest.approx(0.75, abs=1e-6)
    assert said.entropy == pytest.approx(1.475, abs=1e-3)
    assert said.unlike_anything_known


def test_a_sure_model_knows_what_it_sees() -> None:
    """A logit of 9 leaves the others, virtual ones too, e^-9 each: nearly no entropy."""
    model = Model(weights(bias=(0.0, 0.0, 9.0)), registry())

    (said,) = model.predictions(grays(100))

    assert said.name == "cat"
    assert said.entropy < 0.01
    assert not said.unlike_anything_known


def test_a_model_without_classes_says_so() -> None:
    """The first model of a run has no rows; asking it is a mistake, not a crash."""
    with pytest.raises(ConfigurationError, match="no classes"):
        Model(weights(0), registry(classes="[]", class_names="[]")).predictions(grays(1))


# --- the file -------------------------------------------------------------------------------------


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All tensors, single numbers among them, under their hash."""
    tensors = weights()

    read = read_model(written(tmp_path, tensors))

    assert model_sha256(read.weights) == model_sha256(tensors) == read.registry["sha256"]
    assert read.classes == list(CLASSES)
    assert read.limit == 0.75


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    """One bit of one weight: its hash tells."""
    file = written(tmp_path, weights())
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)

    with pytest.raises(DataError, match="damaged"):
        read_model(file)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\xff" * 64])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file of another kind, or a copy that broke off."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)

    with pytest.raises(DataError, match="cannot be read as safetensors"):
        read_model(file)


def test_a_model_of_another_program_lacks_the_registry(tmp_path: Path) -> None:
    """Tensors alone do not say what a row means."""
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, str(tmp_path / "other.safetensors"))

    with pytest.raises(DataError, match=r"lacks classes, .*fedtwin wrote"):
        read_model(tmp_path / "other.safetensors")


def test_a_run_that_goes_on_has_no_model_yet(tmp_path: Path) -> None:
    """There is a manifest and no model: the way to one is told."""
    RunFolder(tmp_path).write_manifest({"run": "tiny"})

    with pytest.raises(DataError, match="fedtwin resume"):
        model_file(tmp_path)


# --- images ---------------------------------------------------------------------------------------


def test_pictures_are_brought_to_the_model(tmp_path: Path) -> None:
    """A large photograph and three small arrays become four gray images of 8x8."""
    Image.new("RGB", (40, 30), (200, 200, 200)).save(tmp_path / "photo.jpg")
    np.savez(tmp_path / "more.npz", images=np.full((3, 4, 4), 9, np.uint8))
    data = Model(weights(), registry()).data

    called, read = read_pictures([tmp_path / "photo.jpg", tmp_path / "more.npz"], data)
    images = read.images

    assert images.shape == (4, 1, 8, 8)
    assert called[0].endswith("photo.jpg")
    assert [each.partition("#")[2] for each in called[1:]] == ["0", "1", "2"]
    assert np.abs(images[0].astype(int) - 200).max() <= 2
    assert (images[1:] == 9).all()
    assert (int(read.resized.sum()), int(read.recoloured.sum())) == (4, 1)


def test_what_was_done_to_images_is_told(tmp_path: Path) -> None:
    """A photograph is not what the model was trained on: its answer may be worth less."""
    file = written(tmp_path, weights(bias=(0.0, 0.0, 9.0)))
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    Image.new("L", (8, 8)).save(tmp_path / "fits.png")

    found = told("predict", file, tmp_path / "photo.png", tmp_path / "fits.png")
    read = fedtwin("predict", file, tmp_path / "photo.png").stdout
    plain = fedtwin("predict", file, tmp_path / "fits.png").stdout

    assert (found["resized"], found["recoloured"]) == (1, 1)
    assert "1 image resized to 8x8, 1 image converted to gray" in read
    assert "resized" not in plain


def test_what_is_no_file_says_what_to_name(tmp_path: Path) -> None:
    """A folder is wrong usage, 2; what is not there is missing data, 4. Each with its remedy."""
    file = written(tmp_path, weights())

    folder, missing = (fedtwin("predict", file, tmp_path / name) for name in (".", "scan.png"))

    assert (folder.exit_code, missing.exit_code) == (2, 4)
    assert f"is a folder: name the images in it, such as {tmp_path}/*.png" in folder.stderr
    assert "scan.png is not there: check the path" in missing.stderr


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    """A text that is called scan.png: exit code 4."""
    file = written(tmp_path, weights())
    (tmp_path / "scan.png").write_text("no image")

    answered = fedtwin("predict", file, tmp_path / "scan.png")

    assert answered.exit_code == 4
    assert "scan.png cannot be read as an image" in answered.stderr


def test_a_model_alone_predicts(tmp_path: Path) -> None:
    """No run folder, no data set: the file is enough, for people and programs."""
    file = written(tmp_path, weights(bias=(0.0, 0.0, 9.0)), family="softmax")
    Image.new("L", (8, 8), 77).save(tmp_path / "scan.png")

    found = told("predict", file, tmp_path / "scan.png")
    read = fedtwin("predict", file, tmp_path / "scan.png").stdout

    (said,) = found["predictions"]
    assert (said["uid"], said["unlike_anything_known"]) == ("cat", False)
    assert said["probability"] == pytest.approx(1 / (1 + 2 * math.exp(-9)), abs=1e-6)
    assert found["family"] == "softmax"
    assert f"{100 * said['probability']:.1f} %" in read


# --- elsewhere ------------------------------------------------------------------------------------


def test_an_exported_model_takes_its_facts_along(tmp_path: Path) -> None:
    """The same bytes, and a page: classes by row, input, output, novelty, licence."""
    file = written(tmp_path, weights())

    words = ("--format", "safetensors", "--out", tmp_path / "mine.safetensors")
    (found,) = told("export", file, *words)["exported"]

    assert (tmp_path / "mine.safetensors").read_bytes() == file.read_bytes()
    page = json.loads(Path(found["facts"]).read_text())
    assert page["classes"][1] == {"row": 1, "uid": "7", "name": "seven"}
    assert (page["input"]["mean"], page["input"]["std"]) == ([0.5], [0.25])
    assert page["novelty"]["limit"] == 0.75
    assert page["data"]["licence"] == "CC0"
    assert load_file(tmp_path / "mine.safetensors").keys() == weights().keys()


@pytest.mark.parametrize(
    ("out", "written_to"),
    [("mine", "mine.safetensors"), ("v1.2", "v1.2.safetensors"), ("a.onnx", "a.safetensors")],
)
def test_an_exported_file_ends_as_its_format(tmp_path: Path, out: str, written_to: str) -> None:
    """Whether the ending was given or not, and where the file is, is told."""
    file = written(tmp_path, weights())

    told_of = fedtwin("export", file, "--format", "safetensors", "--out", tmp_path / out).stdout

    assert (tmp_path / written_to).exists()
    assert f"{tmp_path / written_to}, and {tmp_path / written_to}.json" in told_of


def test_without_the_extra_safetensors_are_written_and_the_rest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing, and how to get it; who asks for ONNX alone gets exit code 2."""
    monkeypatch.setattr(export, "ONNX_NEEDS", ("no_such_package",))
    file = written(tmp_path, weights())

    shown = fedtwin("export", file, "--out", tmp_path / "mine")
    found = told("export", file, "--out", tmp_path / "mine.onnx")
    alone = fedtwin("export", file, "--format", "onnx", "--out", tmp_path / "mine.onnx")

    assert "no_such_package: pip install 'fedtwin[onnx]'" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("next: fedtwin predict")
    assert [each["model"] for each in found["exported"]] == [str(tmp_path / "mine.safetensors")]
    assert "fedtwin[onnx]" in found["missing"]
    assert alone.exit_code == 2
    assert "pip install 'fedtwin[onnx]'" in alone.stderr
    assert not (tmp_path / "mine.onnx").exists()


@pytest.mark.slow  # the exporter takes its time
def test_a_model_is_exported_in_both_formats(tmp_path: Path) -> None:
    """Classes, preprocessing and hash are in each page, and in the ONNX file itself."""
    pytest.importorskip("onnxscript", reason="the extra is not installed: fedtwin[onnx]")
    onnx = pytest.importorskip("onnx")
    file = written(tmp_path, weights())

    found = told("export", file, "--out", tmp_path / "mine.safetensors")

    assert found["missing"] is None
    pages = [json.loads(Path(each["facts"]).read_text()) for each in found["exported"]]
    names = [Path(each["model"]).name for each in found["exported"]]
    assert names == ["mine.safetensors", "mine.onnx"]
    for page in pages:
        assert [each["uid"] for each in page["classes"]] == list(CLASSES)
        assert page["model"]["sha256"] == model_sha256(weights())
        assert page["input"]["mean"] == [0.5]
    graph = onnx.load(str(tmp_path / "mine.onnx"))
    (inside,) = [each.value for each in graph.metadata_props if each.key == "fedtwin"]
    assert json.loads(inside) == pages[1]


def test_the_page_of_each_format_says_what_the_model_expects() -> None:
    """Normalisation is inside an ONNX graph, and everybody's own business before safetensors."""
    model = Model(weights(), registry(version="4", sha256="0" * 64))

    assert facts(model, "onnx")["input"]["values"].startswith("uint8")
    assert facts(model, "safetensors")["input"]["values"].startswith("float32")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "pickle"), "safetensors or onnx"),
        (("--out", "nowhere/model"), "cannot be written to"),
        (("--out", "."), "is a folder"),
        (("--out", "model.safetensors"), "the model itself"),
    ],
)
def test_an_export_that_cannot_be_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """One line and exit code 2; the model stays as it is."""
    before = written(tmp_path, weights()).read_bytes()
    monkeypatch.chdir(tmp_path)

    answered = fedtwin("export", "model.safetensors", *words)

    assert answered.exit_code == 2
    assert said in answered.stderr
    assert Path("model.safetensors").read_bytes() == before


def test_the_graph_that_is_exported_gives_the_run_s_logits() -> None:
    """From raw pixels, normalised inside, as the run's own evaluation: to 1e-5 of a soft-max."""
    import torch

    from experiments.export import normalised

    model = Model(seeing(), registry(width="8"))
    images = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (5, 1, 8, 8), np.uint8)

    with torch.inference_mode():
        logits = normalised(model)(torch.from_numpy(images)).numpy()

    ours, theirs = (probabilities(each, "softmax") for each in (model.logits(images), logits))
    assert np.ptp(ours, axis=0).max() > 0.1
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.slow  # the exporter takes its time
def test_onnx_gives_the_run_s_probabilities(tmp_path: Path) -> None:
    """The file itself, run by ONNX's reference: soft-max equal to 1e-5, for 5 images and for 1.

    The images are told apart (by more than 0.1), so that a graph that does not look would show.
    """
    pytest.importorskip("onnxscript", reason="the extra is not installed: fedtwin[onnx]")
    reference = pytest.importorskip("onnx.reference")
    file = written(tmp_path, seeing(), width="8")
    images = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (5, 1, 8, 8), np.uint8)

    told("export", file, "--format", "onnx", "--out", tmp_path / "model.onnx")
    graph = reference.ReferenceEvaluator(str(tmp_path / "model.onnx"))

    ours = probabilities(read_model(file).logits(images), "softmax")
    assert np.ptp(ours, axis=0).max() > 0.1
    for some in (slice(0, 5), slice(0, 1)):
        (logits,) = graph.run(None, {"images": images[some]})
        assert np.abs(ours[some] - probabilities(logits, "softmax")).max() < 1e-5
