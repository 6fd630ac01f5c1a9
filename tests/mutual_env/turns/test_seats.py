"""A judge or a user that is not trained sits in the env, and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import learners
import mutual_env
from learners.run.config import load_run
from learners.run.training import resume, train
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import Prompt, Reply
from tokenizers_bridge import CharTokenizer

ARITHMETIC: dict[str, Any] = {"family": "mutual/arithmetic-v0", "digits": 1, "prompts_per_round": 1}


def test_a_judge_decides_what_an_answer_is_worth() -> None:
    read: list[Prompt] = []

    def judge(prompts: Sequence[Prompt], seed: int) -> list[str]:
        read.extend(prompts)
        return ["Yes, it is." if "{prompt}" in str(prompt) else "no" for prompt in prompts]

    env = mutual_env.make(
        "mutual/judged-v0", agents=1, group_size=2, ask="{prompt}{answer}?", seats={"judge": judge}, **ARITHMETIC
    )
    env.reset(seed=0)
    question, answer = env.tasks[0].prompt, env.tasks[0].answer
    _, rewards, terminations, _, infos = env.step({"policy_0": [[answer, "{prompt}"]]})
    assert read == [f"{question}{answer}?", f"{question}{{prompt}}?"]  # what was written is text, whatever it spells
    assert [e.verdict.reward for e in infos["policy_0"]["groups"][0]] == [0.0, 1.0]
    assert (rewards, terminations) == ({"policy_0": 0.5}, {"policy_0": True})


def test_a_user_answers_what_is_wrong_and_is_not_asked_about_what_is_right() -> None:
    read: list[Prompt] = []

    def user(prompts: Sequence[Prompt], seed: int) -> list[str]:
        read.extend(prompts)
        return ["look again"] * len(prompts)

    env = mutual_env.make(
        "mutual/user-v0", agents=1, group_size=2, ask="{answer} for {truth}", seats={"user": user}, **ARITHMETIC
    )
    env.reset(seed=0)
    answer = env.tasks[0].answer
    observations, *_ = env.step({"policy_0": [[answer, "-5"]]})
    [[right, wrong]] = observations["policy_0"]["conversations"]
    assert right is None
    assert wrong.turns[0].reply == Reply("look again", reward=0.0)
    assert read == [f"-5 for {answer}"]
    *_, infos = env.step({"policy_0": [[None, answer]]})
    assert [e.verdict.reward for e in infos["policy_0"]["groups"][0]] == [1.0, 1.0]


def test_what_a_user_says_to_one_does_not_depend_on_who_else_is_there() -> None:
    user = learners.seated(learners.make("tabular", name="user", tokenizer=CharTokenizer("ab?"), alphabet="ab"))

    def heard(agents: list[str]) -> dict[str, list[str]]:
        options: dict[str, Any] = {"ask": "?", "seats": {"user": user}, **ARITHMETIC}
        env = mutual_env.make("mutual/user-v0", agents=agents, group_size=8, **options)
        env.reset(seed=0)
        observations, *_ = env.step({agent: [["x"] * 8] for agent in agents})
        return {a: [c.turns[0].reply.text for c in observations[a]["conversations"][0]] for a in agents}

    both = heard(["ann", "bob"])
    assert heard(["bob", "ann"]) == both
    assert heard(["ann"]) == {"ann": both["ann"]}
    assert both["ann"] != both["bob"]
    assert len(set(both["ann"])) > 1


def test_an_empty_seat_and_a_person_without_one_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="has a seat that is empty: give seats="):
        mutual_env.make("mutual/judged-v0", **ARITHMETIC)
    with pytest.raises(UnknownNameError, match="did you mean 'judge'"):
        mutual_env.make("mutual/judged-v0", seats={"jugde": lambda p, s: []}, **ARITHMETIC)
    for family in ("mutual/arithmetic-v0", "mutual/guess-v0"):
        with pytest.raises(InvalidInputError, match="has no seats"):
            mutual_env.make(family, seats={"judge": lambda p, s: []})
    env = mutual_env.make("mutual/judged-v0", agents=1, group_size=1, seats={"judge": lambda p, s: []}, **ARITHMETIC)
    env.reset(seed=0)
    with pytest.raises(InvalidInputError, match="'judge' must say a text to each of 1 prompts"):
        env.step({"policy_0": [["1"]]})


RUN = """
name: seats
rounds: 3
env:
  id: mutual/user-v0
  group_size: 4
  prompts_per_round: 2
  options: {family: mutual/arithmetic-v0, digits: 1, ask: "{answer}", turns: 3}
policies:
  ada: {learner: tabular, options: {alphabet: "0123456789", tokenizer: &chars {kind: char, alphabet: "0123456789+=-"}}}
  bob: {learner: tabular, options: {alphabet: "0123456789", tokenizer: *chars}}
seats:
  user: {learner: tabular, options: {alphabet: "0123456789", tokenizer: *chars}}
checkpoint: {every: 1}
"""


def test_a_run_seats_a_learner_that_learns_nothing_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = tmp_path / "seats.yaml"
    config.write_text(RUN)
    whole = train(load_run(config, [f"output={tmp_path / 'whole'}"])).directory
    train(load_run(config, [f"output={tmp_path / 'cut'}", "rounds=1"]))
    longer = load_run(config, [f"output={tmp_path / 'cut'}"])
    resume(tmp_path / "cut" / "seats", longer, accept_changes=True)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "cut" / "seats" / name).read_bytes() == (whole / name).read_bytes()
    config.write_text(RUN.replace("  user: {learner", "  usher: {learner"))
    with pytest.raises(UnknownNameError, match="did you mean 'user'"):
        train(load_run(config, [f"output={tmp_path / 'none'}"]))
