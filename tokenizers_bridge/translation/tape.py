"""The texts of many rows as one string of bytes, and token sequences laid over it.

Each text has a byte in front, on which a prefix space lies, and one behind, on which a stop token does. So every token
of either side ends at a place of its own, borders are places at which tokens of both sides end, and no step has to look
at a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mutual_env.types import Ids
from tokenizers_bridge.loops import Words, compiled
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.types import Ints, Mask
from tokenizers_bridge.words import MASKS, words_of


@dataclass(frozen=True, eq=False)
class Tape:
    """Row i is the bytes starts[i]..starts[i+1], the one in front and the one behind included; `joined` is all of them
    as text."""

    texts: list[str]
    joined: str
    data: bytes
    starts: Ints

    @classmethod
    def of(cls, texts: list[str]) -> Tape:
        joined = " " + "\n ".join(texts) + "\n"
        data = joined.encode()
        ascii_only = len(data) == len(joined)
        sizes = map(len, texts) if ascii_only else (len(t) if t.isascii() else len(t.encode()) for t in texts)
        starts = np.zeros(len(texts) + 1, np.int64)
        (np.fromiter(sizes, np.int64, len(texts)) + 2).cumsum(out=starts[1:])
        return cls(texts, joined, data, starts)

    @cached_property
    def words(self) -> Words:
        return words_of(np.frombuffer(self.data, np.uint8))

    @cached_property
    def leading_space(self) -> Ints:
        """Bytes of white space at the beginning of each text."""
        raw = np.frombuffer(self.data, np.uint8)
        odd: list[int] = []
        if (loops := compiled(raw.size)) is not None:
            at = loops.space_in_front(raw, self.starts, _IS_SPACE)
        else:
            at, odd = self._space_in_front(raw)
        sizes = at - self.starts[:-1] - 1
        for i in [*odd, *(raw.take(at) >= 0x80).nonzero()[0].tolist()]:
            text = self.texts[i]
            sizes[i] = len(text[: len(text) - len(text.lstrip())].encode())
        return sizes

    def _space_in_front(self, raw: npt.NDArray[np.uint8]) -> tuple[Ints, list[int]]:
        """Where each text has its first byte that is no white space; and rows that go on with it for longer than all
        rows were looked at together."""
        at, ends = self.starts[:-1] + 1, self.starts[1:] - 1
        going = np.arange(ends.size)
        for _ in range(_MOST_STEPS):
            going = going[_IS_SPACE.take(raw.take(at[going])) & (at[going] < ends[going])]
            if not going.size:
                break
            at[going] += 1
        return at, going.tolist()


# Steps that all rows go together. What begins with more white space, or with such as is not ASCII, goes alone.
_MOST_STEPS = 64
_IS_SPACE = np.array([chr(byte).isspace() and byte < 0x80 for byte in range(256)], np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Token sequences behind one another, none of them empty: row i is ids[at[i] : at[i + 1]]. Token k ends at place
    ends[k] of the tape: a stop token on the byte behind its row, the first of a row that has a prefix space in front of
    its text on the byte before it. `lead` says which rows have one, `fits` which lie on the tape like that."""

    ids: Ids
    at: Ints
    ends: Ints
    lead: Ints
    fits: Mask

    @classmethod
    def laid(
        cls, ids: Ids, at: Ints, stopped: Mask, tape: Tape, known: TokenizerFacts, *, may_lead: bool, compared: bool
    ) -> Side:
        """`may_lead`: some rows may have a prefix space that others have not. `compared`: a row of which a token does
        not stand for the bytes that it lies on does not fit."""
        loops = compiled(ids.size)
        if loops is not None and (table := known.table) is not None:
            own = ids.view(np.uint32)
            ends, lead, fits, all_known = loops.laid(
                own, at, stopped, tape.starts, known.stops, table.lengths, may_lead
            )
            if all_known and compared:
                begins = tape.starts[:-1] + 1 - lead
                tables = (table.heads, table.blob, table.starts, tape.words, MASKS)
                loops.spelled(own, at, stopped, begins, ends, *tables, fits)
            if all_known:
                return cls(ids, at, ends, lead, fits)
        return cls._in_passes(ids, at, stopped, tape, known, may_lead=may_lead, compared=compared)

    @classmethod
    def _in_passes(
        cls, ids: Ids, at: Ints, stopped: Mask, tape: Tape, known: TokenizerFacts, *, may_lead: bool, compared: bool
    ) -> Side:
        lengths = known.tokenizer.byte_lengths(ids)
        lead = np.full(stopped.size, known.says.prefix_space, np.int64)
        ends, off = _places(lengths, at, stopped, tape, lead)
        fits = _only_stops(ids, lengths, at, stopped, known.stops)
        if off.any():
            lead += off
            fits &= ((lead == 0) | (lead == 1)) if may_lead else lead == 0
            ends, _ = _places(lengths, at, stopped, tape, lead)
        if compared and fits.all():
            wrong = known.misspelled(ids, ends - lengths, lengths, tape.data)
            fits[at.searchsorted(wrong, side="right") - 1] = False
        return cls(ids, at, ends, lead, fits)


def _places(lengths: Ints, at: Ints, stopped: Mask, tape: Tape, lead: Ints) -> tuple[Ints, Ints]:
    """Where each token ends, and by how many bytes each row is longer than its place on the tape."""
    first, last = at[:-1], at[1:] - 1
    steps = lengths.copy()
    steps[last] += stopped
    steps[first] += 1 - lead
    steps[first[1:]] += ~stopped[:-1]
    ends = steps.cumsum()
    return ends, np.diff(ends[last] - (tape.starts[1:] - ~stopped), prepend=0)


def _only_stops(ids: Ids, lengths: Ints, at: Ints, stopped: Mask, stops: Ints) -> Mask:
    """Which rows have a stop token at their end and no other control token; or none where they did not stop."""
    last = at[1:] - 1
    controls, ended = (lengths == 0).nonzero()[0], ids[last]
    fits = ~stopped
    for stop in stops.tolist():
        fits |= ended == stop
    fits &= (lengths[last] == 0) | ~stopped
    if not np.array_equal(controls, last[stopped]):
        fits &= np.bincount(at.searchsorted(controls, side="right") - 1, minlength=last.size) == stopped
    return fits
