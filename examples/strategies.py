"""Every strategy on the same tasks, from the same start, with the same seeds: mean reward of the last rounds.

    python examples/strategies.py --rounds 80 --seeds 3

The policies are tables on one-digit sums: it shows how each is called, not which is best on real models.
"""

from __future__ import annotations

import argparse
import statistics

from rich.console import Console
from rich.table import Table

import learners
import mutual_env
import sharing
from learners.protocol import Learner
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

CHARACTERS = "0123456789+=()%"
STRATEGIES: dict[str, dict[str, object]] = {
    "independent": {},
    "prp": {},
    "xgrpo": {},
    "sgt": {"weight": 0.3},
    "graft": {},
    "hacpo": {},
    "ftis": {},
    "luffy": {},
    "corl": {},
    "memory": {"weight": 0.3},
}


def policies_of(names: tuple[str, str]) -> dict[str, Learner]:
    tokenizers = (CharTokenizer(CHARACTERS), PairTokenizer(CHARACTERS, [("%", "1"), ("%1", "0")]))
    options = {"alphabet": "0123456789", "max_new_tokens": 2, "learning_rate": 60}
    return {
        name: learners.make("tabular", name=name, tokenizer=tokenizer, **options)
        for name, tokenizer in zip(names, tokenizers, strict=True)
    }


def play(strategy: str, options: dict[str, object], seed: int, rounds: int) -> dict[str, float]:
    """Train one pair; each policy's mean reward over the last tenth of the rounds."""
    names = ("ada", "bob")
    policies = policies_of(names)
    bridge = TokenizerBridge([policy.tokenizer for policy in policies.values()])
    tasks = mutual_env.make("mutual/arithmetic-v0", agents=names, digits=1, modulus=10, seed=seed)
    env = sharing.make(strategy, tasks, **options)
    rewards: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        observations, _ = env.reset(seed=seed, options={"round": round_})
        actions = {name: p.act(observations[name]["prompts"], 8, seed=round_) for name, p in policies.items()}
        _, earned, _, _, infos = env.step(actions)
        for name, policy in policies.items():
            policy.update(learners.build_batch(infos[name]["lessons"], policy, bridge).examples)
            rewards[name].append(earned[name])
    env.close()
    last = max(1, rounds // 10)
    return {name: statistics.fmean(values[-last:]) for name, values in rewards.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    table = Table(title=f"mean reward of the last rounds, {args.seeds} seeds")
    for heading in ("strategy", "ada", "bob"):
        table.add_column(heading)
    for name, options in STRATEGIES.items():
        runs = [play(name, options, seed, args.rounds) for seed in range(args.seeds)]
        table.add_row(name, *(f"{statistics.fmean(run[policy] for run in runs):.2f}" for policy in ("ada", "bob")))
    Console().print(table)


if __name__ == "__main__":
    main()
