"""The parts of a run, built from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mutual_env
import sharing
from learners import registry
from learners.config import PolicyConfig, RunConfig
from learners.loop import Loop
from learners.protocol import Learner
from learners.resources.executor import Executor, SerialExecutor
from mutual_env.errors import UnknownNameError
from mutual_env.seeding import derive_seed
from sharing.exchange import Exchange, InMemoryExchange
from sharing.exchange.sqlite import SQLiteExchange
from tokenizers_bridge import TokenizerBridge, load, toy_tokenizer


@dataclass(frozen=True, slots=True)
class Parts:
    """A loop ready to run, and the env it is evaluated on (None: never)."""

    loop: Loop
    held_out: Any


def build(config: RunConfig, exchange_path: Path, stack: ExitStack) -> Parts:
    """Build everything; `stack` closes it again, last first, also when building fails half way."""
    executor = stack.enter_context(closing(make_executor(config)))
    policies = executor.host({name: partial(make_learner, name, p, config.seed) for name, p in config.policies.items()})
    teachers = {name: make_learner(name, p, config.seed) for name, p in config.teachers.items()}
    for teacher in teachers.values():
        stack.callback(teacher.close)
    exchange = stack.enter_context(closing(make_exchange(config, exchange_path)))
    env = make_shared_env(config, exchange)
    stack.callback(env.close)
    held_out = make_held_out_env(config)
    if held_out is not None:
        stack.callback(held_out.close)
    everybody = {**policies, **teachers}
    loop = Loop(
        env=env,
        learners=policies,
        seed=config.seed,
        group_size=config.env.group_size,
        bridge=TokenizerBridge([learner.tokenizer for learner in everybody.values()]),
        teachers=everybody,
        executor=executor,
    )
    return Parts(loop, held_out)


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


def make_shared_env(config: RunConfig, exchange: Exchange) -> Any:
    return sharing.make(config.sharing.strategy, make_env(config), exchange=exchange, **config.sharing.options)


def make_held_out_env(config: RunConfig) -> Any:
    """The env of the evaluations: the same task family, on tasks that training never draws."""
    evaluation = config.evaluation
    if evaluation.every == 0:
        return None
    sizes = {"prompts_per_round": evaluation.prompts, "group_size": evaluation.samples}
    return make_env(config, **sizes, seed=derive_seed(config.seed, "evaluation"), **evaluation.options)


def make_exchange(config: RunConfig, path: Path) -> Exchange:
    return SQLiteExchange(path) if config.sharing.exchange == "sqlite" else InMemoryExchange()


def make_executor(config: RunConfig) -> Executor:
    executors = {"serial": SerialExecutor}
    name = config.resources.executor
    if name not in executors:
        raise UnknownNameError.of("executor", name, executors)
    return executors[name](**config.resources.options)


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
    for policy in (*config.policies.values(), *config.teachers.values()):
        registry.check_options(policy.learner, policy.options)
    with ExitStack() as stack:
        stack.callback(make_shared_env(config, InMemoryExchange()).close)
        held_out = make_held_out_env(config)
        if held_out is not None:
            stack.callback(held_out.close)
