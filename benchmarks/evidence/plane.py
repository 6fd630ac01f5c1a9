"""Stability and support, measured: what the updates of every strategy are made of at fixed weights of the letters pair.

    python -m benchmarks.evidence.plane [--batches 12] [--seeds 3]    writes docs/figures/data/evidence-plane.json

A round is sampled, shared and turned into an update again and again, from the weights of the warm start, and the
gradient that the optimizer would be given is caught instead of applied: u is minus that gradient. The axes are those of
the bandit (`sharing.analysis.plane`), alignments <E u, v> / (||v|| sqrt(E ||u||²)):

    stability  v is GRPO's mean update over other batches than those that are placed
    support    v is the growth of log π of the right answers of starved tasks, those of which the policy gives the right
               answer with a probability below 0.02

E u is the mean over batches, and the norm of a mean of few is too long: so `signal`, ||E u||² over E ||u||², and the
alignments of u with v are from pairs of different batches. `noise` is what is left of E ||u||²: the variance. Arms
that compare peers with their authors also have the variance of the log-ratio between chunks, which is that of two
policies, and what spreading each chunk over its tokens would add within chunks, which is that of two tokenizers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mutual_env
from benchmarks.beside import arms_beside
from benchmarks.evidence.results import family_file
from benchmarks.figures import DATA, machine, write
from learners.example import Example
from learners.protocol import Learner
from learners.run.build import make_learner
from learners.run.config import EnvConfig, PolicyConfig, SuiteConfig, load_suite
from learners.run.directory import WARM_STARTS
from learners.run.loop import Loop
from learners.torch.learner import TorchLearner
from learners.torch.model import LanguageModel
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.trainer import Trainer
from mutual_env.types import CrossEntropy, Floats, Task
from sharing.analysis.closed_form import Options
from sharing.analysis.plane import STARVED, Point, analyse

FILE = "evidence-plane"
BASELINE = "grpo"
TASKS = 256
REFERENCE = 10_000
"""Rounds from this number on are those of the directions."""
ARMS = {
    "grpo": "independent",
    "grpo-2n": "independent 2n",
    "xgrpo": "xgrpo",
    "prp": "prp",
    "naive-pooling": None,
    "sgt": "sgt",
    "placebo-prompt": None,
    "placebo-own": None,
    "auto": "auto",
    "graft": "graft",
    "hacpo": "hacpo",
    "ftis": "ftis",
    "luffy": "luffy",
    "sapo": "sapo",
    "memory": None,
    "corl": None,
    "trrd": "trrd",
    "kdrl": "kd-rl",
    "topd": None,
    "offline-llama": "offline distillation",
}
"""Arms of the family, and what the bandit calls them."""
CHUNKS = {"between": "batch/log_ratio_variance", "within": "batch/spread_variance"}


class Caught(Optimizer):
    """Keeps the gradient of a step instead of taking it."""

    gradient: Floats | None = None

    def step(self, loss: float) -> float:
        parts = [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.detach().flatten()
            for p in self._parameters.values()
        ]
        self.gradient = torch.cat(parts).double().cpu().numpy()
        self.zero_grad()
        return float(np.linalg.norm(self.gradient))

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self._parameters.values())

    def take(self) -> Floats:
        """The update that was last asked for: nothing, where nothing was to be learnt."""
        taken = np.zeros(self.size) if self.gradient is None else -self.gradient
        self.gradient = None
        return taken


class Catching:
    """Makes the learners of a configuration, with an optimizer that only catches."""

    def __init__(self) -> None:
        self.caught: dict[str, Caught] = {}

    def __call__(self, name: str, policy: PolicyConfig, seed: int) -> Learner:
        made = make_learner(name, policy, seed)
        assert isinstance(made, TorchLearner)
        known = TorchOptions.__dataclass_fields__
        options = TorchOptions.of({key: value for key, value in policy.options.items() if key in known})
        return TorchLearner(made.model, made.tokenizer, name=name, options=options, trainer=self._trainer)

    def _trainer(self, model: LanguageModel, optimizer: Optimizer, options: TorchOptions, name: str) -> Trainer:
        self.caught[name] = Caught(model.trainable(), options, name)
        return Trainer(model, self.caught[name], options, name)


def updates(loop: Loop, catching: Catching, rounds: Sequence[int]) -> tuple[dict[str, Floats], dict[str, list[float]]]:
    """(B, weights) of each policy over these rounds; and the chunk variances of those rounds that have some."""
    taken: dict[str, list[Floats]] = {name: [] for name in loop.learners}
    chunks: dict[str, list[float]] = {key: [] for key in CHUNKS}
    for number in rounds:
        infos = loop.round(number)
        for name in loop.learners:
            taken[name].append(catching.caught[name].take())
            for key, metric in CHUNKS.items():
                if metric in infos[name]["metrics"]:
                    chunks[key].append(infos[name]["metrics"][metric])
    return {name: np.stack(of) for name, of in taken.items()}, chunks


def growth(learner: Learner, caught: Caught, tasks: Sequence[Task]) -> tuple[Floats, int]:
    """The direction in which log π of the right answers of starved tasks grows, and how many they are."""
    starved = [example for example, p in _answered(learner, tasks) if p < STARVED]
    caught.take()
    learner.update(starved)
    return caught.take(), len(starved)


def _tasks(env: EnvConfig, prompts: int, seed: int) -> list[Task]:
    with closing(
        mutual_env.make(env.id, agents=1, group_size=1, prompts_per_round=prompts, seed=seed, **env.options)
    ) as made:
        made.reset(seed=seed, options={"round": REFERENCE})
        return list(made.tasks)


def _answered(learner: Learner, tasks: Sequence[Task]) -> list[tuple[Example, float]]:
    """Each task's right answer as an example to imitate, and how likely the policy gives it."""
    tokenizer = learner.tokenizer
    prompts = [tokenizer.render_prompt(task.prompt) for task in tasks]
    answers = [
        np.append(ids, tokenizer.stop_id).astype(np.int32)
        for ids in tokenizer.encode_batch([task.answer for task in tasks])
    ]
    likely = [float(np.exp(of.sum())) for of in learner.score(prompts, answers)]
    examples = [
        Example(p, a, np.ones(a.shape, np.bool_), np.zeros(a.shape), CrossEntropy())
        for p, a in zip(prompts, answers, strict=True)
    ]
    return list(zip(examples, likely, strict=True))


def placed(u_BW: Floats, gradient: Floats, starving: Floats) -> dict[str, float]:
    """Where the updates of one strategy lie, and how much of them is noise."""
    batches = len(u_BW)
    second = float((u_BW**2).sum(axis=1).mean())
    if second == 0.0:
        return {"stability": 0.0, "support": 0.0, "signal": 0.0, "noise": 0.0, "length": 0.0}
    total = u_BW.sum(axis=0)
    signal = (float(total @ total) - batches * second) / (batches * (batches - 1))
    mean = total / batches

    def along(direction: Floats) -> float:
        return float(mean @ direction) / (float(np.linalg.norm(direction)) * float(np.sqrt(second)))

    return {
        "stability": along(gradient),
        "support": along(starving),
        "signal": signal / second,
        "noise": second - signal,
        "length": float(np.sqrt(second)),
    }


def measure(
    suite: SuiteConfig,
    arms: Sequence[str],
    batches: int,
    seed: int,
    known: Mapping[str, Any] | None = None,
    tasks: int = TASKS,
) -> Iterator[dict[str, Any]]:
    """What is found of a seed, arm by arm, beside what is `known` of it. Every arm meets the same batches; starved are
    some of so many `tasks`."""
    found: dict[str, Any] = dict((known or {}).get("arms", {}))
    missing = [arm for arm in arms if arm not in found]
    if not missing:
        return
    catching = Catching()
    with arms_beside(suite, [BASELINE, *(arm for arm in missing if arm != BASELINE)], seed, make=catching) as loops:
        learners = loops[BASELINE].learners
        reference, _ = updates(loops[BASELINE], catching, range(REFERENCE, REFERENCE + 2 * batches))
        asked = _tasks(suite.base.env, tasks, seed)
        starving = {name: growth(of, catching.caught[name], asked) for name, of in learners.items()}
        starved = {name: count for name, (_, count) in starving.items()}
        for arm in missing:
            of, chunks = updates(loops[arm], catching, range(batches))
            by_policy = {name: placed(u, reference[name].mean(axis=0), starving[name][0]) for name, u in of.items()}
            found[arm] = {**by_policy, "chunks": {key: float(np.mean(v)) for key, v in chunks.items() if v}}
            yield {"starved_tasks": starved, "arms": dict(found)}


def predicted(group: int) -> dict[str, dict[str, float]]:
    """Where the bandit puts them: two policies of which each knows what the other does not, answers of one token."""
    point = Point(disagreement=1.0, residual=0.0, tokens=1)
    at = analyse([point], group, Options(rescue_weight=0.3))[point]
    return {
        arm: {"stability": at[name].stability, "support": at[name].support}
        for arm, name in ARMS.items()
        if name is not None
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence.plane",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault(WARM_STARTS, str(Path("runs/warm_starts").resolve()))
    suite = load_suite(family_file("letters"))
    about = {"family": suite.name, "batches": args.batches, "starved": STARVED, "tasks": TASKS}
    path = DATA / f"{FILE}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    seeds: dict[str, Any] = kept["seeds"] if kept.get("about") == about else {}
    for seed in range(args.seeds):
        for found in measure(suite, list(ARMS), args.batches, seed, seeds.get(str(seed))):
            seeds[str(seed)] = found
            bandit = predicted(suite.base.env.group_size)
            write(FILE, {"about": about, "machine": machine(("numpy", "torch")), "bandit": bandit, "seeds": seeds})


if __name__ == "__main__":
    main()
