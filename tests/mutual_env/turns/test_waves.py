"""Dynamic sampling: groups without spread are sampled again, or the round is topped up; bounded and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mutual_env
import sharing
from learners.registry import make as make_learner
from learners.run.loop import Loop
from mutual_env.errors import InvalidActionError, InvalidInputError
from mutual_env.types import Context
from mutual_env.waves import Waves
from tokenizers_bridge import CharTokenizer, TokenizerBridge

AGENTS = ["ann", "bob"]


def env(*, refills: int = 0, spare_prompts: int = 0, agents: list[str] = AGENTS, **options: Any) -> Waves:
    settings = {"group_size": 2, "prompts_per_round": 2, "digits": 1, "seed": 3, **options}
    made = mutual_env.make("mutual/arithmetic-v0", agents=agents, **settings)
    return Waves(made, refills=refills, spare_prompts=spare_prompts)


def play(waves: Waves, write: Callable[[str, int, str, int], str]) -> tuple[list[Any], dict[str, Any]]:
    """One round. `write(agent, wave, right answer, sample)`. Returns what each wave asked for, and the infos."""
    observations, _ = waves.reset()
    answers = {task.prompt: task.answer for task in waves.tasks}
    asked: list[Any] = []
    infos: dict[str, Any] = {}
    while waves.agents:
        asked.append({a: [g[0] and g[0].prompt for g in observations[a]["conversations"]] for a in waves.agents})
        actions = {
            agent: [
                [None if c is None else write(agent, len(asked) - 1, answers[c.prompt], i) for i, c in enumerate(group)]
                for group in observations[agent]["conversations"]
            ]
            for agent in waves.agents
        }
        observations, _, _, _, told = waves.step(actions)
        infos |= {agent: info for agent, info in told.items() if info["groups"]}
    return asked, infos


def right(_: str, wave: int, answer: str, sample: int) -> str:
    return answer


def mixed(_: str, wave: int, answer: str, sample: int) -> str:
    return answer if sample == 0 else "no"


def test_a_group_with_spread_is_never_asked_for_again() -> None:
    asked, infos = play(env(refills=5, spare_prompts=5), mixed)
    assert len(asked) == 1
    metrics = infos["ann"]["metrics"]
    assert (metrics["waves"], metrics["refills"], metrics["spare_prompts"]) == (1.0, 0.0, 0.0)
    assert (metrics["spread/first"], metrics["spread/last"]) == (2.0, 2.0)
    assert [len(group) for group in infos["ann"]["groups"]] == [2, 2, 0, 0, 0, 0, 0]


def test_refills_take_the_place_of_groups_without_spread_for_each_agent_by_itself() -> None:
    # ann is right on everything in the first wave and mixed from the second on; bob is mixed at once.
    waves = env(refills=3)
    asked, infos = play(waves, lambda a, wave, *rest: (right if a == "ann" and wave == 0 else mixed)(a, wave, *rest))
    prompts = [task.prompt for task in waves.tasks]
    assert asked == [{"ann": prompts, "bob": prompts}, {"ann": prompts}]
    ann = infos["ann"]
    assert [[e.verdict.correct for e in group] for group in ann["groups"]] == [[True, False], [True, False]]
    assert {k: ann["metrics"][k] for k in ("waves", "refills", "refills/gained", "spread/first", "spread/last")} == {
        "waves": 2.0, "refills": 2.0, "refills/gained": 2.0, "spread/first": 0.0, "spread/last": 2.0
    }  # fmt: skip
    assert ann["metrics"]["accuracy"] == 1.0  # of the first wave: the second was chosen for being mixed
    assert infos["bob"]["metrics"]["refills"] == 0.0


def test_refills_are_bounded_and_the_last_group_stays() -> None:
    asked, infos = play(env(refills=2, agents=["ann"]), right)
    assert len(asked) == 3  # the first wave and two refills
    assert infos["ann"]["metrics"]["refills"] == 4.0
    assert infos["ann"]["metrics"]["spread/last"] == 0.0
    assert [len(group) for group in infos["ann"]["groups"]] == [2, 2]


def test_spare_prompts_take_the_places_that_are_left_and_none_twice() -> None:
    # Nothing has spread: one refill of both, then two spares, then the third; its own place stays without spread.
    waves = env(refills=1, spare_prompts=3, agents=["ann"])
    asked, infos = play(waves, right)
    a, b, c, d, e = (task.prompt for task in waves.tasks)
    assert [wave["ann"] for wave in asked] == [[a, b], [a, b], [c, d], [e, None]]
    assert infos["ann"]["metrics"]["spare_prompts"] == 3.0
    assert len({task.id for task in waves.tasks}) == 5
    assert [group[0].task.id for group in infos["ann"]["groups"]] == [task.id for task in waves.tasks]


def test_a_spare_prompt_that_has_spread_fills_its_place() -> None:
    waves = env(spare_prompts=3, agents=["ann"])
    asked, infos = play(waves, lambda a, wave, *rest: (mixed if wave else right)(a, wave, *rest))
    assert len(asked) == 2
    metrics = infos["ann"]["metrics"]
    assert (metrics["spare_prompts"], metrics["spare_prompts/gained"], metrics["spread/last"]) == (2.0, 2.0, 2.0)
    assert [len(group) for group in infos["ann"]["groups"]] == [2, 2, 2, 2, 0]  # what was flat stays, for rescues


def test_rounds_have_the_same_tasks_with_and_without_a_reserve() -> None:
    plain = mutual_env.make("mutual/arithmetic-v0", agents=1, group_size=2, prompts_per_round=2, digits=1, seed=3)
    reserve = env(spare_prompts=4)
    for _ in range(3):
        assert plain.reset()[0]["policy_0"]["prompts"] == reserve.reset()[0]["ann"]["prompts"]
        assert reserve.tasks[:2] == plain.tasks
        assert len(reserve.tasks) == 6
        plain.step({"policy_0": [["1", "2"]] * 2})


def test_observations_are_contexts_that_have_not_begun_and_lie_in_their_space() -> None:
    waves = env(refills=1)
    observations, _ = waves.reset()
    assert observations["ann"] in waves.observation_space("ann")
    contexts = [c for group in observations["ann"]["conversations"] for c in group]
    assert all(isinstance(c, Context) and c.turns == () for c in contexts)
    observations, rewards, ended, *_ = waves.step({a: [["1", "1"]] * 2 for a in AGENTS})
    assert observations["bob"] in waves.observation_space("bob")
    assert (rewards, ended) == ({"ann": 0.0, "bob": 0.0}, {"ann": False, "bob": False})


def test_what_does_not_fit_is_refused_and_loses_nothing() -> None:
    waves = env(refills=1)
    waves.reset()
    good = {a: [["1", "1"]] * 2 for a in AGENTS}
    for bad in ({"ann": good["ann"]}, {**good, "ann": [["1", "1"]]}, {**good, "ann": [["1", 7], ["1", "1"]]}, []):
        with pytest.raises(InvalidActionError):
            waves.step(bad)  # type: ignore[arg-type]
    waves.step(good)
    with pytest.raises(InvalidInputError, match="refills must be a whole number"):
        env(refills=-1)
    with pytest.raises(InvalidInputError, match="envs of one turn"):
        Waves(mutual_env.make("mutual/guess-v0"), refills=1)
    with pytest.raises(InvalidInputError, match="envs of one turn"):
        Waves(sharing.make("grpo", mutual_env.make("mutual/arithmetic-v0")), refills=1)


# -- with learners and strategies -------------------------------------------------------------------------------------


def loop(strategy: str, learner: str = "tabular", **bounds: int) -> Loop:
    tokenizer = CharTokenizer("0123456789+-*=()% ?")
    more = {"seed": 1} if learner == "tiny" else {}
    learners = {n: make_learner(learner, name=n, tokenizer=tokenizer, max_new_tokens=2, **more) for n in AGENTS}
    shared = sharing.make(strategy, env(group_size=4, **bounds))
    return Loop(shared, learners, 5, 4, TokenizerBridge([tokenizer]))


@pytest.mark.parametrize("strategy", ["grpo", "prp", "xgrpo", "sgt", "graft", "sapo"])
def test_strategies_share_what_the_waves_came_to_and_the_same_seed_gives_the_same(strategy: str) -> None:
    first, second = loop(strategy, refills=2, spare_prompts=2), loop(strategy, refills=2, spare_prompts=2)
    for number in range(3):
        one, two = first.round(number), second.round(number)
        assert one == two
        for info in one.values():
            assert info["metrics"]["refills"] > 0.0  # untrained policies are wrong nearly always
            assert info["metrics"]["spread/last"] >= info["metrics"]["spread/first"]
            sampled = {e.task.id for group in info["groups"] for e in group}
            assert {lesson.experience.task.id for lesson in info["lessons"]} <= sampled
    for name in AGENTS:
        assert first.learners[name].version == 3


def test_a_refill_is_another_sample_and_the_first_wave_is_the_round_as_it_would_have_been() -> None:
    plain, waved = loop("grpo"), loop("grpo", refills=1)
    without, with_refill = plain.round(0), waved.round(0)
    for name in AGENTS:
        for before, after in zip(without[name]["groups"], with_refill[name]["groups"], strict=True):
            same = [e.completion.text for e in before] == [e.completion.text for e in after]
            assert same == (len({e.verdict.reward for e in before}) > 1)
        for metric in ("accuracy", "reward/mean", "entropy"):
            assert without[name]["metrics"][metric] == with_refill[name]["metrics"][metric]


@pytest.mark.torch
def test_the_torch_learner_is_asked_in_waves() -> None:
    info = loop("grpo", "tiny", refills=1, spare_prompts=1).round(0)["ann"]
    assert info["metrics"]["waves"] == 3.0
    assert info["metrics"]["batch/examples"] == 12.0  # two prompts and a spare one, four samples each
