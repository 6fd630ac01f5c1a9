"""One vocabulary in terms of another: which ids stand for the same bytes, and what is left of a teacher's distribution
when it is put on the tokens that a reader has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Floats
from tokenizers_bridge.distillation.spellings import Spellings
from tokenizers_bridge.roles import STOP_ROLES
from tokenizers_bridge.translation.arrays import beside, is_tensor, shape_of
from tokenizers_bridge.types import Ints, Mask


@dataclass(frozen=True, slots=True, eq=False)
class VocabularyMap:
    """`to_reader` (author's size) is the reader's id for each of the author's, -1 where there is none.

    Ids pair whose bytes are equal, whatever their vocabularies write for them: "Ġthe", "▁the" and " the", <0x0A> and
    "Ċ". What ends a completion pairs with what ends one, bos with bos, and no other control token with anything.
    `shared` (author's size) marks ids that another of the author's shares its reader's id with.
    """

    to_reader: Ints
    reader_size: int
    shared: Mask

    @classmethod
    def of(cls, author: Any, reader: Any) -> VocabularyMap:
        """Between what `load` returns, or `Spellings`."""
        mine, theirs = Spellings.of(author), Spellings.of(reader)
        ids = theirs.ids_by_bytes()
        to_reader = np.fromiter((ids.get(piece, -1) for piece in mine.pieces), np.int64, len(mine.pieces))
        bos = next((i for i, role in theirs.roles.items() if role == "bos"), -1)
        for i, role in mine.roles.items():
            stop = theirs.stop_id if role in STOP_ROLES and mine.stop_id is not None else None
            to_reader[i] = stop if stop is not None else bos if role == "bos" else -1
        used = np.bincount(to_reader[to_reader >= 0], minlength=len(theirs.pieces))
        shared = (to_reader >= 0) & (used[np.maximum(to_reader, 0)] > 1)
        return cls(to_reader, len(theirs.pieces), shared)

    @property
    def overlap(self) -> float:
        """Share of the author's ids that the reader has too."""
        return float((self.to_reader >= 0).mean())

    def overlap_of(self, rows: Iterable[Any]) -> float:
        """Share of the tokens in these rows of the author's ids that are one token of the reader's as well."""
        ids = np.concatenate([np.asarray(row, np.int64) for row in rows] or [np.empty(0, np.int64)])
        return float((self.to_reader[ids] >= 0).mean()) if ids.size else 0.0

    def project(self, logprobs: Any, ids: Any = None, *, top_k: int | None = None) -> Projection:
        """A teacher's next-token distributions on the reader's vocabulary: `logprobs` (..., V), of which the `top_k`
        likeliest tokens are taken, or (..., K) of the teacher's `ids` (..., K), as inference engines return them.
        Arrays or tensors; gradients go through."""
        if ids is None:
            if shape_of(logprobs)[-1:] != (self.to_reader.size,):
                raise InvalidInputError(
                    f"logprobs must end in the author's {self.to_reader.size} ids, got shape {shape_of(logprobs)}: "
                    "cut off what a model pads its vocabulary with, or give the ids"
                )
            logprobs, ids = _likeliest(logprobs, top_k)
        elif top_k is not None:
            logprobs, order = _likeliest(logprobs, top_k)
            ids = ids.gather(-1, order) if is_tensor(ids) else np.take_along_axis(np.asarray(ids), order, -1)
        to_reader = beside(self.to_reader, logprobs) if is_tensor(logprobs) else self.to_reader
        found = to_reader[ids.long() if is_tensor(ids) else np.asarray(ids)]
        probabilities = _exp(logprobs)
        has = found >= 0
        kept = probabilities * has
        if self.shared.any():
            found, kept = _merged(found, kept)
        return Projection(found, kept, (probabilities * has).sum(-1), (probabilities * ~has).sum(-1), self.reader_size)


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A distribution over some of the reader's tokens, arrays or tensors as they were given.

    `ids`, `probabilities` (..., K)   the reader's ids, -1 and 0 where there is none; no id twice in a row
    `kept` (...)    the probability that they have together
    `lost` (...)    that of the teacher's tokens that the reader has not; what is neither lies behind the K likeliest
    """

    ids: Any
    probabilities: Any
    kept: Any
    lost: Any
    reader_size: int

    @property
    def beyond(self) -> Any:
        """(...) The probability that was not looked at."""
        return (1 - self.kept - self.lost).clip(0.0, 1.0)

    def dense(self, *, normalise: bool = False) -> Any:
        """(..., reader's size) The probability of every id of the reader. With `normalise`, made to add up to 1 where
        anything was kept: a distribution to compare with the reader's, given that a token of both comes next."""
        places = self.ids * (self.ids >= 0)
        scale = 1 / (self.kept + (self.kept == 0)) if normalise else 1 + 0 * self.kept
        values = self.probabilities * scale[..., None]
        if is_tensor(values):
            return values.new_zeros((*values.shape[:-1], self.reader_size)).scatter_add(-1, places, values)
        out = np.zeros((*values.shape[:-1], self.reader_size))
        flat = out.reshape(-1, self.reader_size)
        rows = np.arange(flat.shape[0])[:, None]
        np.add.at(flat, (rows, places.reshape(flat.shape[0], -1)), values.reshape(flat.shape[0], -1))
        return out


def _likeliest(logprobs: Any, top_k: int | None) -> tuple[Any, Any]:
    """The `top_k` largest, all where it is None, and where they stand."""
    size = shape_of(logprobs)[-1]
    if top_k is not None and top_k < 1:
        raise InvalidInputError(f"top_k must be 1 or more, got {top_k}")
    count = size if top_k is None else min(top_k, size)
    if is_tensor(logprobs):
        found = logprobs.topk(count, dim=-1)
        return found.values, found.indices
    logprobs = np.asarray(logprobs, np.float64)
    if count < size:  # sort the best alone
        best = np.argpartition(-logprobs, count - 1, axis=-1)[..., :count]
        order = np.argsort(-np.take_along_axis(logprobs, best, -1), axis=-1, kind="stable")
        order = np.take_along_axis(best, order, -1)
    else:
        order = np.argsort(-logprobs, axis=-1, kind="stable")
    return np.take_along_axis(logprobs, order, -1), order


def _exp(logprobs: Any) -> Any:
    if is_tensor(logprobs):
        return (logprobs.float() if logprobs.element_size() < 4 else logprobs).exp()
    return np.exp(np.asarray(logprobs, np.float64))


def _merged(ids: Any, values: Any) -> tuple[Any, Any]:
    """Each row's distinct ids and the sums of their values, from the left; -1 and 0 in the places left over."""
    return _merged_tensors(ids, values) if is_tensor(ids) else _merged_arrays(ids, values)


def _merged_tensors(ids: Any, values: Any) -> tuple[Any, Any]:
    order = ids.argsort(dim=-1, stable=True)
    ids, values = ids.gather(-1, order), values.gather(-1, order)
    group = (ids != _shifted(ids)).cumsum(-1) - 1
    sums = (values * 0).scatter_add(-1, group, values)
    return (ids * 0 - 1).scatter_reduce(-1, group, ids, "amax"), sums


def _merged_arrays(ids: Ints, values: Floats) -> tuple[Ints, Floats]:
    order = np.argsort(ids, axis=-1, kind="stable")
    ids, values = np.take_along_axis(ids, order, -1), np.take_along_axis(values, order, -1)
    group = (ids != _shifted(ids)).cumsum(-1) - 1
    sums, distinct = np.zeros(values.shape), np.full(ids.shape, -1, np.int64)
    rows = np.indices(ids.shape)[:-1]
    np.add.at(sums, (*rows, group), values)
    distinct[(*rows, group)] = ids
    return distinct, sums


def _shifted(ids: Any) -> Any:
    """Each row moved by one place, -2 in front: nothing equals that."""
    if is_tensor(ids):
        out = ids.roll(1, -1)
        out[..., 0] = -2
        return out
    out = np.roll(ids, 1, -1)
    out[..., 0] = -2
    return out
