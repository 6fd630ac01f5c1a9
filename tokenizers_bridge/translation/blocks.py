"""Many completions at once, where nothing is odd: each spells its text, ends in one stop token or none, and the reader
writes the same bytes, but for a prefix space that either side may put in front.

The rows stand behind one another in one array a quantity, and every step is one call over all of them: Python costs the
same few microseconds a row however long the rows are. A row that does not fit is left out, for `single` to translate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mutual_env.errors import InvalidInputError, MutualEnvError
from mutual_env.types import Completion, Floats, Ids
from tokenizers_bridge.edits import NO_EDITS, Edits
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.translation.align import Alignment
from tokenizers_bridge.translation.encodings import Encodings
from tokenizers_bridge.translation.facts import Known
from tokenizers_bridge.translation.residual import Residuals, Spans
from tokenizers_bridge.translation.source import NOT_FINITE
from tokenizers_bridge.types import Action, Block, Fidelity, Ints, Mask, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Token sequences behind one another, none of them empty: row i is ids[at[i] : at[i + 1]] and spells widths[i]
    bytes. `lengths` are the bytes of each token."""

    ids: Ids
    at: Ints
    lengths: Ints
    widths: Ints

    @classmethod
    def of(cls, parts: Sequence[Ids], sizes: Ints, tokenizer: Tokenizer) -> Side:
        """Rows of these sizes."""
        ids = np.concatenate(parts, dtype=np.int32, casting="same_kind")
        at = np.zeros(sizes.size + 1, np.int64)
        sizes.cumsum(out=at[1:])
        lengths = tokenizer.byte_lengths(ids)
        return cls(ids, at, lengths, np.add.reduceat(lengths, at[:-1]))

    def only_stops(self, stopped: Mask, stops: Ints) -> Mask:
        """Which rows have a stop token at their end and no other control token; or none where they did not stop."""
        last = self.at[1:] - 1
        controls = (self.lengths == 0).nonzero()[0]
        count = np.bincount(self.at.searchsorted(controls, side="right") - 1, minlength=last.size)
        at_end = (self.lengths[last] == 0) & (self.ids[last, None] == stops).any(axis=1)
        fits: Mask = (count == stopped) & (at_end | ~stopped)
        return fits

    def misspelled_rows(self, known: Known, data: bytes) -> Ints:
        """Rows of which a token does not stand for the bytes of `data` that it lies on."""
        return self.at.searchsorted(known.misspelled(self.ids, self.lengths, data), side="right") - 1


@dataclass(frozen=True, slots=True, eq=False)
class Authored:
    """Rows of a batch that fit, on their author's side. The bytes of row i are its text's, behind lead[i] spaces."""

    rows: list[int]
    texts: list[str]
    encoded: list[bytes]
    side: Side
    logprobs: Floats
    stopped: Mask
    lead: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Translated:
    """Rows of a batch, and the block that they became."""

    rows: list[int]
    block: Block


def authored(batch: Sequence[Completion], rows: list[int], author: Known) -> Authored | None:
    """Those of these rows of the batch that fit. All are by this author."""
    if not rows:
        return None
    own = [batch[i] for i in rows]
    sizes = np.fromiter((c.token_ids.size for c in own), np.int64, len(own))
    if not sizes.all():
        return authored(batch, _kept(rows, sizes > 0), author)
    try:
        side = Side.of([c.token_ids for c in own], sizes, author.tokenizer)
        encoded = [c.text.encode() for c in own]
    except (MutualEnvError, UnicodeEncodeError):  # ids that the author does not have, text that is no Unicode
        sound = [i for i in rows if _is_sound(batch[i], author.tokenizer)]
        return authored(batch, sound, author) if len(sound) < len(rows) else None
    logprobs = np.concatenate([c.logprobs for c in own])
    stopped = np.fromiter((c.finish_reason == "stop" for c in own), np.bool_, len(own))
    lead = side.widths - np.fromiter(map(len, encoded), np.int64, len(own))
    fits = (lead == 0) | (lead == 1) if author.says.prefix_space else lead == 0
    fits &= side.only_stops(stopped, author.stops)
    finite = np.isfinite(logprobs)
    if not finite.all():
        fits &= np.logical_and.reduceat(finite, side.at[:-1])
    if fits.all():
        fits[side.misspelled_rows(author, _behind_spaces(encoded, lead))] = False
    if not fits.all():
        return authored(batch, _kept(rows, fits), author)
    return Authored(rows, [c.text for c in own], encoded, side, logprobs, stopped, lead)


def translated(
    batch: Sequence[Completion],
    source: Authored | None,
    author: Known,
    reader: Known,
    encodings: Encodings,
    actions: Mapping[Fidelity, Action],
) -> Translated | None:
    """Those of the author's rows that fit on the reader's side too."""
    while source is not None:
        kept = _encodable(source, reader, encodings)
        if len(kept) == len(source.rows):
            side, added, fits = _reader_side(source, author, reader, encodings)
            if fits.all():
                return Translated(source.rows, _block(source, side, added, actions))
            kept = _kept(source.rows, fits)
        source = authored(batch, kept, author)
    return None


def _is_sound(completion: Completion, author: Tokenizer) -> bool:
    try:
        author.byte_lengths(completion.token_ids)
        completion.text.encode()
    except (MutualEnvError, UnicodeEncodeError):
        return False
    return True


def _kept(rows: list[int], fits: Mask) -> list[int]:
    return [row for row, fit in zip(rows, fits.tolist(), strict=True) if fit]


def _behind_spaces(texts: list[bytes], spaces: Ints) -> bytes:
    """All texts joined, each behind so many spaces; -1 takes its first byte away."""
    if not spaces.any():
        return b"".join(texts)
    return b"".join([text[1:] if n < 0 else b" " * n + text for text, n in zip(texts, spaces.tolist(), strict=True)])


def _encodable(source: Authored, reader: Known, encodings: Encodings) -> list[int]:
    """Rows that have an encoding, and spell no control token of the reader."""
    careful = reader.may_spell_control(source.texts)
    if not encodings.failed and not careful:
        return source.rows
    return [
        row
        for row, text in zip(source.rows, source.texts, strict=True)
        if text not in encodings.failed and not (careful and reader.spelled_control(text))
    ]


def _reader_side(source: Authored, author: Known, reader: Known, encodings: Encodings) -> tuple[Side, Ints, Mask]:
    """The reader's tokens, how many bytes each row has more than the author's, and which rows fit."""
    rows = [encodings.ids[text] for text in source.texts]
    stop = np.array([reader.tokenizer.stop_id], np.int32)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows)) + source.stopped
    if not sizes.all():
        return source.side, np.zeros(sizes.size, np.int64), sizes > 0
    ended = zip(rows, source.stopped.tolist(), strict=True)
    side = Side.of(
        [part for ids, stops in ended for part in ((ids, stop) if stops else (ids,))], sizes, reader.tokenizer
    )
    added = side.widths - source.side.widths
    fits = (added == 0) | (added == 1) if reader.says.prefix_space else added == 0
    if author.says.prefix_space:
        fits = fits | (added == -1) & _led_by_space(source)
    fits &= side.only_stops(source.stopped, reader.stops)
    if fits.all():
        data = _behind_spaces(source.encoded, source.lead + added)
        fits[side.misspelled_rows(reader, data)] = False
    return side, added, fits


def _led_by_space(source: Authored) -> Mask:
    starts = np.fromiter((text[:1] == b" " for text in source.encoded), np.bool_, len(source.encoded))
    led: Mask = starts | (source.lead == 1)
    return led


def _block(source: Authored, side: Side, added: Ints, actions: Mapping[Fidelity, Action]) -> Block:
    alignment, chunk_at = _align(source.side, side, added)
    logprobs, exact = alignment.carry(source.logprobs)
    spans = Spans(source.side.at, side.at, chunk_at)
    residuals = Residuals.of(alignment, source.logprobs, spans)
    same = Outcome("exact", actions["exact"], has_logprobs=True)
    changed = Outcome("normalised", actions["normalised"], has_logprobs=True, reason=_ONE_SPACE.sentence)
    return Block(
        side.ids, logprobs, exact, alignment.author_ends, alignment.reader_ends, alignment.exact,
        spans.author_at, spans.reader_at, spans.chunk_at,
        residuals.token_share, residuals.mass_share, np.abs(added), residuals.largest_chunk,
        [changed if more else same for more in added.tolist()],
    )  # fmt: skip


_ONE_SPACE = Edits(np.array([[0, 0, 0, 1]], np.int64), declared=True)


def _align(author: Side, reader: Side, added: Ints) -> tuple[Alignment, Ints]:
    """Borders of all rows, and where the chunks of each start.

    Both sides share one coordinate: a byte is a step, a stop token is one, and so is the start of a row. A prefix space
    that only one side has is no step: a token that is nothing but that space ends at the start of its row, where the
    other side's never do.
    """
    at_a, at_r = _places(author, added == -1), _places(reader, added == 1)
    ends_a, ends_r = _shared(at_a, at_r), _shared(at_r, at_a)
    chunk_at = np.zeros(added.size + 1, np.int64)
    chunk_at[1:] = ends_r.searchsorted(reader.at[1:]) + 1
    exact = np.ones(ends_a.size, np.bool_)
    exact[chunk_at[:-1][added != 0]] = False
    return Alignment.of(ends_a, ends_r, exact, _spaces(author, reader, added)), chunk_at


def _spaces(author: Side, reader: Side, added: Ints) -> Edits:
    """The prefix spaces that only one side has, as edits of all the rows' bytes."""
    if not added.any():
        return NO_EDITS
    changed = added.nonzero()[0]
    start_a, start_r = ((side.widths.cumsum() - side.widths)[changed] for side in (author, reader))
    more = added[changed]
    return Edits(np.stack([start_a, start_a + (more < 0), start_r, start_r + (more > 0)], axis=1), declared=True)


def _places(side: Side, led: Mask) -> Ints:
    """Where each token ends."""
    steps = np.maximum(side.lengths, 1)
    steps[side.at[:-1]] += 1 - led
    return steps.cumsum()


def _shared(mine: Ints, other: Ints) -> Ints:
    """Behind which of my tokens the borders lie."""
    is_end = np.zeros(int(mine[-1]) + 1, np.bool_)
    is_end[other] = True
    return is_end.take(mine).nonzero()[0] + 1


def same_tokenizer(
    batch: Sequence[Completion], rows: list[int], reader: Known, actions: Mapping[Fidelity, Action]
) -> Translated:
    """Rows that the reader's own tokenizer wrote: the sampled ids, untouched. One that is unsound raises."""
    own = [batch[i] for i in rows]
    ids, logprobs = np.concatenate([c.token_ids for c in own]), np.concatenate([c.logprobs for c in own])
    reader.tokenizer.byte_lengths(ids)
    if not np.isfinite(logprobs).all():
        raise InvalidInputError(NOT_FINITE)
    at = np.zeros(len(own) + 1, np.int64)
    np.fromiter((c.token_ids.size for c in own), np.int64, len(own)).cumsum(out=at[1:])
    ends, nothing = np.arange(1, ids.size + 1), np.zeros(len(own))
    outcome = Outcome("exact", actions["exact"], has_logprobs=True)
    block = Block(
        ids, logprobs, np.ones(ids.size, np.bool_), ends, ends, np.ones(ids.size, np.bool_), at, at, at,
        nothing, nothing, np.zeros(len(own), np.int64), np.minimum(np.diff(at), 1), (outcome,) * len(own),
    )  # fmt: skip
    return Translated(rows, block)
