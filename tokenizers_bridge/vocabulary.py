"""id -> bytes for a whole vocabulary, as three arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mutual_env.errors import IdentityMismatchError
from mutual_env.types import Ids
from tokenizers_bridge.protocol import Role


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """`blob` is the bytes of every id behind one another; id i stands for blob[starts[i] : starts[i] + lengths[i]].

    A control token stands for no bytes and has a role in `specials`; so does an id that nothing is assigned to.
    """

    blob: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
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
        for array in (starts, lengths):
            array.flags.writeable = False
        return cls(blob, starts, lengths, roles)

    @property
    def size(self) -> int:
        return int(self.lengths.size)

    def lengths_of(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        return self._take(self.lengths, _unsigned(ids))

    def bytes_of(self, ids: Sequence[int] | Ids) -> bytes:
        at = _unsigned(ids)
        lengths = self._take(self.lengths, at)
        ends = lengths.cumsum()
        # Byte k of the result is blob[k + (start of its id in the blob) - (start of its id in the result)].
        shift = self.starts[at]
        shift -= ends
        shift += lengths
        index = shift.repeat(lengths)
        index += np.arange(index.size)
        data: bytes = self.blob[index].tobytes()
        return data

    def _take(self, table: npt.NDArray[np.int64], at: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        try:
            return table[at]
        except IndexError:
            wrong = int(at[at >= table.size][0])
            shown = wrong - 2**32 if wrong >= 2**31 else wrong
            raise IdentityMismatchError(
                f"token id {shown} is outside this vocabulary of {table.size}: use the tokenizer that made it"
            ) from None


def _unsigned(ids: Sequence[int] | Ids) -> npt.NDArray[np.uint32]:
    """Ids as unsigned numbers, so that a negative one is out of range and does not count from the end."""
    return np.ascontiguousarray(ids, dtype=np.int32).view(np.uint32)
