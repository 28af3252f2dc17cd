"""What all tests have in common."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later garbage collection.

    Torch, scikit-learn and the tests are a million objects that live as long as the process:
    going through them again and again costs a tenth of all the time, here and in forked workers.
    """
    gc.collect()
    gc.freeze()
