"""λ that holds a share of the gradient."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import sharing
from learners.batch import build_batch
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import Completion, CrossEntropy
from sharing.rescue import Imitation, ShareController
from sharing.testing import ScriptedEnv, check_strategy
from tests.sharing.toys import BAD, GOOD, play
from tokenizers_bridge import CharTokenizer, TokenizerBridge

RESCUES = Imitation.of(0.1, ["a", "b"], compatible=False, per_rescue=False)


def test_what_is_left_in_logarithms_is_halved_by_each_round_of_the_same_kind() -> None:
    # Pulls of 3 λ beside 2: the share is .25 at λ* with 3 λ* / 2 = 1/3. λ starts 4.5 times as large as that.
    controller, best = ShareController.of(0.25, RESCUES), 2.0 / 9.0
    for round_ in range(6):
        weight = controller.factor("a")
        assert math.log(weight / best) == pytest.approx(math.log(4.5) / 2**round_)
        controller.measured("a", 3.0 * weight / (3.0 * weight + 2.0))
    assert controller.factor("b") == 1.0


def test_a_round_that_says_nothing_changes_nothing_and_the_factor_is_bounded() -> None:
    controller = ShareController.of(0.5, RESCUES)
    for share in (0.0, 1.0):
        controller.measured("a", share)
    assert controller.factor("a") == 1.0
    for _ in range(40):
        controller.measured("a", 1e-9)
    assert controller.factor("a") == 1024.0
    for wrong in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(ConfigError, match="target_share must lie between 0 and 1"):
            sharing.make("sgt", ScriptedEnv(["a"]), target_share=wrong)


@pytest.mark.parametrize("name", ["sgt", "memory", "placebo", "auto"])
def test_a_share_of_rescues_that_weigh_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="give a weight above 0 to begin with"):
        sharing.make(name, ScriptedEnv(["a"]), target_share=0.2, weight={"a": 0.0, "*": 0.0})
    sharing.make(name, ScriptedEnv(["a"]), target_share=0.2, weight={"a": {"b": 0.0, "*": 0.1}, "*": 0.0})


def reader() -> TabularLearner:
    return TabularLearner(CharTokenizer("yesnot0.?1ab "), name="a", max_new_tokens=4)


def wrote(text: str) -> Completion:
    learner = reader()
    ids = np.append(learner.tokenizer.encode_batch([text])[0], learner.tokenizer.stop_id).astype(np.int32)
    (logprobs,) = learner.score([learner.tokenizer.render_prompt("t0.0?")], [ids])
    return Completion(text, ids, logprobs, "stop", 0, learner.tokenizer.fingerprint)


# One prompt of two that teaches by itself (advantages ±1) and one that fails: |A| is 1 on half of the own tokens.
ANSWERS: dict[str, Any] = {
    "a": [[wrote("yes"), wrote("not")], [wrote("not"), wrote("ton")]],
    "b": [[wrote(BAD), wrote(BAD)], [wrote("yes"), wrote(BAD)]],
}


def one_round(env: Any, number: int, *, told: bool = True) -> tuple[float, float]:
    """The weight of the rescue, and the share of the gradient that it was."""
    info = play(env, ANSWERS, round=number)["a"]
    learner = reader()
    metrics = learner.update(build_batch(info["lessons"], learner, TokenizerBridge([learner.tokenizer])).examples)
    if told:
        env.learnt("a", {**info["metrics"], **metrics})
    (weight,) = (lesson.weight for lesson in info["lessons"] if lesson.loss == CrossEntropy())
    return weight, metrics["batch/imitation_gradient_share"]


def test_rescues_come_to_hold_the_target_whatever_weight_they_began_with() -> None:
    # Own pulls: the mean of |A| = 1 on 8 of 16 tokens: .5. A rescue's is λ, whatever its length. s = λ / (λ + .5), and
    # s = .2 at λ = .125.
    for weight in (0.01, 5.0):
        env = sharing.make("sgt", ScriptedEnv(["a", "b"], fixed=True), weight=weight, target_share=0.2)
        first, share = one_round(env, 0)
        assert (first, share) == (weight, pytest.approx(weight / (weight + 0.5), rel=1e-4))
        for number in range(1, 25):
            weight_now, share = one_round(env, number)
        assert weight_now == pytest.approx(0.125, rel=1e-4)
        assert share == pytest.approx(0.2, rel=1e-4)


def test_a_memory_holds_its_share_too_and_goes_on_from_its_state() -> None:
    # The same pulls as SGT's above, whether the rescue is the peer's of this round or an earlier one: λ = .125.
    def made() -> Any:
        return sharing.make("memory", ScriptedEnv(["a", "b"], fixed=True), weight=5.0, target_share=0.2)

    env = made()
    assert one_round(env, 0)[0] == 5.0
    for number in range(1, 24):
        one_round(env, number)
    resumed = made()
    resumed.load_state_dict(json.loads(json.dumps(env.state_dict())))
    for each in (env, resumed):
        weight, share = one_round(each, 24)
        assert weight == pytest.approx(0.125, rel=1e-4)
        assert share == pytest.approx(0.2, rel=1e-4)
    assert play(env, ANSWERS, round=25)["a"]["metrics"]["share/weight_factor"] == pytest.approx(0.025, rel=1e-4)


def test_the_placebo_of_a_rescue_holds_the_same_share() -> None:
    # a fails on the second prompt, where b solves; the placebo is b's success on the first.
    answers = {**ANSWERS, "b": [[wrote("yes"), wrote(BAD)], [wrote("yes"), wrote(BAD)]]}
    env = sharing.make("placebo", ScriptedEnv(["a", "b"], fixed=True), weight=5.0, target_share=0.2)
    for number in range(25):
        info = play(env, answers, round=number)["a"]
        learner = reader()
        metrics = learner.update(build_batch(info["lessons"], learner, TokenizerBridge([learner.tokenizer])).examples)
        env.learnt("a", {**info["metrics"], **metrics})
    assert metrics["batch/imitation_gradient_share"] == pytest.approx(0.2, rel=1e-4)


def test_the_rescues_that_auto_chooses_hold_their_share() -> None:
    # The first prompt is XGRPO's: rewards 1, 0 and b's 0, 0 have the mean .25 and std sqrt(3)/4, so |A| is sqrt(3) and
    # 1/sqrt(3), 2/sqrt(3) in the mean, on 8 of 16 tokens: 1/sqrt(3). s = λ / (λ + 1/sqrt(3)) = .2 at λ = 1/sqrt(48).
    def made() -> Any:
        options: dict[str, Any] = {"weight": 5.0, "target_share": 0.2, "was_learnt": lambda *_: True}  # so no graft
        return sharing.make("auto", ScriptedEnv(["a", "b"], fixed=True), **options)

    env = made()
    for number in range(24):
        one_round(env, number)
    resumed = made()
    resumed.load_state_dict(json.loads(json.dumps(env.state_dict())))
    for each in (env, resumed):
        weight, share = one_round(each, 24)
        assert weight == pytest.approx(48**-0.5, rel=1e-4)
        assert share == pytest.approx(0.2, rel=1e-4)


def test_a_loop_that_says_nothing_leaves_the_weight_as_it_was_given() -> None:
    env = sharing.make("sgt", ScriptedEnv(["a", "b"], fixed=True), target_share=0.2)
    assert [one_round(env, n, told=False)[0] for n in range(3)] == [0.1] * 3


def test_the_factor_goes_on_from_its_state_and_through_a_strategy_above() -> None:
    def stack() -> Any:
        below = sharing.make("sgt", ScriptedEnv(["a", "b"], fixed=True), target_share=0.2)
        return sharing.make("frozen", below, agents=["b"])

    steady = stack()
    one_round(steady, 0)
    resumed = stack()
    resumed.load_state_dict(json.loads(json.dumps(steady.state_dict())))
    assert one_round(steady, 1) == one_round(resumed, 1)
    assert one_round(steady, 2)[0] != 0.1


def test_without_a_target_nothing_of_it_is_kept_or_said() -> None:
    env = sharing.make("sgt", ScriptedEnv(["a", "b"], fixed=True))
    one_round(env, 0)
    assert "factors" not in env.state_dict()
    assert "share/weight_factor" not in play(env, ANSWERS)["a"]["metrics"]


def test_the_conformance_check_holds() -> None:
    check_strategy(lambda env, **common: sharing.make("sgt", env, **common, target_share=0.3, weight=0.5))


def test_good_and_bad_are_what_the_numbers_above_assume() -> None:
    assert (GOOD, BAD) == ("yes", "no")
