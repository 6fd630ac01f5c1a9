"""What an env was made from: checked where it is made, and a JSON text that makes it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mutual_env.errors import ConfigError, InvalidInputError, UnknownNameError
from mutual_env.prompts import PromptShape
from mutual_env.spaces import MAX_CHARS
from mutual_env.types import JSON
from mutual_env.verifiers import UNSCORED_POLICIES, UnscoredPolicy, VerifierSpec


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """The arguments of `make`, checked and complete. `agents` are names; `task` holds the family's options, `prompt`
    those of a `PromptShape`. `max_turns` and `max_tokens` bound a conversation where an episode has several turns;
    None: the family's own bound, no bound.
    """

    id: str
    verifier: VerifierSpec
    agents: tuple[str, ...] = ("policy_0", "policy_1")
    group_size: int = 8
    prompts_per_round: int = 8
    seed: int = 0
    on_unscored: UnscoredPolicy = "drop"
    unscored_limit: float = 0.05
    max_chars: int = MAX_CHARS
    max_turns: int | None = None
    max_tokens: int | None = None
    prompt: Mapping[str, JSON] = field(default_factory=dict)
    task: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.agents or len(set(self.agents)) != len(self.agents):
            raise InvalidInputError(f"agents must be different names, at least one, got {list(self.agents)}")
        for name in self.agents:
            if not isinstance(name, str) or not name:
                raise InvalidInputError(f"agents must be non-empty strings, got {name!r}")
        for what, least in (("group_size", 1), ("prompts_per_round", 1), ("seed", 0), ("max_chars", 1)):
            whole_number(what, getattr(self, what), least)
        for what in ("max_turns", "max_tokens"):
            if getattr(self, what) is not None:
                whole_number(what, getattr(self, what), 1)
        PromptShape.of(self.prompt)
        if self.on_unscored not in UNSCORED_POLICIES:
            raise UnknownNameError.of("on_unscored", self.on_unscored, UNSCORED_POLICIES)
        if not 0.0 <= self.unscored_limit <= 1.0:
            raise InvalidInputError(f"unscored_limit is a share of the round, from 0 to 1, got {self.unscored_limit!r}")

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("max_turns", "max_tokens", "prompt"):
            if not fields[name]:
                del fields[name]  # an env that does without is written as it always was
        fields["verifier"] = {"name": self.verifier.name, "kwargs": self.verifier.kwargs}
        try:
            return json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as e:
            raise InvalidInputError(
                f"{self.id}: an option has no JSON form ({e}), so this env has no spec to store"
            ) from e

    @classmethod
    def from_json(cls, text: str) -> EnvSpec:
        """The spec that `to_json` wrote; a torn or foreign text is refused."""
        try:
            stored = json.loads(text)
            verifier = VerifierSpec(**stored.pop("verifier"))
            return cls(verifier=verifier, agents=tuple(stored.pop("agents")), **stored)
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as e:
            raise ConfigError(f"not an env spec, {type(e).__name__}: {e}; got {text[:80]!r}") from e


def agent_names(agents: int | Sequence[str]) -> tuple[str, ...]:
    """`policy_0` .. for a number; the names themselves for names."""
    if isinstance(agents, int):
        return tuple(f"policy_{i}" for i in range(whole_number("agents", agents, 1)))
    if isinstance(agents, str):
        raise InvalidInputError(f"agents must be a number or a list of names, got the single string {agents!r}")
    return tuple(agents)


def whole_number(what: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise InvalidInputError(f"{what} must be a whole number of at least {least}, got {value!r}")
    number: int = value.__index__()
    return number
