"""The Shared Experience Exchange: where policies leave typed records for each other."""

from sharing.exchange.memory import InMemoryExchange
from sharing.exchange.parquet import export
from sharing.exchange.protocol import Exchange, Reading
from sharing.exchange.ray import RayExchange
from sharing.exchange.replay import ReplayExchange
from sharing.exchange.sqlite import SQLiteExchange

__all__ = ["Exchange", "InMemoryExchange", "RayExchange", "Reading", "ReplayExchange", "SQLiteExchange", "export"]
