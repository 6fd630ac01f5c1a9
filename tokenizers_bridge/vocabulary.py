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
        return self.lengths[self._checked(ids)]

    def bytes_of(self, ids: Sequence[int] | Ids) -> bytes:
        at = self._checked(ids)
        lengths = self.lengths[at]
        ends = lengths.cumsum()
        total = int(ends[-1]) if ends.size else 0
        # Byte k of the result is blob[k + (start of its id in the blob) - (start of its id in the result)].
        index = np.repeat(self.starts[at] - ends + lengths, lengths)
        index += np.arange(total)
        data: bytes = self.blob[index].tobytes()
        return data

    def _checked(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        at = np.asarray(ids, dtype=np.int64)
        if at.size and (int(at.min()) < 0 or int(at.max()) >= self.lengths.size):
            wrong = int(at[(at < 0) | (at >= self.lengths.size)][0])
            raise IdentityMismatchError(
                f"token id {wrong} is outside this vocabulary of {self.lengths.size}: use the tokenizer that made it"
            )
        return at
