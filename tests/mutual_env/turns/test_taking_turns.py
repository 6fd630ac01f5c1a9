"""Agents that write one after the other: who waits is asked for nothing, and all else is as in other episodes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import learners
import mutual_env
from learners.adapters.table import answers_together
from learners.run.rollout import Groups, Turn, play
from mutual_env.confined import Confined
from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, InteractionSpec, Wait
from mutual_env.testing import check_env, fuzz_actions, seed_test
from mutual_env.types import Completion, Context, Task
from mutual_env.verifiers import VerifierSpec
from sharing import Independent, SuccessGatedTransfer
from tests.mutual_env.turns.pile import ID, TARGET, Pile, PileTasks
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge


@pytest.fixture(scope="module", autouse=True)
def game() -> None:
    mutual_env.register(ID, TARGET)


def made(**options: Any) -> Any:
    return mutual_env.make(ID, **{"agents": ["ann", "bob"], "group_size": 1, "prompts_per_round": 1, **options})


def written(env: Any, moves: list[tuple[str, str]]) -> tuple[Any, list[Any]]:
    """Plays these moves, each by whom is asked; what each step returned."""
    observations, _ = env.reset(seed=0)
    steps = []
    for author, text in moves:
        asked = [a for a in env.agents if observations[a]["conversations"][0][0] is not None]
        assert asked == [author]
        steps.append(env.step({a: [[text if a == author else None]] for a in env.agents}))
        observations = steps[-1][0]
    return observations, steps


def test_turns_alternate_and_a_game_has_one_winner() -> None:
    env = made()
    _, steps = written(env, [("ann", "2"), ("bob", "1"), ("ann", "2")])
    *before, (_, rewards, terminations, truncations, infos) = steps
    assert env.agents == []
    assert rewards == {"ann": 1.0, "bob": 0.0}
    assert terminations == {"ann": True, "bob": True}
    assert not any(truncations.values())
    assert all(set(step[1].values()) == {0.0} for step in before)
    [[ann]], [[bob]] = (infos[name]["groups"] for name in ("ann", "bob"))
    assert [t.reply.text for t in ann.earlier] == ["5?", "2?"]  # 5 - 2 - 1
    assert [t.completion.text for t in ann.earlier] == ["", "2"]
    assert [t.reply.text for t in bob.earlier] == ["3?"]
    assert (ann.completion.text, bob.completion.text) == ("2", "1")
    assert (ann.verdict.correct, bob.verdict.correct) == (True, False)
    assert infos["ann"]["metrics"]["turns/mean"] == 2.0  # the silence before the rules is no turn


def test_who_begins_is_the_games_affair_and_not_the_order_of_the_agents() -> None:
    envs = [made(agents=names, prompts_per_round=2) for names in (["ann", "bob"], ["bob", "ann"])]
    for env in envs:
        observations, _ = env.reset(seed=0)
        begins = [
            [name for name in ("ann", "bob") if observations[name]["conversations"][task][0] is not None]
            for task in range(2)
        ]
        assert begins == [["ann"], ["bob"]]


def test_a_game_holds_the_contract_and_pettingzoo_finds_nothing_to_warn_of() -> None:
    def make() -> Any:
        return made(group_size=2, prompts_per_round=2)

    check_env(make)
    seed_test(make)
    assert fuzz_actions(make, n=60)["scored"] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(is not a|should be) .*(Box|numpy).*")
        parallel_api_test(make(), num_cycles=20)
        parallel_seed_test(make)


def test_who_waits_for_somebody_that_was_cut_is_cut_as_well() -> None:
    _, steps = written(made(max_turns=1), [("ann", "1"), ("bob", "1")])
    _, _, terminations, truncations, infos = steps[-1]
    assert truncations == {"ann": True, "bob": True}
    assert not any(terminations.values())
    assert [infos[name]["metrics"]["turns/cut_share"] for name in ("ann", "bob")] == [1.0, 1.0]
    assert [infos[name]["groups"][0][0].verdict.correct for name in ("ann", "bob")] == [False, False]


def test_who_waits_for_somebody_who_found_no_room_is_cut_as_well() -> None:
    env = made(agents=["ann", "bob"], group_size=2)
    env.reset(seed=0)
    full = Completion.no_room(0, "some tokenizer")
    env.step({"ann": [["1", "1"]], "bob": [[None, None]]})
    observations, _, terminations, truncations, _ = env.step({"ann": [[None, None]], "bob": [["1", full]]})
    assert not any(truncations.values())
    assert not any(terminations.values())
    assert [c is not None for c in observations["ann"]["conversations"][0]] == [True, False]
    env.step({"ann": [["2", None]], "bob": [[None, None]]})
    *_, truncations, infos = env.step({"ann": [[None, None]], "bob": [["1", None]]})
    assert truncations == {"ann": True, "bob": True}
    [[won, cut]], [[lost]] = (infos[name]["groups"] for name in ("ann", "bob"))
    assert (won.verdict.correct, lost.verdict.correct, cut.completion.text) == (False, True, "1")


def test_a_game_that_is_over_before_its_player_wrote_anything_is_no_experience() -> None:
    _, steps = written(made(), [("ann", "nothing of the kind")])
    _, rewards, _, _, infos = steps[-1]
    assert rewards == {"ann": 0.0, "bob": 0.0}  # bob won, with nothing that could be learnt from
    assert infos["bob"]["groups"] == ((),)
    assert infos["bob"]["metrics"]["turns/mean"] == 0.0
    assert len(infos["ann"]["groups"][0]) == 1


def test_another_number_of_agents_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="played by exactly 2 agents, got 3: make it with agents=2"):
        made(agents=3)
    with pytest.raises(InvalidInputError, match="another library's loop asks everybody at once"):
        answers_together(ID, {})


class Silent:
    """Lets everybody wait."""

    inline = joint = takes_turns = True
    max_turns, players = 3, 2

    def respond(self, task: Task, conversations: Any) -> list[Answer]:
        return [Wait() for _ in conversations]


class SilentElsewhere(Confined):
    joint = takes_turns = True
    max_turns, players = 3, 2

    def respond(self, task: Task, conversations: Any) -> list[Answer]:
        return [Wait() for _ in conversations]


class SilentTasks:
    verifier = VerifierSpec("exact")

    def __init__(self, *, kind: str = "Silent") -> None:
        self.interaction = InteractionSpec(f"{__name__}:{kind}")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"{round}.{i}", "?", "") for i in range(n)]


def test_a_game_that_asks_nobody_is_said_to_and_from_a_worker_it_ends_with_a_status() -> None:
    mutual_env.register("test/silent-v0", SilentTasks)
    options = {"agents": 2, "group_size": 1, "prompts_per_round": 1}
    env = mutual_env.make("test/silent-v0", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="lets sample 0 wait and asks nobody"):
        env.reset()
    elsewhere = mutual_env.make("test/silent-v0", kind="SilentElsewhere", **options)  # type: ignore[arg-type]
    try:
        elsewhere.reset()
        *_, infos = elsewhere.step({agent: [[None]] for agent in elsewhere.agents})
    finally:
        elsewhere.close()
    assert elsewhere.agents == []
    assert all(info["groups"] == ((),) for info in infos.values())
    assert all(info["metrics"]["turns/failed_share"] == 1.0 for info in infos.values())


def test_a_peers_game_was_played_from_another_place_and_ones_own_was_not() -> None:
    env = made()
    _, steps = written(env, [("ann", "2"), ("bob", "1"), ("ann", "2")])
    infos = steps[-1][-1]
    [[ann]], [[bob]] = (infos[name]["groups"] for name in ("ann", "bob"))
    assert env.divergence("ann", ann) == 0.0
    assert env.divergence("bob", bob) == 0.0
    assert env.divergence("ann", bob) == 1.0  # bob's first reply came after a move of ann's, who would have begun
    assert env.divergence("bob", ann) == 1.0


class Strict(Pile):
    """Is asked for all players together, or not at all."""

    def respond(self, task: Task, conversations: Any) -> list[Answer]:
        assert len(conversations) == self.players
        return super().respond(task, conversations)


class StrictTasks(PileTasks):
    def __init__(self) -> None:
        super().__init__()
        self.interaction = InteractionSpec(f"{__name__}:Strict", self.interaction.kwargs)


def test_a_game_of_another_round_is_another_one_and_nobody_is_asked_about_it() -> None:
    mutual_env.register("test/strict-pile-v0", StrictTasks)
    env: Any = mutual_env.make("test/strict-pile-v0", agents=["ann", "bob"], group_size=1, prompts_per_round=1)
    _, steps = written(env, [("ann", "2"), ("bob", "1"), ("ann", "2")])
    [[ann]] = steps[-1][-1]["ann"]["groups"]
    env.reset(seed=0, options={"round": 1})
    assert [env.divergence(reader, ann) for reader in ("ann", "bob")] == [1.0, 1.0]


def test_two_policies_of_two_tokenizers_learn_from_their_games() -> None:
    alphabet = "0123456789+=?"
    tokenizers = {"ann": CharTokenizer(alphabet), "bob": PairTokenizer(alphabet, ["1=", "2="])}
    policies = {
        name: learners.make("tabular", name=name, tokenizer=t, alphabet="12", max_new_tokens=2, learning_rate=4)
        for name, t in tokenizers.items()
    }
    bridge = TokenizerBridge(tokenizers.values())
    env: Any = SuccessGatedTransfer(Independent(made(group_size=4, prompts_per_round=2)))
    observations, _ = env.reset(seed=0)
    asked_before: list[dict[str, int]] = []

    def act(asked: Any) -> dict[str, Groups]:
        asked_before.append({name: len(what) for name, (what, _, _) in asked.items()})
        return {name: policies[name].act(what, n, seed=seed) for name, (what, n, seed) in asked.items()}

    *_, (_, _, _, _, infos) = play(env, env.step, Turn(observations, 0, 4, 7), list(policies), act)
    assert asked_before[0] == {"ann": 4, "bob": 4}  # each begins one of the two games, four times
    for name, policy in policies.items():
        batch = learners.build_batch(infos[name]["lessons"], policy, bridge)
        own = [o for o in batch.outcomes if o.lesson.experience.author == name and o.example is not None]
        assert own
        for outcome in own:
            experience = outcome.lesson.experience
            sampled = np.concatenate([c.token_ids for c in experience.written])
            assert outcome.draft is not None
            trained = outcome.draft.written
            assert trained is not None
            assert not trained[0]  # the rules, which the world says first
            assert outcome.draft.response_ids[trained].tolist() == sampled.tolist()
        policy.update(batch.examples)


def test_a_new_round_of_games_begins_with_contexts_that_nobody_has_written_in() -> None:
    observations, _ = made(prompts_per_round=2).reset(seed=0)
    contexts = [c for group in observations["ann"]["conversations"] for c in group]
    assert contexts[1] is None
    [opened] = [c for c in contexts if c is not None]
    assert isinstance(opened, Context)
    assert opened.is_new
    assert opened.turns[0].is_opening
