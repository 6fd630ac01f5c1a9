"""What policies share, and how: the exchange, the strategies, the teachers."""

from sharing.exchange import Exchange, InMemoryExchange, RayExchange, Reading, ReplayExchange, SQLiteExchange, export
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
    "RayExchange",
    "Reading",
    "Record",
    "ReplayExchange",
    "Rollout",
    "SQLiteExchange",
    "Shared",
    "SharingWrapper",
    "Situation",
    "Statistics",
    "Stored",
    "Success",
    "SuccessGatedTransfer",
    "export",
    "make",
    "names",
    "register",
]
