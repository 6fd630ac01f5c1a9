"""Each sharing strategy around a real env: PettingZoo's tests with warnings as errors, and ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec

import mutual_env
import sharing
from mutual_env.testing import check_wrapper, fuzz_actions

TEACHER = {"teacher": "policy_2"}
STRATEGIES: dict[str, dict[str, Any]] = {
    "independent": {}, "prp": {}, "xgrpo": {}, "sgt": {}, "graft": {}, "hacpo": {}, "ftis": {}, "luffy": {}, "sapo": {},
    "trrd": TEACHER, "kdrl": TEACHER, "topd": TEACHER, "offline": TEACHER, "memory": {}, "corl": {}, "placebo": {},
    "auto": {}, "frozen": {"agents": ["policy_1"]},
}  # fmt: skip


def arithmetic() -> mutual_env.ReasoningEnv:
    return mutual_env.make("mutual/arithmetic-v0", agents=3, group_size=2, prompts_per_round=3, digits=1)


@pytest.fixture
def strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # PettingZoo advises arrays; everything else that it warns of is an error.
        warnings.filterwarnings("ignore", message="Observation is not a NumPy array")
        warnings.filterwarnings("ignore", message=".* space for each agent probably should be")
        yield


def strategy_of(name: str) -> type:
    return sharing.registry.strategy(name)


def test_every_strategy_of_ours_is_looked_at() -> None:
    known = {strategy_of(name) for name in sharing.names()}  # with those that other tests registered
    ours = {strategy for strategy in known if strategy.__module__.startswith("sharing.strategies.")}
    assert ours == {strategy_of(name) for name in STRATEGIES}


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_passes_the_tests_of_pettingzoo_and_ours(name: str) -> None:
    def wrap(env: Any) -> Any:
        return sharing.make(name, env, **STRATEGIES[name])

    parallel_api_test(wrap(arithmetic()), num_cycles=5)
    parallel_seed_test(lambda: wrap(arithmetic()))
    api_test(parallel_to_aec(wrap(arithmetic())), num_cycles=5)
    check_wrapper(wrap)
    counts = fuzz_actions(lambda: wrap(arithmetic()), n=40)
    assert counts["refused"] > 0
    assert counts["scored"] > 0


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("id", ["mutual/letters-v0", "math/jsonl-v0", "reasoning_gym/gcd-v0"])
def test_a_stack_passes_around_every_family(id: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"problem": "{i}+{i}", "answer": "{2 * i}"}}\n' for i in range(9)))
    options = {"path": str(path), "eval_share": 0.0} if id == "math/jsonl-v0" else {}
    with mutual_env.VerifierPool(workers=1) as pool:

        def stack() -> Any:
            env = mutual_env.make(id, agents=3, group_size=2, prompts_per_round=2, pool=pool, **options)
            return sharing.SuccessGatedTransfer(sharing.Independent(env))

        parallel_api_test(stack(), num_cycles=3)
        parallel_seed_test(stack)
        api_test(parallel_to_aec(stack()), num_cycles=3)
