"""What a round of each strategy costs over two policies alone, phase by phase, and what of it is training more rows.

    python -m benchmarks.costs [--models models] [--rounds 12] [--only tiny|real|sums|...] [--as NAME]
                                                                               writes docs/figures/data/costs.json

The arms stand around the same policies, whose weights stay as they are (the optimizer's steps are computed, with a
learning rate of 0), so in a round of one number all of them sample the same completions. They take turns within each
round; what is counted is processor time on one thread, and the figures are medians of ratios to the arm that shares
nothing, in the same round. `tiny` is the letters pair of the evidence at the weights that training begins with, `after`
at those that runs of the evidence ended with (where there are some), `real` SmolLM2-135M and Gemma-3-270M with LoRA;
the other families of the evidence by their names, those arms of which there are runs. Figures of two processors are
not mixed: what another one measured is measured again, or kept beside it with `--as letters-intel`.

Each policy's share of a phase is what the executor records of its leases, on a clock of processor time (`policies`);
verifying and the exchange are one call for all.

A round's update trains the rows that teach something: GRPO leaves out every group without spread. `rows` and `tokens`
are what is trained a round (`prompts`: how many the rows are of; `read`: these prompts once each, and the tokens), and
`update_ms_per_token` what updating takes for each trained token: where that is the same, an arm costs more because it
trains more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.beside import arms_beside
from benchmarks.evidence.results import Family, family_file, result_file
from benchmarks.figures import DATA, machine, write
from learners.batch import Outcome
from learners.protocol import Learner
from learners.resources.record import Span
from learners.run.build import make_learner
from learners.run.config import PolicyConfig, SuiteConfig, load_suite
from learners.run.directory import WARM_STARTS
from learners.run.loop import Loop
from learners.update import teaches
from mutual_env.types import AgentInfo, Metrics

BASELINE = "grpo"
AT_A_TIME = 4
"""Arms beside the baseline: what a round of it costs is measured again with each few."""
PHASES = {
    "sampling": "sampling",
    "verifying": "verifying and publishing",
    "sharing": "reading and teaching",
    "scoring": "translating and scoring",
    "updating": "updating",
}
LEASES = {"act": "sampling", "score": "translating and scoring", "update": "updating"}
"""What the executor calls the phases that each policy has for itself."""
SEED = 0
FAMILIES = ("sums", "retries", "triple", "teacher")
"""Further families: what their equal seconds are reckoned with."""
OF_REAL = ("sgt", "xgrpo", "prp", "graft", "hacpo")
REAL = Path(__file__).parents[1] / "configs" / "evidence" / "real.yaml"
HACPO = "arms.hacpo={sharing.strategy: hacpo}"
"""An arm that is measured and of which there are no runs."""


@dataclass(slots=True)
class Spent:
    """One round of one arm: processor seconds by phase, and what was trained."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rows: int = 0
    prompts: int = 0
    tokens: int = 0
    read: int = 0
    policies: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    _phase: str = ""
    _since: float = 0.0

    def enter(self, phase: str) -> None:
        now = time.process_time()
        if self._phase:
            self.seconds[PHASES[self._phase]] += now - self._since
        self._phase, self._since = phase, now

    def notice(self, learner: Learner, info: AgentInfo, outcomes: Sequence[Outcome]) -> None:
        trained = [o.example for o in outcomes if o.example is not None and teaches(o.example)]
        prompts = {example.prompt_ids.tobytes(): example.prompt_ids.size for example in trained}
        tokens = sum(int(example.mask.sum()) for example in trained)
        self.rows += len(trained)
        self.prompts += len(prompts)
        self.tokens += tokens
        self.read += sum(prompts.values()) + tokens

    def lease(self, span: Span) -> None:
        of = self.policies.setdefault(span.policy, dict.fromkeys(LEASES.values(), 0.0))
        of[LEASES[span.phase]] += span.ran

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def measured(loop: Loop, number: int) -> Spent:
    """A round in its two halves, so that verifying and publishing are told apart from reading and teaching."""
    found = Spent()
    counted = replace(loop, entered=found.enter, noticed=found.notice)
    sampled = counted.sample(number)
    found.enter("sharing")
    infos = counted.learn(sampled)
    found.enter("")
    found.metrics = {name: info["metrics"] for name, info in infos.items()}
    for span in loop.executor.record.take():
        if isinstance(span, Span):
            found.lease(span)
    return found


def compared(suite: SuiteConfig, arms: Sequence[str], rounds: int) -> dict[str, Any]:
    with arms_beside(suite, arms, SEED) as loops:
        return figures(in_turn(loops, rounds))


Seen = Mapping[str, Sequence[Spent]]


def in_turn(loops: Mapping[str, Loop], rounds: int, so_far: Callable[[Seen], None] = lambda seen: None) -> Seen:
    """Every arm in turn in each round; the order turns too. A first round is not counted. `so_far` is told what there
    is after each that is."""
    arms = list(loops)
    seen: dict[str, list[Spent]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):
        for arm in (*arms[number % len(arms) :], *arms[: number % len(arms)]):
            found = measured(loops[arm], number)
            if number > 0:
                seen[arm].append(found)
        if number > 0:
            so_far(seen)
    return seen


def after(runs: Path, rounds: int) -> dict[str, Any]:
    """GRPO and SGT at the weights that each ended with, and GRPO at SGT's: what training makes of the costs."""
    suite = load_suite(family_file("letters"))
    with ExitStack() as stack:
        loops = {}
        for weights, arms in ((BASELINE, [BASELINE]), ("sgt", [BASELINE, "sgt"])):
            ended = stack.enter_context(arms_beside(suite, arms, SEED, make=partial(_ended, runs / weights)))
            loops.update({arm if arm == weights else f"{arm} at the weights of {weights}": ended[arm] for arm in arms})
        return figures(in_turn(loops, rounds))


def _ended(arm: Path, name: str, policy: PolicyConfig, seed: int) -> Learner:
    learner = make_learner(name, policy, seed)
    last = max((arm / f"seed_{seed}" / "checkpoints").glob("round_*"))
    learner.load(last / name)
    return learner


def figures(seen: Seen) -> dict[str, Any]:
    """Of the rounds of each arm."""
    alone = seen[BASELINE]
    return {
        arm: {
            "times_alone": statistics.median(r.total / base.total for r, base in zip(of, alone, strict=True)),
            "seconds": statistics.median(r.total for r in of),
            "phases": {
                phase: statistics.median(r.seconds.get(phase, 0.0) for r in of)
                for phase in dict.fromkeys(PHASES.values())
            },
            "rows": statistics.mean(r.rows for r in of),
            "prompts": statistics.mean(r.prompts for r in of),
            "tokens": statistics.mean(r.tokens for r in of),
            "read": statistics.mean(r.read for r in of),
            "policies": {policy: _of_policy(policy, of, alone) for policy in of[0].policies},
            "update_ms_per_token": _per_token(of),
            "rounds": len(of),
        }
        for arm, of in seen.items()
    }


def _of_policy(policy: str, of: Sequence[Spent], alone: Sequence[Spent]) -> dict[str, float]:
    """What it has for itself: medians, and its whole over the same of GRPO."""
    mine = [r.policies[policy] for r in of]
    ratios = [sum(r.values()) / sum(base.policies[policy].values()) for r, base in zip(mine, alone, strict=True)]
    return {
        "times_alone": statistics.median(ratios),
        **{phase: statistics.median(r[phase] for r in mine) for phase in LEASES.values()},
    }


def _per_token(of: Sequence[Spent]) -> float:
    tokens = sum(r.tokens for r in of)
    return 1000.0 * sum(r.seconds.get("updating", 0.0) for r in of) / tokens if tokens else 0.0


def tiny(rounds: int, name: str = "tiny") -> None:
    """Every arm of the letters pair."""
    suite = load_suite(family_file("letters"))
    few_at_a_time(name, suite, list(suite.arms), rounds)


def family(name: str, rounds: int) -> None:
    """Those arms of a family of which there are runs."""
    run = Family.read(result_file(name)).arms
    few_at_a_time(name, load_suite(family_file(name)), list(run), rounds)


def few_at_a_time(pair: str, suite: SuiteConfig, arms: Sequence[str], rounds: int) -> None:
    """Written as they come; what this processor is known to take for so many rounds is not measured again."""
    while left := [arm for arm in arms if of_this_processor(pair).get(arm, {}).get("rounds") != rounds]:
        some = [BASELINE, *(arm for arm in left if arm != BASELINE)][: 1 + AT_A_TIME]
        keep(pair, {arm: of for arm, of in compared(suite, some, rounds).items() if arm in left})


def keep(pair: str, found: Mapping[str, Any]) -> None:
    """What was just measured beside what was."""
    before, here = kept(), machine()
    together = {**of_this_processor(pair), **found}
    processors = {**before.get("processors", {}), pair: here["processor"]}
    write("costs", {**before, pair: together, "processors": processors, "machine": here})


def of_this_processor(pair: str) -> dict[str, Any]:
    """What an earlier run found of a pair, if it was here: the arms of a table are compared with each other."""
    before = kept()
    is_here = before.get("processors", {}).get(pair) == machine()["processor"]
    return dict(before.get(pair, {})) if is_here else {}


def real_suite(models: Path) -> SuiteConfig:
    return load_suite(REAL, [*(f"base.policies.{n}.options.path={models / n}" for n in ("smollm2", "gemma3")), HACPO])


def real(models: Path, rounds: int, some: Sequence[str] = ()) -> None:
    """Written after every round: one takes minutes. Of `some` arms alone the baseline beside them is not written: the
    other arms were compared with that of their own rounds."""
    left_out = {BASELINE} if some else set()
    with arms_beside(real_suite(models), [BASELINE, *(some or OF_REAL)], SEED) as loops:

        def write_down(seen: Seen) -> None:
            keep("real", {arm: of for arm, of in figures(seen).items() if arm not in left_out})

        in_turn(loops, rounds, write_down)


@pytest.mark.parametrize("arm", [BASELINE, *OF_REAL])
def test_round(benchmark: Any, arm: str) -> None:
    cold = [f"base.policies.{name}.options.warm_start.steps=0" for name in ("llama", "neox")]
    with arms_beside(load_suite(family_file("letters"), cold), [arm], SEED) as loops:
        infos = benchmark.pedantic(loops[arm].round, (0,), rounds=5, warmup_rounds=1)
    assert {*infos} == {"llama", "neox"}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", choices=("tiny", "real", "after", *FAMILIES))
    parser.add_argument("--arm", action="append", choices=OF_REAL, help="of `real`: this one again (may be repeated)")
    parser.add_argument("--as", dest="name", help="of `tiny`: figures of their own, for another processor")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence-letters"), help="for `after`: of the evidence")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault(WARM_STARTS, str(Path("runs/warm_starts").resolve()))
    if args.only in (None, "tiny"):
        tiny(args.rounds, args.name or "tiny")
    if args.only in (None, "after") and (args.runs / "sgt" / f"seed_{SEED}").is_dir():
        keep("after", after(args.runs, args.rounds))
    if args.only in FAMILIES:
        family(args.only, args.rounds)
    if args.only in (None, "real") and (args.models / "gemma3").is_dir():
        real(args.models, max(2, args.rounds // 4), args.arm or ())


def kept() -> dict[str, Any]:
    """What an earlier run found of the other pair."""
    path = DATA / "costs.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


if __name__ == "__main__":
    main()
