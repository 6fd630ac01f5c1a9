"""auto: what is chosen for a prompt, and that it is then exactly what the strategy of that name does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sharing
from learners.batch import build_batch
from learners.run.recording import Allowance, lessons_line
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import CompatibilityGate, Completion, CrossEntropy, Lesson, OldPolicy
from sharing.testing import ScriptedEnv, check_strategy
from tests.sharing.toys import BAD, GOOD, play
from tokenizers_bridge import CharTokenizer, TokenizerBridge

FAILED, MIXED, SOLVED = [BAD] * 4, [GOOD, BAD, BAD, BAD], [GOOD] * 4
BETTER = [GOOD, GOOD, GOOD, BAD]
NEAR = {"batch/chunk_sample_size/b": 1.0}


def env(prompts: int = 1, agents: str = "ab", **options: Any) -> Any:
    return sharing.make("auto", ScriptedEnv(list(agents), prompts=prompts, group=4, fixed=True), **options)


def chosen(info: Any) -> dict[str, float]:
    return {c: info["metrics"][f"share/auto/{c}"] for c in ("grpo", "xgrpo", "rescue", "graft")}


def one(own: list[str], peer: list[str], *, near: bool = False, **options: Any) -> str:
    made = env(**options)
    if near:
        made.learnt("a", NEAR)
    counts = chosen(play(made, {"a": [own], "b": [peer]})["a"])
    assert sum(counts.values()) == 1.0
    return max(counts, key=lambda choice: counts[choice])


@pytest.mark.parametrize(
    ("own", "peer", "near", "choice"),
    [
        (MIXED, FAILED, False, "xgrpo"),  # a peer that does no better steadies the baseline
        (MIXED, MIXED, True, "xgrpo"),
        (MIXED, BETTER, True, "grpo"),  # one that does better is noise
        (SOLVED, MIXED, True, "xgrpo"),
        (SOLVED, SOLVED, True, "xgrpo"),  # which is nothing, as GRPO is
        (FAILED, FAILED, True, "grpo"),  # nobody knows
        (FAILED, BETTER, False, "rescue"),  # not known to be near
        (FAILED, BETTER, True, "graft"),
        (FAILED, SOLVED, True, "rescue"),  # a group without spread is no graft
    ],
)
def test_the_choice_follows_the_counts_and_how_near_the_author_is(
    own: list[str], peer: list[str], near: bool, choice: str
) -> None:
    assert one(own, peer, near=near) == choice


def bare(lessons: tuple[Lesson, ...]) -> list[Lesson]:
    return [replace(lesson, note="") for lesson in lessons]


@pytest.mark.parametrize(
    ("name", "answers", "options"),
    [
        ("grpo", {"a": [MIXED], "b": [BETTER]}, {}),
        ("xgrpo", {"a": [MIXED], "b": [FAILED]}, {}),
        ("xgrpo", {"a": [BETTER], "b": [["0.3", "0.1", BAD, GOOD]]}, {}),
        ("graft", {"a": [FAILED], "b": [BETTER]}, {"stored": True, "clip_high": 0.2}),
    ],
)
def test_what_is_chosen_is_that_strategy_to_the_last_bit(name: str, answers: Any, options: dict[str, Any]) -> None:
    made = env()
    made.learnt("a", NEAR)
    lessons = play(made, answers)["a"]["lessons"]
    same = play(sharing.make(name, ScriptedEnv(["a", "b"], prompts=1, group=4, fixed=True), **options), answers)
    assert bare(lessons) == list(same["a"]["lessons"])
    assert {lesson.note for lesson in lessons} == {f"auto: {name}"}


def test_a_rescue_is_that_of_sgt_and_is_measured_without_being_weighed() -> None:
    answers = {"a": [FAILED], "b": [["yes 1", "yes 2", "yes 3", BAD]]}
    rescue = play(env(), answers)["a"]["lessons"][-1]
    same = play(sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=1, group=4, fixed=True)), answers)["a"]["lessons"]
    assert rescue.correction == CompatibilityGate(floor=0.0, power=0.0)
    assert (rescue.loss, rescue.weight, rescue.experience.completion.text) == (
        CrossEntropy(), 0.1, same[-1].experience.completion.text
    )  # fmt: skip
    assert bare(play(env(), answers)["a"]["lessons"][:-1]) == list(same[:-1])


def test_no_peers_is_grpo_to_the_last_bit() -> None:
    answers = {"a": [MIXED, FAILED, SOLVED]}
    plain = play(sharing.make("grpo", ScriptedEnv(["a"], prompts=3, group=4)), answers)["a"]["lessons"]
    alone = play(sharing.make("auto", ScriptedEnv(["a"], prompts=3, group=4)), answers)["a"]["lessons"]
    assert bare(alone) == list(plain)


def test_a_rescue_that_was_not_learnt_becomes_a_graft() -> None:
    made = env()
    answers = {"a": [FAILED], "b": [BETTER]}
    choices = [chosen(play(made, answers, round=number)["a"]) for number in range(3)]
    # The first time it is rescued; it comes back unsolved, and again.
    assert [max(c, key=lambda k: c[k]) for c in choices] == ["rescue", "graft", "graft"]
    learnt = env()
    play(learnt, answers, round=0)
    play(learnt, {"a": [MIXED], "b": [BETTER]}, round=1)  # it comes back, and is solved
    assert chosen(play(learnt, answers, round=2)["a"])["rescue"] == 1.0


@pytest.mark.parametrize(("says", "choice"), [(True, "rescue"), (False, "graft"), (None, "rescue")])
def test_somebody_else_may_know_whether_a_rescue_was_learnt(says: bool | None, choice: str) -> None:
    asked: list[tuple[str, str]] = []

    def was_learnt(reader: str, task_id: str) -> bool | None:
        asked.append((reader, task_id))
        return says

    assert one(FAILED, BETTER, was_learnt=was_learnt) == choice
    assert ("a", "t0.0") in asked


def test_the_state_goes_on_through_json() -> None:
    answers = {"a": [FAILED], "b": [BETTER]}
    steady = env()
    steady.learnt("a", {"batch/chunk_sample_size/b": 0.5})
    play(steady, answers, round=0)
    resumed = env()
    resumed.load_state_dict(json.loads(json.dumps(steady.state_dict())))
    one_, two = (play(made, answers, round=1)["a"] for made in (steady, resumed))
    assert bare(one_["lessons"]) == bare(two["lessons"])
    assert two["metrics"]["share/auto/chunk_sample_size/b"] == 0.5
    check_strategy(lambda made, **common: sharing.make("auto", made, **common))


def test_options_are_checked() -> None:
    for options in ({"floor": 1.0}, {"graft_above": -1.0}, {"weight": -0.1}):
        with pytest.raises(ConfigError):
            env(**options)


# -- with a learner ---------------------------------------------------------------------------------------------------


def test_a_batch_measures_how_near_the_author_is_and_the_record_says_what_was_chosen() -> None:
    reader = TabularLearner(CharTokenizer("yesnot0.?1ab "), name="a", max_new_tokens=4)
    prompt = reader.tokenizer.render_prompt("t0.0?")

    def wrote(text: str, off: float = 0.0) -> Completion:
        ids = np.append(reader.tokenizer.encode_batch([text])[0], reader.tokenizer.stop_id).astype(np.int32)
        logprobs = reader.score([prompt], [ids])[0].copy()
        logprobs[0] -= off
        return Completion(text, ids, logprobs, "stop", 0, reader.tokenizer.fingerprint)

    made = sharing.make("auto", ScriptedEnv(["a", "b"], prompts=1, group=2, fixed=True))
    # b's "yes" has four tokens (with the stop token), of which the reader finds one e^2 as likely as b does:
    # (e^2 + 3)^2 / (e^4 + 3) / 4 = 107.93 / 57.60 / 4 = .4684
    off = {"a": [[wrote("no"), wrote("not")]], "b": [[wrote("yes", 2.0), wrote("no")]]}
    info = play(made, off)["a"]
    batch = build_batch(info["lessons"], reader, TokenizerBridge([reader.tokenizer]))
    assert batch.metrics["batch/chunk_sample_size/b"] == pytest.approx(0.4684, abs=1e-4)
    weights = {e.weight for e in batch.examples}
    assert weights == {1.0, 0.1}  # s is far from 1, and power 0 does not look at it
    line = lessons_line(reader, batch.outcomes, Allowance(10**6, 10**4))
    assert line["notes"] == {"auto: rescue": 3}
    assert line["lessons"][0]["note"] == "auto: rescue"


def test_ours_are_corrected_as_own_samples_are() -> None:
    lessons = play(env(), {"a": [MIXED], "b": [FAILED]})["a"]["lessons"]
    assert {type(lesson.correction) for lesson in lessons} == {OldPolicy}
