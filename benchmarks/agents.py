"""The cost of a round against the number of agents, at a fixed number of peers for each reader.

    python -m benchmarks.agents [--most 1000] [--rounds 3]     writes docs/figures/data/agents.json
    pytest benchmarks/agents.py                   a smaller one under pytest-benchmark

Tabular policies on `mutual/arithmetic-v0`, 2 prompts a round and 4 rollouts on each; every reader reads the next 2
agents in the ring. `sharing` is the wrapper alone (publish, read, admit, share); `round` is all of it: sampling,
verifying, sharing, batches, updates. Seconds are processor seconds of this one process, so that other work on
the machine does not show. The exponent is the slope of log seconds against log agents over the numbers
from 16 up: 1 is linear.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pettingzoo.utils.wrappers import BaseParallelWrapper

import mutual_env
import sharing
from benchmarks.figures import machine, write
from learners.run.loop import Loop
from learners.tabular import TabularLearner
from tokenizers_bridge import CharTokenizer, TokenizerBridge

PROMPTS, GROUP, PEERS = 2, 4, 2
STRATEGIES = ("independent", "xgrpo", "sgt", "prp")
AGENTS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
_FITTED_FROM = 16


class Timed(BaseParallelWrapper):  # type: ignore[misc]  # PettingZoo has no types
    """Passes everything on, and notes when the env below was done."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.verified_at = 0.0

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        self.verified_at = time.process_time()
        return result


def fleet(agents: int, strategy: str) -> tuple[Loop, Timed]:
    """A loop over this many tabular policies."""
    names = [f"policy_{i:04d}" for i in range(agents)]
    tokenizer = CharTokenizer("0123456789+-*= ?.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,:'\n()%/")
    learners = {name: TabularLearner(tokenizer, name=name, max_new_tokens=2, alphabet="0123456789") for name in names}
    bare = mutual_env.make("mutual/arithmetic-v0", agents=names, prompts_per_round=PROMPTS, group_size=GROUP)
    timed = Timed(bare)
    env = sharing.make(strategy, timed, peers=PEERS)
    return Loop(env, learners, seed=0, group_size=GROUP, bridge=TokenizerBridge([tokenizer])), timed


def seconds(agents: int, strategy: str, rounds: int = 3) -> dict[str, float]:
    """Medians over some rounds, the first of which warms up."""
    loop, timed = fleet(agents, strategy)
    whole, shared = [], []
    for round_ in range(rounds + 1):
        observations, _ = loop.env.reset(seed=0, options={"round": round_})
        actions = {n: x.act(observations[n]["prompts"], GROUP, seed=round_) for n, x in loop.learners.items()}
        loop.env.step(actions)
        shared.append(time.process_time() - timed.verified_at)
        start = time.process_time()
        loop.round(round_)
        whole.append(time.process_time() - start)
    loop.env.close()
    return {"round": float(np.median(whole[1:])), "sharing": float(np.median(shared[1:]))}


def exponent(figures: dict[str, dict[str, float]], what: str) -> float:
    """The slope of log seconds against log agents."""
    points = [(int(n), values[what]) for n, values in figures.items() if int(n) >= _FITTED_FROM]
    x, y = np.log([n for n, _ in points]), np.log([s for _, s in points])
    return float(np.polyfit(x, y, 1)[0])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    figures: dict[str, Any] = {}
    setting = {"prompts": PROMPTS, "group_size": GROUP, "peers_per_reader": PEERS}
    for strategy in STRATEGIES:
        by_agents = {str(n): seconds(n, strategy, options.rounds) for n in AGENTS if n <= options.most}
        figures[strategy] = {
            "seconds_by_agents": by_agents,
            "exponent_round": exponent(by_agents, "round"),
            "exponent_sharing": exponent(by_agents, "sharing"),
        }
        write("agents", {"machine": machine(("numpy", "pettingzoo")), "setting": setting, "strategies": figures})


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("agents", [2, 32])
def test_a_round(benchmark: Any, strategy: str, agents: int) -> None:
    loop, _ = fleet(agents, strategy)
    infos = benchmark.pedantic(loop.round, args=(0,), rounds=5, warmup_rounds=1)
    assert len(infos) == agents
    loop.env.close()


if __name__ == "__main__":
    main()
