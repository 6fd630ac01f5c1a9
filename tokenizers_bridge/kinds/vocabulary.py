"""id -> bytes for a whole vocabulary, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mutual_env.errors import IdentityMismatchError
from mutual_env.types import Ids
from tokenizers_bridge.loops import compiled
from tokenizers_bridge.protocol import Role

SPACE = "▁"  # what SentencePiece writes for a space in a piece
_WORD = 8
# By how many bytes a token has, eight or more: what cuts eight bytes to as many.
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(_WORD + 1)], np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """`blob` is the bytes of every id behind one another; id i stands for blob[starts[i] : starts[i] + lengths[i]].

    A control token stands for no bytes and has a role in `specials`; so does an id that nothing is assigned to.
    `heads` are the first eight bytes of each id as one number, zeros behind a shorter one: that is how bytes are
    compared without spelling them out.
    """

    blob: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    heads: npt.NDArray[np.uint64]
    specials: Mapping[int, Role]

    @classmethod
    def of(cls, pieces: Sequence[bytes], specials: Mapping[int, Role]) -> Vocabulary:
        """`pieces[i]` are the bytes of id i; what is given for a special does not matter, and an empty piece becomes
        one.
        """
        kept = [b"" if i in specials else piece for i, piece in enumerate(pieces)]
        lengths = np.fromiter(map(len, kept), np.int64, len(kept))
        roles: dict[int, Role] = dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "other")
        roles.update(specials)
        blob = np.frombuffer(b"".join(kept), np.uint8)
        starts = np.cumsum(lengths) - lengths
        heads = _words(blob).take(starts) & _MASKS.take(lengths, mode="clip")
        for array in (starts, lengths, heads):
            array.flags.writeable = False
        return cls(blob, starts, lengths, heads, roles)

    def with_role(self, token_id: int, role: Role) -> Vocabulary:
        """The same, but this control token plays this role."""
        return replace(self, specials={**self.specials, token_id: role})

    @property
    def size(self) -> int:
        return int(self.lengths.size)

    def lengths_of(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        return self._take(self.lengths, _unsigned(ids))

    def bytes_of(self, ids: Sequence[int] | Ids) -> bytes:
        at = _unsigned(ids)
        lengths = self._take(self.lengths, at)
        data: bytes = self.blob[_spread(self.starts[at], lengths)].tobytes()
        return data

    def misspelled(
        self, ids: Ids, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], data: bytes
    ) -> npt.NDArray[np.int64]:
        """Which of these ids do not stand for the bytes of `data` that they lie on, each from its place in `starts`
        on. `lengths` are theirs."""
        raw = np.frombuffer(data, np.uint8)
        words = _words(raw)
        if (loops := compiled(ids.size)) is not None:
            return loops.differing(words, starts, lengths, ids, self.heads, _MASKS, self.blob, self.starts)
        wrong: npt.NDArray[np.bool_] = words.take(starts) & _MASKS.take(lengths, mode="clip") != self.heads.take(ids)
        long = (lengths > _WORD).nonzero()[0]
        if long.size:
            rest = lengths[long] - _WORD
            mine = self.blob[_spread(self.starts[ids[long]] + _WORD, rest)]
            differ = (mine != raw[_spread(starts[long] + _WORD, rest)]).nonzero()[0]
            wrong[long[rest.cumsum().searchsorted(differ, side="right")]] = True
        return wrong.nonzero()[0]

    def _take(self, table: npt.NDArray[np.int64], at: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        try:
            return table.take(at)
        except IndexError:
            wrong = int(at[at >= table.size][0])
            shown = wrong - 2**32 if wrong >= 2**31 else wrong
            raise IdentityMismatchError(
                f"token id {shown} is outside this vocabulary of {table.size}: use the tokenizer that made it"
            ) from None


def _words(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The eight bytes from each place on, the one behind the end included, as one number; zeros follow the data."""
    padded = np.concatenate([data, np.zeros(_WORD, np.uint8)])
    return np.ndarray((data.size + 1,), "<u8", padded, strides=(1,))


def _spread(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... for lengths[0] places, then the same from starts[1] on, and so forth."""
    # Place k of the result is k + (where its run starts) - (where its run starts in the result).
    shift = starts - lengths.cumsum()
    shift += lengths
    index: npt.NDArray[np.int64] = shift.repeat(lengths)
    index += np.arange(index.size)
    return index


def _unsigned(ids: Sequence[int] | Ids) -> npt.NDArray[np.uint32]:
    """Ids as unsigned numbers, so that a negative one is out of range and does not count from the end."""
    return np.ascontiguousarray(ids, dtype=np.int32).view(np.uint32)
