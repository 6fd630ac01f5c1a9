"""What a strategy is given, what it answers, and the options that all of them take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

from mutual_env.errors import ConfigError, UnknownNameError
from mutual_env.types import AgentInfo, Group, Lesson, Metrics
from sharing.admission import Limits, Verify
from sharing.edges import PerEdge
from sharing.exchange.protocol import Exchange
from sharing.records import KINDS, Kind, Statistics
from sharing.shaping import SoftOverlong, Truncated

Credit: TypeAlias = Literal["own rollouts", "peers' rollouts", "teacher"]
Peers: TypeAlias = int | Sequence[str] | Mapping[str, Sequence[str]] | None


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a strategy knows when it decides what one reader learns this round.

    `groups` are the reader's own, one for each prompt, experience without a verdict left out; `lessons` are those
    of the strategy below. What peers published is found by task id and author: `rollouts` and `successes` as
    groups of experience (a success has text and no token trace), `statistics` as records. Authors are in the order
    of their names.
    """

    reader: str
    round: int
    seed: int
    groups: tuple[Group, ...]
    lessons: tuple[Lesson, ...]
    rollouts: Mapping[str, Mapping[str, Group]]
    successes: Mapping[str, Mapping[str, Group]]
    statistics: Mapping[str, Mapping[str, Statistics]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the reader learns, and what is worth knowing about it. The metrics' names get the prefix "share/"."""

    lessons: tuple[Lesson, ...]
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Sampled:
    """A round that has been verified and published, and has taught nothing yet; or one that has further turns, with
    what the agents observe. `sent` holds the bytes that each agent
    sent, by kind, for each strategy of the stack, the outermost first."""

    infos: Mapping[str, AgentInfo]
    sent: tuple[Mapping[str, Mapping[str, int]], ...] = ()
    observations: Mapping[str, Any] = field(default_factory=dict)


INHERITED = ("length_penalty", "truncated")
"""The options of all strategies that one has from the strategy below it, unless told."""


class Common(TypedDict, total=False):
    """The options that every strategy takes.

    exchange       where records go and come from; default: that of the strategy below, or one in this process's memory
    peers          whom a reader reads: None (everybody), n (the next n agents of this env, in a ring by name), names,
                   or names for each reader
    max_staleness  how many rounds old a peer's record may be; None: any round, later ones too (a stored run)
    wait           how many seconds to wait, at most, until every named peer has published on this round's tasks
    publish        record kinds to publish beside those that the strategy itself reads: "rollout", "statistics",
                   "success"
    reverify       verify again, with this env's verifier, what was not published by this env
    verify         how to do that; default: the env's own `verify`
    limits         what is plausible in a stranger's record, as `Limits` or its fields
    trust          the weight of what peers wrote, for all, each reader, or each reader and author (`sharing.edges`):
                   lessons on a peer's experience are multiplied by it, its statistics count that often, and an author
                   with trust 0 is not heard at all
    max_divergence the largest share of replies in a peer's conversation that this env would not have given the reader
                   (`sharing.dialogue`); what is above is turned away. 1.0: everything is taken, and the share measured
    length_penalty a soft overlong penalty, as `SoftOverlong` or its fields; default: that of the strategy below
    truncated      "keep", or "mask": completions that were cut off are not trained on; default: that of the strategy
                   below
    """

    exchange: Exchange | None
    peers: Peers
    max_staleness: int | None
    wait: float
    publish: Collection[Kind]
    reverify: bool
    verify: Verify | None
    limits: Limits | Mapping[str, Any]
    trust: PerEdge
    max_divergence: float
    length_penalty: SoftOverlong | Mapping[str, Any] | None
    truncated: Truncated


def check_common(common: Common) -> None:
    """Raise a sentence where these options cannot be meant."""
    for name in common:
        if name not in Common.__annotations__:
            raise UnknownNameError.of("option", name, Common.__annotations__)
    staleness, wait, peers = common.get("max_staleness", 0), common.get("wait", 0.0), common.get("peers")
    if staleness is not None and staleness < 0:
        raise ConfigError(f"max_staleness must be at least 0 rounds, or None for any, got {staleness}")
    if wait < 0 or (wait and (peers is None or isinstance(peers, int))):
        raise ConfigError(f"wait={wait} needs to know for whom: name them in peers=[...]")
    if isinstance(peers, str) or (isinstance(peers, int) and peers < 0):
        raise ConfigError(f"peers must be None, a number of at least 0, names, or names for each reader, got {peers!r}")
    for reader, names in peers.items() if isinstance(peers, Mapping) else ():
        if isinstance(names, str):
            raise ConfigError(f"peers of {reader!r} must be a list of names, got {names!r}: write [{names}]")
    for kind in common.get("publish", ()):
        if kind not in KINDS:
            raise UnknownNameError.of("record kind", kind, KINDS)
