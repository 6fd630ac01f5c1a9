"""Baselines and scales of groups: what exchanged sums determine, and what rounding must not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import sharing
from mutual_env.errors import ConfigError
from sharing.advantages import EPSILON, Moments, group_advantages
from tests.sharing.toys import ScriptedEnv, play


def sums(rewards: list[float]) -> Moments:
    return Moments.of_sums(len(rewards), math.fsum(rewards), math.fsum(r * r for r in rewards))


def test_sums_of_equal_rewards_have_no_variance_whatever_rounding_makes_of_them() -> None:
    # 0.03 three times: the sums give 3.4e-20 and not 0, and its root over 1e-6 would be no scale for anything.
    for count, hundredths in itertools.product((1, 2, 3, 5, 8, 16, 64), range(1, 100)):
        assert sums([hundredths / 100] * count).variance == 0.0, (count, hundredths)
        naive = (
            sum([hundredths / 100] * count),
            sum([(hundredths / 100) ** 2] * count),
        )  # a peer that adds up one by one
        assert Moments.of_sums(count, *naive).variance == 0.0, (count, hundredths)


def test_sums_of_rewards_that_differ_keep_their_variance() -> None:
    for rewards in ([0.03, 0.03, 0.0301], [0.0, 1.0], [0.999999, 1.0], [-1.0, 1.0, 1.0]):
        assert sums(rewards).variance == pytest.approx(float(np.var(rewards)), rel=1e-3)


def test_a_baseline_of_peers_who_all_got_the_same_graded_reward_gives_nobody_a_million() -> None:
    answers = {"a": [["0.02", "0.5", "0.4"]], "b": [["0.03", "0.03", "0.03"]]}
    env = sharing.make("xgrpo", ScriptedEnv(["a", "b"], prompts=1, group=3), eta=1.0)
    assert [lesson.advantage for lesson in play(env, answers)["a"]["lessons"]] == [0.0, 0.0, 0.0]


def test_the_sample_standard_deviation_divides_by_one_less() -> None:
    rewards = [1.0, 0.0, 0.0, 0.5]
    scale = float(np.std(rewards, ddof=1)) + EPSILON
    expected = [(r - 0.375) / scale for r in rewards]
    assert group_advantages(rewards, std="sample") == pytest.approx(expected, rel=1e-14)
    assert group_advantages(rewards, std="population") == group_advantages(rewards, std=True)
    assert group_advantages([0.7], std="sample") == [0.0]  # one reward has no deviation


@pytest.mark.parametrize("name", ["grpo", "prp", "xgrpo", "graft", "ftis", "sapo", "hacpo"])
def test_every_strategy_that_scales_knows_both_deviations(name: str) -> None:
    # With sqrt(n-1) in the place of sqrt(n) each own advantage on a prompt is smaller by one factor, but for the 1e-6.
    answers = {"a": [["0.1", "1", "0.3", "0"]], "b": [["1", "0.25", "0", "0"]]}

    def own(std: str) -> list[float]:
        env = sharing.make(name, ScriptedEnv(["a", "b"], prompts=1, group=4), std=std)
        lessons = play(env, answers)["a"]["lessons"]
        return [lesson.advantage for lesson in lessons if lesson.experience.author == "a"]

    ratios = {round(s / p, 4) for s, p in zip(own("sample"), own("population"), strict=True)}
    pooled = {"prp": 8, "xgrpo": 8, "hacpo": 8}.get(name, 4)
    assert ratios == {round(math.sqrt((pooled - 1) / pooled), 4)}


def test_an_unknown_deviation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"std.*must be true"):
        sharing.make("grpo", ScriptedEnv(["a"]), std="bessel")
