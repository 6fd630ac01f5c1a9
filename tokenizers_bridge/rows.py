"""Sequences of ids that lie in one array: an object for each of a thousand short ones costs more than their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mutual_env.types import Ids
from tokenizers_bridge.loops import compiled
from tokenizers_bridge.types import Ints, Mask

_Number = TypeVar("_Number", np.int32, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Row i is ids[starts[i] : starts[i] + sizes[i]]. What lies between two rows belongs to neither."""

    ids: Ids
    starts: Ints
    sizes: Ints

    @classmethod
    def of(cls, rows: Sequence[Ids]) -> Rows:
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.concatenate(rows, dtype=np.int32, casting="same_kind") if len(rows) else np.empty(0, np.int32)
        return cls.laid(ids, sizes)

    @classmethod
    def laid(cls, ids: Ids, sizes: Ints) -> Rows:
        """Rows of these sizes, with nothing between them."""
        return cls(ids, sizes.cumsum() - sizes, sizes)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        shifts = np.cumsum([0, *(part.ids.size for part in parts)])
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.starts + shift for part, shift in zip(parts, shifts.tolist(), strict=False)]),
            np.concatenate([part.sizes for part in parts]),
        )

    def __len__(self) -> int:
        return int(self.sizes.size)

    def __getitem__(self, row: int) -> Ids:
        start = int(self.starts[row])
        return self.ids[start : start + int(self.sizes[row])]

    def __iter__(self) -> Iterator[Ids]:
        ids, starts = self.ids, self.starts.tolist()
        return (ids[start : start + size] for start, size in zip(starts, self.sizes.tolist(), strict=True))

    def taken(self, which: Ints) -> Rows:
        """These rows, in this order."""
        return Rows(self.ids, self.starts.take(which), self.sizes.take(which))

    def apart(self) -> Rows:
        """The same in memory of their own, with nothing between them."""
        return Rows.laid(self.ids.take(spread(self.starts, self.sizes)), self.sizes)

    def ended(self, stopped: Mask, stop: int) -> tuple[Ids, Ints]:
        """All of them behind one another, with `stop` behind those that stopped; and where each begins."""
        at = np.zeros(self.sizes.size + 1, np.int64)
        (self.sizes + stopped).cumsum(out=at[1:])
        if (loops := compiled(int(at[-1]))) is not None:
            return loops.ended(self.ids, self.starts, at, stopped, np.int32(stop)), at
        ids = np.full(at[-1], stop, np.int32)
        said = np.ones(ids.size, np.bool_)
        said[at[1:][stopped] - 1] = False
        ids[said] = self.ids.take(spread(self.starts, self.sizes))
        return ids, at


def behind_one_another(arrays: Sequence[npt.NDArray[_Number]], size: int) -> npt.NDArray[_Number]:
    """`np.concatenate` of arrays of one type, at a third of what it takes for each."""
    try:
        whole = np.frombuffer(b"".join(arrays), arrays[0].dtype)  # type: ignore[arg-type]
    except TypeError:  # one of every second element, say, is no bytes
        return np.concatenate(arrays)
    return whole if whole.size == size else np.concatenate(arrays)


def spread(starts: Ints, lengths: Ints) -> Ints:
    """starts[0], starts[0] + 1, ... for lengths[0] places, then the same from starts[1] on, and so forth."""
    # Place k of the result is k + (where its run starts) - (where its run starts in the result).
    shift = starts - lengths.cumsum()
    shift += lengths
    index: Ints = shift.repeat(lengths)
    index += np.arange(index.size)
    return index
