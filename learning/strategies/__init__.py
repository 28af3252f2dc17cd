"""The methods, by name: one file each, written out here. Imports `learning`, but no torch.

A new method is a file beside these and a name in the list."""

from learning.strategies.fedavg import FEDAVG
from learning.strategies.fedka import (
    FEDKA,
    WITHOUT_ATTENTION,
    WITHOUT_CLASS_BALANCE,
    WITHOUT_SEMANTIC,
    WITHOUT_WEIGHTED_ATTENTION,
)
from learning.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        FEDAVG,
        FEDKA,
        WITHOUT_CLASS_BALANCE,
        WITHOUT_SEMANTIC,
        WITHOUT_ATTENTION,
        WITHOUT_WEIGHTED_ATTENTION,
    )
}
