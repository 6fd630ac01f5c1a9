"""Synchronous rounds that overlap: the same numbers, while one policy learns and another samples what comes next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mutual_env
from learners import registry
from learners.example import Example
from learners.protocol import Finished
from learners.resources import Demand, Needs, Node, Patience, ProcessExecutor, SerialExecutor, Supply, ThreadExecutor
from learners.run.ahead import Ahead
from learners.run.config import load_run
from learners.run.lines import read_lines
from learners.run.loop import Loop, evaluate
from learners.run.training import train
from learners.tabular import TabularLearner
from mutual_env.errors import WorkerLostError
from mutual_env.types import Completion, Context, Metrics, Prompt
from mutual_env.verifiers import VerifierPool
from sharing import make
from sharing.exchange.memory import InMemoryExchange
from tests.runs.test_run import CONFIG, whole
from tokenizers_bridge import TokenizerBridge

WAIT = 20.0
Act = Callable[[TabularLearner], None]


class Told(TabularLearner):
    """Says what it is about to do."""

    def __init__(self, name: str, acting: Act = lambda one: None, updating: Act = lambda one: None) -> None:
        super().__init__(name=name, max_new_tokens=2, alphabet="0123456789")
        self._acting, self._updating = acting, updating

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        self._acting(self)
        return super().act(prompts, n, seed=seed)

    def update(self, examples: Sequence[Example]) -> Metrics:
        self._updating(self)
        return super().update(examples)


def threads(*policies: str) -> ThreadExecutor:
    needs = Needs(seconds=0.1, limit=WAIT)
    demands = [Demand(name, dict.fromkeys(("act", "score", "update"), needs)) for name in policies]
    return ThreadExecutor(demands, Supply((Node("local", float(len(policies))),)), Patience(limit=WAIT, restarts=0))


def loop_of(executor: ThreadExecutor, *learners: TabularLearner) -> Loop:
    hosted = executor.host({one.name: (lambda one=one: one) for one in learners})
    env = mutual_env.make(
        "mutual/arithmetic-v0", agents=list(hosted), group_size=4, prompts_per_round=3, seed=0, digits=1, modulus=10
    )
    shared: Any = make("sgt", env, exchange=InMemoryExchange())
    bridge = TokenizerBridge([one.tokenizer for one in learners])
    return Loop(shared, hosted, 0, 4, bridge, executor=executor, ahead=Ahead())


def test_who_has_learnt_samples_the_next_round_while_another_still_learns() -> None:
    sampled = threading.Event()

    def acting(one: TabularLearner) -> None:
        if one.version == 1:
            sampled.set()

    def updating(one: TabularLearner) -> None:
        if one.version == 0:
            assert sampled.wait(WAIT)

    executor = threads("quick", "slow")
    try:
        loop = loop_of(executor, Told("quick", acting=acting), Told("slow", updating=updating))
        plain_executor = threads("quick", "slow")
        plain = loop_of(plain_executor, Told("quick"), Told("slow"))
        found = [loop.round(number, number + 1 if number < 2 else None) for number in range(3)]
        assert found == [plain.round(number) for number in range(3)]
        assert {name: one.version for name, one in loop.learners.items()} == {"quick": 3, "slow": 3}
        plain_executor.close()
    finally:
        executor.close()


def test_what_was_sampled_ahead_is_not_sampled_twice_and_never_past_the_end() -> None:
    seen: list[int] = []
    executor = threads("a", "b")
    try:
        loop = loop_of(executor, Told("a", acting=lambda one: seen.append(one.version)), Told("b"))
        loop.round(0, 1)
        assert seen == [0, 1]
        loop.round(1)
        assert seen == [0, 1]
    finally:
        executor.close()


@pytest.mark.parametrize("lost_in", ["act", "update"])
def test_a_policy_that_is_lost_on_the_way_is_parked_and_the_round_begins_again_without_it(
    tmp_path: Path, lost_in: str
) -> None:
    def lost(one: TabularLearner) -> None:
        if one.version == 1:
            raise WorkerLostError("gone")

    fragile = {"acting": lost} if lost_in == "act" else {"updating": lost}
    registry.register(f"lost in {lost_in}", lambda name="": Told(name, **fragile))
    registry.register("told", lambda name="": Told(name))
    path = tmp_path / "run.yaml"
    policies = f"policies: {{ada: {{learner: told}}, bob: {{learner: 'lost in {lost_in}'}}}}"
    path.write_text(f"{CONFIG.partition('policies:')[0]}{policies}\nevaluation: {{every: 0}}\noutput: {tmp_path}\n")
    found = {}
    for way in ("true", "false"):
        config = load_run(path, ["resources.executor=threads", f"resources.overlap={way}", f"name=is_{way}"])
        found[way] = whole(train(config).directory)
    assert found["true"] == found["false"]
    rounds = [line["round"] for line in read_lines(tmp_path / "is_true" / "metrics.jsonl") if line["policy"] == "bob"]
    assert rounds == {"act": [0], "update": [0, 1]}[lost_in]  # what it sampled in a round that it did not learn from


def test_an_error_of_a_learner_ends_the_round() -> None:
    def broken(one: TabularLearner) -> None:
        if one.version == 1:
            raise ArithmeticError("not a number")

    executor = threads("a", "b")
    try:
        loop = loop_of(executor, Told("a"), Told("b", acting=broken))
        with pytest.raises(ArithmeticError, match="not a number"):
            loop.round(0, 1)
    finally:
        executor.close()


def test_runs_that_overlap_leave_the_bytes_of_those_that_do_not(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"{CONFIG}output: {tmp_path}\n")
    ways = {"serial": [], "overlapping": ["resources.executor=threads"]}
    ways["barriers"] = [*ways["overlapping"], "resources.overlap=false"]
    ways["waves"] = ["env.refills=1", *ways["overlapping"]]
    ways["serial waves"] = ["env.refills=1"]
    found = {}
    for name, overrides in ways.items():
        found[name] = whole(train(load_run(tmp_path / "run.yaml", [f"name={name}", *overrides])).directory)
    assert found["serial"] == found["overlapping"] == found["barriers"]
    assert found["waves"] == found["serial waves"] != found["serial"]


def test_what_one_policy_wrote_is_verified_while_another_still_writes() -> None:
    begun: list[int] = []

    class Watched(VerifierPool):
        def begin(self, spec: Any, items: Any) -> None:
            begun.append(len(items))
            super().begin(spec, items)

    def acting(one: TabularLearner) -> None:
        if one.name == "slow":
            for _ in range(1000):
                if begun:
                    return
                threading.Event().wait(WAIT / 1000)
            raise AssertionError("nothing was begun")

    executor = threads("quick", "slow")
    try:
        learners = executor.host({name: (lambda name=name: Told(name, acting=acting)) for name in ("quick", "slow")})
        with Watched(1) as pool:
            env = mutual_env.make("mutual/arithmetic-v0", agents=list(learners), group_size=2, pool=pool, digits=1)
            infos = evaluate(env, learners, 0, 2, executor)
            assert {*infos} == {"quick", "slow"}
            assert begun == [2 * env.spec.prompts_per_round] * 2
    finally:
        executor.close()


def test_a_group_is_verified_while_the_same_policy_still_writes_others(tmp_path: Path) -> None:
    """By a learner in this program, and over a worker's pipe: the second group is not written before a verifier has
    begun the first."""

    class Looks(VerifierPool):
        def begin(self, spec: Any, items: Any) -> None:
            super().begin(spec, items)
            (tmp_path / f"begun {len(list(tmp_path.iterdir()))} of {len(items)}").touch()

    demands = [Demand("one", {"act": Needs(seconds=0.1, limit=WAIT)})]
    for executor in (SerialExecutor(), ProcessExecutor(demands)):
        with closing(executor), Looks(1) as pool:
            learners = executor.host({"one": partial(Slow, tmp_path)})
            env = mutual_env.make("mutual/arithmetic-v0", agents=["one"], group_size=2, prompts_per_round=3, pool=pool)
            told = evaluate(env, learners, 0, 2, executor)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["begun 0 of 2", "begun 1 of 2", "begun 2 of 2"]
            plain = evaluate(env, {"one": Told("one")}, 0, 2)
        texts = [[[e.completion.text for e in g] for g in infos["one"]["groups"]] for infos in (told, plain)]
        assert texts[0] == texts[1]
        for path in tmp_path.iterdir():
            path.unlink()


class Slow(Told):
    """Writes a group when the one before is being verified."""

    def __init__(self, directory: Path) -> None:
        super().__init__("one")
        self._directory = directory

    def act_and_tell(
        self, prompts: Sequence[Prompt | Context], n: int, finished: Finished, *, seed: int
    ) -> list[tuple[Completion, ...]]:
        groups = self.act(prompts, n, seed=seed)
        for place, group in reversed(list(enumerate(groups))):
            before = len(list(self._directory.iterdir()))
            finished(place, group)
            ends = time.monotonic() + WAIT
            while len(list(self._directory.iterdir())) == before:
                assert time.monotonic() < ends, "nothing was begun"
                time.sleep(0.01)
        return groups
