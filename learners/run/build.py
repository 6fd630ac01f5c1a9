"""The parts of a run, built from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from learners import registry
from learners.protocol import Learner
from learners.resources.executor import Executor
from learners.run.ahead import Ahead
from learners.run.beside import Beside, TwinCalls
from learners.run.config import PolicyConfig, RunConfig
from learners.run.envs import Envs
from learners.run.evaluating import Twins
from learners.run.loop import Loop, Noticed, TaskEnv
from learners.run.places import Places, evaluates_aside, sampler_of, twins
from learners.seat import seated
from mutual_env.errors import ConfigError
from mutual_env.seeding import derive_seed
from mutual_env.verifiers import VerifierPool
from sharing.exchange import Exchange
from sharing.exchange import registry as exchanges
from tokenizers_bridge import TokenizerBridge, load


@dataclass(frozen=True, slots=True)
class Parts:
    """One loop for all policies or, in asynchronous rounds, one for each; and the env they are evaluated on (None:
    never). `twins`: who evaluates while the run goes on (None: the policies themselves, while it stands still)."""

    envs: Envs
    exchange: Exchange
    pool: VerifierPool
    loops: tuple[Loop, ...]
    held_out: TaskEnv | None
    twins: Twins | None = None

    @property
    def learners(self) -> dict[str, Learner]:
        return {name: learner for loop in self.loops for name, learner in loop.learners.items()}

    @property
    def executor(self) -> Executor:
        return self.loops[0].executor

    def noticed_by(self, noticed: Noticed, entered: Callable[[str], None]) -> Parts:
        """The same, with somebody told what became of each lesson, and which phase is entered."""
        return replace(self, loops=tuple(replace(loop, noticed=noticed, entered=entered) for loop in self.loops))

    def without(self, parked: Collection[str]) -> Parts:
        """The same run for the policies that are left."""
        left = [name for name in self.learners if name not in parked]
        loops = tuple(self._reduced(loop, left) for loop in self.loops if set(loop.learners) & set(left))
        self.close()
        return replace(self, loops=loops, held_out=self.envs.held_out(left, self.pool))

    def _reduced(self, loop: Loop, left: Collection[str]) -> Loop:
        learners = {name: learner for name, learner in loop.learners.items() if name in left}
        env = self.envs.shared(list(learners), self.exchange, self.pool)
        env.load_state_dict(loop.env.state_dict())
        return replace(loop, env=env, learners=learners)

    def close(self) -> None:
        for loop in self.loops:
            loop.env.close()
        if self.held_out is not None:
            self.held_out.close()


def build(config: RunConfig, places: Places, exchange_path: Path, stack: ExitStack) -> Parts:
    """Build everything. What `stack` takes is closed by it, also when building fails half way; the envs by `Parts`."""
    executor = stack.enter_context(closing(places.start()))
    makers = {name: partial(make_learner, name, p, config.seed) for name, p in config.policies.items()}
    aside = {called(name): make for called in twins(config) for name, make in makers.items()}
    hosted = executor.host({**makers, **aside})
    policies = {name: hosted[name] for name in makers}
    evaluate = stack.enter_context(closing(Twins(policies, hosted, executor))) if evaluates_aside(config) else None
    teachers = {name: make_learner(name, p, config.seed) for name, p in config.teachers.items()}
    seats = {name: make_learner(name, p, config.seed) for name, p in config.seats.items()}
    for asked in (*teachers.values(), *seats.values()):
        stack.callback(asked.close)
    chosen = config.sharing
    exchange = stack.enter_context(closing(exchanges.make(chosen.exchange, exchange_path, **chosen.exchange_options)))
    pool = stack.enter_context(VerifierPool(isolation=config.verifiers.isolation))
    envs = Envs.of(config, apart=places.apart, seats={name: seated(learner) for name, learner in seats.items()})
    everybody = {**policies, **teachers}
    loops = [
        Loop(
            env=envs.shared(names, exchange, pool),
            learners={name: policies[name] for name in names},
            seed=config.seed,
            group_size=config.env.group_size,
            bridge=TokenizerBridge([learner.tokenizer for learner in everybody.values()]),
            teachers=teachers if places.apart else everybody,
            executor=executor,
            ahead=_ahead(config, places, {name: policies[name] for name in names}, hosted, executor, stack),
        )
        for names in envs.together()
    ]
    return Parts(envs, exchange, pool, tuple(loops), envs.held_out(list(config.policies), pool), evaluate)


def _ahead(
    config: RunConfig,
    places: Places,
    policies: Mapping[str, Learner],
    hosted: Mapping[str, Learner],
    executor: Executor,
    stack: ExitStack,
) -> Ahead | None:
    """How the policies of a loop sample what comes next while others, or they themselves, still learn."""
    if config.resources.own_sampler:
        samplers = TwinCalls({name: hosted[sampler_of(name)] for name in policies}, executor, sampler_of)
        return stack.enter_context(closing(Beside(policies, samplers)))
    return Ahead() if config.resources.overlap and places.overlaps else None


def make_learner(name: str, policy: PolicyConfig, seed: int) -> Learner:
    """Every learner is told its name; its own `seed` has the run's as the default, if it takes one. A `tokenizer` is
    whatever `tokenizers_bridge.load` takes."""
    return registry.make(policy.learner, **learner_options(name, policy, seed))


def learner_options(name: str, policy: PolicyConfig, seed: int) -> dict[str, Any]:
    """What `registry.make` is told."""
    if "name" in policy.options:
        raise ConfigError(f"a learner is told its name, {name!r}, by the run: leave the option 'name' out")
    options = {**policy.options, "name": name}
    if options.get("tokenizer") is not None:
        options["tokenizer"] = load(options["tokenizer"])
    if "seed" in registry.options(policy.learner, policy.options):
        options.setdefault("seed", derive_seed(seed, "learner", name))
    return options
