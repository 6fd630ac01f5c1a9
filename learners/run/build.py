"""The parts of a run, built from its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mutual_env
import sharing
from learners import registry
from learners.protocol import Learner
from learners.resources.executor import Executor
from learners.run.config import PolicyConfig, RunConfig
from learners.run.loop import Loop
from learners.run.places import check_resources, make_executor
from mutual_env.seeding import derive_seed
from mutual_env.verifiers import VerifierPool
from sharing.exchange import Exchange, InMemoryExchange, RayExchange
from sharing.exchange.sqlite import SQLiteExchange
from tokenizers_bridge import TokenizerBridge, load


@dataclass(frozen=True, slots=True)
class Parts:
    """One loop for all policies or, in asynchronous rounds, one for each; and the env they are evaluated on (None:
    never)."""

    config: RunConfig
    exchange: Exchange
    pool: VerifierPool
    loops: tuple[Loop, ...]
    held_out: Any

    @property
    def learners(self) -> dict[str, Learner]:
        return {name: learner for loop in self.loops for name, learner in loop.learners.items()}

    @property
    def executor(self) -> Executor:
        return self.loops[0].executor

    def without(self, parked: Collection[str]) -> Parts:
        """The same run for the policies that are left."""
        left = [name for name in self.learners if name not in parked]
        loops = tuple(self._reduced(loop, left) for loop in self.loops if set(loop.learners) & set(left))
        self.close()
        return replace(self, loops=loops, held_out=make_held_out_env(self.config, agents=left, pool=self.pool))

    def _reduced(self, loop: Loop, left: Collection[str]) -> Loop:
        learners = {name: learner for name, learner in loop.learners.items() if name in left}
        env = make_shared_env(self.config, self.exchange, list(learners), pool=self.pool)
        env.load_state_dict(loop.env.state_dict())
        return replace(loop, env=env, learners=learners)

    def close(self) -> None:
        for loop in self.loops:
            loop.env.close()
        if self.held_out is not None:
            self.held_out.close()


def build(config: RunConfig, exchange_path: Path, stack: ExitStack) -> Parts:
    """Build everything. What `stack` takes is closed by it, also when building fails half way; the envs by `Parts`."""
    executor = stack.enter_context(closing(make_executor(config)))
    policies = executor.host({name: partial(make_learner, name, p, config.seed) for name, p in config.policies.items()})
    teachers = {name: make_learner(name, p, config.seed) for name, p in config.teachers.items()}
    for teacher in teachers.values():
        stack.callback(teacher.close)
    exchange = make_exchange(config, exchange_path, stack)
    pool = stack.enter_context(VerifierPool())
    everybody = {**policies, **teachers}
    loops = [
        Loop(
            env=make_shared_env(config, exchange, names, pool=pool),
            learners={name: policies[name] for name in names},
            seed=config.seed,
            group_size=config.env.group_size,
            bridge=TokenizerBridge([learner.tokenizer for learner in everybody.values()]),
            teachers=teachers if _is_apart(config) else everybody,
            executor=executor,
        )
        for names in _together(config)
    ]
    return Parts(config, exchange, pool, tuple(loops), make_held_out_env(config, pool=pool))


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


def _is_apart(config: RunConfig) -> bool:
    """Whether each policy has a loop and an env of its own, as in asynchronous rounds."""
    return config.resources.mode == "asynchronous"


def _together(config: RunConfig) -> list[list[str]]:
    """The policies, loop by loop."""
    names = list(config.policies)
    return [[name] for name in names] if _is_apart(config) else [names]


def make_shared_env(config: RunConfig, exchange: Exchange, names: list[str], **changes: Any) -> Any:
    """The env that the loop of these policies trains in, under the run's strategy."""
    env = make_env(config, agents=names, **changes)
    options = _options_apart(config) if _is_apart(config) else config.sharing.options
    return sharing.make(config.sharing.strategy, env, exchange=exchange, **options)


def _options_apart(config: RunConfig) -> dict[str, Any]:
    """The strategy's options where a policy has an env of its own: its peers are in others, and meet it in the
    exchange.

    The delay of the rounds is all the staleness that the strategy accepts, so records are read in the round they belong
    to. What `peers` and `limits` say is said of the run's policies, which an env of one does not know.
    """
    options = {**config.sharing.options, "max_staleness": 0}
    if isinstance(options.get("peers"), int):
        options["peers"] = sharing.ring(config.policies, options["peers"])
    options.setdefault("limits", {"max_group": max(sharing.Limits().max_group, config.env.group_size)})
    return options


def make_held_out_env(config: RunConfig, **changes: Any) -> Any:
    """The env of the evaluations: the same task family, on tasks that training never draws."""
    evaluation = config.evaluation
    if evaluation.every == 0:
        return None
    sizes = {"prompts_per_round": evaluation.prompts, "group_size": evaluation.samples}
    return make_env(config, **sizes, seed=derive_seed(config.seed, "evaluation"), **evaluation.options, **changes)


def make_exchange(config: RunConfig, path: Path, stack: ExitStack) -> Exchange:
    """What `stack` takes is closed by it; the actor of a cluster is ended with the run whose file it keeps."""
    if config.sharing.exchange == "ray":
        name = f"mutual-env-exchange-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
        shared = RayExchange(name, path=path.resolve())
        stack.callback(shared.stop)
        return shared
    exchange = SQLiteExchange(path) if config.sharing.exchange == "sqlite" else InMemoryExchange()
    stack.callback(exchange.close)
    return exchange


def make_learner(name: str, policy: PolicyConfig, seed: int) -> Learner:
    """Every learner is told its name; its own `seed` has the run's as the default, if it takes one. A `tokenizer` is
    whatever `tokenizers_bridge.load` takes."""
    options = dict(policy.options)
    if "tokenizer" in options:
        options["tokenizer"] = load(options["tokenizer"])
    if "seed" in registry.options(policy.learner):
        options.setdefault("seed", derive_seed(seed, "learner", name))
    return registry.make(policy.learner, name=name, **options)


def check(config: RunConfig) -> None:
    """Whether every part takes what the configuration gives it, without building what is slow to build."""
    check_resources(config)
    for policy in (*config.policies.values(), *config.teachers.values()):
        registry.check_options(policy.learner, policy.options)
    with ExitStack() as stack:
        stack.callback(make_shared_env(config, InMemoryExchange(), _together(config)[0]).close)
        held_out = make_held_out_env(config)
        if held_out is not None:
            stack.callback(held_out.close)
