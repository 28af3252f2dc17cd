"""The doctor looks at a real machine; here at its parts, in the stories of the command at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import doctor
from experiments.check import Check
from tests.experiments.hands import fedtwin, told


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_a_torch_that_cannot_be_imported_is_cause_and_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broken installation breaks a process of its own, and the last line of its trace is told."""
    monkeypatch.setattr(doctor, "ASK_TORCH", "raise ImportError('libtorch.so is missing')")

    found = named(list(doctor.checks(Path())), "torch")

    assert not found.fine
    assert found.needed
    assert found.cause == "ImportError: libtorch.so is missing"
    assert "pip install" in found.remedy


def test_everything_that_is_missing_has_a_cause_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever this machine lacks; what a run needs is here, or these tests would not run."""
    monkeypatch.setattr(
        doctor,
        "ASK_TORCH",
        'print(\'{"version": "2.6.0+cpu", "threads": 2, "instructions": "AVX2"}\')',
    )
    monkeypatch.chdir(tmp_path)

    checks = list(doctor.checks(tmp_path))

    assert all(check.fine for check in checks if check.needed)
    assert all(check.cause and check.remedy for check in checks if not check.fine)
    assert named(checks, "torch").found == "2.6.0+cpu, AVX2, up to 2 threads"
    assert not named(checks, "data cifar100").fine
    assert not list(tmp_path.iterdir())


def test_an_old_torch_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.5 is older than 2.6, as numbers and not as words: so 2.10 is newer."""
    told = '{"version": "%s", "threads": 1, "instructions": "AVX2"}'
    fine = {}
    for version in ("2.5.1", "2.10.0"):
        monkeypatch.setattr(doctor, "ASK_TORCH", f"print('{told % version}')")
        fine[version] = named(list(doctor.checks(Path())), "torch").fine

    assert fine == {"2.5.1": False, "2.10.0": True}


def test_a_service_that_has_an_address_and_cannot_be_reached_ends_with_3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was configured is meant to be there; where nobody names a service nothing is missed."""
    fine = 'print(\'{"version": "2.6.0+cpu", "threads": 2, "instructions": "AVX2"}\')'
    monkeypatch.setattr(doctor, "ASK_TORCH", fine)
    monkeypatch.chdir(tmp_path)
    none = told("doctor")
    monkeypatch.setenv("FEDTWIN_REDIS", "127.0.0.1:1")
    refused = fedtwin("doctor")

    assert (none["fit"], none["away"]) == (True, [])
    assert refused.exit_code == 3
    (line,) = (line for line in refused.stdout.splitlines() if line.startswith("AWAY"))
    assert line.split() == ["AWAY", "redis", "127.0.0.1:1"]
    assert refused.stdout.splitlines()[-1].startswith("next: start what is AWAY")
