"""What every strategy gets from the wrapper: publishing once, reading by task, stacking with a reason."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils import parallel_to_aec

import sharing
from mutual_env.errors import ConfigError, InvalidInputError, UnknownNameError
from mutual_env.types import CrossEntropy
from sharing import Independent, InMemoryExchange, SuccessGatedTransfer
from sharing.testing import check_strategy, scripted_completion
from tests.sharing.toys import BAD, GOOD, REQUIRED, ScriptedEnv, play, success


def test_grpo_advantages_are_the_reward_against_its_group() -> None:
    infos = play(Independent(ScriptedEnv(["a"], prompts=2, group=4)), {"a": [[GOOD, BAD, BAD, BAD], [GOOD] * 4]})
    # mean 1/4, population std sqrt(3)/4: (1 - .25) / (std + 1e-6) = 1.7320468..., (0 - .25) / ... = -.57734...
    scale = 3**0.5 / 4 + 1e-6
    expected = [0.75 / scale, *[-0.25 / scale] * 3, 0.0, 0.0, 0.0, 0.0]
    assert [lesson.advantage for lesson in infos["a"]["lessons"]] == pytest.approx(expected, rel=1e-12)
    assert infos["a"]["metrics"]["share/all_pass"] == 0.5
    assert infos["a"]["metrics"]["share/all_fail"] == 0.0


def test_leaving_the_std_out_leaves_the_centred_reward() -> None:
    infos = play(Independent(ScriptedEnv(["a"], prompts=1, group=2), std=False), {"a": [[GOOD, BAD]]})
    assert [lesson.advantage for lesson in infos["a"]["lessons"]] == [0.5, -0.5]


def test_experience_without_a_verdict_is_neither_learnt_from_nor_counted() -> None:
    infos = play(Independent(ScriptedEnv(["a"], prompts=1, group=3), std=False), {"a": [[GOOD, "?", BAD]]})
    assert [lesson.advantage for lesson in infos["a"]["lessons"]] == [0.5, -0.5]


def test_a_failed_prompt_is_rescued_by_one_peer_success_and_nothing_else_moves() -> None:
    answers = {"a": [[BAD, BAD], [GOOD, BAD]], "b": [[GOOD, BAD], [GOOD, GOOD]]}
    alone = play(Independent(ScriptedEnv(["a", "b"])), answers)
    shared = play(SuccessGatedTransfer(Independent(ScriptedEnv(["a", "b"]))), answers)
    *own, rescue = shared["a"]["lessons"]
    assert tuple(own) == alone["a"]["lessons"]
    borrowed = rescue.experience
    assert (borrowed.author, borrowed.task.id, borrowed.completion.text) == ("b", "t0.0", GOOD)
    assert (rescue.loss, rescue.weight) == (CrossEntropy(), 0.1)
    assert shared["b"]["lessons"] == alone["b"]["lessons"]  # b failed nowhere
    assert shared["a"]["metrics"]["share/rescued"] == 1.0


def test_the_rescue_is_drawn_uniformly_over_all_peers_successes() -> None:
    env = sharing.make("sgt", ScriptedEnv(["a", "b", "c"], prompts=1, group=3))
    answers = {"a": [[BAD] * 3], "b": [["yes b0", "yes b1", BAD]], "c": [["yes c0", BAD, BAD]]}
    drawn: dict[str, int] = {}
    for round_ in range(1200):
        infos = play(env, answers, round=round_)
        text = infos["a"]["lessons"][-1].experience.completion.text
        drawn[text] = drawn.get(text, 0) + 1
    # 3 candidates, 1200 draws: 400 each, standard deviation 16; 5 of them either way
    assert sorted(drawn) == ["yes b0", "yes b1", "yes c0"]
    assert all(318 < n < 482 for n in drawn.values())


def test_the_draw_depends_on_seed_and_round_and_not_on_the_order_of_agents() -> None:
    answers = {"a": [[BAD]], "b": [["yes b"]], "c": [["yes c"]]}

    def texts(agents: list[str], seed: int) -> list[str]:
        env = sharing.make("sgt", ScriptedEnv(agents, prompts=1, group=1))
        return [
            play(env, answers, round=r, seed=seed)["a"]["lessons"][-1].experience.completion.text for r in range(32)
        ]

    assert texts(["a", "b", "c"], 1) == texts(["c", "a", "b"], 1)
    assert texts(["a", "b", "c"], 1) != texts(["a", "b", "c"], 2)


def test_a_stack_publishes_each_kind_once() -> None:
    exchange = InMemoryExchange()
    below = Independent(ScriptedEnv(["a", "b"]), exchange=exchange, publish=("success", "rollout"))
    env = SuccessGatedTransfer(below, exchange=exchange, publish=("rollout",))
    play(env, {"a": [[GOOD, BAD], [BAD, BAD]], "b": [[BAD, BAD], [GOOD, GOOD]]})
    kinds = [record.kind for record in exchange.scan()]
    assert (kinds.count("rollout"), kinds.count("success")) == (8, 3)


def test_peers_may_act_in_another_env_over_the_same_tasks() -> None:
    exchange = InMemoryExchange()
    there = sharing.make("sgt", ScriptedEnv(["b"], prompts=1, group=1), exchange=exchange)
    here = ScriptedEnv(["a"], prompts=1, group=1)
    play(there, {"b": [[GOOD]]})
    infos = play(sharing.make("sgt", here, exchange=exchange), {"a": [[BAD]]})
    assert infos["a"]["metrics"]["share/rescued"] == 1.0
    assert here.verified == 1  # b's claim was verified here, once


def test_what_this_env_verified_is_not_verified_again() -> None:
    env = ScriptedEnv(["a", "b"])
    infos = play(sharing.make("sgt", env), {"a": [[BAD, BAD]] * 2, "b": [[GOOD, GOOD]] * 2})
    assert infos["a"]["metrics"]["share/rescued"] == 2.0
    assert env.verified == 0


def test_records_older_than_the_accepted_staleness_are_left_and_counted() -> None:
    exchange = InMemoryExchange()
    exchange.publish([success("t0.0", round=3)])
    for staleness, rescued in ((0, 0.0), (1, 0.0), (2, 1.0), (None, 1.0)):
        toy = ScriptedEnv(["a"], prompts=1, group=1, fixed=True)
        env = sharing.make("sgt", toy, exchange=exchange, max_staleness=staleness)
        metrics = play(env, {"a": [[BAD]]}, round=5)["a"]["metrics"]
        assert metrics["share/rescued"] == rescued
        assert metrics["share/outside_staleness"] == 1.0 - rescued


def test_a_reader_reads_the_peers_it_names() -> None:
    answers = {"a": [[BAD]], "b": [["yes b"]], "c": [["yes c"]], "d": [["yes d"]]}

    def author(peers: Any) -> list[str]:
        env = sharing.make("sgt", ScriptedEnv(["d", "c", "b", "a"], prompts=1, group=1), peers=peers)
        lessons = [play(env, answers, round=r)["a"]["lessons"] for r in range(16)]
        return sorted({lesson[-1].experience.author for lesson in lessons} - {"a"})

    assert author(None) == ["b", "c", "d"]
    assert author(1) == ["b"]  # a ring by name: a reads b, d reads a
    assert author(["c"]) == ["c"]
    assert author({"a": ["d", "b"], "b": ["a"]}) == ["b", "d"]
    assert author(0) == []


def test_the_stack_is_readable() -> None:
    assert str(sharing.make("sgt", ScriptedEnv(["a", "b"]))) == "<SuccessGatedTransfer<Independent<scripted>>>"


def test_adding_to_lessons_that_are_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SuccessGatedTransfer\(Independent\(env\)\)"):
        SuccessGatedTransfer(ScriptedEnv(["a", "b"]))


def test_crediting_the_same_rollouts_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="own rollouts credit twice"):
        Independent(Independent(ScriptedEnv(["a", "b"])))
    with pytest.raises(ConfigError, match="peers' rollouts credit twice"):
        sharing.make("sgt", sharing.make("sgt", ScriptedEnv(["a", "b"])))


def test_a_wrong_name_or_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'sgt'"):
        sharing.make("sgtt", ScriptedEnv(["a", "b"]))
    with pytest.raises(UnknownNameError, match="'weight'"):
        sharing.make("sgt", ScriptedEnv(["a", "b"]), wieght=0.1)
    with pytest.raises(UnknownNameError, match="'max_staleness'"):
        sharing.make("independent", ScriptedEnv(["a", "b"]), max_stalenes=1)


def test_an_option_that_a_strategy_cannot_do_without_is_asked_for_by_name() -> None:
    with pytest.raises(ConfigError, match="'trrd' needs the option 'teacher'"):
        sharing.make("trrd", ScriptedEnv())


def test_options_of_the_strategy_below_go_below() -> None:
    infos = play(sharing.make("sgt", ScriptedEnv(["a"], prompts=1), std=False), {"a": [[GOOD, BAD]]})
    assert [lesson.advantage for lesson in infos["a"]["lessons"]] == [0.5, -0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_staleness": -1}, "max_staleness"),
        ({"wait": 1.0}, "peers="),
        ({"peers": "abc"}, "peers"),
        ({"weight": -0.1}, "weight"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sharing.make("sgt", ScriptedEnv(["a", "b"]), **options)


def test_an_env_that_returns_no_groups_is_refused_with_a_sentence() -> None:
    class Foreign(ScriptedEnv):
        def step(self, actions: Any) -> Any:
            *others, infos = super().step(actions)
            return (*others, {agent: {} for agent in infos})

    with pytest.raises(InvalidInputError, match="no 'groups'"):
        play(Independent(Foreign(["a"], prompts=1, group=1)), {"a": [[GOOD]]})


def test_waiting_for_an_absent_peer_is_bounded() -> None:
    env = sharing.make("sgt", ScriptedEnv(["a"], prompts=1, group=1), peers=["b"], wait=0.05)
    infos = play(env, {"a": [[BAD]]})
    assert infos["a"]["metrics"]["share/rescued"] == 0.0


def test_state_goes_through_json_and_back() -> None:
    exchange = InMemoryExchange()
    exchange.publish([success("t0.0", "b", version=4)])
    env = sharing.make("sgt", ScriptedEnv(["a"], prompts=1, group=1), exchange=exchange)
    play(env, {"a": [[BAD]]})
    assert env.state_dict()["seen"] == {"b": [0, 4]}
    again = sharing.make("sgt", ScriptedEnv(["a"], prompts=1, group=1), exchange=exchange)
    again.load_state_dict(env.state_dict())
    assert again.state_dict() == env.state_dict()


OURS = sorted(sharing.registry.OWN)


@pytest.mark.parametrize("name", OURS)
def test_petting_zoo_accepts_the_wrapped_env(name: str) -> None:
    def env() -> sharing.SharingWrapper:
        return sharing.make(name, ScriptedEnv(["policy_0", "policy_1"]), **REQUIRED.get(name, {}))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # PettingZoo says this of every env whose agents read text, its own such envs excepted by name.
        warnings.filterwarnings("ignore", "Observation is not a NumPy array")
        warnings.filterwarnings("ignore", ".* space for each agent probably should be gymnasium.spaces")
        parallel_api_test(env(), num_cycles=20)
        parallel_seed_test(env, num_cycles=5)
        api_test(parallel_to_aec(env()), num_cycles=20)


@pytest.mark.parametrize("name", OURS)
def test_every_strategy_of_ours_passes_the_check_that_ships(name: str) -> None:
    check_strategy(lambda env, **common: sharing.make(name, env, **REQUIRED.get(name, {}), **common))


def test_bytes_are_counted_per_prompt_and_kind() -> None:
    infos = play(
        sharing.make("sgt", ScriptedEnv(["a", "b"]), publish=("rollout",)),
        {"a": [[BAD, BAD]] * 2, "b": [[GOOD, GOOD]] * 2},
    )
    metrics = infos["a"]["metrics"]
    assert metrics["share/sent_bytes/rollout"] > 0
    assert "share/sent_bytes/success" not in metrics  # a had none
    assert metrics["share/received_bytes/success"] == infos["b"]["metrics"]["share/sent_bytes/success"]


def test_a_completion_given_as_text_alone_is_shared_like_any_other() -> None:
    infos = play(
        sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=1)),
        {"a": [[BAD, BAD]], "b": [[scripted_completion(GOOD), "yes"]]},
    )
    assert infos["a"]["metrics"]["share/rescued"] == 1.0
