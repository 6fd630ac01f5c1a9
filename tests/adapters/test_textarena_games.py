"""TextArena's real games, played in our env."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("textarena")
from pettingzoo.test import parallel_api_test

import mutual_env
from mutual_env import VerifierPool
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.testing import check_env, seed_test
from tests.adapters.players import best, greedy

pytestmark = pytest.mark.adapters
GUESS = "test/textarena-guess-v0"


@pytest.fixture(scope="module", autouse=True)
def pool() -> Iterator[VerifierPool]:
    mutual_env.register(GUESS, "mutual_env.adapters.textarena:TextArenaTasks", game="GuessTheNumber-v0", turns=6)
    mutual_env.register("test/textarena-nim-v0", "mutual_env.adapters.textarena:TextArenaTasks")
    with VerifierPool(2, deadline=30.0, readable=[str(Path(__file__).parents[2])]) as pool:
        yield pool


def test_a_game_is_played_to_its_end_by_its_own_hints(pool: VerifierPool) -> None:
    env = mutual_env.make(GUESS, agents=1, group_size=1, prompts_per_round=2, pool=pool)
    observations, _ = env.reset(seed=0)
    assert "between 1 and 20" in observations["policy_0"]["prompts"][0]
    bounds = [[1, 20], [1, 20]]
    infos = {}
    while env.agents:
        guesses = []
        for at, [context] in enumerate(observations["policy_0"]["conversations"]):
            if context is not None and context.turns:
                reply, last = context.turns[-1].reply.text, int(context.turns[-1].completion.text[1:-1])
                assert re.search("is (higher|lower)", reply)
                bounds[at] = [last + 1, bounds[at][1]] if "higher" in reply else [bounds[at][0], last - 1]
            guesses.append([f"[{sum(bounds[at]) // 2}]"])
        observations, _, _, _, infos = env.step({"policy_0": guesses})
    experiences = [group[0] for group in infos["policy_0"]["groups"]]
    assert [e.verdict.reward for e in experiences] == [1.0, 1.0]  # 20 numbers are found in five guesses
    assert all(e.verdict.correct for e in experiences)


def test_games_hold_the_contract_and_leave_the_global_generator_alone(pool: VerifierPool) -> None:
    def make() -> mutual_env.ReasoningEnv:
        return mutual_env.make(GUESS, agents=2, group_size=1, prompts_per_round=1, pool=pool)

    before = random.getstate()
    check_env(make)
    seed_test(make)
    assert random.getstate() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(is not a|should be) .*(Box|numpy).*")
        parallel_api_test(make(), num_cycles=4)


def test_a_game_of_two_is_played_against_an_opponent(pool: VerifierPool) -> None:
    """Nim with piles of 3, 4 and 5: whoever leaves the other with a sum (xor) of 0 wins, and the first player can."""
    env = mutual_env.make(
        "test/textarena-nim-v0", agents=["first"], group_size=2, prompts_per_round=1, pool=pool, turns=12,
        game="Nim-v0", players=2, opponent="tests.adapters.players:greedy",
    )  # fmt: skip
    observations, _ = env.reset(seed=0)
    assert "Welcome to Nim, Player 0" in observations["first"]["prompts"][0]
    infos = {}
    while env.agents:
        actions = []
        for careful, context in zip((True, False), observations["first"]["conversations"][0], strict=True):
            if context is not None:
                heard = context.turns[-1].reply.text if context.turns else context.prompt
                assert ("[Player 1] [" in heard) is bool(context.turns)
                actions.append(best(heard) if careful else greedy(heard, 0))
            else:
                actions.append(None)
        observations, _, _, _, infos = env.step({"first": [actions]})
    careful, greedy_one = infos["first"]["groups"][0]
    assert (careful.verdict.reward, careful.verdict.correct) == (1.0, True)
    assert greedy_one.verdict.correct  # three piles, taken whole in turns: the first player takes the last


def test_a_second_player_hears_what_the_first_has_done(pool: VerifierPool) -> None:
    env = mutual_env.make(
        "test/textarena-nim-v0", agents=1, group_size=1, prompts_per_round=1, pool=pool,
        game="Nim-v0", players=2, player=1, opponent="tests.adapters.players:greedy",
    )  # fmt: skip
    observations, _ = env.reset(seed=0)
    [prompt] = observations["policy_0"]["prompts"]
    assert "Player 1" in prompt
    assert "[Player 0] [0 3]" in prompt


def test_opponents_are_given_where_there_are_some() -> None:
    with pytest.raises(InvalidInputError, match="opponent moves for the other players"):
        mutual_env.make("test/textarena-nim-v0", game="Nim-v0", opponent="tests.adapters.players:greedy")
    with pytest.raises(InvalidInputError, match="no game for one player"):
        mutual_env.make("test/textarena-nim-v0", game="Nim-v0").reset()


def test_splits_share_no_game_and_a_wrong_name_is_answered(pool: VerifierPool) -> None:
    ids = [
        {t.id for r in range(5) for t in mutual_env.registry.source_of(GUESS, split=split).draw(0, r, 4)}
        for split in ("train", "eval")
    ]
    assert not ids[0] & ids[1]
    with pytest.raises(UnknownNameError, match="did you mean 'GuessTheNumber-v0'"):
        mutual_env.make(GUESS, game="GuesTheNumber-v0")
