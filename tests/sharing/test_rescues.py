"""Rescues weighed and remembered, and the controls that say what of a rescue does the work."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

import sharing
from learners.batch import build_batch
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import CompatibilityGate, Completion, CrossEntropy, Lesson
from sharing.rescue import as_json, from_json
from sharing.testing import ScriptedEnv, scripted_completion
from tests.sharing.toys import BAD, GOOD, play
from tokenizers_bridge import CharTokenizer, TokenizerBridge

Answers = dict[str, list[list[Any]]]


def borrowed(info: Any, reader: str = "a") -> list[Lesson]:
    """The lessons that are imitation."""
    return [lesson for lesson in info["lessons"] if lesson.loss == CrossEntropy()]


# -- SGT, weighed -----------------------------------------------------------------------------------------------------


def test_the_weight_of_a_rescue_is_that_of_its_edge() -> None:
    answers = {"a": [[BAD], [BAD]], "b": [["yes b"], [BAD]], "c": [[BAD], ["yes c"]]}
    weights = {"a": {"b": 0.3, "*": 0.2}, "*": 0.1}
    infos = play(sharing.make("sgt", ScriptedEnv(list("abc"), group=1), weight=weights), answers)
    assert [(x.experience.author, x.weight) for x in borrowed(infos["a"])] == [("b", 0.3), ("c", 0.2)]
    assert [x.weight for x in borrowed(infos["b"])] == [0.1]


def test_an_edge_without_weight_offers_nothing() -> None:
    answers = {"a": [[BAD]], "b": [["yes b"]], "c": [["yes c"]]}
    env = sharing.make(
        "sgt", ScriptedEnv(list("abc"), prompts=1, group=1), weight={"a": {"b": 0.0, "*": 0.1}, "*": 0.1}
    )
    authors = {borrowed(play(env, answers, round=r)["a"])[0].experience.author for r in range(12)}
    assert authors == {"c"}


def policy(name: str) -> TabularLearner:
    return TabularLearner(CharTokenizer("yesnot0.?abc "), name=name, max_new_tokens=6)


def wrote(learner: TabularLearner, text: str, factor: float = 1.0) -> Completion:
    """With the author's log-probabilities: `factor` times what the reader's twin thinks."""
    ids = np.append(learner.tokenizer.encode_batch([text])[0], learner.tokenizer.stop_id).astype(np.int32)
    (logprobs,) = learner.score([learner.tokenizer.render_prompt("t0.0?")], [ids])
    return Completion(text, ids, factor * logprobs, "stop", 0, learner.tokenizer.fingerprint)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_compatible_rescue_weighs_as_much_as_the_reader_finds_it_likely(factor: float) -> None:
    # w = λ min(1, exp(mean log π - mean log β)), with log β = factor · log π.
    reader = policy("a")
    answers = {"a": [[wrote(reader, "no")]], "b": [[wrote(reader, "yes", factor)]]}
    env = sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=1, group=1), compatible=True, weight=0.2)
    infos = play(env, answers)
    (rescue,) = borrowed(infos["a"])
    assert rescue.correction == CompatibilityGate(floor=0.0)
    batch = build_batch(infos["a"]["lessons"], reader, TokenizerBridge([reader.tokenizer]))
    mean = float(wrote(reader, "yes").logprobs.mean())
    assert batch.examples[-1].weight == pytest.approx(0.2 * min(1.0, np.exp(mean - factor * mean)), rel=1e-12)


def test_a_compatible_rescue_is_drawn_from_the_same_successes() -> None:
    answers = {"a": [[BAD] * 3] * 2, "b": [["yes 0", BAD, "yes 2"], [BAD, BAD, "yes 5"]]}
    plain, weighed = (sharing.make("sgt", ScriptedEnv(["a", "b"], group=3), compatible=c) for c in (False, True))
    for r in range(8):
        one, two = (borrowed(play(env, answers, round=r)["a"]) for env in (plain, weighed))
        assert [x.experience.completion.text for x in one] == [x.experience.completion.text for x in two]


# -- memory -----------------------------------------------------------------------------------------------------------

SOLVED_THEN_FAILED: list[Answers] = [
    {"a": [["yes a"], [BAD]], "b": [[BAD], ["yes b"]]},  # a solves 0; b rescues 1
    {"a": [[BAD], [BAD]], "b": [[BAD], [BAD]]},  # nobody solves anything: memory alone
]


def remembering(**options: Any) -> sharing.SharingWrapper:
    return sharing.make("memory", ScriptedEnv(["a", "b"], prompts=2, group=1, fixed=True), **options)


def test_what_was_solved_once_by_a_peer_or_by_oneself_rescues_later() -> None:
    env = remembering()
    first, second = (play(env, answers, round=r) for r, answers in enumerate(SOLVED_THEN_FAILED))
    assert [x.experience.completion.text for x in borrowed(first["a"])] == ["yes b"]
    found = {x.experience.task.id: (x.experience.author, x.experience.round) for x in borrowed(second["a"])}
    assert found == {"t0.0": ("a", 0), "t0.1": ("b", 0)}
    metrics = second["a"]["metrics"]
    assert (metrics["share/rescued_from_memory"], metrics["share/rescued_by_own"]) == (2.0, 1.0)
    assert [x.weight for x in borrowed(second["a"])] == [0.1, 0.1]


def test_without_own_successes_only_peers_rescue() -> None:
    env = remembering(own=False)
    for r, answers in enumerate(SOLVED_THEN_FAILED):
        infos = play(env, answers, round=r)
    assert {x.experience.author for x in borrowed(infos["a"])} == {"b"}


def test_a_learner_trains_on_its_own_old_success_with_the_ids_it_sampled() -> None:
    reader = policy("a")
    written = wrote(reader, "yes")
    env = sharing.make("memory", ScriptedEnv(["a"], prompts=1, group=1, fixed=True))
    play(env, {"a": [[written]]}, round=0)
    again = sharing.make("memory", ScriptedEnv(["a"], prompts=1, group=1, fixed=True))
    again.load_state_dict(json.loads(json.dumps(env.state_dict())))
    infos = play(again, {"a": [[wrote(reader, "no")]]}, round=1)
    batch = build_batch(infos["a"]["lessons"], reader, TokenizerBridge([reader.tokenizer]))
    assert np.array_equal(batch.examples[-1].response_ids, written.token_ids)
    assert batch.examples[-1].weight == 0.1


def test_retention_is_whether_a_rescued_task_is_later_solved_unaided() -> None:
    # Both tasks are rescued in round 0; 0 is solved in round 1 and not in 2, 1 never: 1 of 4 returns.
    env = remembering()
    rescue = {"a": [[BAD], [BAD]], "b": [["yes b"], ["yes b"]]}
    solve = {"a": [["yes a"], [BAD]], "b": [[BAD], [BAD]]}
    expected = [(0.0, 0.0, None), (2.0, 1.0, 0.5), (2.0, 0.0, 0.25)]
    for r, (answers, (returned, retained, retention)) in enumerate(zip((rescue, solve, rescue), expected, strict=True)):
        metrics = play(env, answers, round=r)["a"]["metrics"]
        assert (metrics["share/returned"], metrics["share/retained"]) == (returned, retained)
        assert metrics.get("share/retention") == retention


def test_a_rescue_is_drawn_by_age_and_author() -> None:
    # Own of round 0 (age 4): 4 · 2^(-4/4) = 2; b's of round 4: 1. So 2/3 and 1/3; over 900 seeds 600, deviation 14.1.
    env = sharing.make("memory", ScriptedEnv(["a", "b"], prompts=1, group=1, fixed=True), half_life=4.0, own_weight=4.0)
    play(env, {"a": [["yes a"]], "b": [[BAD]]}, round=0)
    state = env.state_dict()
    authors: Counter[str] = Counter()
    for seed in range(900):
        env.load_state_dict(state)
        infos = play(env, {"a": [[BAD]], "b": [["yes b"]]}, round=4, seed=seed)
        authors[borrowed(infos["a"])[0].experience.author] += 1
    assert abs(authors["a"] - 600) < 71  # 5 deviations


def test_a_budget_goes_to_the_tasks_that_were_rescued_least_often() -> None:
    env = sharing.make("memory", ScriptedEnv(["a", "b"], prompts=4, group=1, fixed=True), budget=1, own=False)
    answers = {"a": [[BAD]] * 4, "b": [["yes b"]] * 4}
    rescued = [borrowed(play(env, answers, round=r)["a"]) for r in range(8)]
    assert [len(found) for found in rescued] == [1] * 8
    assert Counter(x.experience.task.id for found in rescued for x in found) == {f"t0.{i}": 2 for i in range(4)}


def test_replay_brings_back_tasks_of_other_rounds_until_they_are_solved() -> None:
    env = sharing.make("memory", ScriptedEnv(["a", "b"], prompts=1, group=1), replay=1)
    rescue, nothing = {"a": [[BAD]], "b": [["yes b"]]}, {"a": [["yes a"]], "b": [["yes b"]]}
    play(env, rescue, round=0)
    infos = play(env, nothing, round=1)
    assert [x.experience.task.id for x in borrowed(infos["a"])] == ["t0.0"]
    assert infos["a"]["metrics"]["share/replayed"] == 1.0
    play(env, nothing, round=0)  # it comes up again, and is solved
    assert borrowed(play(env, nothing, round=2)["a"]) == []


def test_memory_is_bounded_and_forgets_first_what_is_retained() -> None:
    env = sharing.make("memory", ScriptedEnv(["a", "b"], prompts=1, group=1), capacity=2, per_task=1)
    rescue, solve = {"a": [[BAD]], "b": [["yes b"]]}, {"a": [["yes a"]], "b": [[BAD]]}
    play(env, rescue, round=0)
    play(env, rescue, round=1)
    play(env, solve, round=1)  # t1.0 is retained, and touched last
    play(env, rescue, round=2)
    kept = env.state_dict()["shelves"]["a"]["kept"]  # type: ignore[index, call-overload]
    assert [successes[0]["task"]["id"] for successes in kept] == ["t0.0", "t2.0"]


def test_a_memory_that_went_through_a_checkpoint_teaches_the_same_bytes() -> None:
    steady = remembering(budget=1, replay=1)
    resumed = remembering(budget=1, replay=1)
    draws = np.random.default_rng(5)
    for r in range(24):
        resumed_state = json.dumps(steady.state_dict())
        resumed = remembering(budget=1, replay=1)
        resumed.load_state_dict(json.loads(resumed_state))
        assert json.dumps(resumed.state_dict()) == resumed_state
        answers = {x: [[str(draws.choice([f"yes {x}{r}", BAD]))] for _ in range(2)] for x in "ab"}
        one, two = (play(env, answers, round=r) for env in (steady, resumed))
        assert one["a"]["lessons"] == two["a"]["lessons"]
        assert one["a"]["metrics"] == two["a"]["metrics"]


def test_a_kept_success_is_the_same_after_json() -> None:
    env = sharing.make("grpo", ScriptedEnv(["a"], prompts=1, group=1))
    experience = play(env, {"a": [[scripted_completion("yes ü\N{SNOWMAN}", logprob=-1 / 3)]]})["a"]["groups"][0][0]
    assert from_json(json.loads(json.dumps(as_json(experience)))) == experience


def test_options_of_the_memory_are_checked() -> None:
    for options in ({"per_task": 0}, {"capacity": 0}, {"budget": -1}, {"replay": -1}, {"half_life": 0.0}):
        with pytest.raises(ConfigError):
            remembering(**options)


# -- controls ---------------------------------------------------------------------------------------------------------


def test_a_placebo_stands_for_each_rescue_and_is_of_another_prompt() -> None:
    answers = {"a": [[BAD], [BAD], [GOOD], [BAD]], "b": [["yes 0"], ["yes 1"], ["yes 2"], [BAD]]}
    env = sharing.make("placebo", ScriptedEnv(["a", "b"], prompts=4, group=1, fixed=True), weight=0.3)
    rescue = sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=4, group=1, fixed=True), weight=0.3)
    seen: Counter[tuple[int, str]] = Counter()
    for r in range(300):
        placebos = borrowed(play(env, answers, round=r)["a"])
        rescues = borrowed(play(rescue, answers, round=r)["a"])
        assert [x.weight for x in placebos] == [x.weight for x in rescues] == [0.3, 0.3]
        for number, (placebo, helped) in enumerate(zip(placebos, rescues, strict=True)):
            assert placebo.experience.task.id != helped.experience.task.id
            assert placebo.experience.author == "b"
            seen[number, placebo.experience.task.id] += 1
    # The rescue of 0 is replaced by 1 or 2, that of 1 by 0 or 2: each 150 times, with a deviation of 8.7.
    assert set(seen) == {(0, "t0.1"), (0, "t0.2"), (1, "t0.0"), (1, "t0.2")}
    assert all(abs(n - 150) < 44 for n in seen.values())


def test_a_placebo_of_ones_own_is_an_earlier_success() -> None:
    env = sharing.make("placebo", ScriptedEnv(["a", "b"], prompts=2, group=1), source="own")
    play(env, {"a": [["yes a"], [BAD]], "b": [[BAD], ["yes b"]]}, round=0)
    infos = play(env, {"a": [[BAD], [BAD]], "b": [["yes b"], [BAD]]}, round=1)
    (placebo,) = borrowed(infos["a"])
    assert (placebo.experience.author, placebo.experience.task.id, placebo.experience.round) == ("a", "t0.0", 0)
    assert infos["a"]["metrics"]["share/placebos_missing"] == 0.0


def test_a_placebo_that_cannot_be_given_is_counted() -> None:
    env = sharing.make("placebo", ScriptedEnv(["a", "b"], prompts=1, group=1))
    metrics = play(env, {"a": [[BAD]], "b": [["yes b"]]})["a"]["metrics"]
    assert (metrics["share/placebos"], metrics["share/placebos_missing"]) == (0.0, 1.0)


def test_own_placebos_go_through_a_checkpoint() -> None:
    env = sharing.make("placebo", ScriptedEnv(["a", "b"], prompts=1, group=1), source="own", capacity=2)
    for r in range(4):
        play(env, {"a": [[f"yes {r}"]], "b": [[GOOD]]}, round=r)
    again = sharing.make("placebo", ScriptedEnv(["a", "b"], prompts=1, group=1), source="own", capacity=2)
    again.load_state_dict(json.loads(json.dumps(env.state_dict())))
    failing = {"a": [[BAD]], "b": [[GOOD]]}
    one, two = (play(e, failing, round=4)["a"]["lessons"] for e in (env, again))
    assert one == two
    assert one[-1].experience.round in (2, 3)  # the last two are kept


def test_a_frozen_peer_acts_and_publishes_and_is_taught_nothing() -> None:
    answers = {"a": [[BAD]], "b": [[GOOD]]}
    plain = play(sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=1, group=1)), answers)
    stack = sharing.make("frozen", sharing.make("sgt", ScriptedEnv(["a", "b"], prompts=1, group=1)), agents=["b"])
    infos = play(stack, answers)
    assert infos["a"]["lessons"] == plain["a"]["lessons"]
    assert infos["b"]["lessons"] == ()
    assert infos["b"]["groups"] == plain["b"]["groups"]
    assert [infos[x]["metrics"]["share/frozen"] for x in "ab"] == [0.0, 1.0]
    none = play(sharing.make("frozen", ScriptedEnv(["a", "b"], prompts=1, group=1), agents=[]), answers)
    assert (
        none["b"]["lessons"]
        == play(sharing.make("grpo", ScriptedEnv(["a", "b"], prompts=1, group=1)), answers)["b"]["lessons"]
    )


# -- Co-RL ------------------------------------------------------------------------------------------------------------


def co_rl(answers: Answers, **options: Any) -> Any:
    group = len(answers["a"][0])
    env = sharing.make("corl", ScriptedEnv(list(answers), prompts=len(answers["a"]), group=group), std=False, **options)
    return play(env, answers)


def advantages(infos: Any, reader: str = "a") -> list[float]:
    return [lesson.advantage for lesson in infos[reader]["lessons"]]


def test_the_majority_of_the_next_in_the_ring_is_the_label() -> None:
    # b votes 2 (written 2.0 and 2): a's rewards are 1, 0, 1 and centred 1/3, -2/3, 1/3. b learns from c, c from a.
    answers = {"a": [["2", "3", "<answer>2.0</answer>"]], "b": [["2.0", "2", "7"]], "c": [["7", "7", "2"]]}
    infos = co_rl(answers)
    assert advantages(infos) == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    assert advantages(infos, "b") == pytest.approx([-1 / 3, -1 / 3, 2 / 3])
    assert advantages(infos, "c") == pytest.approx([-1 / 3, -1 / 3, 2 / 3])
    assert {x.experience.author for x in infos["a"]["lessons"]} == {"a"}


def test_texts_are_one_answer_but_for_case_and_spaces_and_numbers_however_written() -> None:
    answers = {"a": [["Yes  sir", "1,000", "1e3"]], "b": [["yes SIR", "YES sir", "no"]]}
    assert advantages(co_rl(answers)) == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    answers = {"a": [["Yes  sir", "1,000", "1e3"]], "b": [["1000", "yes", "1000.0"]]}
    assert advantages(co_rl(answers)) == pytest.approx([-2 / 3, 1 / 3, 1 / 3])


def test_alone_it_is_its_own_majority() -> None:
    infos = co_rl({"a": [["4", "4", "5"]]})
    assert advantages(infos) == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    assert infos["a"]["metrics"]["share/vote/peers"] == 0.0


def test_a_vote_below_the_threshold_teaches_nothing() -> None:
    answers = {"a": [["2", "3", "2"]], "b": [["2", "3", "4"]]}
    assert advantages(co_rl(answers, threshold=0.5)) == [0.0] * 3
    assert advantages(co_rl(answers)) != [0.0] * 3
    for options in ({"threshold": 1.5}, {"extraction": "last"}):
        with pytest.raises((ConfigError, LookupError)):
            co_rl(answers, **options)


def test_the_diagnosis_is_where_the_two_accuracies_sum_to_more_than_one() -> None:
    # Prompt 0: a right 2/3, b right 2/3: 4/3 > 1, the vote is right. Prompt 1: 1/3 and 1/3, the vote (0.5) is wrong.
    answers = {"a": [["1", "1", "0.5"], ["1", "0", "0"]], "b": [["1", "0.5", "1"], ["0.5", "0.5", "1"]]}
    metrics = co_rl(answers)["a"]["metrics"]
    assert metrics["share/vote/converges"] == 0.5
    assert metrics["share/vote/accuracy_sum"] == pytest.approx((4 / 3 + 2 / 3) / 2)
    assert (metrics["share/vote/right"], metrics["share/vote/cast"], metrics["share/vote/peers"]) == (0.5, 2.0, 2.0)


@pytest.mark.parametrize(("start", "ends_right"), [((0.85, 0.35), True), ((0.65, 0.15), False)])
def test_voting_leads_to_right_where_the_accuracies_sum_to_more_than_one(
    start: tuple[float, float], ends_right: bool
) -> None:
    # Two policies of two answers, right and wrong, each following the policy gradient of its lessons.
    env = sharing.make("corl", ScriptedEnv(["a", "b"], prompts=1, group=32))
    logits = {name: float(np.log(p / (1.0 - p))) for name, p in zip("ab", start, strict=True)}
    draws = np.random.default_rng(11)
    for r in range(160):
        chances = {name: 1.0 / (1.0 + np.exp(-x)) for name, x in logits.items()}
        right = {name: draws.random(32) < p for name, p in chances.items()}
        infos = play(env, {name: [["1" if x else "0.5" for x in right[name]]] for name in "ab"}, round=r)
        for name, p in chances.items():
            scores = right[name] - p
            taught = np.array([lesson.advantage for lesson in infos[name]["lessons"]])
            logits[name] += 0.3 * float((taught * scores).mean())
    assert [x > 2.0 for x in logits.values()] == [ends_right] * 2
    assert [x < -2.0 for x in logits.values()] == [not ends_right] * 2
