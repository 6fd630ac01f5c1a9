"""What the rivals' papers say and a first reading missed: HACPO's capability and cap, SAPO's questions, the orders."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import sharing
from learners.batch import build_batch
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import Completion
from sharing.testing import ScriptedEnv, scripted_verdict
from tests.sharing.toys import BAD, GOOD, play
from tokenizers_bridge import CharTokenizer, TokenizerBridge

HALF, TENTH = "0.5", "0.1"


def advantages(name: str, answers: dict[str, list[list[str]]], rounds: int = 1, **options: Any) -> list[float]:
    """Of the first agent's own rollouts, in the last of so many rounds of the same answers."""
    group = len(answers["a"][0])
    env = sharing.make(name, ScriptedEnv(list(answers), prompts=len(answers["a"]), group=group), std=False, **options)
    for round_ in range(rounds):
        infos = play(env, answers, round=round_)
    return [lesson.advantage for lesson in infos["a"]["lessons"] if lesson.experience.author == "a"]


# -- HACPO ------------------------------------------------------------------------------------------------------------


def ratio_to_b(capability: str, answers: dict[str, list[list[str]]]) -> float:
    env = sharing.make("hacpo", ScriptedEnv(["a", "b"], prompts=1, group=4), capability=capability)
    play(env, answers, round=0)
    return float(play(env, answers, round=1)["a"]["metrics"]["share/capability_ratio/b"])


def test_capability_is_the_mean_reward_or_the_share_of_positive_ones() -> None:
    answers = {"a": [[HALF, HALF, BAD, BAD]], "b": [[GOOD, GOOD, BAD, BAD]]}
    assert ratio_to_b("mean_reward", answers) == 0.5  # .25 over .5
    assert ratio_to_b("positive_share", answers) == 1.0  # half of each
    binary = {"a": [[GOOD, BAD, BAD, BAD]], "b": [[GOOD, GOOD, BAD, BAD]]}
    assert ratio_to_b("mean_reward", binary) == ratio_to_b("positive_share", binary) == 0.5


def test_a_baseline_above_every_reward_falls_back_to_the_own_mean_whatever_the_rewards_range() -> None:
    # Capability .3 over .05: 6. The mean of .5, .1, 6 · .1 and 6 · 0 is .3, within [0, .5]. A second prompt
    # makes it 10, and on the first the mean of .5, .1, 10 · .1 and 10 · .1 is .65, above all: the own mean is .3.
    in_range = {"a": [[HALF, TENTH]], "b": [[TENTH, BAD]]}
    assert advantages("hacpo", in_range, rounds=2) == pytest.approx([0.5 - 0.3, 0.1 - 0.3])
    strong = {"a": [[HALF, TENTH], ["4", "4"]], "b": [[TENTH, TENTH], [BAD, BAD]]}
    assert advantages("hacpo", strong, rounds=2)[:2] == pytest.approx([0.5 - 0.3, 0.1 - 0.3])
    unguarded = advantages("hacpo", strong, rounds=2, baseline_guard=False)[:2]
    assert unguarded == pytest.approx([0.5 - 0.65, 0.1 - 0.65])


def twin(name: str) -> TabularLearner:
    return TabularLearner(CharTokenizer("yesnot0.?"), name=name, max_new_tokens=4)


def test_no_sample_of_an_equal_policy_loses_its_gradient_to_rounding() -> None:
    # Twins: s is 1 but for the last bits. Under a cap of 1 those above it have no gradient.
    learner, draw = twin("a"), np.random.default_rng(0)
    prompt = learner.tokenizer.render_prompt("t0.0?")
    written = []
    for text in ("yes", "no", "yesno", "noes", "sony", "onyes"):
        ids = np.append(learner.tokenizer.encode_batch([text])[0], learner.tokenizer.stop_id).astype(np.int32)
        (logprobs,) = learner.score([prompt], [ids])
        off = logprobs * (1.0 + draw.choice([-1, 1]) * 1e-7)  # float32 on the author's side
        written.append(Completion(text, ids, off, "stop", 0, learner.tokenizer.fingerprint))
    means = [float(c.logprobs.mean() - learner.score([prompt], [c.token_ids])[0].mean()) for c in written]
    assert min(means) < 0.0 < max(means)
    for tolerance, lost in ((None, 0), (0.0, sum(m < 0.0 for m in means))):
        options = {} if tolerance is None else {"cap_tolerance": tolerance}
        env = sharing.make("hacpo", ScriptedEnv(["a", "b"], prompts=1, group=6), **options)
        infos = play(env, {"a": [written], "b": [written]})
        borrowed = [lesson for lesson in infos["a"]["lessons"] if lesson.experience.author == "b"]
        moved = [weights_move(lesson) for lesson in borrowed if lesson.advantage != 0.0]
        assert moved.count(False) == lost


def weights_move(lesson: Any) -> bool:
    """Whether one update on this lesson alone moves the policy that wrote nothing of it."""
    learner = twin("a")
    batch = build_batch([lesson], learner, TokenizerBridge([learner.tokenizer]))
    ids = batch.examples[0].response_ids
    before = learner.score([batch.examples[0].prompt_ids], [ids])[0]
    learner.update(batch.examples)
    return bool(np.any(learner.score([batch.examples[0].prompt_ids], [ids])[0] != before))


def test_options_of_hacpo_are_checked() -> None:
    for options in ({"capability": "median"}, {"cap_tolerance": -1.0}):
        with pytest.raises(ConfigError):
            sharing.make("hacpo", ScriptedEnv(["a"]), **options)


# -- SAPO -------------------------------------------------------------------------------------------------------------


def questions(infos: Any, reader: str = "a") -> list[tuple[str, str, int]]:
    """(task, author, how many completions) of what the reader is taught, group by group."""
    counts = Counter((x.experience.task.id, x.experience.author) for x in infos[reader]["lessons"])
    return [(task, author, n) for (task, author), n in sorted(counts.items())]


def test_half_of_the_questions_are_borrowed_each_with_its_whole_group_normalised_by_itself() -> None:
    answers = {"a": [[GOOD, BAD, BAD, BAD], [BAD] * 4], "b": [[GOOD, GOOD, GOOD, BAD], [GOOD, GOOD, BAD, BAD]]}
    infos = play(sharing.make("sapo", ScriptedEnv(["a", "b"], prompts=2, group=4), std=False), answers)
    assert questions(infos) == [("t0.0", "a", 4), ("t0.0", "b", 4), ("t0.1", "a", 4), ("t0.1", "b", 4)]
    by_group = {}
    for lesson in infos["a"]["lessons"]:
        key = (lesson.experience.task.id, lesson.experience.author)
        by_group.setdefault(key, []).append(lesson.advantage)
    assert by_group["t0.0", "a"] == [0.75, -0.25, -0.25, -0.25]
    assert by_group["t0.0", "b"] == [0.25, 0.25, 0.25, -0.75]
    assert by_group["t0.1", "b"] == [0.5, 0.5, -0.5, -0.5]
    assert infos["a"]["metrics"]["share/external"] == 2.0


def test_local_and_external_count_questions_and_are_drawn_uniformly() -> None:
    # 3 own questions of which 1 is taken, 6 groups of two peers of which 2 are; over 600 rounds each own question comes
    # up 200 times (standard deviation 11.5) and each borrowed group 200 times (11.5).
    answers = {agent: [[GOOD, BAD]] * 3 for agent in "abc"}
    env = sharing.make("sapo", ScriptedEnv(list("abc"), prompts=3, group=2, fixed=True), local=1, external=2)
    taken: Counter[tuple[str, str]] = Counter()
    for round_ in range(600):
        found = questions(play(env, answers, round=round_))
        assert [n for _, _, n in found] == [2, 2, 2]
        taken.update((task, author) for task, author, _ in found)
    assert len(taken) == 9
    assert all(abs(n - 200) < 58 for n in taken.values())  # 5 standard deviations


def test_a_borrowed_question_without_spread_is_no_candidate_unless_asked_for() -> None:
    answers = {"a": [[GOOD, BAD]] * 2, "b": [[GOOD, GOOD], [GOOD, BAD]]}
    env = ScriptedEnv(["a", "b"], prompts=2, group=2)
    assert ("t0.0", "b", 2) not in questions(play(sharing.make("sapo", env), answers))
    assert ("t0.0", "b", 2) in questions(play(sharing.make("sapo", env, informative=False), answers))


def test_options_of_sapo_are_checked() -> None:
    for options in ({"local": -1}, {"external": -1}, {"local": 0, "external": 0}, {"local": 0}):
        with pytest.raises(ConfigError):
            sharing.make("sapo", ScriptedEnv(["a"]), **options)


# -- GRAFT ------------------------------------------------------------------------------------------------------------


def test_shuffled_is_a_shuffle_of_all_prompts_that_seed_and_round_decide() -> None:
    answers = {agent: [[GOOD, BAD]] * 6 for agent in "ab"}

    def orders(seed: int, rounds: int = 12) -> list[tuple[str, ...]]:
        env = sharing.make("graft", ScriptedEnv(["a", "b"], prompts=6, group=2, fixed=True), peers_at="shuffled")
        taught = [play(env, answers, round=r, seed=seed)["a"]["lessons"] for r in range(rounds)]
        return [tuple(dict.fromkeys(x.experience.task.id for x in lessons)) for lessons in taught]

    assert orders(1) == orders(1)
    assert len(set(orders(1))) > 10  # of 720 orders 12 are drawn
    assert {frozenset(order) for order in orders(1)} == {frozenset(f"t0.{i}" for i in range(6))}
    assert orders(1) != orders(2)


def test_verdicts_of_the_toys_are_what_the_numbers_above_assume() -> None:
    assert [scripted_verdict(text).reward for text in (HALF, TENTH, GOOD, BAD, "4")] == [0.5, 0.1, 1.0, 0.0, 4.0]
