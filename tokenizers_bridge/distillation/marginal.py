"""What a model says of bytes, and not of one way to cut them.

    P(the next bytes begin with w) = sum over all token sequences that spell w, or spell into it and end behind it

A sequence that covers w this way is found by going through the tree of token prefixes of w: each node is asked for its
next token once. That is exact, and there may be 2^(n-1) nodes for n bytes: short windows only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Floats
from tokenizers_bridge.distillation.spellings import Prefixes, Spellings
from tokenizers_bridge.translation.arrays import as_numpy, beside, is_tensor

NextLogprobs: TypeAlias = Callable[[Sequence[tuple[int, ...]]], Any]
"""For each of some continuations of a context, as ids, the log-probabilities (n, V) of the token behind it."""

LONGEST_WINDOW = 16
MOST_NODES = 4096


@dataclass(frozen=True, slots=True)
class Marginal:
    """`logprob` of the next bytes. `nodes` is how often the model was asked. `cuts` are the sequences that end where
    the window does, with the log-probability of each: cuts[cut] - logprob says how little of the bytes' probability
    the chunk sum of that cut has."""

    logprob: float
    nodes: int
    cuts: dict[tuple[int, ...], float]


def marginal(
    window: bytes, next_logprobs: NextLogprobs, source: Any, *, longest: int = LONGEST_WINDOW, most: int = MOST_NODES
) -> Marginal:
    """How likely the text goes on with these bytes, whatever its tokens: exact. `source` is a tokenizer."""
    if not 0 < len(window) <= longest:
        raise InvalidInputError(
            f"window has {len(window)} bytes: give 1 to {longest}, or raise `longest` (each byte may double the work)"
        )
    prefixes = Prefixes.of(Spellings.of(source))
    total: list[float] = []
    cuts: dict[tuple[int, ...], float] = {}
    nodes = 0
    # All prefixes of as many tokens are asked for at once.
    level: list[tuple[tuple[int, ...], int, float]] = [((), 0, 0.0)]
    while level:
        nodes += len(level)
        if nodes > most:
            raise InvalidInputError(
                f"window {window!r} has more than {most} token prefixes: shorten it, or raise `most`"
            )
        rows = as_numpy(next_logprobs([ids for ids, _, _ in level])).astype(np.float64)
        following: list[tuple[tuple[int, ...], int, float]] = []
        for (ids, done, so_far), row in zip(level, rows, strict=True):
            rest = window[done:]
            total += (so_far + row[prefixes.beginning_with(rest)]).tolist()
            cuts |= {(*ids, i): so_far + float(row[i]) for i in prefixes.by_bytes.get(rest, ())}
            steps = ((i, size, so_far + float(row[i])) for i, size in prefixes.within(rest))
            following += [((*ids, i), done + size, value) for i, size, value in steps if value > -np.inf]
        level = following
    return Marginal(float(np.logaddexp.reduce(total)) if total else -np.inf, nodes, cuts)


def first_bytes(probabilities: Any, source: Any) -> Any:
    """(..., 257) The distribution of the next byte under a distribution (..., V) of the next token, exact; the last
    place is for control tokens, the end of the text among them. An array or a tensor, whose gradients go through."""
    spellings = Spellings.of(source)
    firsts = np.fromiter((p[0] if p else 256 for p in spellings.pieces), np.int64, len(spellings.pieces))
    if is_tensor(probabilities):
        wide = probabilities.float() if probabilities.element_size() < 4 else probabilities
        places = beside(firsts, wide).expand(wide.shape)
        return wide.new_zeros((*wide.shape[:-1], 257)).scatter_add(-1, places, wide)
    values: Floats = np.asarray(probabilities, np.float64)
    flat = values.reshape(-1, values.shape[-1])
    out = np.stack([np.bincount(firsts, weights=row, minlength=257) for row in flat]) if flat.size else flat[:, :0]
    return out.reshape(*values.shape[:-1], 257)
