"""What a round is made of, part by part, and a yardstick that is measured in the same run.

Seconds mean little on another machine. `test_yardstick` is plain Python and NumPy that never changes, so a part's
seconds over the yardstick's can be compared with those of another day and another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learners.batch import build_batch
from learners.example import Example
from learners.protocol import Learner
from learners.run.loop import Loop
from learners.update import teaches
from tokenizers_bridge import TokenizerBridge

YARDSTICKS = 45
"""How often the yardstick is measured."""


def yardstick() -> float:
    """A few milliseconds of what rounds consist of: small matrix products, dictionaries, strings."""
    numbers = np.arange(4096, dtype=np.float64).reshape(64, 64) / 4096.0
    total = 0.0
    for step in range(60):
        numbers = np.tanh(numbers @ numbers.T / 64.0)
        words = {str(i): i * step for i in range(200)}
        total += float(numbers[0, 0]) + sum(words[str(i)] for i in range(0, 200, 3))
    return total


def test_yardstick(benchmark: Any) -> None:
    assert benchmark.pedantic(yardstick, rounds=YARDSTICKS, warmup_rounds=2) > 0.0


def test_act(benchmark: Any, learner: Learner, env: Any, group_size: int, measured_rounds: int) -> None:
    observations, _ = env.reset(seed=0, options={"round": 0})
    prompts = observations[learner.name]["prompts"]
    groups = benchmark.pedantic(
        learner.act, (prompts, group_size), {"seed": 0}, rounds=measured_rounds, warmup_rounds=1
    )
    sizes = [len(group) for group in groups]
    assert sizes == [group_size] * len(prompts), (
        f"act must give {len(prompts)} groups of {group_size} completions, it gave {sizes}"
    )


def test_update(benchmark: Any, loop: Loop, measured_rounds: int) -> None:
    name, learner = next(iter(loop.learners.items()))
    batch = build_batch(_infos(loop)[name]["lessons"], learner, loop.bridge)
    examples: Sequence[Example] = batch.examples
    if not any(map(teaches, examples)):  # nobody was right, or everybody: an update would have nothing to do
        credits = np.resize([1.0, -1.0], len(examples))
        examples = [
            replace(e, advantages=np.full(e.response_ids.size, c)) for e, c in zip(examples, credits, strict=True)
        ]
    before = learner.version
    benchmark.pedantic(learner.update, (examples,), rounds=measured_rounds, warmup_rounds=1)
    # how often it was called is the benchmark's choice: once where nothing is timed
    assert learner.version > before, f"update must raise version by one, it stayed at {before}"


def test_batch(benchmark: Any, loop: Loop, measured_rounds: int) -> None:
    name, learner = next(iter(loop.learners.items()))
    lessons = _infos(loop)[name]["lessons"]
    batch = benchmark.pedantic(build_batch, (lessons, learner, loop.bridge), rounds=measured_rounds, warmup_rounds=1)
    assert len(batch.examples) <= len(lessons)


def test_share(benchmark: Any, loop: Loop, measured_rounds: int) -> None:
    observations, _ = loop.env.reset(seed=0, options={"round": 0})
    actions = _actions(loop, observations)

    def again() -> tuple[tuple[Any], dict[str, Any]]:
        loop.env.reset(seed=0, options={"round": 0})
        return (actions,), {}

    infos = benchmark.pedantic(loop.env.step, setup=again, rounds=measured_rounds)[-1]
    assert {*infos} == {*loop.learners}


def test_translate(benchmark: Any, tokenizer_pair: Any, loop: Loop, measured_rounds: int) -> None:
    observations, _ = loop.env.reset(seed=0, options={"round": 0})
    author, reader = loop.learners
    written = [c for group in _actions(loop, observations)[author] for c in group]

    def translate() -> Any:  # a bridge of its own: nothing is remembered
        return TokenizerBridge(tokenizer_pair).translate(written, loop.learners[reader].tokenizer)

    assert len(benchmark.pedantic(translate, rounds=measured_rounds, warmup_rounds=1)) == len(written)


def test_round(benchmark: Any, loop: Loop, measured_rounds: int) -> None:
    assert {*benchmark.pedantic(loop.round, (0,), rounds=measured_rounds, warmup_rounds=1)} == {*loop.learners}


def _actions(loop: Loop, observations: Any) -> dict[str, Any]:
    return {n: learner.act(observations[n]["prompts"], loop.group_size, seed=0) for n, learner in loop.learners.items()}


def _infos(loop: Loop) -> Any:
    observations, _ = loop.env.reset(seed=0, options={"round": 0})
    return loop.env.step(_actions(loop, observations))[-1]
