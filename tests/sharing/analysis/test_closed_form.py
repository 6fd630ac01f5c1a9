"""Every closed form against the sample-level code, over every outcome of a small bandit: only rounding between."""

import numpy as np
import pytest

from sharing.analysis.bandit import Context, contexts, softmax
from sharing.analysis.closed_form import STRATEGIES, Options, independent, prp, sapo, xgrpo
from sharing.analysis.outcomes import compositions, enumerate_outcomes, moments
from tests.sharing.analysis.enumerated import enumerated_moments, options_for, tiny

NEEDS_UNIFORM_CHOICE = {"sgt", "auto", "sapo", "graft"}  # among peers who are not exchangeable: see test_agreement


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_mean_and_variance_equal_those_over_every_outcome_of_two_agents(strategy: str, tokens: int) -> None:
    context = tiny(2, tokens=tokens)
    exact = STRATEGIES[strategy](context, 3, options_for(context))
    mean_K, variance_K = enumerated_moments(strategy, context, 3)
    np.testing.assert_allclose(exact.mean_K, mean_K, rtol=0, atol=1e-13)
    np.testing.assert_allclose(exact.variance_K, variance_K, rtol=0, atol=1e-13)


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - NEEDS_UNIFORM_CHOICE))
def test_mean_and_variance_equal_those_over_every_outcome_of_three_agents(strategy: str) -> None:
    context = tiny(3)
    exact = STRATEGIES[strategy](context, 2, options_for(context))
    mean_K, variance_K = enumerated_moments(strategy, context, 2)
    np.testing.assert_allclose(exact.mean_K, mean_K, rtol=0, atol=1e-13)
    np.testing.assert_allclose(exact.variance_K, variance_K, rtol=0, atol=1e-13)


def test_a_pair_is_worked_out_by_hand() -> None:
    # G = 2, two arms, p = 1/4: GRPO moves only on one success and one failure (chance 2 · 1/4 · 3/4 = 3/8), where the
    # advantages are ±1/(1 + 2e-6) and u = 1/2 (A_s (3/4, -3/4) + A_f (-1/4, 1/4)) = (1/2, -1/2) / (1 + 2e-6).
    context = Context("pair", np.array([[0.25, 0.75]]), np.array([True, False]), np.zeros(2))
    exact = independent(context, 2, Options())
    step = 0.5 / (1.0 + 2e-6)
    np.testing.assert_allclose(exact.mean_K, [3 / 8 * step, -3 / 8 * step], atol=1e-15)
    np.testing.assert_allclose(exact.variance_K, [15 / 64 * step**2] * 2, atol=1e-15)  # 3/8 · 5/8 of the step squared
    assert exact.bound == pytest.approx(step * np.sqrt(2.0))


def test_compositions_are_all_and_different() -> None:
    found = compositions(8, 4)
    assert found.shape == (165, 4)  # (8+3 choose 3)
    assert np.all(found.sum(axis=1) == 8)
    assert np.all(found >= 0)
    assert len({tuple(row) for row in found.tolist()}) == 165
    assert compositions(3, 1).tolist() == [[3]]


def test_outcomes_are_a_distribution_and_their_bound_holds() -> None:
    context = contexts(0.7, 0.3)[2]
    trained_AK = np.stack([np.ones(5), np.full(5, 0.7)])
    outcomes = enumerate_outcomes(context, [8, 8], trained_AK)
    assert outcomes.probability_O.size == 9 * 165
    assert outcomes.probability_O.sum() == pytest.approx(1.0, abs=1e-12)
    # With weight 1 everywhere u sums 16 scores, each at most sqrt(2) long.
    assert moments(outcomes, np.ones(1)).bound <= 16 * np.sqrt(2.0)


def test_one_policy_without_residual_makes_prp_the_group_of_twice_the_size() -> None:
    for context in contexts(0.0, 0.0):
        pooled, doubled = prp(context, 4, Options()), independent(context, 8, Options())
        np.testing.assert_allclose(pooled.mean_K, doubled.mean_K, atol=1e-14)
        np.testing.assert_allclose(pooled.variance_K, doubled.variance_K, atol=1e-14)


def test_prp_whose_copies_are_all_masked_is_xgrpo() -> None:
    for context in contexts(0.8, 1.0, tokens=7):
        masked, shared = prp(context, 6, Options()), xgrpo(context, 6, Options())
        np.testing.assert_allclose(masked.mean_K, shared.mean_K, atol=1e-14)
        np.testing.assert_allclose(masked.variance_K, shared.variance_K, atol=1e-14)


def test_the_degenerate_options_are_grpo() -> None:
    silent = Options(eta=0.0, rescue_weight=0.0, teacher_mix=1.0, distill_weight=0.0)
    for context in contexts(1.0, 0.2):
        plain = independent(context, 5, silent)
        for name in ("xgrpo", "sgt", "trrd", "kd-rl"):
            same = STRATEGIES[name](context, 5, silent)
            np.testing.assert_allclose(same.mean_K, plain.mean_K, atol=1e-14, err_msg=name)
            np.testing.assert_allclose(same.variance_K, plain.variance_K, atol=1e-14, err_msg=name)


def test_a_borrowed_group_is_worth_as_much_as_an_own_one_between_equal_policies() -> None:
    # With identical policies it does not matter who gives, and E u of a group is GRPO's. The own group counts G samples
    # beside G of a borrowed one, or alone where no peer has spread: E u = E u_GRPO [P(none) + (1 - P(none)) / 2] of the
    # own group, and half of E [u | spread] of the borrowed one. A group without spread gives 0, so E [u | spread] =
    # E u / P(s).
    policy = softmax([0.3, -0.5, 0.9])
    p = float(policy[0])
    spread = 1.0 - p**4 - (1.0 - p) ** 4
    for peers in (1, 2):
        context = Context("same", np.stack([policy] * (1 + peers)), np.array([True, False, False]), np.zeros(3))
        lends = 1.0 - (1.0 - spread) ** peers
        expected = (1.0 - lends) + lends / 2 + lends / (2 * spread)
        mean_K = independent(context, 4, Options()).mean_K
        np.testing.assert_allclose(sapo(context, 4, Options()).mean_K, expected * mean_K, atol=1e-14)
