"""Sampling policies on held-out tasks, and judging what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from learners.evaluation.outcomes import Answered, Judged
from learners.protocol import Learner
from learners.run.build import make_learner
from learners.run.config import RunConfig
from learners.run.envs import Envs
from learners.run.loop import evaluate
from learners.run.subject import Subject
from learners.seat import seated
from mutual_env.types import AgentInfo, Completion, Context, Prompt
from mutual_env.verifiers import VerifierPool

Watch = Callable[[str, int, int], None]
"""Called with the policy, how many of its prompts have been answered, and how many there are."""

PROMPTS_A_CALL = 32  # between two looks at the clock; a sample does not depend on what else is in its call


def sample(subject: Subject, watch: Watch | None = None) -> Iterator[Answered]:
    """Every policy's samples on the same held-out tasks. Policy after policy, one in memory at a time, unless what one
    of them writes is answered to another."""
    names, told = list(subject.config.policies), watch or _unwatched
    with ExitStack() as stack:
        pool = stack.enter_context(VerifierPool(isolation=subject.config.verifiers.isolation))
        envs = _envs(subject.config, stack)
        together = stack.enter_context(closing(_held_out(envs, names, pool)))
        if together.joint or len(names) == 1:
            yield from _answers(subject, together, names, told)
            return
        for name in names:
            with closing(_held_out(envs, [name], pool)) as env:
                yield from _answers(subject, env, [name], told)


def answers(learner: Learner, config: RunConfig, pool: VerifierPool) -> Iterator[Answered]:
    """The samples of a policy that is in memory already, on the tasks that `sample` asks."""
    with ExitStack() as stack:
        env = stack.enter_context(closing(_held_out(_envs(config, stack), [learner.name], pool)))
        yield from _judged(env, _played(env, [learner], config, _unwatched), config)


def _unwatched(policy: str, done: int, of: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A policy that is asked for a few prompts at a time, so that somebody can be told how far it has come."""

    learner: Learner
    watch: Watch

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        if any(isinstance(one, Context) and one.turns for one in prompts):  # equal ones count each other
            return self.learner.act(prompts, n, seed=seed)
        written: list[tuple[Completion, ...]] = []
        for start in range(0, len(prompts), PROMPTS_A_CALL):
            written += self.learner.act(prompts[start : start + PROMPTS_A_CALL], n, seed=seed)
            self.watch(self.learner.name, len(written), len(prompts))
        return written


def _envs(config: RunConfig, stack: ExitStack) -> Envs:
    """Those of the run's own evaluations, also where the run made none: the same tasks whoever is asked, so that
    policies and runs are paired."""
    seats = {}
    for name, policy in config.seats.items():
        learner = stack.enter_context(closing(make_learner(name, policy, config.seed)))
        seats[name] = seated(learner)
    evaluated = replace(config, evaluation=replace(config.evaluation, every=max(1, config.evaluation.every)))
    return Envs.of(evaluated, apart=False, seats=seats)


def _held_out(envs: Envs, policies: Sequence[str], pool: VerifierPool) -> Any:
    return envs.held_out(policies, pool)


def _answers(subject: Subject, env: Any, names: Sequence[str], watch: Watch) -> Iterator[Answered]:
    with ExitStack() as stack:
        policies = [stack.enter_context(closing(subject.learner(name))) for name in names]
        infos = _played(env, policies, subject.config, watch)
    yield from _judged(env, infos, subject.config)


def _played(env: Any, policies: Sequence[Learner], config: RunConfig, watch: Watch) -> Mapping[str, AgentInfo]:
    watched = {learner.name: _Watched(learner, watch) for learner in policies}
    return evaluate(env, watched, config.seed, config.evaluation.samples)


def _judged(env: Any, infos: Mapping[str, AgentInfo], config: RunConfig) -> Iterator[Answered]:
    for name, info in infos.items():
        for task, group in zip(env.tasks, info["groups"], strict=True):
            part = str(task.metadata.get(config.evaluation.part, "")) if config.evaluation.part else ""
            yield Answered(name, task.id, task.prompt, task.answer, part, tuple(map(Judged.of, group)))
