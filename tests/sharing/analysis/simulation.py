"""The closed forms' oracle: the same updates by simulation.

Groups are drawn, every sample gets its weight from the rewards and log-probabilities that a trainer would see, and
nothing of the closed forms is used. Letters: D draws, A agents, G group; a draw is one prompt's worth of samples of all
agents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.bandit.agreement import Agreement, compare, comparisons_at, summary
from mutual_env.seeding import generator
from mutual_env.types import Floats
from sharing.advantages import EPSILON
from sharing.analysis.bandit import Bools, Context
from sharing.analysis.closed_form import STRATEGIES, Options
from sharing.analysis.plane import Point

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """What was sampled (arms, rewards), and per chunk: the reader's, the author's and the teacher's log-probability."""

    context: Context
    arms_DAG: Rows
    rewards_DAG: Floats
    aligned_DAG: Bools
    reader_DAG: Floats
    author_DAG: Floats
    teacher_DAG: Floats
    generator: np.random.Generator

    def pooled(self, values_DAG: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values_DAG.reshape(values_DAG.shape[0], -1)


SampleWeights: TypeAlias = Callable[[Rollouts, Options], Floats]


def draw(context: Context, size: int, draws: int, generator: np.random.Generator) -> Rollouts:
    agents = context.policies_AK.shape[0]
    columns = [generator.choice(row.size, size=(draws, size), p=row) for row in context.policies_AK]
    arms_DAG = np.stack(columns, axis=1)
    log_AK = np.log(context.policies_AK) / context.units
    return Rollouts(
        context,
        arms_DAG,
        context.correct_K[arms_DAG].astype(np.float64),
        generator.random(arms_DAG.shape) >= context.residual_K[arms_DAG],
        log_AK[0][arms_DAG],
        log_AK[np.arange(agents)[None, :, None], arms_DAG],
        log_AK[min(1, agents - 1)][arms_DAG],
        generator,
    )


def updates(rollouts: Rollouts, weights_DAG: Floats) -> Floats:
    """u of each draw (D, K): Σ weight · (e_y - π)."""
    context, weights, arms = rollouts.context, rollouts.pooled(weights_DAG), rollouts.pooled(rollouts.arms_DAG)
    pushed = [np.where(arms == arm, weights, 0.0).sum(axis=1) for arm in range(context.reader_K.size)]
    centre: Floats = weights.sum(axis=1)[:, None] * context.reader_K
    return np.stack(pushed, axis=1) - centre


def standardised(rewards: Floats, mean: Floats, std: Floats) -> Floats:
    return np.asarray((rewards - mean) / (std + EPSILON))


def own_advantage(s: Rollouts) -> Floats:
    own = s.rewards_DAG
    return standardised(own, own.mean(axis=2, keepdims=True), own.std(axis=2, keepdims=True))


def pool_advantage(s: Rollouts, *, scale: bool = True) -> Floats:
    every = s.pooled(s.rewards_DAG)
    mean = every.mean(axis=1)[:, None, None]
    return standardised(s.rewards_DAG, mean, every.std(axis=1)[:, None, None]) if scale else s.rewards_DAG - mean


def average(weights_DAG: Floats, kept_DAG: Bools) -> Floats:
    """The mean over what is kept."""
    count = np.maximum(kept_DAG.sum(axis=(1, 2)), 1)[:, None, None]
    return np.asarray(np.where(kept_DAG, weights_DAG, 0.0) / count)


def surrogate_slope(advantage: Floats, log_ratio: Floats, low: float, high: float, cap: float = np.inf) -> Floats:
    """d/d log π of min(ρ A, clip(ρ) A) with ρ at most `cap`: where the clipped side is the smaller, nothing."""
    ratio = np.exp(log_ratio)
    bounded = np.minimum(ratio, cap)
    plain, clip = bounded * advantage, np.clip(bounded, 1.0 - low, 1.0 + high) * advantage
    return np.asarray(np.where((plain <= clip) & (ratio <= cap), ratio * advantage, 0.0))


def by_reader(s: Rollouts) -> Bools:
    mask = np.zeros(s.arms_DAG.shape, dtype=np.bool_)
    mask[:, 0] = True
    return mask


def usable(s: Rollouts) -> Bools:
    return by_reader(s) | s.aligned_DAG


def one_of(candidates_DAG: Bools, generator: np.random.Generator) -> Bools:
    """One candidate of each draw, uniformly; none where there is none."""
    keys = np.where(candidates_DAG, generator.random(candidates_DAG.shape), -1.0).reshape(candidates_DAG.shape[0], -1)
    chosen = np.zeros(keys.shape, dtype=np.bool_)
    chosen[np.arange(keys.shape[0]), keys.argmax(axis=1)] = True
    return np.asarray(chosen.reshape(candidates_DAG.shape) & candidates_DAG)


def independent(s: Rollouts, options: Options) -> Floats:
    return average(own_advantage(s), by_reader(s))


def xgrpo(s: Rollouts, options: Options) -> Floats:
    agents = s.arms_DAG.shape[1]
    eta = 1.0 - 1.0 / agents if options.eta is None else options.eta
    own, others = s.rewards_DAG[:, :1], s.pooled(s.rewards_DAG[:, 1:])
    mixed = [(1 - eta) * (own**k).mean(axis=(1, 2)) + eta * (others**k).mean(axis=1) for k in (1, 2)]
    std = np.sqrt(np.maximum(mixed[1] - mixed[0] ** 2, 0.0))
    return average(standardised(s.rewards_DAG, mixed[0][:, None, None], std[:, None, None]), by_reader(s))


def prp(s: Rollouts, options: Options) -> Floats:
    log_ratio = s.reader_DAG - s.author_DAG
    return average(surrogate_slope(pool_advantage(s), log_ratio, options.clip_low, options.clip_high), usable(s))


def prp_unclipped(s: Rollouts, options: Options) -> Floats:
    return average(np.exp(s.reader_DAG - s.author_DAG) * pool_advantage(s), usable(s))


def sgt(s: Rollouts, options: Options) -> Floats:
    failed: Bools = s.rewards_DAG[:, :1].sum(axis=2, keepdims=True) == 0
    rescue = one_of((s.rewards_DAG == 1.0) & ~by_reader(s) & failed, s.generator)
    return independent(s, options) + options.rescue_weight * rescue


def graft(s: Rollouts, options: Options) -> Floats:
    wins = s.rewards_DAG.sum(axis=2)
    size = s.rewards_DAG.shape[2]
    score = np.where((wins >= 1) & (wins < size), wins, 0.0)
    score[:, 0] = 0.0
    replaced = (wins[:, 0] == 0) & score.any(axis=1)
    tie_break = s.generator.random(score.shape) * 0.5
    source = np.where(replaced, (score + tie_break).argmax(axis=1), 0)
    from_source = np.arange(wins.shape[1])[None, :, None] == source[:, None, None]
    s_ratio = mean_ratio(s)
    gate = np.where(s_ratio > options.gate_floor, np.minimum(s_ratio, 1.0), 0.0)
    return average(gate * own_advantage(s), from_source & (gate > 0))


def mean_ratio(s: Rollouts) -> Floats:
    """exp(mean log π - mean log β) over all tokens."""
    return np.asarray(np.exp((s.reader_DAG - s.author_DAG) * s.context.units / s.context.tokens))


def auto(s: Rollouts, options: Options) -> Floats:
    own, others = s.rewards_DAG[:, :1], s.rewards_DAG[:, 1:]
    mine, theirs = own.mean(axis=(1, 2)), others.mean(axis=(1, 2))
    shares = (mine > 0) & (theirs <= mine)
    credit = np.where(shares[:, None, None], pool_advantage(s), own_advantage(s))
    rescue = one_of((s.rewards_DAG == 1.0) & ~by_reader(s) & (mine == 0)[:, None, None], s.generator)
    return average(credit, by_reader(s)) + options.rescue_weight * rescue


def hacpo(s: Rollouts, options: Options) -> Floats:
    agents = s.arms_DAG.shape[1]
    capability = np.array(options.capability or (1.0,) * agents)
    to_reader = np.clip(capability[0] / capability, 0.1, 10.0)[None, :, None]
    every = s.pooled(s.rewards_DAG)
    mean = s.pooled(to_reader * s.rewards_DAG).mean(axis=1)
    mean = np.where(mean > 1.0, s.rewards_DAG[:, 0].mean(axis=1), mean)
    mean, std = np.where(every.std(axis=1) > 0, mean, every.mean(axis=1)), every.std(axis=1)
    credit = standardised(s.rewards_DAG, mean[:, None, None], std[:, None, None])
    ratio = mean_ratio(s)
    inside = (ratio >= options.hacpo_floor) & (ratio <= options.hacpo_cap)
    borrowed = np.where(inside, ratio * ratio**options.hacpo_alpha, 0.0) / to_reader
    weights = np.where(by_reader(s), 1.0, borrowed) * credit
    return average(weights, np.ones(weights.shape, dtype=np.bool_))


def ftis(s: Rollouts, options: Options) -> Floats:
    log_ratio = s.reader_DAG - s.author_DAG
    kl = s.context.units * (np.exp(log_ratio) - log_ratio - 1.0)
    credit = own_advantage(s)
    kept = by_reader(s) | (s.aligned_DAG & ((credit > 0) | (kl <= options.max_kl)))
    return average(np.minimum(np.exp(log_ratio), options.ratio_cap) * credit, kept)


def luffy(s: Rollouts, options: Options) -> Floats:
    x, gamma = np.exp(s.reader_DAG * s.context.units / s.context.places), options.shaping
    shaped = gamma / (x + gamma) ** 2 * x
    weights = np.where(by_reader(s), 1.0, shaped) * pool_advantage(s, scale=False)
    return average(weights, np.ones(weights.shape, dtype=np.bool_))


def sapo(s: Rollouts, options: Options) -> Floats:
    """The reader's group, and that of one peer whose rewards differ; each centred and scaled by itself."""
    has_spread = s.rewards_DAG.std(axis=2) > 0
    has_spread[:, 0] = False
    keys = np.where(has_spread, s.generator.random(s.rewards_DAG.shape)[:, :, 0], -1.0)
    borrowed = np.zeros(keys.shape, dtype=np.bool_)
    borrowed[np.arange(keys.shape[0]), keys.argmax(axis=1)] = True
    chosen = by_reader(s) | (borrowed & has_spread)[:, :, None]
    return average(own_advantage(s), chosen)


def trrd(s: Rollouts, options: Options) -> Floats:
    near = np.clip(s.teacher_DAG, s.reader_DAG - options.teacher_limit, s.reader_DAG + options.teacher_limit)
    anchor = options.teacher_mix * s.reader_DAG + (1 - options.teacher_mix) * near
    log_ratio = np.where(s.aligned_DAG, s.reader_DAG - anchor, 0.0)
    return average(surrogate_slope(own_advantage(s), log_ratio, options.clip_low, options.clip_high), by_reader(s))


def kd_rl(s: Rollouts, options: Options) -> Floats:
    k3_slope = np.where(s.aligned_DAG, 1.0 - np.exp(s.teacher_DAG - s.reader_DAG), 0.0)
    return average(own_advantage(s) - options.distill_weight * k3_slope, by_reader(s))


def topd(s: Rollouts, options: Options) -> Floats:
    """Every chunk of every own sample: those that carry the choice first, then those that are certain."""
    units, certain = s.context.units, s.context.tokens - s.context.places
    log_ratio = (s.teacher_DAG - s.reader_DAG)[:, 0]
    r = np.log(options.proximal * np.exp(log_ratio) + 1.0 - options.proximal)
    r[np.abs(log_ratio) <= options.rounding] = 0.0
    rewards = np.concatenate([np.repeat(r[..., None], units, 2), np.zeros((*r.shape, certain))], axis=2)
    returns = np.stack(
        [rewards[..., c] + rewards[..., c + 1 :].sum(axis=2) / max(units + certain - c - 1, 1) for c in range(units)]
        + [np.zeros(r.shape)] * certain,
        axis=2,
    )
    counted = np.broadcast_to(s.aligned_DAG[:, 0, :, None], returns.shape)
    count = np.maximum(counted.sum(axis=(1, 2)), 1)[:, None, None]
    mean = np.where(counted, returns, 0.0).sum(axis=(1, 2), keepdims=True) / count
    std = np.sqrt(np.where(counted, (returns - mean) ** 2, 0.0).sum(axis=(1, 2), keepdims=True) / count)
    most, least = (f(np.where(counted, returns, mean), axis=(1, 2)) for f in (np.max, np.min))
    differ = s.aligned_DAG[:, 0] & (most - least > 1e-12)[:, None]  # in equal ones the mean is off by rounding alone
    credit = np.where(differ, standardised(returns, mean, std)[..., :units].mean(axis=2), 0.0)
    weights = np.zeros(s.arms_DAG.shape)
    weights[:, 0] = credit / credit.shape[1]
    return weights


def offline_distillation(s: Rollouts, options: Options) -> Floats:
    by_teacher = np.zeros(s.arms_DAG.shape, dtype=np.bool_)
    by_teacher[:, 1] = True
    return average(np.ones(s.arms_DAG.shape), by_teacher & (s.rewards_DAG == 1.0))


SIMULATED: dict[str, SampleWeights] = {
    "independent": independent,
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


def simulate(
    strategies: Sequence[str],
    context: Context,
    size: int,
    draws: int,
    generator: np.random.Generator,
    options: Options,
) -> dict[str, Floats]:
    """`draws` updates (D, K) of each strategy on one prompt, all from the same rollouts."""
    rollouts = draw(context, size, draws, generator)
    made = {}
    for strategy in strategies:
        if strategy == "independent 2n":
            twice = draw(context, 2 * size, draws, generator)
            made[strategy] = updates(twice, independent(twice, options))
        else:
            made[strategy] = updates(rollouts, SIMULATED[strategy](rollouts, options))
    return made


def agree(points: Sequence[Point], size: int, draws: int, options: Options, *, seed: int = 0) -> Agreement:
    """Simulate every strategy on every context of every point, and hold it against its closed form."""
    comparisons = comparisons_at(points, len(STRATEGIES))
    found = []
    for point in points:
        for context in point.contexts():
            source = generator(seed, "bandit", repr(point), context.name)
            simulated = simulate(tuple(STRATEGIES), context, size, draws, source, options)
            found += [
                compare(exact(context, size, options), simulated[name], comparisons)
                for name, exact in STRATEGIES.items()
            ]
    return summary(found, comparisons, draws)
