"""Whether what a run samples can be trained on: asked once, before it begins, and not after a round was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from learners import registry
from learners.protocol import Learner, longest_sequence
from learners.run.build import Parts
from learners.run.config import PolicyConfig, RunConfig
from learners.run.loop import TaskEnv
from learners.run.rollout import Turn
from mutual_env.errors import ConfigError
from mutual_env.types import Context, Prompt
from tokenizers_bridge.replies import Conversing

ROW, WRITTEN = "micro_batch_tokens", "max_new_tokens"


def check_room(config: RunConfig, parts: Parts, round: int) -> None:
    """Raise where a prompt of this round, or of the evaluations, and the longest response to it do not fit a row."""
    learners = parts.learners
    bounds = {name: _bounds(config.policies[name], learner) for name, learner in learners.items()}
    bounded = {name: bound for name, bound in bounds.items() if bound is not None}
    for name, asked in _asked(config, parts, round) if bounded else ():
        if name not in bounded:
            continue
        (row, written), reads = bounded[name], Conversing(learners[name].tokenizer)
        longest = max((_length(reads, prompt) for prompt in asked), default=0)
        if longest + written > row + 1:  # the last token is predicted, never fed
            raise ConfigError(
                f"policies.{name}: a prompt of {longest} tokens and a response of up to {written} ({WRITTEN}) do not "
                f"fit {ROW}={row}: raise it to at least {longest + written - 1}, or lower {WRITTEN}"
            )


def _bounds(policy: PolicyConfig, learner: Learner) -> tuple[int, int] | None:
    """Tokens of a row and of a response, where rows are what bounds the learner."""
    row, written = (registry.value(policy.learner, policy.options, option) for option in (ROW, WRITTEN))
    return (row, written) if row is not None and longest_sequence(learner) == row + 1 else None


def _asked(config: RunConfig, parts: Parts, round: int) -> Iterator[tuple[str, Sequence[Prompt | Context]]]:
    for loop in parts.loops:
        yield from _first(loop.env, config.seed, round, list(loop.learners))
    if parts.held_out is not None:
        yield from _first(parts.held_out, config.seed, 0, list(parts.learners))


def _first(
    env: TaskEnv, seed: int, round: int, names: Sequence[str]
) -> Iterator[tuple[str, Sequence[Prompt | Context]]]:
    observations, _ = env.reset(seed=seed, options={"round": round})
    for name, (prompts, *_) in Turn(observations, 0, 1, seed).asked(names).items():
        yield name, prompts


def _length(reads: Conversing, prompt: Prompt | Context) -> int:
    return int((reads.context(prompt) if isinstance(prompt, Context) else reads.prompt(prompt)).size)
