"""The parts of a run, built from its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mutual_env
import sharing
from learners import registry
from learners.config import PolicyConfig, RunConfig
from learners.executors import check_resources, make_executor
from learners.loop import Loop
from learners.protocol import Learner
from mutual_env.seeding import derive_seed
from sharing.exchange import Exchange, InMemoryExchange
from sharing.exchange.sqlite import SQLiteExchange
from tokenizers_bridge import TokenizerBridge, load, toy_tokenizer


@dataclass(frozen=True, slots=True)
class Parts:
    """A loop ready to run, and the env it is evaluated on (None: never)."""

    config: RunConfig
    exchange: Exchange
    loop: Loop
    held_out: Any

    def without(self, parked: Collection[str]) -> Parts:
        """The same run for the policies that are left."""
        left = {name: learner for name, learner in self.loop.learners.items() if name not in parked}
        env = make_shared_env(self.config, self.exchange, agents=list(left))
        env.load_state_dict(self.loop.env.state_dict())
        self.close()
        held_out = make_held_out_env(self.config, agents=list(left))
        return replace(self, loop=replace(self.loop, env=env, learners=left), held_out=held_out)

    def close(self) -> None:
        self.loop.env.close()
        if self.held_out is not None:
            self.held_out.close()


def build(config: RunConfig, exchange_path: Path, stack: ExitStack) -> Parts:
    """Build everything. What `stack` takes is closed by it, also when building fails half way; the envs by `Parts`."""
    executor = stack.enter_context(closing(make_executor(config)))
    policies = executor.host({name: partial(make_learner, name, p, config.seed) for name, p in config.policies.items()})
    teachers = {name: make_learner(name, p, config.seed) for name, p in config.teachers.items()}
    for teacher in teachers.values():
        stack.callback(teacher.close)
    exchange = stack.enter_context(closing(make_exchange(config, exchange_path)))
    everybody = {**policies, **teachers}
    loop = Loop(
        env=make_shared_env(config, exchange),
        learners=policies,
        seed=config.seed,
        group_size=config.env.group_size,
        bridge=TokenizerBridge([learner.tokenizer for learner in everybody.values()]),
        teachers=everybody,
        executor=executor,
    )
    return Parts(config, exchange, loop, make_held_out_env(config))


def make_env(config: RunConfig, **changes: Any) -> Any:
    """The env of a configuration, without sharing."""
    env = config.env
    settings: dict[str, Any] = {
        "agents": list(config.policies),
        "group_size": env.group_size,
        "prompts_per_round": env.prompts_per_round,
        "seed": config.seed,
        "on_unscored": env.on_unscored,
        "unscored_limit": env.unscored_limit,
        **env.options,
        **changes,
    }
    return mutual_env.make(env.id, **settings)


def make_shared_env(config: RunConfig, exchange: Exchange, **changes: Any) -> Any:
    env = make_env(config, **changes)
    return sharing.make(config.sharing.strategy, env, exchange=exchange, **config.sharing.options)


def make_held_out_env(config: RunConfig, **changes: Any) -> Any:
    """The env of the evaluations: the same task family, on tasks that training never draws."""
    evaluation = config.evaluation
    if evaluation.every == 0:
        return None
    sizes = {"prompts_per_round": evaluation.prompts, "group_size": evaluation.samples}
    return make_env(config, **sizes, seed=derive_seed(config.seed, "evaluation"), **evaluation.options, **changes)


def make_exchange(config: RunConfig, path: Path) -> Exchange:
    return SQLiteExchange(path) if config.sharing.exchange == "sqlite" else InMemoryExchange()


def make_learner(name: str, policy: PolicyConfig, seed: int) -> Learner:
    """Every learner is told its name; its own `seed` has the run's as the default, if it takes one. A `tokenizer` is
    described as a mapping (a toy) or named as `tokenizers_bridge.load` takes it."""
    options = dict(policy.options)
    if "tokenizer" in options:
        described = options["tokenizer"]
        options["tokenizer"] = toy_tokenizer(described) if isinstance(described, Mapping) else load(described)
    if "seed" in registry.options(policy.learner):
        options.setdefault("seed", derive_seed(seed, "learner", name))
    return registry.make(policy.learner, name=name, **options)


def check(config: RunConfig) -> None:
    """Whether every part takes what the configuration gives it, without building what is slow to build."""
    check_resources(config)
    for policy in (*config.policies.values(), *config.teachers.values()):
        registry.check_options(policy.learner, policy.options)
    with ExitStack() as stack:
        stack.callback(make_shared_env(config, InMemoryExchange()).close)
        held_out = make_held_out_env(config)
        if held_out is not None:
            stack.callback(held_out.close)
