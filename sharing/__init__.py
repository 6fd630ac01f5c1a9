"""What policies share, and how: the exchange, the strategies, the teachers."""

from sharing.exchange import Exchange, InMemoryExchange, Reading
from sharing.records import KINDS, Kind, Origin, Record, Rollout, Statistics, Stored, Success
from sharing.registry import make, names, register
from sharing.strategies.independent import Independent
from sharing.strategies.sgt import SuccessGatedTransfer
from sharing.wrapper import Shared, SharingWrapper, Situation

__all__ = [
    "KINDS",
    "Exchange",
    "InMemoryExchange",
    "Independent",
    "Kind",
    "Origin",
    "Reading",
    "Record",
    "Rollout",
    "Shared",
    "SharingWrapper",
    "Situation",
    "Statistics",
    "Stored",
    "Success",
    "SuccessGatedTransfer",
    "make",
    "names",
    "register",
]
