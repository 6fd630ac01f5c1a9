"""What a round costs apart from verification, and what importing costs.

    python -m benchmarks.env              writes docs/figures/data/env.json
    pytest benchmarks/env.py              the same calls under pytest-benchmark

Verification is taken out by a pool that answers at once. A round is measured for its smallest shape (one prompt, one
completion) and for an ordinary one (8 prompts, groups of 8), each completion with a trace of 32 tokens.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import mutual_env
from benchmarks.figures import machine, write
from mutual_env import Completion, ReasoningEnv, Task, Verdict, VerifierPool, VerifierSpec
from sharing import Independent

AGENTS = 4
SHAPES = {"1x1": (1, 1), "8x8": (8, 8)}
PACKAGES = ("mutual_env", "sharing", "tokenizers_bridge", "learners")


class Instant(VerifierPool):
    """Says at once that every other text is right."""

    def verify(self, spec: VerifierSpec | str, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        return [_VERDICTS[i % 2] for i in range(len(items))]


_VERDICTS = (Verdict.scored(1.0, correct=True), Verdict.scored(0.0, correct=False))


def make_env(prompts: int, group: int) -> ReasoningEnv:
    return mutual_env.make(
        "mutual/arithmetic-v0", agents=AGENTS, group_size=group, prompts_per_round=prompts, pool=Instant(workers=1)
    )


def actions_of(prompts: int, group: int) -> dict[str, list[list[Completion]]]:
    completion = Completion("The answer is 42.", np.arange(32), np.zeros(32), "stop", 0, "toy")
    return {f"policy_{a}": [[completion] * group for _ in range(prompts)] for a in range(AGENTS)}


def seconds_of_a_step(
    env: Any, actions: dict[str, list[list[Completion]]], rounds: int = 100, times: int = 15
) -> float:
    """The least of several medians over rounds: what comes on top is the machine's other work. The reset before each
    step is not counted."""
    return min(_median_step(env, actions, rounds) for _ in range(times))


def _median_step(env: Any, actions: dict[str, list[list[Completion]]], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        env.reset()
        start = time.perf_counter()
        env.step(actions)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def seconds_to_import(package: str, times: int = 7) -> float:
    """The median over fresh processes."""
    return statistics.median(_seconds_of_process(f"import {package}") for _ in range(times))


def _seconds_of_process(program: str) -> float:
    timed = f"import time; s = time.perf_counter(); {program}; print(time.perf_counter() - s)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout)


STACKS: dict[str, Callable[[ReasoningEnv], Any]] = {"env": lambda env: env, "env_and_independent": Independent}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stack", STACKS)
def test_step(benchmark: Any, stack: str, shape: str) -> None:
    env, actions = STACKS[stack](make_env(*SHAPES[shape])), actions_of(*SHAPES[shape])
    benchmark.pedantic(env.step, setup=lambda: (env.reset(), ((actions,), {}))[1], rounds=200)
    assert benchmark.stats["rounds"] == 200


@pytest.mark.parametrize("package", PACKAGES)
def test_import(benchmark: Any, package: str) -> None:
    benchmark.pedantic(_seconds_of_process, (f"import {package}",), rounds=3)


def main() -> None:
    steps: dict[str, float] = {}
    for shape, (prompts, group) in SHAPES.items():
        for stack, wrap in STACKS.items():
            env = wrap(make_env(prompts, group))
            seconds = seconds_of_a_step(env, actions_of(prompts, group))
            steps[f"{stack}_{shape}_us_per_agent"] = seconds / AGENTS * 1e6
    imports = {f"import_{package}_s": seconds_to_import(package) for package in PACKAGES}
    everything = {
        "import_all_four_s": seconds_to_import(", ".join(PACKAGES)),
        "import_gymnasium_pettingzoo_s": seconds_to_import("gymnasium, pettingzoo"),
    }
    write(
        "env",
        {"machine": machine(("gymnasium", "pettingzoo", "numpy")), "agents": AGENTS, **steps, **imports, **everything},
    )


if __name__ == "__main__":
    main()
