"""The envs of a run: those that its policies train in, under the run's strategy, and the one of the evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mutual_env
import sharing
from learners.run.config import EnvConfig, EvaluationConfig, RunConfig, SharingConfig, layers
from learners.run.loop import SharedEnv, TaskEnv
from mutual_env.errors import ConfigError, PlayersError
from mutual_env.interaction import Speaker
from mutual_env.options import check_value
from mutual_env.seeding import derive_seed
from mutual_env.verifiers import VerifierPool
from mutual_env.waves import Waves
from sharing.exchange import Exchange

_THE_RUNS = {
    "seed": "set `seed` of the run",
    **dict.fromkeys(("agents", "pool", "seats", "id", "env_id", "task_source"), "the run gives it"),
    **{
        name: f"set env.{name} (of evaluations: evaluation.prompts, evaluation.samples)"
        for name in ("group_size", "prompts_per_round", "on_unscored", "unscored_limit", "max_turns", "max_tokens")
    },
}
_NOBODY_TO_ANSWER = (
    "its agents answer one another, and resources.mode=asynchronous gives each policy an env of its own, where nobody "
    "else is: set resources.mode=synchronous"
)


@dataclass(frozen=True, slots=True)
class Envs:
    """Makes them. `apart`: each policy has an env of its own, and meets its peers in the exchange alone. `seats`: who
    sits in those of the family."""

    env: EnvConfig
    sharing: SharingConfig
    evaluation: EvaluationConfig
    policies: tuple[str, ...]
    seed: int
    apart: bool
    seats: Mapping[str, Speaker] = field(default_factory=dict)

    @classmethod
    def of(cls, config: RunConfig, *, apart: bool, seats: Mapping[str, Speaker] | None = None) -> Envs:
        policies = tuple(config.policies)
        return cls(config.env, config.sharing, config.evaluation, policies, config.seed, apart, seats or {})

    def together(self) -> list[list[str]]:
        """The policies, env by env."""
        return [[name] for name in self.policies] if self.apart else [list(self.policies)]

    def shared(self, names: Sequence[str], exchange: Exchange, pool: VerifierPool | None = None) -> SharedEnv:
        """The env that the loop of these policies trains in."""
        stack = layers(self.sharing)
        for name, remedy in (("exchange", "set sharing.exchange"), ("verify", "set env.options.verifier")):
            for where, layer in stack:
                if name in layer.options:
                    raise ConfigError(f"{where}.options.{name} is not for a configuration to say: {remedy}")
        env: Any = self._own_env(names, pool) if self.apart else self._make(agents=list(names), **_given(pool))
        if self.env.refills or self.env.spare_prompts:
            env = Waves(env, refills=self.env.refills, spare_prompts=self.env.spare_prompts)
        for _, layer in reversed(stack):
            options = self._options_apart(layer.options) if self.apart else layer.options
            env = sharing.make(layer.strategy, env, exchange=exchange, **options)
        made: SharedEnv = env
        return made

    def held_out(self, names: Sequence[str], pool: VerifierPool | None = None) -> TaskEnv | None:
        """The env of the evaluations: the same task family, on tasks that training never draws. None: never."""
        evaluation = self.evaluation
        if evaluation.every == 0:
            return None
        settings = {
            "agents": list(names),
            "prompts_per_round": evaluation.prompts,
            "group_size": evaluation.samples,
            "seed": derive_seed(self.seed, "evaluation"),
        }
        return self._make(**settings, **_own("evaluation.options", evaluation.options), **_given(pool))

    def _own_env(self, names: Sequence[str], pool: VerifierPool | None) -> TaskEnv:
        """One policy's, which nobody else acts in."""
        try:
            env = self._make(agents=list(names), **_given(pool))
        except PlayersError as error:
            raise ConfigError(f"{self.env.id}: {_NOBODY_TO_ANSWER}") from error
        if env.joint and len(self.policies) > 1:
            env.close()
            raise ConfigError(f"{self.env.id}: {_NOBODY_TO_ANSWER}")
        return env

    def _make(self, **changes: Any) -> TaskEnv:
        """Without sharing."""
        env = self.env
        settings: dict[str, Any] = {
            "group_size": env.group_size,
            "prompts_per_round": env.prompts_per_round,
            "seed": self.seed,
            "on_unscored": env.on_unscored,
            "unscored_limit": env.unscored_limit,
            "max_turns": env.max_turns,
            "max_tokens": env.max_tokens,
            "seats": self.seats,
            **_own("env.options", env.options),
            **changes,
        }
        made: TaskEnv = mutual_env.make(env.id, **settings)
        return made

    def _options_apart(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A strategy's options where a policy has an env of its own: its peers are in others, and meet it in the
        exchange.

        The delay of the rounds is all the staleness that the strategy accepts, so records are read in the round they
        belong to. What `peers` and `limits` say is said of the run's policies, which an env of one does not know.
        """
        options = {**given, "max_staleness": 0}
        if isinstance(options.get("peers"), int):
            options["peers"] = sharing.ring(self.policies, options["peers"])
        limits = options.get("limits", {})
        if isinstance(limits, Mapping):
            options["limits"] = {"max_group": max(sharing.Limits().max_group, self.env.group_size), **limits}
        return options


def _own(where: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of the task family alone: what the run says in its own keys is not said twice."""
    for name in options:
        check_value(where, name, str)
        if name in _THE_RUNS:
            raise ConfigError(f"{where}.{name} is not for the task family to say: {_THE_RUNS[name]}")
    return options


def _given(pool: VerifierPool | None) -> dict[str, Any]:
    return {} if pool is None else {"pool": pool}
