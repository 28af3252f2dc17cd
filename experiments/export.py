"""A finished model for others: safetensors and ONNX, each with a page of facts beside it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.folder import cannot_write
from experiments.prediction import Model, read_model
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn

FORMATS = ("safetensors", "onnx")
OPSET = 18
ONNX_NEEDS = ("onnx", "onnxscript")
"""Packages of the extra."""
FACTS = "fedtwin"
"""Under which an ONNX file itself holds the page of facts, as JSON."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the page beside it."""

    format: str
    model: str
    facts: str


def export_all(model: Path, out: Path) -> list[Exported]:
    """Write a model.safetensors to `out` in every format that this installation can write.

    Their names differ in their endings. Raises what `export` raises.
    """
    formats = [each for each in FORMATS if each != "onnx" or lacking() is None]
    return [export(model, out, each) for each in formats]


def named(out: Path, format: str) -> Path:
    """`out` with the ending of a format: in place of another format's, or behind its name."""
    if out.name in ("", ".."):
        raise ConfigurationError(f"--out {out} is a folder: name a file, such as {out}/fedtwin")
    stem = out.with_suffix("") if out.suffix.removeprefix(".") in FORMATS else out
    return stem.with_name(f"{stem.name}.{format}")


def lacking() -> str | None:
    """What ONNX takes and is not installed, and how to get it; None where nothing is missing."""
    missing = [name for name in ONNX_NEEDS if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"onnx needs {' and '.join(missing)}: pip install 'fedtwin[onnx]'"


def export(model: Path, out: Path, format: str) -> Exported:
    """Write a model.safetensors to `out` in a format, and its facts to a file beside it.

    Where `out` lacks the format's ending it gets it.

    Raises DataError for a model that cannot be read, ConfigurationError for another format, where
    `out` cannot be written to, and where ONNX is asked for and not installed.
    """
    if format not in FORMATS:
        raise ConfigurationError(f"--format is {' or '.join(FORMATS)}, not {format!r}")
    read = read_model(model)
    if format == "onnx" and (missing := lacking()):
        raise ConfigurationError(f"--format {missing}, or take --format safetensors")
    out = named(out, format)
    beside = out.with_name(f"{out.name}.json")
    try:
        if format == "onnx":
            _write_onnx(read, out)
        else:
            shutil.copyfile(model, out)
        beside.write_text(json.dumps(facts(read, format), indent=2, ensure_ascii=False) + "\n")
    except shutil.SameFileError:
        raise ConfigurationError(f"{out} is the model itself: name another --out") from None
    except OSError as error:
        raise cannot_write(out, error) from None
    return Exported(format, str(out), str(beside))


def facts(model: Model, format: str) -> dict[str, Any]:
    """Everything that whoever runs the model has to know."""
    data, registry = model.data, model.registry
    transforms = data.transforms
    onnx = format == "onnx"
    return {
        "schema": 1,
        "model": {
            "architecture": f"ResNet-18 for small images, width {registry['width']}",
            "version": int(registry["version"]),
            "sha256": registry["sha256"],
            "recipe": registry["recipe"],
            "strategy": registry["strategy"],
            "seed": int(registry["seed"]),
        },
        "classes": [
            {"row": row, "uid": uid, "name": name}
            for row, (uid, name) in enumerate(zip(model.classes, model.names, strict=True))
        ],
        "input": {
            "layout": "NCHW",
            "channels": data.channels,
            "height": data.height,
            "width": data.width,
            "values": "uint8, 0 to 255" if onnx else "float32, (pixel / 255 - mean) / std",
            "mean": transforms.mean,
            "std": transforms.std,
            "normalisation": "inside the model" if onnx else "to be done before the model",
        },
        "output": {
            "values": "logits, one for each row",
            "family": model.family,
            "probability": "sigmoid of each logit" if model.family == "bce" else "soft-max",
        },
        "novelty": {
            "rule": "an image is unlike anything known when the entropy, in nats, of the soft-max"
            " over the logits and `virtual_rows` zeros is above `limit`",
            "virtual_rows": model.virtual_rows,
            "reference_entropy": float(registry["reference_entropy"]),
            "entropy_threshold": float(registry["entropy_threshold"]),
            "limit": model.limit,
        },
        "data": {
            "name": data.name,
            "sha256": data.sha256,
            "licence": registry["data_licence"],
            "citation": registry["data_citation"],
        },
    }


def normalised(model: Model) -> nn.Module:
    """The net behind its normalisation: from uint8 images (N, c, H, W) to logits (N, C)."""
    import torch

    from learning.nets import from_weights

    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = from_weights(model.weights)
            transforms = model.data.transforms
            self.mean = torch.tensor(transforms.mean).reshape(1, -1, 1, 1)
            self.std = torch.tensor(transforms.std).reshape(1, -1, 1, 1)

        def forward(self, images: torch.Tensor) -> Any:
            return self.net((images.to(torch.float32) / 255 - self.mean) / self.std)

    return Normalised().eval()


def _write_onnx(model: Model, out: Path) -> None:
    """As a graph that takes any number of images, its facts in its metadata."""
    import torch

    data = model.data
    example = torch.zeros((2, data.channels, data.height, data.width), dtype=torch.uint8)
    program = torch.onnx.export(
        normalised(model),
        (example,),
        input_names=["images"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamic_shapes={"images": {0: torch.export.Dim("count", min=1)}},
        verbose=False,
        dynamo=True,
    )
    assert program is not None  # where no file was named
    program.model.metadata_props[FACTS] = json.dumps(facts(model, "onnx"), ensure_ascii=False)
    program.save(str(out), external_data=False)
