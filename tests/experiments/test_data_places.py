"""Where the data of a run lie: found again from anywhere, moved, gone, or no longer the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments import runner
from experiments.folder import RunFolder
from experiments.summary import summary
from producers.datasets import load
from schemas.errors import DataError
from tests.experiments.hands import (
    Interrupted,
    fedtwin,
    goes_on,
    interrupted_after,
    local,
    told,
    two_stages,
)

pytestmark = pytest.mark.usefixtures("blank_figures")


def cells(file: Path, shift: int = 0) -> Path:
    """A file of one's own, in MedMNIST's form; `shift` makes other images of it."""
    digits = load("digits", file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        train_images=digits.train.images[:400, 0] + np.uint8(shift),
        train_labels=digits.train.labels[:400],
        test_images=digits.test.images[:, 0],
        test_labels=digits.test.labels,
    )
    return file


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on `npz:sets/cells.npz`, interrupted; then somebody goes to another folder."""
    cells(tmp_path / "work" / "sets" / "cells.npz")
    monkeypatch.chdir(tmp_path / "work")
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        runner.start(
            two_stages(dataset="npz:sets/cells.npz"),
            folder,
            local(folder),
            watch=interrupted_after(1),
        )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_a_run_finds_its_data_from_any_working_directory(begun: Path, tmp_path: Path) -> None:
    """The manifest has the absolute path; the configuration, which travels, has none of it."""
    manifest = RunFolder(begun).read_manifest()

    goes_on(begun)

    assert manifest["data"]["place"] == f"npz:{tmp_path / 'work' / 'sets' / 'cells.npz'}"
    assert manifest["configuration"]["dataset"] == "npz:sets/cells.npz"
    assert summary(begun)["status"] == "done"


def test_more_of_the_same_data_is_injected_from_any_working_directory(begun: Path) -> None:
    """The run's own data set is that of the manifest, too."""
    goes_on(begun)

    assert told("inject", begun, "--entity", "entity-000", "--classes", "7")["classes"] == ["7"]


@pytest.mark.parametrize(
    "there", ["sets/cells.npz", pytest.param("cells.npz", marks=pytest.mark.slow)]
)
def test_data_that_moved_are_named_by_their_new_folder(
    begun: Path, tmp_path: Path, there: str
) -> None:
    """Under the path that the recipe named, or with the file alone; from then on they are there."""
    new = tmp_path / "archive" / there
    new.parent.mkdir(parents=True)
    (tmp_path / "work" / "sets" / "cells.npz").rename(new)

    gone = fedtwin("resume", begun)
    runner.resume(begun, local(tmp_path / "archive"))

    assert gone.exit_code == 4
    assert "work/sets/cells.npz is gone" in gone.stderr
    assert "--data-dir" in gone.stderr
    assert summary(begun)["status"] == "done"
    assert RunFolder(begun).read_manifest()["data"]["place"] == f"npz:{new}"


def test_another_data_folder_that_has_no_such_file_changes_nothing(
    begun: Path, tmp_path: Path
) -> None:
    """The data are where they were, so they are found there."""
    runner.resume(begun, local(tmp_path / "elsewhere"))

    assert summary(begun)["status"] == "done"


def test_data_that_changed_are_refused_with_both_hashes(begun: Path, tmp_path: Path) -> None:
    """Exit code 4, and nothing is trained; the true file, elsewhere, is taken in its place."""
    file = tmp_path / "work" / "sets" / "cells.npz"
    before = RunFolder(begun).read_manifest()
    cells(tmp_path / "backup" / "cells.npz")
    cells(file, shift=1)
    now = load(f"npz:{file}", tmp_path, image_size=8).sha256

    refused = fedtwin("resume", begun)

    assert refused.exit_code == 4
    assert before["data"]["sha256"] in refused.stderr
    assert now in refused.stderr
    assert str(file) in refused.stderr
    assert RunFolder(begun).read_manifest() == before
    runner.resume(begun, local(tmp_path / "backup"))
    assert summary(begun)["status"] == "done"


def test_a_run_of_before_places_were_noted_goes_on_where_it_began(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest has no place: the path is read as it was then, from the working directory."""
    folder = RunFolder(begun)
    manifest = folder.read_manifest()
    del manifest["data"]["place"]
    folder.write_manifest(manifest)

    with pytest.raises(DataError, match="is gone"):
        goes_on(begun)
    monkeypatch.chdir(tmp_path / "work")
    goes_on(begun)

    assert summary(begun)["status"] == "done"
