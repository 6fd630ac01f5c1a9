"""Own rollouts and the policy that sampled them: β, which is not always the policy that an update begins with.

It may be some updates older (asynchronous rounds), another engine's, or of another precision. An update's expectation
is under π_prox, the policy at its start, and its samples are β's: each term is multiplied by a truncated importance
weight min(π_prox / β, cap), without a gradient, while the ratio that is clipped stays π / π_prox.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from learners.losses.protocol import MAX_LOG_RATIO, Tensors
from mutual_env.errors import InvalidInputError
from mutual_env.types import Floats, Metrics

if TYPE_CHECKING:
    import torch

Mode: TypeAlias = Literal["token", "icepop", "sequence", "mask", "off"]

DEADBAND = 1e-4
"""Sampler and trainer of one policy in float32 agree to this: a smaller gap is rounding, its weight exactly 1."""

LARGE_GAP = 0.05
"""Nats a token, in the mean: what bfloat16 makes of one policy is .03 to .04."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Which importance weights own samples get: of each token (chunk, where chunks are compared), cut at the cap; of
    each token as it is between `floor` and the cap, and 0 outside ("icepop"); of each sequence; the sequence's as a
    mask (1 between `floor` and the cap, and 0 outside); or none. A `floor` of None is 1 / cap.

    A loss whose ratio is a sequence's mean gets, under "token" and "icepop", the weight of the mean too.
    """

    mode: Mode = "token"
    cap: float = 2.0
    floor: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InvalidInputError(f"behaviour must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if not self.cap >= 1.0:
            raise InvalidInputError(
                f"behaviour_cap must be at least 1, got {self.cap!r}: .inf truncates nothing, and behaviour: off "
                "weighs all by 1"
            )
        if self.floor is not None and not (0.0 <= self.floor <= 1.0 and self.mode in ("icepop", "mask")):
            raise InvalidInputError(
                f"behaviour_floor is a ratio from 0 to 1 below which behaviour: icepop or mask gives weight 0, got "
                f"{self.floor!r} with behaviour: {self.mode}"
            )

    @property
    def of_sequences(self) -> bool:
        """Whether a weight depends on its whole sequence."""
        return self.mode in ("sequence", "mask")

    def weights(self, gaps: Floats, *, whole: bool) -> Floats:
        """(U) of one sample's gaps log π_prox - log β (U, NaN where β is not known); `whole`: for a loss of whole
        sequences."""
        known = _beyond_rounding(gaps)
        if self.mode == "off":
            return np.ones_like(known)
        if self.of_sequences:
            known = np.full_like(known, known.sum())
        elif whole:
            known = np.full_like(known, known.mean())
        kept = ~self._is_outside(known)
        if self.mode == "mask":
            return kept.astype(np.float64)
        weights: Floats = np.exp(np.clip(known, -MAX_LOG_RATIO, self._limit))
        return weights * kept if self.mode == "icepop" else weights

    def weigh(self, gaps: torch.Tensor, at: Tensors, *, whole: bool) -> torch.Tensor:
        """The same of several samples in one row."""
        known = gaps.where(gaps.abs() > DEADBAND, 0.0)
        if self.mode == "off":
            return known.new_ones(known.shape)
        if self.of_sequences:
            known = at.sum_by_example(known)
        elif whole:
            known = at.mean_by_example(known)
        kept = (known <= self._limit) & (known >= self._least)
        if self.mode == "mask":
            return kept.to(known.dtype)
        weights = known.clamp(-MAX_LOG_RATIO, self._limit).exp()
        return weights * kept if self.mode == "icepop" else weights

    def is_cut(self, known: Floats) -> npt.NDArray[np.bool_]:
        """Where the cap or the floor changes the weight of these log-ratios; with the mode off, where the cap would
        change a token's."""
        return self._is_outside(known) if self.mode in ("icepop", "mask") else known > self._limit

    def _is_outside(self, known: Floats) -> npt.NDArray[np.bool_]:
        return (known > self._limit) | (known < self._least)

    @property
    def _limit(self) -> float:
        return min(math.log(self.cap), MAX_LOG_RATIO) if self.cap < math.inf else MAX_LOG_RATIO

    @property
    def _least(self) -> float:
        if self.floor is None:
            return -self._limit
        return math.log(self.floor) if self.floor else -math.inf


def _beyond_rounding(gaps: Floats) -> Floats:
    return np.where(np.abs(gaps) > DEADBAND, gaps, 0.0)  # NaN is not above anything


def measured(gaps: Sequence[Floats], behaviour: Behaviour) -> Metrics:
    """How far the samples of an update are from the policy that it began with, sample by sample (T each): measured
    whatever is done about it."""
    every = np.concatenate(gaps) if gaps else np.empty(0)
    known = ~np.isnan(every)
    tokens = every[known]
    if not tokens.size:
        return {}
    owners = np.repeat(np.arange(len(gaps)), [gap.size for gap in gaps])[known]
    sums = np.bincount(owners, tokens)[np.bincount(owners) > 0]
    weights = np.exp(sums - sums.max())
    beyond = _beyond_rounding(tokens)
    compared = np.bincount(owners, beyond)[owners] if behaviour.of_sequences else beyond
    bounded = np.clip(tokens, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    apart = np.abs(tokens)
    mean = float(apart.mean())
    if behaviour.mode == "off" and mean > LARGE_GAP:
        _warn_of_the_gap()
    return {
        "behaviour/gap_mean": mean,
        "behaviour/gap_max": float(apart.max()),
        "behaviour/kl": float((np.exp(bounded) - 1.0 - bounded).mean()),
        "behaviour/effective_sample_size": float(weights.sum() ** 2 / (weights @ weights) / weights.size),
        "behaviour/cut_share": float(behaviour.is_cut(compared).mean()),
    }


def _warn_of_the_gap() -> None:
    warnings.warn(
        f"own samples were written by a policy more than {LARGE_GAP} nats a token from the one that learns from them "
        "(an older one, or another engine, precision or temperature), and nothing is done about it: see "
        "behaviour/gap_mean, and give the learner behaviour: token",
        stacklevel=3,
    )
