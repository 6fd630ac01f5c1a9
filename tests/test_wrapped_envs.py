"""Each sharing strategy around a real env: PettingZoo's tests with warnings as errors, and ours."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec

import mutual_env
import sharing
from mutual_env.errors import InvalidInputError
from mutual_env.registry import source_of
from mutual_env.tasks.source import InteractiveSource
from mutual_env.testing import check_wrapper, fuzz_actions
from mutual_env.types import Prompt
from tests.mutual_env.turns.pile import TARGET
from tests.tiers import rest_long

TEACHER = {"teacher": "policy_2"}
STRATEGIES: dict[str, dict[str, Any]] = {
    "independent": {}, "prp": {}, "xgrpo": {}, "sgt": {}, "graft": {}, "hacpo": {}, "ftis": {}, "luffy": {}, "sapo": {},
    "trrd": TEACHER, "kdrl": TEACHER, "topd": TEACHER, "offline": TEACHER, "memory": {}, "corl": {}, "placebo": {},
    "auto": {}, "frozen": {"agents": ["policy_1"]},
}  # fmt: skip


def said(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """Who sits in a seat."""
    return ["yes" if seed % 2 else "no"] * len(prompts)


LETTERS = {"family": "mutual/letters-v0", "length": 2}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "mutual/guess-v0": {"limit": 4}, "mutual/undercut-v0": {}, "mutual/retries-v0": LETTERS,
    "mutual/debate-v0": LETTERS, "mutual/calculator-v0": LETTERS, "mutual/python-v0": LETTERS,
    "mutual/judged-v0": {**LETTERS, "seats": {"judge": said}}, "mutual/user-v0": {**LETTERS, "seats": {"user": said}},
}  # fmt: skip
FAMILY_OF = dict(zip(STRATEGIES, itertools.cycle(CONVERSATIONS), strict=False))
"""Quickly each strategy is tried around one of them; `make test-long` tries all pairs."""
PAIRS = [
    pytest.param(strategy, family, marks=[] if FAMILY_OF[strategy] == family else [pytest.mark.long])
    for strategy in STRATEGIES
    for family in CONVERSATIONS
]


GAME = "test/pile-of-three-v0"
mutual_env.register(GAME, TARGET, players=3)


def has_turns(id: str) -> bool:
    if id == "mutual/curriculum-v0":
        return False  # it refuses families of several turns
    try:
        return isinstance(source_of(id), InteractiveSource)
    except InvalidInputError:  # it is around another family
        return isinstance(source_of(id, family="mutual/letters-v0"), InteractiveSource)


def conversation(family: str) -> Any:
    return mutual_env.make(family, agents=3, group_size=2, prompts_per_round=2, **CONVERSATIONS[family])


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


def test_every_family_of_turns_is_looked_at() -> None:
    assert {id for id in mutual_env.ids() if id.startswith("mutual/") and has_turns(id)} == CONVERSATIONS.keys()
    assert set(FAMILY_OF.values()) == CONVERSATIONS.keys()


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_strategy_passes_the_tests_of_pettingzoo_and_ours_in_conversations(name: str, family: str) -> None:
    def wrap(env: Any) -> Any:
        return sharing.make(name, env, **STRATEGIES[name])

    parallel_api_test(wrap(conversation(family)), num_cycles=8)
    parallel_seed_test(lambda: wrap(conversation(family)))
    check_wrapper(wrap, lambda: conversation(family))
    counts = fuzz_actions(lambda: wrap(conversation(family)), n=20)
    assert counts["scored"] > 0


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_passes_around_a_game_that_is_played_in_turns(name: str) -> None:
    def game() -> Any:
        return mutual_env.make(GAME, agents=3, group_size=2, prompts_per_round=2)

    def wrap(env: Any) -> Any:
        return sharing.make(name, env, **STRATEGIES[name])

    parallel_api_test(wrap(game()), num_cycles=8)
    parallel_seed_test(lambda: wrap(game()))
    check_wrapper(wrap, game)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("id", rest_long(["mutual/letters-v0", "math/jsonl-v0", "reasoning_gym/gcd-v0"], quick=2))
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
