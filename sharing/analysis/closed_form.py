"""The update that each strategy makes on one prompt, as exact moments over everything its groups can turn out as.

An update u is what one optimizer step adds to the reader's logits per unit of learning rate, at π = π_old, on a batch
of this one prompt: the mean over the policy-gradient samples that are trained on, plus the mean over cross-entropy
samples, a response counting as one whatever its tokens. In all formulas r is the reward, p the reader's success
probability, G the group size, n_a the successes in the group of agent a (the reader's is n), ∇ log π(y) = e_y - π,
ρ = (π/β)^(1/units) the ratio of reader and author on a chunk, ε = 1e-6, and

    A(r; m, s) = (r - m) / (s + ε),      sd(m) = sqrt(m (1 - m)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mutual_env.types import Floats
from sharing.advantages import EPSILON, ROUNDING
from sharing.analysis.bandit import Context
from sharing.analysis.outcomes import (
    REWARD_C,
    TRAINED_C,
    Moments,
    Outcomes,
    branched,
    enumerate_outcomes,
    group_outcomes,
    moments,
)


@dataclass(frozen=True, slots=True)
class Options:
    """The published defaults of every strategy.

    `capability` is HACPO's P of each agent, a constant here because it comes from past steps (empty: equal ones).
    """

    eta: float | None = None  # XGRPO; None: (N-1)/N, which pools all rollouts with equal weight
    rescue_weight: float = 0.1  # SGT's λ
    clip_low: float = 0.2
    clip_high: float = 0.2
    gate_floor: float = 0.8  # GRAFT
    graft_clip_high: float = 0.28
    hacpo_floor: float = 0.8
    hacpo_cap: float = 1.0001
    hacpo_alpha: float = 1.0
    capability: tuple[float, ...] = ()
    ratio_cap: float = 2.0  # F-TIS
    max_kl: float = 50.0
    shaping: float = 0.1  # LUFFY's γ
    teacher_mix: float = 0.5  # TRRD's α
    teacher_limit: float = 1.0
    distill_weight: float = 0.1  # KD-RL
    proximal: float = 0.2  # TOP-D's α
    rounding: float = 1e-4  # TOP-D: a log-ratio that is none


ExactUpdate: TypeAlias = Callable[[Context, int, Options], Moments]


# -- the parts the formulas are made of -------------------------------------------------------------------------------


def everyone(context: Context) -> Floats:
    """Every sample is trained on."""
    return np.ones_like(context.policies_AK)


def aligned(context: Context) -> Floats:
    """The reader's own samples, and the peers' copies that come with an exact chunk."""
    chance_AK = np.tile(1.0 - context.residual_K, (context.policies_AK.shape[0], 1))
    chance_AK[0] = 1.0
    return chance_AK


def only(author: int, context: Context) -> Floats:
    """Zero for every author but one."""
    mask_AK = np.zeros_like(context.policies_AK)
    mask_AK[author] = 1.0
    return mask_AK


def groups(context: Context, size: int, trained_AK: Floats | None = None) -> Outcomes:
    """Groups of the same size for all agents."""
    sizes = [size] * context.policies_AK.shape[0]
    return enumerate_outcomes(context, sizes, everyone(context) if trained_AK is None else trained_AK)


def advantage(mean_O: Floats, deviation_O: Floats | float) -> Floats:
    """A(r; m, s) of each cell."""
    centred: Floats = REWARD_C - mean_O[:, None]
    scale: Floats = np.reshape(np.asarray(deviation_O, dtype=np.float64), (-1, 1))
    return centred / scale


def normalised(mean_O: Floats) -> Floats:
    """A(r; m, sd(m)): the reward is 0 or 1, so its deviation is a function of its mean."""
    return advantage(mean_O, deviation(mean_O) + EPSILON)


def deviation(mean_O: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum(mean_O * (1.0 - mean_O), 0.0)), dtype=np.float64)


def own_mean(o: Outcomes) -> Floats:
    return np.asarray(o.successes_OA[:, 0] / o.sizes_A[0], dtype=np.float64)


def pooled_mean(o: Outcomes) -> Floats:
    return np.asarray(o.successes_OA.sum(axis=1) / o.sizes_A.sum(), dtype=np.float64)


def own_advantages(o: Outcomes) -> Floats:
    """A of each author's cells (O, A, C), against its own group."""
    share_OA = o.successes_OA / o.sizes_A
    return np.stack([normalised(share_OA[:, a]) for a in range(o.sizes_A.size)], axis=1)


def clipped(advantage_OC: Floats, ratio_AK: Floats, low: float, high: float) -> Floats:
    """ρ A where min(ρ A, clip(ρ) A) follows ρ, else 0: the derivative of the PPO surrogate by log π."""
    a, ratio = advantage_OC[:, None, :, None], ratio_AK[None, :, None, :]
    follows = ~((a > 0) & (ratio > 1.0 + high)) & ~((a < 0) & (ratio < 1.0 - low))
    return np.asarray(np.where(follows, ratio * a, 0.0))


def mean_over_trained(o: Outcomes, weight_OACK: Floats, authors_A: Floats | None = None) -> Moments:
    """The policy-gradient mean over the samples of `authors` (all by default) that are trained on."""
    authors = np.ones(o.sizes_A.size) if authors_A is None else authors_A
    trained_O = np.maximum((o.trained_OA * authors).sum(axis=-1), 1.0)
    mask_OAC = np.broadcast_to(np.atleast_2d(authors)[:, :, None], o.counts_OAC.shape) * TRAINED_C
    return moments(o, weight_OACK * mask_OAC[..., None] / trained_O[:, None, None, None])


# -- the strategies ---------------------------------------------------------------------------------------------------


def independent(context: Context, size: int, options: Options) -> Moments:
    """GRPO:  u = 1/G Σ_own A(r; n/G, sd(n/G)) ∇ log π(y)."""
    o = enumerate_outcomes(context, [size], everyone(context)[:1])
    return mean_over_trained(o, normalised(own_mean(o))[:, None, :, None])


def independent_2n(context: Context, size: int, options: Options) -> Moments:
    """GRPO with twice the rollouts: what the reader could have had for the price of listening to one peer."""
    return independent(context, 2 * size, options)


def xgrpo(context: Context, size: int, options: Options) -> Moments:
    """u = 1/G Σ_own A(r; b, sd(b)) ∇ log π(y),   b = (1-η) mean_own + η mean_peers.

    A reward is its own square, so the mixed second moment is b too and the mixed deviation is sd(b).
    """
    o = groups(context, size)
    agents = o.sizes_A.size
    eta = (agents - 1) / agents if options.eta is None else options.eta
    peer_mean = o.successes_OA[:, 1:].mean(axis=1) / size
    baseline_O = (1.0 - eta) * own_mean(o) + eta * peer_mean
    return mean_over_trained(o, normalised(baseline_O)[:, None, :, None], np.eye(agents)[0])


def prp(context: Context, size: int, options: Options) -> Moments:
    """u = 1/M Σ_all [not clipped] ρ A(r; m, sd(m)) ∇ log π(y),   m the mean of the pooled group, ρ = 1 on own samples.

    A peer's sample without an exact chunk is masked; its reward stays in m. M counts the samples that are not masked.
    """
    o = groups(context, size, aligned(context))
    return mean_over_trained(
        o, clipped(normalised(pooled_mean(o)), context.ratios_AK, options.clip_low, options.clip_high)
    )


def prp_unclipped(context: Context, size: int, options: Options) -> Moments:
    """PRP with the pure importance ratio: clip off on both sides."""
    o = groups(context, size, aligned(context))
    return mean_over_trained(o, clipped(normalised(pooled_mean(o)), context.ratios_AK, math.inf, math.inf))


def sgt(context: Context, size: int, options: Options) -> Moments:
    """u = u_GRPO + 1[n = 0 and Σ_j n_j > 0] λ ∇ log π(Y),   Y uniform over the peers' successes."""
    o = groups(context, size)
    reader = np.eye(o.sizes_A.size)[0]
    weight = normalised(own_mean(o))[:, None, :, None] * reader[:, None, None] / size
    return moments(o, weight, rescue_of(o), options.rescue_weight)


def rescue_of(o: Outcomes) -> Floats:
    """The chance that the rescue is a sample of this author and cell (O, A, C)."""
    peers_A = 1.0 - np.eye(o.sizes_A.size)[0]
    success_OAC = o.counts_OAC * REWARD_C * peers_A[:, None]
    total_O = success_OAC.sum(axis=(1, 2))
    rescue_O = (o.successes_OA[:, 0] == 0) & (total_O > 0)
    return np.where(rescue_O[:, None, None], success_OAC / np.maximum(total_O, 1.0)[:, None, None], 0.0)


def graft(context: Context, size: int, options: Options) -> Moments:
    """Stored-peer form (no balancing across prompts). If n = 0 and 1 <= n_j < G, the reader's group is replaced:

    u = 1/M Σ_j w(y) A(r; n_j/G, sd(n_j/G)) ∇ log π(y),   s = (π/β)^(1/tokens),  w = 1[s > 0.8] min(s, 1),

    M the samples with w > 0; else u_GRPO. The ratio is taken against π_old, so it is 1 here. Of several peers that
    qualify the one with the most successes gives, at a tie any of them.
    """
    s_AK = context.mean_ratios_AK
    gate_AK = np.where(s_AK > options.gate_floor, np.minimum(s_AK, 1.0), 0.0)
    o = groups(context, size, (gate_AK > 0).astype(np.float64))
    n_OA = o.successes_OA
    usable_OA = np.where((n_OA >= 1) & (n_OA < size), n_OA, 0.0)
    usable_OA[:, 0] = 0.0
    most_O = usable_OA.max(axis=1)
    best_OA = (usable_OA == most_O[:, None]) & ((n_OA[:, 0] == 0) & (most_O > 0))[:, None]
    best_OA[:, 0] = ~best_OA.any(axis=1)
    o, source_O = branched(o, best_OA / best_OA.sum(axis=1, keepdims=True))
    authors_OA = np.eye(o.sizes_A.size)[source_O]
    mean_O = (o.successes_OA * authors_OA).sum(axis=1) / size
    return mean_over_trained(o, normalised(mean_O)[:, None, :, None] * gate_AK[None, :, None, :], authors_OA)


def hacpo(context: Context, size: int, options: Options) -> Moments:
    """A = A(r; b, sd(m)), m the pooled mean of r, b that of (P_k/P_j) r; b = m without spread, b = n/G if b > 1.

    own:   1/M A ∇ log π(y)
    peers: 1/M (P_j/P_k) [0.8 <= s <= 1.0001] s^(1+α) A ∇ log π(y),  s = (π/β)^(1/tokens): outside the bounds the clamp
    passes no gradient.
    """
    o = groups(context, size)
    total = int(o.sizes_A.sum())
    capability = np.array(options.capability or (1.0,) * o.sizes_A.size)
    weight_A = np.clip(capability / capability[0], 0.1, 10.0)
    raw_O = pooled_mean(o)
    baseline_O = (o.successes_OA / weight_A).sum(axis=1) / total
    baseline_O = np.where(deviation(raw_O) > 0, np.where(baseline_O > 1.0, own_mean(o), baseline_O), raw_O)
    advantage_OC = advantage(baseline_O, deviation(raw_O) + EPSILON)
    s = context.mean_ratios_AK
    passed = (
        np.where((s >= options.hacpo_floor) & (s <= options.hacpo_cap), s ** (1.0 + options.hacpo_alpha), 0.0)
        * weight_A[:, None]
    )
    passed[0] = 1.0
    return mean_over_trained(o, advantage_OC[:, None, :, None] * passed[None, :, None, :])


def ftis(context: Context, size: int, options: Options) -> Moments:
    """u = 1/M Σ_all min(ρ, C) A(r; n_a/G, sd(n_a/G)) ∇ log π(y), each sample against its author's group. A peer's
    sample is trained on if it is right or its estimate of KL(β || π), units · (ρ - 1 - log ρ), is within the bound.

    (A right sample has A > 0 but in a group that is all right, where A is 0 and the bound decides who is counted in M:
    far from every number shown here.)
    """
    kl_AK = context.units * (context.ratios_AK - 1.0 - np.log(context.ratios_AK))
    passes = np.where(context.correct_K | (kl_AK <= options.max_kl), 1.0, 0.0)
    passes[0] = 1.0
    o = groups(context, size, aligned(context) * passes)
    weight_AK = np.minimum(context.ratios_AK, options.ratio_cap)
    return mean_over_trained(o, own_advantages(o)[..., None] * weight_AK[None, :, None, :])


def luffy(context: Context, size: int, options: Options) -> Moments:
    """A = r - m over the pooled group, no deviation.  Own: 1/M A ∇ log π.  Peers: 1/M A f'(π) π ∇ log π with
    f(x) = x/(x+γ), so that f'(x) x = γ x / (x+γ)², x the token's probability."""
    o = groups(context, size)
    x = context.reader_K ** (1.0 / context.places)
    slope_AK = np.tile(options.shaping * x / (x + options.shaping) ** 2, (o.sizes_A.size, 1))
    slope_AK[0] = 1.0
    return mean_over_trained(o, advantage(pooled_mean(o), 1.0)[:, None, :, None] * slope_AK[None, :, None, :])


def sapo(context: Context, size: int, options: Options) -> Moments:
    """u = 1/M Σ A(r; n_a/G, sd(n_a/G)) ∇ log π(y) over the reader's group and that of one peer, each against itself, no
    ratio. On a batch of one prompt one own question stands beside one borrowed one; a peer's group without spread is no
    candidate, of several that have it any may lend, and where none has it M counts the own samples alone.
    """
    o = groups(context, size)
    agents = o.sizes_A.size
    spread_OA = ((o.successes_OA > 0) & (o.successes_OA < size)).astype(np.float64)
    spread_OA[:, 0] = ~spread_OA[:, 1:].any(axis=1)  # branch 0: nobody lends
    o, lender_O = branched(o, spread_OA / spread_OA.sum(axis=1, keepdims=True))
    advantage_OAC = own_advantages(o)
    authors_OA = np.maximum(np.eye(agents)[lender_O], np.eye(agents)[0])
    return mean_over_trained(o, advantage_OAC[..., None], authors_OA)


def trrd(context: Context, size: int, options: Options) -> Moments:
    """u = 1/G Σ_own [not clipped] ρ A ∇ log π(y),   ρ = (π / (π_old^α π_T^(1-α)))^(1/units), a chunk's
    π_T taken for no further from π_old than the limit; 1 where the teacher cannot be aligned. The KL to the reference
    is left out: it pulls to the reader's own past, not to a peer."""
    o = enumerate_outcomes(context, [size], 1.0 - context.residual_K[None])
    near_K = np.clip(context.ratios_AK[1], math.exp(-options.teacher_limit), math.exp(options.teacher_limit))
    ratio_CK = np.stack([np.ones_like(context.reader_K), near_K ** (1.0 - options.teacher_mix)])
    a_OC = normalised(own_mean(o))
    surrogate = clipped(a_OC, ratio_CK, options.clip_low, options.clip_high)  # rows: unaligned, aligned
    weight_OCK = np.stack([surrogate[:, 0, 0], surrogate[:, 1, 1], surrogate[:, 0, 2], surrogate[:, 1, 3]], axis=1)
    return moments(o, weight_OCK[:, None] / size)


def kd_rl(context: Context, size: int, options: Options) -> Moments:
    """u = 1/G Σ_own (A + c (π_T/π - 1)) ∇ log π(y), token-wise, and A alone where the teacher cannot be aligned: the
    slope of c KL_k3(π || π_T). Its expectation over own samples is c (π_T - π), the gradient of -c KL(π_T || π)."""
    o = enumerate_outcomes(context, [size], 1.0 - context.residual_K[None])
    pull_K = options.distill_weight * (1.0 / context.ratios_AK[1] - 1.0)
    a_OC = normalised(own_mean(o))
    return moments(o, (a_OC[:, :, None] + TRAINED_C[:, None] * pull_K)[:, None] / size)


def topd(context: Context, size: int, options: Options) -> Moments:
    """u = 1/G Σ_own A(y) ∇ log π(y), A(y) the mean of (R - m) / (s + ε) over the chunks of y that carry the choice.

    The i-th of U such chunks has R = r(y) c_i, r = log(α ρ + 1 - α), ρ = (π_T/π)^(1/units), c_i = 1 + (U - i) / n_i,
    n_i the chunks of the response behind it; the chunks that carry none have R = 0. m and s are over all chunks of the
    samples that the teacher can be aligned with; others have no credit. How many of the group chose which arm decides
    everything, so that is enumerated.
    """
    chances_K = context.reader_K * (1.0 - context.residual_K)
    probability_O, counts = group_outcomes(np.append(chances_K, context.reader_K @ context.residual_K), size)
    n_OK, certain = counts[:, :-1], context.tokens - context.places
    log_ratio_K = -np.log(context.ratios_AK[1])
    r_K = np.where(np.abs(log_ratio_K) > options.rounding, np.log1p(options.proximal * np.expm1(log_ratio_K)), 0.0)
    later_U = np.arange(context.units)[::-1]
    returns_KU = r_K[:, None] * (1.0 + later_U / np.maximum(later_U + certain, 1))
    chunks_O = np.maximum(n_OK.sum(axis=1) * (context.units + certain), 1)
    m_O = n_OK @ returns_KU.sum(axis=1) / chunks_O
    apart_OKU = returns_KU - m_O[:, None, None]
    squares_O = (n_OK * ((apart_OKU**2).sum(axis=2) + certain * m_O[:, None] ** 2)).sum(axis=1)
    s_O = np.sqrt(squares_O / chunks_O)
    spread_O = s_O > ROUNDING * np.abs(returns_KU).max()  # equal returns differ from their mean by rounding alone
    a_OK = apart_OKU.mean(axis=2) * (spread_O / (s_O + EPSILON))[:, None]
    u_OK = n_OK * a_OK / size @ context.scores_KK
    mean_K = probability_O @ u_OK
    return Moments(mean_K, probability_O @ (u_OK - mean_K) ** 2, float(np.linalg.norm(u_OK, axis=1).max()))


def offline_distillation(context: Context, size: int, options: Options) -> Moments:
    """u = 1/n_T Σ ∇ log π(y) over the teacher's verified successes (0 where it has none)."""
    o = groups(context, size)
    success_O = np.maximum(o.successes_OA[:, 1], 1.0)
    weight_OC = REWARD_C / success_O[:, None]
    return moments(o, weight_OC[:, None, :, None] * only(1, context)[None, :, None, :])


def auto(context: Context, size: int, options: Options) -> Moments:
    """What `auto` does while it knows no author to be near: A of XGRPO where n > 0 and the peers solve no larger share,
    of GRPO elsewhere; and SGT's rescue where n = 0."""
    o = groups(context, size)
    reader = np.eye(o.sizes_A.size)[0]
    own_O, peers_O = own_mean(o), o.successes_OA[:, 1:].mean(axis=1) / size
    shared_O = (own_O > 0) & (peers_O <= own_O)
    baseline_O = np.where(shared_O, pooled_mean(o), own_O)
    weight = normalised(baseline_O)[:, None, :, None] * reader[:, None, None] / size
    return moments(o, weight, rescue_of(o), options.rescue_weight)


STRATEGIES: dict[str, ExactUpdate] = {
    "independent": independent,
    "independent 2n": independent_2n,
    "xgrpo": xgrpo,
    "prp": prp,
    "prp unclipped": prp_unclipped,
    "sgt": sgt,
    "auto": auto,
    "graft": graft,
    "hacpo": hacpo,
    "ftis": ftis,
    "luffy": luffy,
    "sapo": sapo,
    "trrd": trrd,
    "kd-rl": kd_rl,
    "topd": topd,
    "offline distillation": offline_distillation,
}
