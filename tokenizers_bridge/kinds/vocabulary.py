"""id -> bytes for a whole vocabulary, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mutual_env.errors import IdentityMismatchError
from mutual_env.types import Ids
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.rows import spread
from tokenizers_bridge.words import MASKS, WORD, heads_of, words_of

SPACE = "▁"  # what SentencePiece writes for a space in a piece


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
        heads = heads_of(blob, starts, lengths)
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
        data: bytes = self.blob[spread(self.starts[at], lengths)].tobytes()
        return data

    def misspelled(
        self, ids: Ids, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], data: bytes
    ) -> npt.NDArray[np.int64]:
        """Which of these ids do not stand for the bytes of `data` that they lie on, each from its place in `starts`
        on. `lengths` are theirs."""
        raw = np.frombuffer(data, np.uint8)
        masks = MASKS.take(lengths, mode="clip")
        wrong: npt.NDArray[np.bool_] = words_of(raw).take(starts) & masks != self.heads.take(ids)
        long = (lengths > WORD).nonzero()[0]
        if long.size:
            rest = lengths[long] - WORD
            mine = self.blob[spread(self.starts[ids[long]] + WORD, rest)]
            differ = (mine != raw[spread(starts[long] + WORD, rest)]).nonzero()[0]
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


def _unsigned(ids: Sequence[int] | Ids) -> npt.NDArray[np.uint32]:
    """Ids as unsigned numbers, so that a negative one is out of range and does not count from the end."""
    return np.ascontiguousarray(ids, dtype=np.int32).view(np.uint32)
