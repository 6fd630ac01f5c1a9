"""Exchanges by name: ours, and those of other packages (entry-point group `mutual_env.exchanges`).

A target is called with the place in the run's directory that is the exchange's, and its options:

    [project.entry-points."mutual_env.exchanges"]
    acme-queue = "acme:QueueExchange"                    # QueueExchange(path, **options)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mutual_env import options as typed
from mutual_env.catalogue import Catalogue
from mutual_env.errors import ConfigError
from sharing.exchange.protocol import Exchange

OpenExchange: TypeAlias = Callable[..., Exchange]

_OWN = {
    "sqlite": "sharing.exchange.sqlite:SQLiteExchange",
    "memory": "sharing.exchange.memory:InMemoryExchange.at",
    "ray": "sharing.exchange.ray:RayExchange.at",
}
_CATALOGUE: Catalogue[OpenExchange] = Catalogue("exchange", "mutual_env.exchanges", _OWN)


def names() -> list[str]:
    """Every name that `make` answers to, ours first."""
    return [*_OWN, *(name for name in _CATALOGUE.names() if name not in _OWN)]


def register(name: str, target: str | OpenExchange) -> None:
    """Make an exchange known by name in this process. A package does it for good with an entry point."""
    _CATALOGUE.register(name, target)


def target(name: str) -> str | OpenExchange:
    """What a name stands for, not yet imported."""
    return _CATALOGUE.target(name)


def make(name: str, path: Path, **options: Any) -> Exchange:
    """The named exchange, at the place where it may keep what it keeps."""
    check_options(name, options)
    made = _CATALOGUE.load(name)(path, **options)
    if not isinstance(made, Exchange):
        raise ConfigError(f"exchange {name!r} must have publish, read, scan and close, got {made!r}")
    return made


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise on an option that the exchange does not take, naming the nearest that it does, and on a wrong value."""
    if "path" in options:
        raise ConfigError(f"exchange {name!r} is told its path by the run: leave the option 'path' out")
    typed.check_options(f"exchange {name!r}", _CATALOGUE.load(name), options, complete=True, provided=["path"])
