"""The knobs that every strategy takes: trust, and what length does. Each with its closed form."""

from __future__ import annotations

from typing import Any

import pytest

import sharing
from mutual_env.errors import ConfigError
from mutual_env.types import Completion, Lesson
from sharing.advantages import EPSILON, group_advantages
from sharing.edges import Edges, at_least_0, within_0_and_1
from sharing.shaping import SoftOverlong
from sharing.testing import ScriptedEnv, check_strategy, scripted_completion
from tests.sharing.toys import BAD, GOOD, play

AGENTS = ["a", "b", "c"]
ANSWERS = {"a": [[GOOD, BAD], [BAD, BAD]], "b": [[GOOD, BAD], [GOOD, BAD]], "c": [[BAD, GOOD], [GOOD, GOOD]]}


def lessons(name: str, answers: Any = ANSWERS, agents: list[str] = AGENTS, **options: Any) -> tuple[Lesson, ...]:
    """Of the first agent."""
    groups = answers[agents[0]]
    env = sharing.make(name, ScriptedEnv(agents, prompts=len(groups), group=len(groups[0])), **options)
    taught: tuple[Lesson, ...] = play(env, answers)[agents[0]]["lessons"]
    return taught


# -- options by reader and by edge ------------------------------------------------------------------------------------


def test_an_option_is_one_number_or_one_for_each_reader_or_one_for_each_edge() -> None:
    edges = Edges.of("weight", {"a": {"b": 0.2, "*": 0.1}, "*": 0.05}, AGENTS, at_least_0)
    assert [edges.at("a", "b"), edges.at("a", "c"), edges.at("b", "a"), edges.at("c")] == [0.2, 0.1, 0.05, 0.05]
    assert Edges.of("weight", 0.3, AGENTS, at_least_0).at("b", "c") == 0.3
    assert edges.is_always(0.05) is False


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"a": 0.1, "b": 0.2}, "has no number for 'c'"),
        ({"a": {"b": 0.1}, "*": 0.1}, "names some authors"),
        ({"*": -0.1}, "must be at least 0, got -0.1"),
        (-1.0, "must be at least 0"),
    ],
)
def test_an_option_that_leaves_somebody_without_a_number_is_refused_at_once(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Edges.of("weight", given, AGENTS, at_least_0)


def test_a_mixing_weight_belongs_to_a_reader_and_not_to_an_edge() -> None:
    with pytest.raises(ConfigError, match="one number for each reader"):
        Edges.of("eta", {"a": {"*": 0.1}, "*": 0.1}, AGENTS, within_0_and_1, by_author=False)


# -- trust ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prp", "graft", "hacpo", "ftis", "luffy", "sapo", "sgt"])
def test_trust_weighs_what_a_peer_wrote_and_nothing_else(name: str) -> None:
    plain, weighed = lessons(name), lessons(name, trust={"a": {"b": 0.25, "*": 1.0}, "*": 1.0})
    assert [x.experience for x in plain] == [x.experience for x in weighed]
    for before, after in zip(plain, weighed, strict=True):
        assert after.weight == before.weight * (0.25 if before.experience.author == "b" else 1.0)
        assert after.advantage == before.advantage


def test_trust_of_zero_is_not_listening() -> None:
    for name in ("prp", "xgrpo", "sgt", "sapo"):
        deaf = {"a": {"b": 0.0, "*": 1.0}, "*": 1.0}
        assert lessons(name, trust=deaf) == lessons(name, peers={"a": ["c"], "b": ["a", "c"], "c": ["a", "b"]})
    assert lessons("prp", trust=0.0) == lessons("grpo")


def test_statistics_count_as_often_as_their_author_is_trusted() -> None:
    # On the second prompt own 0, 0; b 1, 0 with trust 1/2 counts as one rollout with mean 1/2; c 1, 1 as two. Of own 2
    # and peers 3 rollouts the baseline is (0 + 1/2 + 2) / 5 = 1/2 and the second moment the same.
    taught = lessons("xgrpo", trust={"a": {"b": 0.5, "*": 1.0}, "*": 1.0})
    assert [x.advantage for x in taught[2:]] == pytest.approx([-0.5 / (0.5 + EPSILON)] * 2)


def test_eta_may_differ_from_reader_to_reader() -> None:
    # Where b mixes with 0 and a with 1: b's lessons are GRPO's, a's baseline on the second prompt is the peers' 3/4.
    env = sharing.make("xgrpo", ScriptedEnv(AGENTS), eta={"a": 1.0, "*": 0.0}, std=False)
    infos = play(env, ANSWERS)
    assert [x.advantage for x in infos["a"]["lessons"][2:]] == [-0.75, -0.75]
    plain = play(sharing.make("grpo", ScriptedEnv(AGENTS), std=False), ANSWERS)
    assert infos["b"]["lessons"] == plain["b"]["lessons"]


def test_trust_passes_lessons_from_below_as_they_came() -> None:
    env = sharing.make("sgt", ScriptedEnv(AGENTS), trust=0.5)
    taught = play(sharing.make("trrd", env, teacher="b", trust=0.5), ANSWERS)["a"]["lessons"]
    assert taught[-1].weight == 0.05  # .1 · .5, once


# -- length -----------------------------------------------------------------------------------------------------------


def test_the_soft_penalty_falls_over_the_buffer_and_ends_at_minus_one() -> None:
    soft = SoftOverlong(limit=16, buffer=4)
    # up to 12: 0; then (12 - n) / 4; from 16 on -1
    assert [soft.penalty(n) for n in (0, 12, 13, 15, 16, 40)] == [0.0, 0.0, -0.25, -0.75, -1.0, -1.0]
    for wrong in ({"limit": 4, "buffer": 5}, {"limit": 4, "buffer": 0}):
        with pytest.raises(ConfigError):
            SoftOverlong(**wrong)


LONG = "yes" + "." * 9  # 12 tokens, right
PENALTY = {"limit": 12, "buffer": 4}  # 12 tokens: -1; 3 tokens (yes): 0


def test_advantages_are_of_rewards_under_the_penalty_and_right_stays_right() -> None:
    answers = {"a": [[LONG, GOOD, BAD, "yes......."]]}  # 10 tokens: (8 - 10) / 4 = -.5
    taught = lessons("grpo", answers, ["a"], length_penalty=PENALTY)
    assert [x.advantage for x in taught] == group_advantages([0.0, 1.0, 0.0, 0.5])
    assert [x.experience.verdict.correct for x in taught] == [True, True, False, True]
    assert lessons("grpo", answers, ["a"], length_penalty=None) == lessons("grpo", answers, ["a"])


@pytest.mark.parametrize("together", [True, False])
def test_peers_rewards_are_seen_under_the_readers_penalty_wherever_the_peers_are(together: bool) -> None:
    answers = {"a": [[GOOD, BAD]], "b": [[LONG, BAD]]}
    expected = group_advantages([1.0, 0.0, 0.0, 0.0])
    if together:
        taught = lessons("prp", answers, ["a", "b"], length_penalty=PENALTY)
    else:
        exchange = sharing.InMemoryExchange()
        apart = [
            sharing.make("prp", ScriptedEnv([agent], prompts=1), exchange=exchange, length_penalty=PENALTY)
            for agent in "ba"
        ]
        for env, agent in zip(apart, "ba", strict=True):
            infos = play(env, {agent: answers[agent]})
        taught = infos["a"]["lessons"]
    assert [x.advantage for x in taught] == expected


def test_statistics_are_of_rewards_under_the_penalty() -> None:
    # b: 1 - 1 and 0 - 1 (a wrong one of 12 tokens): mean -.5 over two; own 1, 0. Baseline (.5 · 2 - .5 · 2) / 4 = 0.
    answers = {"a": [[GOOD, BAD]], "b": [[LONG, "no" + "." * 10]]}
    for together in (True, False):
        exchange = sharing.InMemoryExchange()
        agents = [["a", "b"]] if together else [["b"], ["a"]]
        for names in agents:
            env = sharing.make(
                "xgrpo", ScriptedEnv(names, prompts=1), exchange=exchange, length_penalty=PENALTY, std=False
            )
            infos = play(env, {name: answers[name] for name in names})
        assert [x.advantage for x in infos["a"]["lessons"]] == [1.0, 0.0]
        assert infos["a"]["metrics"]["share/refused"] == 0.0


def test_a_strategy_above_sees_rewards_as_the_one_below() -> None:
    env = sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=1), length_penalty=PENALTY, truncated="mask")
    assert play(env, {"a": [[LONG, GOOD]], "b": [[BAD, BAD]]})["a"]["lessons"][0].advantage < 0.0
    outer = sharing.make("trrd", env, teacher="b")
    assert outer._penalty == env._penalty == SoftOverlong(**PENALTY)
    assert outer._truncated == "mask"


def cut(text: str) -> Completion:
    whole = scripted_completion(text)
    return Completion(text, whole.token_ids, whole.logprobs, "length", 0, whole.tokenizer)


def test_masked_completions_count_in_their_group_and_are_not_trained_on() -> None:
    answers = {"a": [[GOOD, cut(BAD), BAD]], "b": [[cut(GOOD), GOOD, BAD]]}
    for name in ("grpo", "prp", "sgt"):
        plain = lessons(name, answers, ["a", "b"])
        masked = lessons(name, answers, ["a", "b"], truncated="mask")
        assert masked == tuple(x for x in plain if x.experience.completion.finish_reason == "stop")
    env = sharing.make("prp", ScriptedEnv(["a", "b"], prompts=1, group=3), truncated="mask")
    assert play(env, answers)["a"]["metrics"]["share/masked"] == 2.0
    with pytest.raises(ConfigError, match="one of 'keep', 'mask', got"):
        sharing.make("grpo", ScriptedEnv(["a"]), truncated="drop")


@pytest.mark.parametrize(
    "knob",
    [{"trust": {"policy_0": {"policy_1": 0.5, "*": 0.0}, "*": 1.0}}, {"length_penalty": {"limit": 40, "buffer": 38}}],
)
@pytest.mark.parametrize("name", ["prp", "xgrpo", "sgt", "hacpo"])
def test_every_knob_passes_the_conformance_check(name: str, knob: dict[str, Any]) -> None:
    check_strategy(lambda env, **common: sharing.make(name, env, **common, **knob))
