"""The arms of a suite around the same policies, whose weights stay as they are: what a round of each is made of.

Where no weight moves, every arm samples the same completions in a round of the same number, so what differs between two
arms is what they make of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from learners.protocol import Learner
from learners.resources.executor import SerialExecutor
from learners.run.build import make_learner
from learners.run.config import PolicyConfig, RunConfig, SuiteConfig, arm_config
from learners.run.envs import Envs
from learners.run.loop import Loop
from mutual_env.verifiers import VerifierPool
from sharing.exchange import registry as exchanges
from tokenizers_bridge import TokenizerBridge

Make = Callable[[str, PolicyConfig, int], Learner]


@contextmanager
def arms_beside(
    suite: SuiteConfig, arms: Sequence[str], seed: int, make: Make = make_learner
) -> Iterator[dict[str, Loop]]:
    """A loop for each arm, all of the same learners. Options of policies are those of the suite's base, but that
    nobody's learning rate is above 0."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        pool = stack.enter_context(VerifierPool())
        learners = {name: make(name, _still(policy), seed) for name, policy in suite.base.policies.items()}
        known: dict[str, Learner] = {}
        for learner in learners.values():
            stack.callback(learner.close)
        loops = {}
        for arm in arms:
            config = arm_config(suite, arm, seed)
            for name, policy in config.teachers.items():
                if name not in known:
                    known[name] = make(name, policy, seed)
                    stack.callback(known[name].close)
            teachers = {name: known[name] for name in config.teachers}
            loops[arm] = _loop(config, learners, teachers, folder / f"{arm}.sqlite", pool, stack)
        yield loops


def _still(policy: PolicyConfig) -> PolicyConfig:
    return PolicyConfig(policy.learner, {**policy.options, "learning_rate": 0.0})


def _loop(
    config: RunConfig,
    learners: Mapping[str, Learner],
    teachers: Mapping[str, Learner],
    path: Path,
    pool: VerifierPool,
    stack: ExitStack,
) -> Loop:
    chosen = config.sharing
    exchange = stack.enter_context(closing(exchanges.make(chosen.exchange, path, **chosen.exchange_options)))
    env = Envs.of(config, apart=False).shared(list(learners), exchange, pool)
    stack.callback(env.close)
    everybody = {**learners, **teachers}
    bridge = TokenizerBridge([learner.tokenizer for learner in everybody.values()])
    executor = SerialExecutor(clock=time.process_time)  # where others use the machine, what a policy takes is that
    return Loop(env, learners, config.seed, config.env.group_size, bridge, everybody, executor)
