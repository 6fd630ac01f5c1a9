"""How far a round overlaps: two policies in worker processes, one that samples beside its own training, and one with
its verifiers.

    python -m benchmarks.overlap [--rounds 4] [--pairs 5]

writes docs/figures/data/overlap.json. Of two policies one writes 24 tokens with a small model, the other 2 with a
larger one, so that with barriers each waits for the other twice a round.

`synchronous`: rounds of both with barriers, and where each goes on as soon as it has learnt. `own_sampler`:
asynchronous rounds of the one that is slow to sample, which samples and learns in turn, or whose copy samples beside.
All on the same workers, whose state is put back before each stretch, both ways in turn in the order a, b, b, a; the
ratio is of neighbours in time, and its median counts. Their metrics are compared bit for bit. `leases_overlap` is the
share of the time in which somebody acts while somebody else learns, by the executor's own record; `cores_busy` the
processor time of the workers over the time that passed: where it is near the number of cores already, nothing can be
won by working at once.

`streamed`: one policy samples in passes, and a verifier computes for 3 ms an answer. How long a round waits for its
verdicts once all is sampled, where groups are verified as they end and where they are when all are there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import pytest

import learners
import mutual_env
import sharing
from benchmarks.figures import machine, write
from learners.resources import Demand, Needs, Node, ProcessExecutor, Rounds, Span, Supply
from learners.run.ahead import Ahead
from learners.run.asynchronous import rounds_at_own_pace
from learners.run.beside import Beside, TwinCalls
from learners.run.loop import Loop
from mutual_env.types import Completion, Task, Verdict
from mutual_env.verifiers import VerifierPool, VerifierSpec
from tokenizers_bridge import CharTokenizer, TokenizerBridge

NAMES = ("slow to sample", "slow to learn")
COPY = "slow to sample (sampler)"
TOKENIZER = CharTokenizer("0123456789+=()%")
SAMPLED = 24
"""Tokens that it writes who is slow to sample."""


class Deliberate:
    """Takes its time, in which it computes."""

    inline = False
    id = "deliberate"

    def verify(self, task: Task, text: str) -> Verdict:
        ends = time.process_time() + 0.003
        while time.process_time() < ends:
            pass
        return Verdict.scored(float(text == task.answer), correct=text == task.answer)


class Workers:
    """Two policies and a copy of the first in processes of their own, and the state that all stretches begin with."""

    def __init__(self, folder: Path) -> None:
        phases = dict.fromkeys(("act", "score", "update"), Needs())
        demands = [Demand(name, phases) for name in NAMES] + [Demand(COPY, {"act": Needs()})]
        self.executor = ProcessExecutor(demands, Supply((Node("local", 2.0),)), threads=1, keep=1000)
        make = partial(partial, learners.make, "tiny", tokenizer=TOKENIZER, seed=0, learning_rate=1e-3)
        slow_to_sample = make(name=NAMES[0], width=64, layers=2, max_new_tokens=SAMPLED)
        slow_to_learn = make(name=NAMES[1], width=192, layers=3, max_new_tokens=2)
        hosted = self.executor.host({NAMES[0]: slow_to_sample, NAMES[1]: slow_to_learn, COPY: slow_to_sample})
        self.policies = {name: hosted[name] for name in NAMES}
        self.copy = hosted[COPY]
        self._folder = folder
        for name, policy in self.policies.items():
            policy.save(folder / name)

    def stretch(self, way: Way, rounds: int) -> Stretch:
        """So many rounds from the first state on, one way."""
        for name, policy in self.policies.items():
            policy.load(self._folder / name)
        self.executor.record.take()
        worked, began = processor_seconds(), time.perf_counter()
        history = way(self, rounds)
        seconds = time.perf_counter() - began
        spans = [item for item in self.executor.record.take() if isinstance(item, Span)]
        busy = (processor_seconds() - worked) / seconds
        return Stretch(seconds, both_at_work(spans) / seconds, busy, history)

    def loop(self, names: Sequence[str], ahead: Ahead | None) -> Loop:
        env: Any = mutual_env.make(
            "mutual/arithmetic-v0", agents=list(names), prompts_per_round=8, group_size=8, digits=1, modulus=10
        )
        strategy: Any = sharing.make("sgt", env, exchange=sharing.InMemoryExchange())
        policies = {name: self.policies[name] for name in names}
        bridge = TokenizerBridge([TOKENIZER])
        return Loop(strategy, policies, 0, 8, bridge, executor=self.executor, ahead=ahead)

    def close(self) -> None:
        self.executor.close()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some rounds: how long they took, the share in which one acts while another learns, and all metrics."""

    seconds: float
    at_once: float
    cores_busy: float
    history: list[Any]


Way: TypeAlias = Callable[[Workers, int], list[Any]]


def synchronous(workers: Workers, rounds: int, *, overlap: bool) -> list[Any]:
    loop = workers.loop(NAMES, Ahead() if overlap else None)
    found = []
    for round in range(rounds):
        infos = loop.round(round, round + 1 if round + 1 < rounds else None)
        found.append({name: dict(info["metrics"]) for name, info in infos.items()})
    return found


def asynchronous(workers: Workers, rounds: int, *, beside: bool) -> list[Any]:
    """One policy with a staleness of one round: what it learns from is a round old both ways."""
    name = NAMES[0]
    copies = TwinCalls({name: workers.copy}, workers.executor, lambda _: COPY)
    with closing(Beside({name: workers.policies[name]}, copies)) as ahead:
        loop = workers.loop([name], ahead if beside else None)
        paced = rounds_at_own_pace([loop], Rounds(rounds, 1), first=workers.policies[name].version, limit=300.0)
        return [dict(result.infos[name]["metrics"]) for result in paced]


VARIANTS: Mapping[str, tuple[Way, Way]] = {
    "synchronous": (partial(synchronous, overlap=False), partial(synchronous, overlap=True)),
    "own_sampler": (partial(asynchronous, beside=False), partial(asynchronous, beside=True)),
}
"""One after the other, and at once."""


def processor_seconds() -> float:
    """Of this process and of all below it: workers are its children's children."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    ours = {os.getpid()}
    while further := {pid for pid, stat in stats.items() if int(stat[1]) in ours} - ours:
        ours |= further
    return sum(int(ticks) for pid in ours for ticks in stats[pid][11:13]) / os.sysconf("SC_CLK_TCK")


def both_at_work(spans: list[Span]) -> float:
    """Seconds in which one policy acts while another learns."""
    acts, updates = ([s for s in spans if s.phase == phase] for phase in ("act", "update"))
    return sum(
        max(0.0, min(a.ended, u.ended) - max(a.began, u.began)) for a in acts for u in updates if a.policy != u.policy
    )


def waits_for_verdicts(pairs: int) -> dict[str, Any]:
    """Seconds from the last sample of a round to its last verdict, verified as groups end and when all are there."""
    learner: Any = learners.make(
        "tiny", name="ada", tokenizer=TOKENIZER, seed=0, width=128, max_new_tokens=SAMPLED, max_rows=8
    )
    found: dict[str, list[float]] = {"as they end": [], "when all are there": []}
    sampling: list[float] = []
    with VerifierPool(1) as pool:
        env: Any = mutual_env.make(
            "mutual/arithmetic-v0",
            agents=["ada"],
            prompts_per_round=16,
            group_size=8,
            digits=2,
            pool=pool,
            verifier=VerifierSpec("benchmarks.overlap:Deliberate"),
        )
        for pair in range(-1, pairs):  # the first one warms up
            ways = list(found) if pair % 2 else list(found)[::-1]
            for at, way in enumerate(ways):
                seconds, waited = _one_round(env, learner, 2 * pair + at + 2, told=way == "as they end")
                if pair >= 0:
                    found[way].append(waited)
                    sampling.append(seconds)
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    times = medians["when all are there"] / medians["as they end"]
    return {"seconds_after_sampling": medians, "seconds_of_sampling": statistics.median(sampling), "times_less": times}


def _one_round(env: Any, learner: Any, round: int, *, told: bool) -> tuple[float, float]:
    observations, _ = env.reset(options={"round": round})
    tell: Callable[..., None] = partial(_begun, env) if told else _nothing
    began = time.perf_counter()
    prompts = observations["ada"]["prompts"]
    groups: list[tuple[Completion, ...]] = learner.act_and_tell(prompts, env.spec.group_size, tell, seed=round)
    sampled = time.perf_counter()
    env.step({"ada": groups})
    return sampled - began, time.perf_counter() - sampled


def _begun(env: Any, place: int, group: tuple[Completion, ...]) -> None:
    env.begin_verifying("ada", [group], place)


def _nothing(place: int, group: tuple[Completion, ...]) -> None:
    """Nobody wants to know."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One set for all: to start it takes most of half a minute of a core, and a stretch a second."""
    with closing(Workers(tmp_path_factory.mktemp("policies"))) as made:
        yield made


@pytest.mark.parametrize("at_once", [0, 1], ids=["in turn", "at once"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rounds(benchmark: Any, workers: Workers, variant: str, at_once: int) -> None:
    stretch = benchmark.pedantic(workers.stretch, (VARIANTS[variant][at_once], 3), rounds=1, warmup_rounds=1)
    benchmark.extra_info["leases_overlap"] = stretch.at_once
    assert len(stretch.history) == 3
    assert at_once or stretch.at_once == 0.0  # on a busy machine what may overlap does not always


def measured(rounds: int, pairs: int) -> dict[str, Any]:
    """Every variant, both ways in turn."""
    with TemporaryDirectory() as folder:
        workers = Workers(Path(folder))
        try:
            return {name: _compared(workers, ways, rounds, pairs) for name, ways in VARIANTS.items()}
        finally:
            workers.close()


def _compared(workers: Workers, ways: tuple[Way, Way], rounds: int, pairs: int) -> dict[str, Any]:
    in_turn, at_once = [], []
    for pair in range(-1, pairs):  # the first one warms up
        order = (0, 1) if pair % 2 else (1, 0)
        found = {which: workers.stretch(ways[which], rounds) for which in order}
        assert found[0].history == found[1].history, "the numbers are others"
        if pair >= 0:
            in_turn.append(found[0])
            at_once.append(found[1])
    both = {"in_turn": in_turn, "at_once": at_once}
    return {
        "times_in_turn": statistics.median(a.seconds / b.seconds for a, b in zip(in_turn, at_once, strict=True)),
        "seconds_a_round": {way: statistics.median(s.seconds for s in found) / rounds for way, found in both.items()},
        "leases_overlap": {way: statistics.median(s.at_once for s in found) for way, found in both.items()},
        "cores_busy": {way: statistics.median(s.cores_busy for s in found) for way, found in both.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rounds = measured(arguments.rounds, arguments.pairs)
    streamed = waits_for_verdicts(arguments.pairs)
    shared = {"machine": machine(), "pairs": arguments.pairs, "rounds": arguments.rounds, "same_numbers": True}
    write("overlap", {**shared, **rounds, "streamed": streamed})


if __name__ == "__main__":
    main()
