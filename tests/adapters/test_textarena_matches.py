"""Two agents of ours in one of TextArena's real games."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

pytest.importorskip("textarena")
from pettingzoo.test import parallel_api_test, parallel_seed_test

import learners
import mutual_env
from learners.run.rollout import Groups, Turn, play
from mutual_env import VerifierPool
from mutual_env.errors import InvalidInputError
from mutual_env.testing import check_env, check_wrapper, seed_test
from mutual_env.types import Context
from sharing import Independent, SuccessGatedTransfer
from tests.adapters.players import best, greedy
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

pytestmark = pytest.mark.adapters
NIM = "test/textarena-nim-match-v0"


@pytest.fixture(scope="module", autouse=True)
def pool() -> Iterator[VerifierPool]:
    mutual_env.register(NIM, "mutual_env.adapters.textarena:TextArenaTasks", game="Nim-v0", players=2, turns=12)
    with VerifierPool(2, deadline=30.0) as pool:
        yield pool


def made(pool: VerifierPool, **options: Any) -> Any:
    sizes = {"agents": ["ann", "bob"], "group_size": 1, "prompts_per_round": 1}
    return mutual_env.make(NIM, pool=pool, **{**sizes, **options})


def played(env: Any, writes: Mapping[str, Callable[[str], str]]) -> tuple[list[list[str]], Any]:
    """A round in which each agent writes what it makes of all that it has heard; who was asked in each step."""
    observations, _ = env.reset(seed=0)
    asked: list[list[str]] = []
    while True:
        actions: dict[str, Any] = {}
        asked.append([])
        for agent in env.agents:
            contexts = [c for group in observations[agent]["conversations"] for c in group]
            actions[agent] = [[None if c is None else writes[agent](heard(c))] for c in contexts]
            asked[-1] += [agent] * any(c is not None for c in contexts)
        observations, rewards, *_, infos = env.step(actions)
        if not env.agents:
            return asked, (rewards, infos)


def heard(context: Context) -> str:
    return "".join(turn.reply.text for turn in context.turns)


def greedily(said: str) -> str:
    return greedy(said, 0)


def test_turns_alternate_and_the_better_player_wins(pool: VerifierPool) -> None:
    asked, (rewards, infos) = played(made(pool), {"ann": best, "bob": greedily})
    assert all(len(each) == 1 for each in asked)
    assert all(a != b for a, b in itertools.pairwise(asked))
    [[ann]], [[bob]] = (infos[name]["groups"] for name in ("ann", "bob"))
    assert sorted(rewards.values()) == [-1.0, 1.0]
    assert sorted([ann.verdict.correct, bob.verdict.correct]) == [False, True]
    assert ann.task == bob.task
    first, second = (ann, bob) if asked[0] == ["ann"] else (bob, ann)
    assert "Welcome to Nim, Player 0" in first.earlier[0].reply.text
    assert "Welcome to Nim, Player 1" in second.earlier[0].reply.text
    assert f"[Player 0] {first.earlier[1].completion.text}" in second.earlier[0].reply.text
    assert f"[Player 1] {second.earlier[1].completion.text}" in first.earlier[1].reply.text


def test_the_one_who_begins_changes_and_who_plays_well_wins_from_there(pool: VerifierPool) -> None:
    """From piles of 3, 4 and 5 whoever begins can leave a sum (xor) of 0, and wins."""
    env = made(pool, prompts_per_round=6)
    observations, _ = env.reset(seed=0)
    begins = [group[0] is not None for group in observations["ann"]["conversations"]]
    assert {True, False} == set(begins)
    _, (_, infos) = played(env, {"ann": best, "bob": best})
    assert [group[0].verdict.correct for group in infos["ann"]["groups"]] == begins
    assert [group[0].verdict.correct for group in infos["bob"]["groups"]] == [not began for began in begins]


def test_the_order_of_the_agents_and_the_number_of_workers_change_nothing(pool: VerifierPool) -> None:
    writes = {"ann": best, "bob": greedily}
    ends = [
        played(made(pool, agents=names, prompts_per_round=2), writes)[1] for names in (["ann", "bob"], ["bob", "ann"])
    ]
    with VerifierPool(1, deadline=30.0) as alone:
        ends.append(played(made(alone, prompts_per_round=2), writes)[1])
    for _, infos in ends[1:]:
        assert all(infos[name]["groups"] == ends[0][1][name]["groups"] for name in writes)


def test_who_breaks_the_rules_for_good_loses(pool: VerifierPool) -> None:
    asked, (rewards, infos) = played(made(pool), {"ann": lambda said: "I pass", "bob": greedily})
    assert (rewards["bob"], rewards["ann"]) in [(1.0, -1.0), (0.0, -1.0)]  # 0: where bob never had to write
    assert not infos["ann"]["groups"][0][0].verdict.correct
    again = [i for i, (a, b) in enumerate(itertools.pairwise(asked)) if a == b == ["ann"]]
    assert again, "a move that is none may be made again, while the other goes on waiting"


def test_matches_hold_the_contract_and_leave_the_global_generator_alone(pool: VerifierPool) -> None:
    before = random.getstate()
    check_env(lambda: made(pool, group_size=2))
    seed_test(lambda: made(pool))
    assert random.getstate() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(is not a|should be) .*(Box|numpy).*")
        parallel_api_test(made(pool), num_cycles=8)
        parallel_seed_test(lambda: made(pool))
        parallel_api_test(SuccessGatedTransfer(Independent(made(pool))), num_cycles=8)
        check_wrapper(lambda env: SuccessGatedTransfer(Independent(env)), lambda: made(pool))


def test_policies_of_two_tokenizers_learn_under_a_strategy(pool: VerifierPool) -> None:
    alphabet = "".join(chr(i) for i in range(32, 127)) + "\n"
    tokenizers = {"ann": CharTokenizer(alphabet), "bob": PairTokenizer(alphabet, ["[0", " 1", "1]"])}
    policies = {
        name: learners.make("tabular", name=name, tokenizer=t, alphabet="[] 0123", max_new_tokens=6, learning_rate=4)
        for name, t in tokenizers.items()
    }
    bridge = TokenizerBridge(tokenizers.values())
    env: Any = SuccessGatedTransfer(Independent(made(pool, group_size=4)))
    observations, _ = env.reset(seed=0)

    def act(asked: Any) -> dict[str, Groups]:
        return {name: policies[name].act(what, n, seed=seed) for name, (what, n, seed) in asked.items()}

    *_, (_, _, _, _, infos) = play(env, env.step, Turn(observations, 0, 4, 7), list(policies), act)
    for name, policy in policies.items():
        batch = learners.build_batch(infos[name]["lessons"], policy, bridge)
        for outcome in batch.outcomes:
            if outcome.example is not None and outcome.lesson.experience.author == name:
                sampled = [int(i) for c in outcome.lesson.experience.written for i in c.token_ids]
                assert outcome.draft is not None
                assert outcome.draft.written is not None
                assert outcome.draft.response_ids[outcome.draft.written].tolist() == sampled
        policy.update(batch.examples)
    assert any(infos[name]["lessons"] for name in policies)


def test_places_that_do_not_go_together_are_refused(pool: VerifierPool) -> None:
    with pytest.raises(InvalidInputError, match="played by exactly 2 agents, got 3"):
        made(pool, agents=3)
    with pytest.raises(InvalidInputError, match="player=1 says which one plays the opponent"):
        made(pool, player=1)
    with pytest.raises(InvalidInputError, match="no game for 5 players"):
        made(pool, players=5, agents=5).reset()
