"""The Shared Experience Exchange: where policies leave typed records for each other."""

from sharing.exchange.memory import InMemoryExchange
from sharing.exchange.protocol import Exchange, Reading

__all__ = ["Exchange", "InMemoryExchange", "Reading"]
