"""Strategies by name: a dictionary, and the entry-point group `mutual_env.strategies` for those of other packages."""

from __future__ import annotations

import inspect
from typing import Any

from mutual_env.catalogue import Catalogue
from mutual_env.errors import ConfigError, UnknownNameError
from mutual_env.options import check_options
from sharing.exchange.protocol import Exchange
from sharing.situation import INHERITED, Common
from sharing.wrapper import SharingWrapper, credits_below

OWN = {
    "independent": "sharing.strategies.independent:Independent",
    "prp": "sharing.strategies.prp:PeerRolloutPooling",
    "xgrpo": "sharing.strategies.xgrpo:CrossPolicyAdvantageSharing",
    "sgt": "sharing.strategies.sgt:SuccessGatedTransfer",
    "graft": "sharing.strategies.graft:Graft",
    "hacpo": "sharing.strategies.hacpo:Hacpo",
    "ftis": "sharing.strategies.ftis:FilteredTruncatedSampling",
    "luffy": "sharing.strategies.luffy:Luffy",
    "sapo": "sharing.strategies.sapo:Sapo",
    "trrd": "sharing.strategies.trrd:TrustRegionRatioDistillation",
    "topd": "sharing.strategies.topd:TrustRegionPolicyDistillation",
    "kdrl": "sharing.strategies.kdrl:KnowledgeDistillationRL",
    "offline": "sharing.strategies.offline:OfflineDistillation",
    "memory": "sharing.strategies.memory:RescueMemory",
    "auto": "sharing.strategies.auto:Auto",
    "corl": "sharing.strategies.corl:CoRL",
    "placebo": "sharing.strategies.placebo:PlaceboRescue",
    "frozen": "sharing.strategies.frozen:FrozenPeers",
}
_CATALOGUE: Catalogue[type[SharingWrapper]] = Catalogue("strategy", "mutual_env.strategies", OWN)
_ALIASES = {
    "grpo": "independent",
    "peer_rollout_pooling": "prp",
    "cross_policy_advantage_sharing": "xgrpo",
    "success_gated_transfer": "sgt",
    "f-tis": "ftis",
    "rlad": "trrd",
    "top-d": "topd",
    "kd-rl": "kdrl",
    "offline_distillation": "offline",
    "rescue_memory": "memory",
    "co-rl": "corl",
    "placebo_rescue": "placebo",
    "frozen_peers": "frozen",
}


def names() -> list[str]:
    """Every name that `make` answers to, aliases and other packages' strategies included."""
    return sorted({*_CATALOGUE.names(), *_ALIASES})


def register(name: str, strategy: type[SharingWrapper]) -> None:
    """Make a strategy known by name in this process. A package does it for good with an entry point."""
    if name in _ALIASES:
        raise ConfigError(f"strategy {name!r} is taken: it already names {_ALIASES[name]!r}; choose another name")
    _CATALOGUE.register(name, _checked(name, strategy))


def target(name: str) -> str | type[SharingWrapper]:
    """What a name or an alias stands for, not yet imported."""
    return _CATALOGUE.target(canonical(name))


def canonical(name: str) -> str:
    """The name that an alias is another one of; any other name as it is."""
    return _ALIASES.get(name, name)


def strategy(name: str) -> type[SharingWrapper]:
    """The class behind a name or an alias."""
    if name not in names():
        raise UnknownNameError.of("strategy", name, names())
    return _checked(name, _CATALOGUE.load(_ALIASES.get(name, name)))


def _checked(name: str, strategy: object) -> type[SharingWrapper]:
    if not (isinstance(strategy, type) and issubclass(strategy, SharingWrapper)):
        raise ConfigError(f"strategy {name!r} must be a subclass of sharing.SharingWrapper, got {strategy!r}")
    return strategy


def make(name: str, env: Any, *, exchange: Exchange | None = None, **options: Any) -> SharingWrapper:
    """The named strategy around an env.

    A strategy that adds to own lessons (SGT, a teacher) gets `Independent` below it where the env has none, and
    options that are `Independent`'s go there, with those that say how rewards are seen.
    """
    cls = strategy(name)
    mine, below = options_of(cls), {}
    if cls.needs - credits_below(env).keys():
        independent = strategy("independent")
        theirs = options_of(independent)
        below = {k: options.pop(k) for k in list(options) if k in theirs and (k in INHERITED or k not in mine)}
        _refuse_unknown(name, options, {*mine, *theirs})
        check_options(f"strategy {name!r}", independent, below)
        env = independent(env, exchange=exchange, **below)
    _refuse_unknown(name, options, mine)
    check_options(f"strategy {name!r}", cls, options, complete=True, provided=("self", "env"))
    return cls(env, exchange=exchange, **options)


def options_of(cls: type[SharingWrapper]) -> set[str]:
    """The names of a strategy's options, those of every strategy included."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    own = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return own | set(Common.__annotations__)


def _refuse_unknown(name: str, options: dict[str, Any], known: set[str]) -> None:
    for option in options:
        if option not in known:
            raise UnknownNameError.of(f"option of strategy {name!r}", option, known - {"exchange"})
