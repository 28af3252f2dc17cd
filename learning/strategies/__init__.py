"""The methods, by name: one file each, written out here. Imports `learning`, but no torch.

A new method is a file beside these and a name in the list; one of another package is found by its
entry point (`learning.strategies.choice`).
"""

from learning.strategies.fedavg import FEDAVG
from learning.strategies.fedcurv import FEDCURV
from learning.strategies.fedka import (
    FEDKA,
    WITHOUT_ATTENTION,
    WITHOUT_CLASS_BALANCE,
    WITHOUT_SEMANTIC,
    WITHOUT_WEIGHTED_ATTENTION,
)
from learning.strategies.fedntd import FEDNTD
from learning.strategies.fedprox import FEDPROX
from learning.strategies.flwf2t import FLWF2T
from learning.strategies.glfc import GLFC
from learning.strategies.icarl import ICARL
from learning.strategies.joint import JOINT, ORACLE
from learning.strategies.lga import LGA
from learning.strategies.lwm import LWM
from learning.strategies.scaffold import SCAFFOLD
from learning.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        FEDAVG,
        ICARL,
        LWM,
        GLFC,
        LGA,
        FEDKA,
        WITHOUT_CLASS_BALANCE,
        WITHOUT_SEMANTIC,
        WITHOUT_ATTENTION,
        WITHOUT_WEIGHTED_ATTENTION,
        FEDPROX,
        SCAFFOLD,
        FEDNTD,
        FLWF2T,
        FEDCURV,
        JOINT,
        ORACLE,
    )
}
