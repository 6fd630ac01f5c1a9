"""Every sequence of samples and of exact-chunk marks of a small bandit, each once, with its probability."""

from __future__ import annotations

import itertools

import numpy as np

from mutual_env.types import Floats
from sharing.analysis.bandit import Context, softmax
from sharing.analysis.closed_form import Options
from tests.sharing.analysis.simulation import SIMULATED, Rollouts, updates


def options_for(context: Context) -> Options:
    """Capabilities that differ."""
    agents = context.policies_AK.shape[0]
    return Options(capability=(0.5, 0.7, 0.3)[:agents])


class FirstComes:
    """In the place of a generator: of several candidates the first is drawn.

    Samples of one author are exchangeable, so with a single peer a fixed choice has the law of a uniform one.
    """

    def random(self, shape: tuple[int, ...]) -> Floats:
        size = int(np.prod(shape[1:]))
        return np.broadcast_to(1.0 - np.arange(size).reshape(shape[1:]) / size, shape)


def tiny(agents: int, *, tokens: int = 1) -> Context:
    """Three arms, one of them right; the policies are near enough that both sides of every gate and clip occur."""
    logits = [[0.3, -0.5, 0.9], [-0.2, 0.4, 0.6], [0.9, 0.2, 0.8]][:agents]
    policies_AK = np.stack([softmax(row) for row in logits])
    return Context("tiny", policies_AK, np.array([True, False, False]), np.array([0.3, 0.6, 0.1]), tokens)


def every_outcome(context: Context, size: int) -> tuple[Floats, Rollouts]:
    """Probability (D) and rollouts of every sequence of arms and of marks of all agents."""
    agents, arms = context.policies_AK.shape
    slots = agents * size
    arms_DAG = np.array(list(itertools.product(range(arms), repeat=slots))).reshape(-1, agents, size)
    marks = np.array(list(itertools.product((False, True), repeat=slots))).reshape(-1, agents, size)
    sequences, masks = arms_DAG.shape[0], marks.shape[0]
    arms_DAG = np.repeat(arms_DAG, masks, axis=0)
    aligned_DAG = np.tile(marks, (sequences, 1, 1))
    rows = np.arange(agents)[None, :, None]
    chance = context.policies_AK[rows, arms_DAG]
    chance = chance * np.where(aligned_DAG, 1.0 - context.residual_K[arms_DAG], context.residual_K[arms_DAG])
    log_AK = np.log(context.policies_AK) / context.tokens
    rollouts = Rollouts(
        context,
        arms_DAG,
        context.correct_K[arms_DAG].astype(np.float64),
        aligned_DAG,
        log_AK[0][arms_DAG],
        log_AK[rows, arms_DAG],
        log_AK[min(1, agents - 1)][arms_DAG],
        FirstComes(),  # type: ignore[arg-type]
    )
    return chance.prod(axis=(1, 2)), rollouts


def enumerated_moments(strategy: str, context: Context, size: int) -> tuple[Floats, Floats]:
    """Mean and variance of each component of u, from the sample-level code over every outcome."""
    if strategy == "independent 2n":
        return enumerated_moments("independent", alone(context), 2 * size)
    probability_D, rollouts = every_outcome(context, size)
    u_DK = updates(rollouts, SIMULATED[strategy](rollouts, options_for(context)))
    mean_K = probability_D @ u_DK
    return mean_K, probability_D @ (u_DK - mean_K) ** 2


def alone(context: Context) -> Context:
    """The same prompt with the reader as its own only company (a teacher is asked for by name, never trained on)."""
    return Context(context.name, context.policies_AK[[0]], context.correct_K, context.residual_K, context.tokens)
