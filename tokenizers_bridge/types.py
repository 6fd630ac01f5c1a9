"""What comes out of the bridge.

Translation   a completion in a reader's tokens: ids, chunks, the author's log-probabilities on them, what was lost
Residual      how much of it has no exact counterpart
Fidelity       in one word, and what to do about it: Action
Outcome       both, with the reason
Block         many completions translated together; a Translation is one row of it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.errors import MisalignedError
from mutual_env.types import Floats, Ids, Metrics

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Fidelity: TypeAlias = Literal["exact", "normalised", "truncated", "injected-special", "lossy", "lost-special", "failed"]
Action: TypeAlias = Literal["accept", "accept-and-flag", "reject"]

ACTIONS: Mapping[Fidelity, Action] = {
    "exact": "accept",
    "normalised": "accept-and-flag",
    "truncated": "accept-and-flag",
    "injected-special": "accept-and-flag",
    "lossy": "reject",
    "lost-special": "reject",
    "failed": "reject",
}


@dataclass(frozen=True, slots=True)
class Residual:
    """What the translation of one completion could not carry, in one direction (it is not symmetric).

    `token_share`      share of the reader's tokens that are not one token of the author's with the same bytes
    `mass_share`       share of the author's |log-probability| that lies outside exact chunks; 0 without a trace
    `unmatched_bytes`  bytes on either side without an equal on the other
    `largest_chunk`    tokens in the largest chunk, on the side that has more
    `leading_space`    bytes of white space that the reader's row begins with: after most chat prompts it costs several
                       nats, and what is compared at the first token is the habit of prompting, not the policy
    """

    token_share: float = 0.0
    mass_share: float = 0.0
    unmatched_bytes: int = 0
    largest_chunk: int = 0
    leading_space: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`has_logprobs` is False where the completion came as text alone, or failed; `reason` is why the verdict is not
    "exact", as a sentence, and empty where it is. `text_differs`: the completion's text is not what its ids decode to,
    as engines that hold an unfinished character back or strip white space have it; the ids are what was translated."""

    verdict: Fidelity
    action: Action
    has_logprobs: bool
    reason: str = ""
    text_differs: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Completions that were translated together, behind one another: row i has tokens reader_at[i]..reader_at[i+1] of
    the reader's, author_at[i]..author_at[i+1] of the author's, and chunks chunk_at[i]..chunk_at[i+1].

    `author_ends` and `reader_ends` count from the start of the block. The residuals are one number a row.
    """

    token_ids: Ids
    logprobs: Floats
    exact: Mask
    author_ends: Ints
    reader_ends: Ints
    chunk_exact: Mask
    author_at: Ints
    reader_at: Ints
    chunk_at: Ints
    token_share: Floats
    mass_share: Floats
    unmatched_bytes: Ints
    largest_chunk: Ints
    leading_space: Ints
    outcomes: Sequence[Outcome]

    def __post_init__(self) -> None:
        for name in ("logprobs", "exact"):
            if getattr(self, name).shape != self.token_ids.shape:
                raise MisalignedError.of(f"Block.{name}", "token_ids", self.token_ids.size, getattr(self, name).size)
        for array in self._arrays():
            array.flags.writeable = False

    @classmethod
    def failed(cls, reason: str, action: Action = "reject") -> Block:
        """One completion of which nothing could be made."""
        return cls.without_chunks(np.empty(0, np.int32), 0, Outcome("failed", action, False, reason))

    @classmethod
    def without_chunks(cls, ids: Ids, unmatched_bytes: int, outcome: Outcome) -> Block:
        """One completion that has no chunks, because on one side there is nothing to align."""
        none, mask, zeros = np.empty(0, np.int64), np.zeros(ids.size, np.bool_), np.zeros(2, np.int64)
        return cls(
            ids, np.zeros(ids.size), mask, none, none, mask[:0], zeros, np.array([0, ids.size]), zeros,
            np.zeros(1), np.zeros(1), np.array([unmatched_bytes]), np.zeros(1, np.int64), np.zeros(1, np.int64),
            (outcome,),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays())

    def translations(self) -> list[Translation]:
        # Past the generated __init__, which takes five times as long.
        rows: list[Translation] = list(map(object.__new__, repeat(Translation, len(self.outcomes))))
        for _ in zip(map(_SET_BLOCK, rows, repeat(self)), map(_SET_ROW, rows, range(len(rows))), strict=True):
            pass
        return rows

    def only(self, row: int) -> Block:
        """A block of this row alone, with memory of its own."""
        one = slice(row, row + 1)
        reader, author = (slice(*at[row : row + 2].tolist()) for at in (self.reader_at, self.author_at))
        chunks = slice(*self.chunk_at[row : row + 2].tolist())
        return Block(
            self.token_ids[reader].copy(), self.logprobs[reader].copy(), self.exact[reader].copy(),
            self.author_ends[chunks] - author.start, self.reader_ends[chunks] - reader.start,
            self.chunk_exact[chunks].copy(),
            np.array([0, author.stop - author.start]), np.array([0, reader.stop - reader.start]),
            np.array([0, chunks.stop - chunks.start]),
            self.token_share[one].copy(), self.mass_share[one].copy(), self.unmatched_bytes[one].copy(),
            self.largest_chunk[one].copy(), self.leading_space[one].copy(), (self.outcomes[row],),
        )  # fmt: skip

    def _arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (
            self.token_ids, self.logprobs, self.exact, self.author_ends, self.reader_ends, self.chunk_exact,
            self.author_at, self.reader_at, self.chunk_at, self.token_share, self.mass_share, self.unmatched_bytes,
            self.largest_chunk, self.leading_space,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """One completion in the reader's tokens: a row of a block, cut out when it is asked for.

    `token_ids` (T)      the reader's ids; its stop token is last exactly where the author stopped by itself
    `logprobs` (T)       the author's log-probabilities carried over, 0 where there are none to carry
    `exact` (T)          True for tokens in chunks that are the same bytes on both sides: only there do `logprobs`
                         compare
    `author_ends` (C), `reader_ends` (C), `chunk_exact` (C)   the chunks: see `Alignment`

    It keeps its block in memory; a pickled one carries its own row alone.
    """

    block: Block
    row: int

    @property
    def token_ids(self) -> Ids:
        return self.block.token_ids[self._span(self.block.reader_at)]

    @property
    def logprobs(self) -> Floats:
        return self.block.logprobs[self._span(self.block.reader_at)]

    @property
    def exact(self) -> Mask:
        return self.block.exact[self._span(self.block.reader_at)]

    @property
    def author_ends(self) -> Ints:
        return self._from_own_start(self.block.author_ends, self.block.author_at)

    @property
    def reader_ends(self) -> Ints:
        return self._from_own_start(self.block.reader_ends, self.block.reader_at)

    @property
    def chunk_exact(self) -> Mask:
        return self.block.chunk_exact[self._span(self.block.chunk_at)]

    @property
    def chunks(self) -> Ints:
        """(T) The chunk that each token of the reader's lies in, -1 outside exact chunks. Sums over equal numbers are
        what compares between author and reader: `logprobs` adds up to the author's sum in each."""
        if not self.reader_ends.size:
            return np.full(self.token_ids.size, -1, np.int64)
        numbers = np.where(self.chunk_exact, np.arange(self.chunk_exact.size), -1)
        return numbers.repeat(np.diff(self.reader_ends, prepend=0))

    @property
    def residual(self) -> Residual:
        of, row = self.block, self.row
        return Residual(
            float(of.token_share[row]),
            float(of.mass_share[row]),
            int(of.unmatched_bytes[row]),
            int(of.largest_chunk[row]),
            int(of.leading_space[row]),
        )

    @property
    def verdict(self) -> Fidelity:
        return self.block.outcomes[self.row].verdict

    @property
    def action(self) -> Action:
        return self.block.outcomes[self.row].action

    @property
    def has_logprobs(self) -> bool:
        return self.block.outcomes[self.row].has_logprobs

    @property
    def reason(self) -> str:
        return self.block.outcomes[self.row].reason

    @property
    def text_differs(self) -> bool:
        return self.block.outcomes[self.row].text_differs

    def _span(self, at: Ints) -> slice:
        return slice(at[self.row], at[self.row + 1])

    def _from_own_start(self, ends: Ints, at: Ints) -> Ints:
        own: Ints = ends[self._span(self.block.chunk_at)] - at[self.row]
        own.flags.writeable = False
        return own

    def __reduce__(self) -> tuple[type[Translation], tuple[Block, int]]:
        return Translation, (self.block.only(self.row), 0)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in _SHOWN)
        return f"Translation({shown})"


# The slots of a frozen dataclass, as its own __init__ fills them.
_SET_BLOCK, _SET_ROW = (Translation.__dict__[name].__set__ for name in ("block", "row"))
_SHOWN = ("token_ids", "logprobs", "exact", "author_ends", "reader_ends", "residual", "verdict", "action", "reason")


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
    metrics[f"{prefix}/text_differs"] = float(sum(t.text_differs for t in rows))
    metrics[f"{prefix}/leading_space"] = sum(t.residual.leading_space > 0 for t in rows) / max(len(rows), 1)
    return metrics
