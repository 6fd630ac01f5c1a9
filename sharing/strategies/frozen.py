"""A control of every strategy: peers that act and publish, and do not learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class FrozenPeers(SharingWrapper):
    """The lessons below, and none for the `agents` named: these stay as they began, and the others learn from them.

    Around any strategy; what a reader gains beside a frozen peer it does not owe to the peer's learning. Nobody named:
    exactly the lessons below. An update without lessons changes no bit of a policy, but its version counts on.
    """

    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(self, env: Any, *, agents: Sequence[str], **common: Unpack[Common]) -> None:
        super().__init__(env, **common)
        if isinstance(agents, str):
            raise ConfigError(f"agents must be a list of names, got {agents!r}")
        self._frozen = frozenset(agents)

    def share(self, situation: Situation) -> Shared:
        is_frozen = situation.reader in self._frozen
        return Shared(() if is_frozen else situation.lessons, {"frozen": float(is_frozen)})
