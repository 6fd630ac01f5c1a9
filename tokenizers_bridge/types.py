"""What comes out of the bridge.

Translation   a completion in a reader's tokens: ids, chunks, the author's log-probabilities on them, what was lost
Residual      how much of it has no exact counterpart
Verdict       in one word, and what to do about it: Action
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.errors import MisalignedError
from mutual_env.types import Floats, Ids, Metrics

Verdict: TypeAlias = Literal["exact", "normalised", "truncated", "injected-special", "failed"]
Action: TypeAlias = Literal["accept", "accept-and-flag", "reject"]

ACTIONS: Mapping[Verdict, Action] = {
    "exact": "accept",
    "normalised": "accept-and-flag",
    "truncated": "accept-and-flag",
    "injected-special": "accept-and-flag",
    "failed": "reject",
}


@dataclass(frozen=True, slots=True)
class Residual:
    """What the translation of one completion could not carry, in one direction (it is not symmetric).

    `token_share`      share of the reader's tokens that are not one token of the author's with the same bytes
    `mass_share`       share of the author's |log-probability| that lies outside exact chunks; 0 without a trace
    `unmatched_bytes`  bytes on either side without an equal on the other
    `largest_chunk`    tokens in the largest chunk, on the side that has more
    """

    token_share: float = 0.0
    mass_share: float = 0.0
    unmatched_bytes: int = 0
    largest_chunk: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """One completion in the reader's tokens.

    `token_ids` (T)      the reader's ids; its stop token is last exactly where the author stopped by itself
    `logprobs` (T)       the author's log-probabilities carried over, 0 where there are none to carry
    `exact` (T)          True for tokens in chunks that are the same bytes on both sides: only there do `logprobs`
                         compare
    `author_ends` (C), `reader_ends` (C), `chunk_exact` (C)   the chunks: see `Alignment`
    `has_logprobs`       False where the completion came as text alone, or failed
    `reason`             why the verdict is not "exact", as a sentence; empty where it is
    """

    token_ids: Ids
    logprobs: Floats
    exact: npt.NDArray[np.bool_]
    author_ends: npt.NDArray[np.int64]
    reader_ends: npt.NDArray[np.int64]
    chunk_exact: npt.NDArray[np.bool_]
    residual: Residual
    verdict: Verdict
    action: Action
    has_logprobs: bool
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("logprobs", "exact"):
            if getattr(self, name).shape != self.token_ids.shape:
                raise MisalignedError.of(
                    f"Translation.{name}", "token_ids", self.token_ids.size, getattr(self, name).size
                )
        for name in ("token_ids", "logprobs", "exact", "author_ends", "reader_ends", "chunk_exact"):
            getattr(self, name).flags.writeable = False

    @classmethod
    def failed(cls, reason: str, action: Action = "reject") -> Translation:
        """Nothing could be made of this completion."""
        no_ends, no_mask = np.empty(0, np.int64), np.empty(0, np.bool_)
        return cls(
            np.empty(0, np.int32), np.empty(0), no_mask, no_ends, no_ends, no_mask,
            Residual(), "failed", action, has_logprobs=False, reason=reason,
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        arrays = (self.token_ids, self.logprobs, self.exact, self.author_ends, self.reader_ends, self.chunk_exact)
        return sum(a.nbytes for a in arrays)


def residual_metrics(translations: Iterable[Translation], prefix: str = "bridge") -> Metrics:
    """The residual over many translations, for a round's metrics: shares weighted by tokens, and how many had which
    verdict.
    """
    rows: Sequence[Translation] = list(translations)
    tokens = np.array([t.token_ids.size for t in rows], np.float64)
    metrics: Metrics = {f"{prefix}/{verdict}": float(sum(t.verdict == verdict for t in rows)) for verdict in ACTIONS}
    weights = tokens / tokens.sum() if tokens.sum() else tokens
    metrics[f"{prefix}/token_share"] = float(weights @ np.array([t.residual.token_share for t in rows]))
    metrics[f"{prefix}/mass_share"] = float(weights @ np.array([t.residual.mass_share for t in rows]))
    metrics[f"{prefix}/unmatched_bytes"] = float(sum(t.residual.unmatched_bytes for t in rows))
    metrics[f"{prefix}/largest_chunk"] = float(max((t.residual.largest_chunk for t in rows), default=0))
    return metrics
