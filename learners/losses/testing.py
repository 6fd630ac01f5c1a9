"""What every loss must hold, ours and those of other packages: `check_loss(MyLoss(0.5))`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from learners.losses.protocol import Arrays, Loss, Tensors
from mutual_env.errors import ConformanceError, MissingExtraError
from mutual_env.types import Floats

_require = ConformanceError.unless

BESIDE = 1e-9
"""How far from a corner of a clip, relative, its two sides are looked at: closer, rounding decides."""


def check_loss(loss: Loss, *, seed: int = 0, tolerance: float = 1e-9) -> None:
    """Raises unless the slope is autograd's of the term, and the loss needs no more than it says.

    Tried on random tokens near and far from their anchor, with credit of both signs and none, and on both sides of
    every corner that the loss's own numbers can make: a ratio of x, 1 - x and 1 + x for each option x.
    """
    _check_spec(loss)
    for at in _inputs(loss, np.random.default_rng(seed)):
        term, slope = loss.slope(at)
        _require(term.shape == slope.shape == at.log_pi.shape, "slope must give a term and a slope for each token")
        finite = bool(np.isfinite(term).all() and np.isfinite(slope).all())
        _require(finite, f"term and slope must be finite, got {term} and {slope} at {at}")
        _check_autograd(loss, at, term, slope, tolerance)
        _check_needs(loss, at, slope)
        _check_several(loss, at)
    _check_examples_apart(loss, np.random.default_rng(seed), tolerance)


def _check_spec(loss: Loss) -> None:
    again = type(loss)(**loss.options)
    _require(again == loss and hash(again) == hash(loss), "a loss must be what its options make, and hashable")
    _require(bool(loss.name), "a loss must have a name")
    try:
        json.dumps(loss.options)
    except TypeError as error:
        raise ConformanceError(f"the options of loss {loss.name!r} must be numbers and texts: {error}") from error


def _inputs(loss: Loss, numbers: np.random.Generator) -> Iterator[Arrays]:
    for scale in (0.0, 0.05, 0.5, 2000.0):
        for size in (1, 2, 5):
            log_pi = np.log(numbers.uniform(0.02, 0.98, size))
            advantages = numbers.normal(size=size) * (numbers.random(size) < 0.8)
            for minibatch in (0, 2):
                yield Arrays(log_pi, log_pi - numbers.normal(scale=scale, size=size), advantages, minibatch)
    for ratio in _corners(loss):
        for beside in (ratio * (1.0 - BESIDE), ratio * (1.0 + BESIDE)):
            for advantage in (1.0, -1.0):
                log_pi = np.log(numbers.uniform(0.02, 0.98, 3))
                yield Arrays(log_pi, log_pi - math.log(beside), np.full(3, advantage))


def _corners(loss: Loss) -> list[float]:
    values = [float(v) for v in loss.options.values() if isinstance(v, int | float) and math.isfinite(v)]
    return [ratio for v in values for ratio in (v, 1.0 - v, 1.0 + v) if ratio > 0.0]


def _check_autograd(loss: Loss, at: Arrays, term: Floats, slope: Floats, tolerance: float) -> None:
    value, gradient = _in_torch(loss, [at])
    for what, ours, torchs in (("term", term, value), ("slope", slope, gradient)):
        close = np.allclose(ours, torchs, rtol=tolerance, atol=tolerance)
        _require(close, f"the {what} in NumPy must be that of torch: {ours} and {torchs} at {at}")


def _check_needs(loss: Loss, at: Arrays, slope: Floats) -> None:
    needs, size = loss.needs, at.log_pi.size
    if needs.advantage:
        idle = loss.slope(replace(at, advantages=np.zeros(size)))[1]
        _require(not idle.any(), f"a loss that needs an advantage must have no slope without one, got {idle} at {at}")
    if not needs.anchor:
        moved = loss.slope(replace(at, anchor=at.anchor - 0.3))[1]
        _require(np.array_equal(moved, slope), "a loss that needs no anchor must not look at it")
    if not needs.minibatch:
        later = loss.slope(replace(at, minibatch=at.minibatch + 1))[1]
        _require(np.array_equal(later, slope), "a loss that does not need the minibatch must not look at it")
    if not needs.whole_sequences:
        alone = [loss.slope(_one(at, t))[1][0] for t in range(size)]
        _require(
            np.array_equal(alone, slope), "a loss that does not need whole sequences must take tokens by themselves"
        )


def _check_several(loss: Loss, at: Arrays) -> None:
    """Sequences of one length at once are what each is by itself."""
    if not (loss.needs.whole_sequences and loss.several_sequences):
        return
    other = replace(at, log_pi=at.log_pi[::-1] - 0.1, advantages=at.advantages[::-1] + 0.3)
    log_pi, anchor = np.stack([at.log_pi, other.log_pi]), np.stack([at.anchor, other.anchor])
    together = loss.slope(Arrays(log_pi, anchor, np.stack([at.advantages, other.advantages]), at.minibatch))
    apart = zip(loss.slope(at), loss.slope(other), strict=True)
    for what, found, alone in zip(("term", "slope"), together, apart, strict=True):
        same = np.array_equal(found, np.stack(alone))
        _require(same, f"the {what} of several sequences must be that of each by itself, got {found} and {alone}")


def _check_examples_apart(loss: Loss, numbers: np.random.Generator, tolerance: float) -> None:
    """Several examples in one row are what each is by itself."""
    several = [at for at in _inputs(loss, numbers) if at.minibatch == 0]
    value, gradient = _in_torch(loss, several)
    alone = [loss.slope(at) for at in several]
    for what, ours, torchs in (("term", 0, value), ("slope", 1, gradient)):
        close = np.allclose(np.concatenate([pair[ours] for pair in alone]), torchs, rtol=tolerance, atol=tolerance)
        _require(close, f"the {what} of an example must not depend on the other examples of its row")


def _in_torch(loss: Loss, examples: list[Arrays]) -> tuple[Floats, Floats]:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError.of("checking a loss against autograd", "torch") from error

    def row(values: list[Floats]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(values))

    leaf = row([at.log_pi for at in examples]).requires_grad_()
    owners = torch.from_numpy(np.repeat(np.arange(len(examples)), [at.log_pi.size for at in examples]))
    anchor, advantages = row([at.anchor for at in examples]), row([at.advantages for at in examples])
    term = loss.term(Tensors(leaf, anchor, advantages, owners, examples[0].minibatch))
    (gradient,) = torch.autograd.grad(term.sum(), leaf)
    return term.detach().numpy(), gradient.numpy()


def _one(at: Arrays, t: int) -> Arrays:
    return Arrays(at.log_pi[t : t + 1], at.anchor[t : t + 1], at.advantages[t : t + 1], at.minibatch)
