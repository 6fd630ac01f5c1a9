"""Strategies by name: a dictionary, and an entry point for those of other packages."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import Any

from mutual_env.errors import ConfigError, UnknownNameError
from sharing.exchange.protocol import Exchange
from sharing.strategies.ftis import FilteredTruncatedSampling
from sharing.strategies.graft import Graft
from sharing.strategies.hacpo import Hacpo
from sharing.strategies.independent import Independent
from sharing.strategies.kdrl import KnowledgeDistillationRL
from sharing.strategies.luffy import Luffy
from sharing.strategies.offline import OfflineDistillation
from sharing.strategies.prp import PeerRolloutPooling
from sharing.strategies.sapo import Sapo
from sharing.strategies.sgt import SuccessGatedTransfer
from sharing.strategies.trrd import TrustRegionRatioDistillation
from sharing.strategies.xgrpo import CrossPolicyAdvantageSharing
from sharing.wrapper import Common, SharingWrapper, credits_below

ENTRY_POINT_GROUP = "mutual_env.strategies"

_STRATEGIES: dict[str, type[SharingWrapper]] = {
    "independent": Independent,
    "prp": PeerRolloutPooling,
    "xgrpo": CrossPolicyAdvantageSharing,
    "sgt": SuccessGatedTransfer,
    "graft": Graft,
    "hacpo": Hacpo,
    "ftis": FilteredTruncatedSampling,
    "luffy": Luffy,
    "sapo": Sapo,
    "trrd": TrustRegionRatioDistillation,
    "kdrl": KnowledgeDistillationRL,
    "offline": OfflineDistillation,
}
_ALIASES = {
    "grpo": "independent",
    "peer_rollout_pooling": "prp",
    "cross_policy_advantage_sharing": "xgrpo",
    "success_gated_transfer": "sgt",
    "f-tis": "ftis",
    "rlad": "trrd",
    "kd-rl": "kdrl",
    "offline_distillation": "offline",
}


def names() -> list[str]:
    """Every name that `make` answers to, aliases and other packages' strategies included."""
    foreign = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted({*_STRATEGIES, *_ALIASES, *foreign})


def register(name: str, strategy: type[SharingWrapper]) -> None:
    """Make a strategy known by name in this process. A package does it for good with an entry point."""
    if not (isinstance(strategy, type) and issubclass(strategy, SharingWrapper)):
        raise ConfigError(f"strategy {name!r} must be a subclass of sharing.SharingWrapper, got {strategy!r}")
    if name in _ALIASES or _STRATEGIES.get(name, strategy) is not strategy:
        raise ConfigError(f"strategy {name!r} is taken: choose another name")
    _STRATEGIES[name] = strategy


def strategy(name: str) -> type[SharingWrapper]:
    """The class behind a name or an alias."""
    key = _ALIASES.get(name, name)
    if key in _STRATEGIES:
        return _STRATEGIES[key]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            register(name, point.load())
            return _STRATEGIES[name]
    raise UnknownNameError.of("strategy", name, names())


def make(name: str, env: Any, *, exchange: Exchange | None = None, **options: Any) -> SharingWrapper:
    """The named strategy around an env.

    A strategy that adds to own lessons (SGT, a teacher) gets `Independent` below it where the env has none, and
    options that are `Independent`'s go there.
    """
    cls = strategy(name)
    mine, below = options_of(cls), {}
    if cls.needs - credits_below(env).keys():
        below = {k: options.pop(k) for k in list(options) if k not in mine and k in options_of(Independent)}
        _refuse_unknown(name, options, {*mine, *options_of(Independent)})
        env = Independent(env, exchange=exchange, **below)
    _refuse_unknown(name, options, mine)
    for option in _required(cls):
        if option not in options:
            raise ConfigError(f"strategy {name!r} needs the option {option!r}: see the docstring of {cls.__name__}")
    return cls(env, exchange=exchange, **options)


def options_of(cls: type[SharingWrapper]) -> set[str]:
    """The names of a strategy's options, those of every strategy included."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    own = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return own | set(Common.__annotations__)


def _required(cls: type[SharingWrapper]) -> list[str]:
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def _refuse_unknown(name: str, options: dict[str, Any], known: set[str]) -> None:
    for option in options:
        if option not in known:
            raise UnknownNameError.of(f"option of strategy {name!r}", option, known - {"exchange"})
