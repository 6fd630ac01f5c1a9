"""The claims about the probes, each with the part of it that holds and the part that does not."""

import numpy as np
import pytest

from sharing.analysis.bandit import CORRECT_K, Context, chi_square, contexts, softmax
from sharing.analysis.claims import baselines, headline, pair, pooled_authors, rescues, score_chi_square
from sharing.analysis.closed_form import STRATEGIES, Options, independent, prp, prp_unclipped, sgt, xgrpo
from sharing.analysis.plane import Point, alignment, analyse, chunks_sweep, divergent_sweep, lengths_sweep, starved

OPTIONS = Options()


def named(disagreement: float, *, tokens: int = 1) -> dict[str, Context]:
    return {context.name: context for context in contexts(disagreement, 0.0, tokens=tokens)}


# -- 1: PRP's variance grows with χ² ----------------------------------------------------------------------------------


def test_chi_square_of_a_pair_is_worked_out_by_hand() -> None:
    # π = (1/2, 1/2), β = (1/4, 3/4): Σ π²/β - 1 = 1/4 · 4 + 1/4 · 4/3 - 1 = 1/3.
    assert chi_square(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(1 / 3)


def test_without_the_clip_the_variance_of_prp_is_affine_in_the_score_weighted_chi_square() -> None:
    authors = pooled_authors(60, 8, OPTIONS)
    for author in authors[3:]:  # the first three fix the law's three coefficients
        assert author.predicted == pytest.approx(author.variance, rel=1e-11)
    # Rising in both parts: the author who is farther away in one part and as far in the other costs more.
    parts = np.array([(1.0, a.wrong, a.correct) for a in authors])
    law = np.linalg.lstsq(parts, np.array([a.variance for a in authors]), rcond=None)[0]
    assert law[1] > 0
    assert law[2] > 0


def test_the_score_weighted_chi_square_lies_between_multiples_of_one_plus_chi_square() -> None:
    for context in named(1.0).values():
        squares_K = (context.scores_KK**2).sum(axis=1)
        plain = 1.0 + chi_square(context.reader_K, context.policies_AK[1])
        assert squares_K.min() * plain <= sum(score_chi_square(context)) <= squares_K.max() * plain


def test_with_the_clip_the_claim_fails_where_the_reader_is_the_better_of_the_two() -> None:
    # χ² rises from 0.2 to 64, without the clip the variance rises with it, with the clip it falls: what the reader does
    # much more often than the author is right there, and a right sample with a ratio above 1.2 passes no gradient.
    near, far = named(0.2)["reader only"], named(1.0)["reader only"]
    assert chi_square(*near.policies_AK) < 0.2
    assert chi_square(*far.policies_AK) > 60
    assert prp_unclipped(far, 8, OPTIONS).variance > 7 * prp_unclipped(near, 8, OPTIONS).variance
    assert prp(far, 8, OPTIONS).variance < 0.6 * prp(near, 8, OPTIONS).variance


def test_with_the_clip_the_claim_holds_where_they_disagree_about_wrong_answers() -> None:
    # A wrong sample with a ratio above 1 is on the open side of the clip: χ² 7 makes the variance 14 times what it was.
    near, far = named(0.0)["rescue"], named(1.0)["rescue"]
    assert prp(far, 8, OPTIONS).variance > 10 * prp(near, 8, OPTIONS).variance


def test_exact_ratios_give_prp_no_support_that_xgrpo_lacks() -> None:
    # Without the clip PRP is unbiased for what XGRPO estimates: the weight π/β takes a peer's success back to the rate
    # at which the reader would have made it. Both are collinear with ∇J on each context, and as small where p is small.
    for context in named(1.0).values():
        direction = context.gradient_K / np.linalg.norm(context.gradient_K)
        mean_K = prp_unclipped(context, 8, OPTIONS).mean_K
        np.testing.assert_allclose(mean_K, (mean_K @ direction) * direction, atol=1e-14)
    rescue = named(1.0)["rescue"]
    assert np.linalg.norm(prp_unclipped(rescue, 8, OPTIONS).mean_K) < np.linalg.norm(
        independent(rescue, 8, OPTIONS).mean_K
    )


# -- 2: XGRPO leaves support unchanged and only moves the baseline ----------------------------------------------------


@pytest.mark.parametrize("eta", [0.2, 0.5, 0.9])
def test_xgrpo_never_leaves_the_direction_of_the_true_gradient(eta: float) -> None:
    draws = np.random.default_rng(5)
    for _ in range(40):
        policies_AK = np.stack([softmax(draws.normal(scale=2.5, size=5)) for _ in range(3)])
        context = Context("any", policies_AK, CORRECT_K, np.zeros(5))
        mean_K = xgrpo(context, 5, Options(eta=eta)).mean_K
        along = float(mean_K @ context.growth_K) / float(context.growth_K @ context.growth_K)
        assert along >= 0.0
        np.testing.assert_allclose(mean_K, along * context.growth_K, atol=1e-13)


def test_xgrpo_feeds_no_context_that_grpo_starves() -> None:
    placed = analyse([Point(1.0, 0.0, 1)], 8, OPTIONS)[Point(1.0, 0.0, 1)]
    for name in starved(contexts(1.0, 0.0), 8, OPTIONS):
        assert placed["xgrpo"].length[name] < 0.02
    # The step vanishes in proportion to p, as GRPO's does: 0.72 to 1.22 of it, whatever the peer solves.
    for row in baselines((1e-5, 1e-4, 1e-3), (0.1, 0.5, 0.9), 8, OPTIONS):
        assert 0.7 < row.gain / row.grpo_gain < 1.25
        assert row.off_axis < 1e-15


def test_but_xgrpo_does_not_only_move_the_baseline_it_makes_noise_where_grpo_is_silent() -> None:
    # A failed group beside a peer that succeeds: every own sample is pushed down, at random, by the same amount. The
    # expectation of that is nothing, its deviation stays as p goes to 0; GRPO's falls like the root of p.
    low, high = baselines((1e-6, 1e-2), (0.5,), 8, OPTIONS)
    assert low.deviation > 0.9 * high.deviation
    assert low.grpo_deviation < 0.02 * high.grpo_deviation
    rescue = named(1.0)["rescue"]
    ratio = xgrpo(rescue, 8, OPTIONS).variance / independent(rescue, 8, OPTIONS).variance
    assert ratio == pytest.approx(11.8, abs=0.1)


# -- 3: SGT adds a score direction on the rescue set and nothing elsewhere --------------------------------------------


def test_sgt_adds_the_expected_score_of_a_peers_success_times_the_chance_of_a_rescue() -> None:
    # N = 2: λ (1-p)^G (1 - (1-p_j)^G) (β(· | correct) - π), the rescue being an event of the drawn groups.
    for row in rescues((1e-4, 0.01, 0.3, 0.6), (0.1, 0.5, 0.9), 8, OPTIONS):
        assert row.added == pytest.approx(row.predicted, rel=1e-9, abs=1e-15)
        assert row.difference < 1e-14


def test_what_sgt_adds_is_all_but_gone_where_the_reader_solves_half_and_is_not_nothing_in_between() -> None:
    rare, some, half = rescues((0.002, 0.2, 0.5), (0.75,), 8, OPTIONS)
    assert rare.added > 9 * rare.grpo  # nothing else to speak of moves there
    assert some.added == pytest.approx(0.0132, abs=0.002)  # (0.8)^8 = 0.17 of the groups fail: 4 % of GRPO's own step
    assert half.added < 5e-4 * half.grpo


def test_the_rescue_ends_with_what_no_peer_solves() -> None:
    context = pair(1e-5, 1e-9)
    added_K = sgt(context, 8, OPTIONS).mean_K - independent(context, 8, OPTIONS).mean_K
    assert np.linalg.norm(added_K) < 1e-8


# -- what a response is made of ---------------------------------------------------------------------------------------


def support(points: tuple[Point, ...], *names: str) -> dict[str, list[float]]:
    placed = analyse(points, 8, OPTIONS)
    return {name: [placed[point][name].support for point in points] for name in names}


def test_what_matters_to_a_ratio_is_how_many_tokens_carry_the_disagreement() -> None:
    found = support(divergent_sweep((1, 2, 4, 8, 16, 64)), "prp", "graft", "sgt")
    assert found["prp"] == pytest.approx([0.023, 0.045, 0.131, 0.201, 0.222, 0.261], abs=5e-4)
    assert max(found["sgt"]) - min(found["sgt"]) < 1e-12
    assert max(found["graft"]) - min(found["graft"]) < 1e-12  # a mean over 64 tokens, however few of them differ


def test_length_alone_changes_nothing_but_the_gates_that_take_a_mean_over_it() -> None:
    found = support(lengths_sweep((4, 32, 256)), "prp", "ftis", "trrd", "kd-rl", "luffy", "sapo", "sgt", "auto")
    for name, values in found.items():
        assert max(values) - min(values) < 1e-12, name
    gated = support(lengths_sweep((16, 64)), "graft", "hacpo")
    assert gated["graft"][0] < 0.0 < 0.2 < gated["graft"][1]


def test_a_chunk_of_all_tokens_has_the_exact_ratio_again() -> None:
    whole, exact = support(chunks_sweep((64,)), "prp", "kd-rl", "trrd"), support((Point(1.0, 0.0, 1),), "prp", "kd-rl")
    for name, values in exact.items():
        assert whole[name] == pytest.approx(values, abs=1e-12)
    finer = support(chunks_sweep((1, 4, 16)), "prp")["prp"]
    assert finer == pytest.approx(support(divergent_sweep((64, 16, 4)), "prp")["prp"], abs=1e-12)


# -- auto -------------------------------------------------------------------------------------------------------------


def test_auto_takes_of_each_prompt_the_better_of_what_it_chooses_from() -> None:
    where = named(1.0)
    stability = {}
    for name in ("independent", "xgrpo", "sgt", "auto"):
        exact = {c.name: STRATEGIES[name](c, 8, OPTIONS) for c in where.values()}
        stability[name] = {p: alignment([exact[p]], where[p].growth_K) for p in where}
    for prompt in ("contested", "reader ahead", "peer ahead", "reader only", "rescue", "faint rescue"):
        best = max(stability[name][prompt] for name in ("independent", "xgrpo", "sgt"))
        assert stability["auto"][prompt] >= best - 0.025, prompt
    placed = analyse((Point(1.0, 0.0, 1),), 8, OPTIONS)[Point(1.0, 0.0, 1)]
    assert placed["auto"].stability > max(placed[name].stability for name in ("independent", "xgrpo", "sgt")) + 0.01
    assert placed["auto"].support > 0.95 * placed["sgt"].support


def test_grafts_pay_only_above_the_sample_size_at_which_auto_asks_for_them() -> None:
    # The chunk weights' effective sample size under the author, and which way a graft leads on the two rescues.
    for tokens in (8, 16, 20, 24, 32, 64, 128):
        for name in ("rescue", "faint rescue"):
            context = named(1.0, tokens=tokens)[name]
            author_K, ratio_K = context.policies_AK[1], context.ratios_AK[1]
            size = float((author_K @ ratio_K) ** 2 / (author_K @ ratio_K**2))
            if size >= 0.995:
                assert STRATEGIES["graft"](context, 8, OPTIONS).mean_K @ context.growth_K > 0.1


# -- what else the bandit shows ---------------------------------------------------------------------------------------


def test_kl_k3_as_a_loss_pulls_along_the_other_kl_divergence() -> None:
    # On own samples E (π_T/π - 1) ∇ log π = π_T - π, which is -∇ KL(π_T || π). -∇ KL(π || π_T) is another vector:
    # π ⊙ (log π_T/π + KL(π || π_T)).
    context = named(1.0)["contested"]
    reader_K, teacher_K = context.policies_AK
    taught = STRATEGIES["kd-rl"](context, 8, OPTIONS).mean_K - independent(context, 8, OPTIONS).mean_K
    np.testing.assert_allclose(taught, OPTIONS.distill_weight * (teacher_K - reader_K), atol=1e-14)
    reverse_K = reader_K * (np.log(teacher_K / reader_K) + reader_K @ np.log(reader_K / teacher_K))
    cosine = taught @ reverse_K / np.linalg.norm(taught) / np.linalg.norm(reverse_K)
    assert cosine == pytest.approx(0.876, abs=0.001)


def test_a_gate_opens_to_rescues_only_for_responses_that_are_long_enough() -> None:
    # The reader gives a right arm 0.001, its peer 0.3: s = (1/300)^(1/T) > 0.8 needs T > ln 300 / ln 1.25 = 25.6.
    for name in ("graft", "hacpo"):
        short, long = (STRATEGIES[name](named(1.0, tokens=t)["rescue"], 8, OPTIONS) for t in (25, 26))
        growth_K = named(1.0)["rescue"].growth_K
        assert growth_K @ short.mean_K < 0.0 < 0.2 < growth_K @ long.mean_K


def test_the_headline_numbers_are_what_the_page_says() -> None:
    found = headline(8, OPTIONS)
    assert found["prp_law_worst_relative_error"] < 1e-11
    assert found["prp_variance_chi_square_correlation"] == pytest.approx(0.84, abs=0.01)
    assert found["xgrpo_rescue_variance_over_grpo"] == pytest.approx(11.8, abs=0.1)
