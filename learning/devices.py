"""Where a net may be computed besides the processor, and whether that is here."""

from __future__ import annotations

CPU = "cpu"


def missing(device: str) -> str | None:
    """Why nothing can be computed on `cuda` or `mps` here; None where it can.

    Torch is imported to ask, but not for the processor, which is always there.
    """
    if device == CPU:
        return None
    import torch

    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if there:
        return None
    return f"device={device} is not here: torch {torch.__version__} finds none; take device={CPU}"
