"""RLAD (TRRD) beside GRPO and KD-RL on knights and knaves: a student learns by reward, its trust region near a teacher.

    python examples/rlad_knights.py                                             # tables on short puzzles, a minute
    python examples/rlad_knights.py --student models/small --teacher models/large --rounds 100    # real models

Two islanders, knights who tell the truth or knaves who lie, say one thing each. The short puzzles write it as two
letters: `EN=` is A saying "either of us is a knave" and B saying "A is a knave"; the answer `kn` makes A a knight and B
a knave. With real models the puzzles are those of `logic/knights-knaves-v0`, in words.

On the tables KD-RL comes out ahead of GRPO, and RLAD behind: a table's teacher is all but certain, so where both agree
RLAD's ratio begins far below 1 and its lessons shrink. The paper's figures are of language models (configs/recipes).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import learners
import mutual_env
import sharing
from learners.protocol import Learner
from mutual_env import Task, VerifierSpec
from mutual_env.seeding import generator
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

SAYS: dict[str, Callable[[bool, bool], bool]] = {
    "K": lambda me, other: other,  # the other is a knight
    "N": lambda me, other: not other,
    "S": lambda me, other: me == other,  # we are of one kind
    "D": lambda me, other: me != other,
    "B": lambda me, other: not me and not other,  # we are both knaves
    "E": lambda me, other: not me or not other,  # at least one of us is a knave
}


def solutions(a_says: str, b_says: str) -> list[str]:
    """Who may be what: a knight's words are true, a knave's false."""
    found = []
    for a, b in itertools.product((True, False), repeat=2):
        if SAYS[a_says](a, b) == a and SAYS[b_says](b, a) == b:
            found.append(("k" if a else "n") + ("k" if b else "n"))
    return found


PUZZLES = [
    Task(f"knights:{a}{b}", f"{a}{b}=", answer[0])
    for a, b in itertools.product(SAYS, repeat=2)
    if len(answer := solutions(a, b)) == 1
]


class ShortPuzzles:
    """All puzzles of two letters with one solution, in an order that the seed and the round decide."""

    verifier = VerifierSpec("exact", {"extraction": "none"})

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        order = generator(seed, "knights", round).permutation(len(PUZZLES))
        return [PUZZLES[i] for i in order[:n]]


def table(name: str, *, pairs: bool) -> Learner:
    """The teacher has tokens of two letters, the student has not: the bridge carries its opinion over."""
    characters = "".join(SAYS) + "kn="
    tokenizer = PairTokenizer(characters, [("k", "n"), ("n", "k")]) if pairs else CharTokenizer(characters)
    return learners.make(
        "tabular", name=name, tokenizer=tokenizer, alphabet="kn", max_new_tokens=3, learning_rate=20, minibatches=4
    )


def train(
    learner: Learner, teacher: Learner | None, strategy: str, options: dict[str, object], args, env_id: str
) -> float:
    """Rounds of reinforcement learning; the mean reward of the last five."""
    env = mutual_env.make(env_id, agents=[learner.name], group_size=args.group, prompts_per_round=args.prompts)
    shared = sharing.make(strategy, env, **options)
    teachers = {} if teacher is None else {teacher.name: teacher}
    bridge = TokenizerBridge([learner.tokenizer, *(t.tokenizer for t in teachers.values())])
    rewards = []
    for round_ in range(args.rounds):
        observations, _ = shared.reset(seed=args.seed, options={"round": round_})
        actions = {learner.name: learner.act(observations[learner.name]["prompts"], args.group, seed=round_)}
        _, earned, _, _, infos = shared.step(actions)
        batch = learners.build_batch(infos[learner.name]["lessons"], learner, bridge, teachers)
        learner.update(batch.examples)
        rewards.append(earned[learner.name])
    shared.close()
    return sum(rewards[-5:]) / len(rewards[-5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="a model directory")
    parser.add_argument("--teacher", type=Path, help="a larger model's directory")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    real = args.student is not None and args.teacher is not None
    env_id = "logic/knights-knaves-v0" if real else "example/knights-v0"
    if not real:
        mutual_env.register("example/knights-v0", ShortPuzzles)

    def make(name: str, path: Path | None, *, pairs: bool) -> Learner:
        options = {"max_new_tokens": 512, "learning_rate": 1e-6, "aggregation": "sequence_mean"}
        return learners.make("torch", name=name, path=str(path), **options) if real else table(name, pairs=pairs)

    teacher = make("teacher", args.teacher, pairs=True)
    if not real:  # a table knows nothing yet: let it learn by itself for four times as long first
        longer = argparse.Namespace(**{**vars(args), "rounds": 4 * args.rounds, "seed": args.seed + 1})
        print(f"teacher, alone: {train(teacher, None, 'independent', {}, longer, env_id):.2f}")
    for strategy, options in (
        ("independent", {}),
        ("kdrl", {"teacher": "teacher", "coefficient": 0.1}),
        ("trrd", {"teacher": "teacher", "alpha": 0.5}),
    ):
        student = make("student", args.student, pairs=False)
        print(f"student, {strategy}: {train(student, teacher, strategy, dict(options), args, env_id):.2f}")


if __name__ == "__main__":
    main()
