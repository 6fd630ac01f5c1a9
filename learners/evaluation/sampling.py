"""Sampling policies on held-out tasks, and judging what they wrote: one policy is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from learners.evaluation.outcomes import Answered, Judged
from learners.protocol import Learner
from learners.run.config import RunConfig
from learners.run.envs import Envs
from learners.run.subject import Subject
from mutual_env.seeding import derive_seed
from mutual_env.types import AgentInfo, Completion, Prompt
from mutual_env.verifiers import VerifierPool

Watch = Callable[[str, int, int], None]
"""Called with the policy, how many of its prompts have been answered, and how many there are."""

PROMPTS_A_CALL = 32  # between two looks at the clock; a sample does not depend on what else is in its call


def sample(subject: Subject, watch: Watch = lambda policy, done, of: None) -> Iterator[Answered]:
    """Every policy's samples on the same held-out tasks, policy after policy."""
    config = subject.config
    with VerifierPool() as pool:
        for name in config.policies:
            with closing(subject.learner(name)) as learner:
                yield from answers(learner, config, pool, watch)


def answers(
    learner: Learner, config: RunConfig, pool: VerifierPool, watch: Watch = lambda policy, done, of: None
) -> Iterator[Answered]:
    """The samples of a policy that is in memory already."""
    with closing(_env(config, learner.name, pool)) as env:
        yield from _answers(env, learner, config, watch)


def _env(config: RunConfig, policy: str, pool: VerifierPool) -> Any:
    """The env of a run's own evaluations, also where the run made none: the same tasks whoever is asked, so that
    policies and runs are paired."""
    evaluated = replace(config, evaluation=replace(config.evaluation, every=max(1, config.evaluation.every)))
    return Envs.of(evaluated, apart=False).held_out([policy], pool)


def _answers(env: Any, learner: Learner, config: RunConfig, watch: Watch) -> Iterator[Answered]:
    observations, _ = env.reset(seed=config.seed, options={"round": 0})
    prompts: tuple[Prompt, ...] = observations[learner.name]["prompts"]
    seed, samples = derive_seed(config.seed, "evaluate"), config.evaluation.samples
    written: list[tuple[Completion, ...]] = []
    for start in range(0, len(prompts), PROMPTS_A_CALL):
        written += learner.act(prompts[start : start + PROMPTS_A_CALL], samples, seed=seed)
        watch(learner.name, len(written), len(prompts))
    info: AgentInfo = env.step({learner.name: written})[-1][learner.name]
    for task, group in zip(env.tasks, info["groups"], strict=True):
        part = str(task.metadata.get(config.evaluation.part, "")) if config.evaluation.part else ""
        yield Answered(learner.name, task.id, task.prompt, task.answer, part, tuple(map(Judged.of, group)))
