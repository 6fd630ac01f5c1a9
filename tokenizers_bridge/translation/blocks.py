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
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.front import LeadingSpace, Meeting
from tokenizers_bridge.translation.residual import Residuals, Spans
from tokenizers_bridge.translation.source import NOT_FINITE
from tokenizers_bridge.types import Action, Block, Fidelity, Ints, Mask, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Token sequences behind one another, none of them empty: row i is ids[at[i] : at[i + 1]] and spells widths[i]
    bytes. `lengths` are the bytes of each token, `ends` the bytes up to its end."""

    ids: Ids
    at: Ints
    lengths: Ints
    ends: Ints
    widths: Ints

    @classmethod
    def of(cls, parts: Sequence[Ids], sizes: Ints, tokenizer: Tokenizer) -> Side:
        """Rows of these sizes."""
        ids = np.concatenate(parts, dtype=np.int32, casting="same_kind")
        at = np.zeros(sizes.size + 1, np.int64)
        sizes.cumsum(out=at[1:])
        lengths = tokenizer.byte_lengths(ids)
        ends = lengths.cumsum()
        return cls(ids, at, lengths, ends, np.diff(ends[at[1:] - 1], prepend=0))

    def only_stops(self, stopped: Mask, stops: Ints) -> Mask:
        """Which rows have a stop token at their end and no other control token; or none where they did not stop."""
        last = self.at[1:] - 1
        controls = (self.lengths == 0).nonzero()[0]
        count = np.bincount(self.at.searchsorted(controls, side="right") - 1, minlength=last.size)
        at_end = (self.lengths[last] == 0) & (self.ids[last, None] == stops).any(axis=1)
        fits: Mask = (count == stopped) & (at_end | ~stopped)
        return fits

    def misspelled_rows(self, known: TokenizerFacts, data: bytes) -> Ints:
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
class Meant:
    """What one reader is to write for the rows of an `Authored`: row i is texts[i], spelled out in `encoded`. The
    author's first skip[i] bytes and the first extra[i] of these have no equal on the other side."""

    texts: list[str]
    encoded: list[bytes]
    skip: Ints
    extra: Ints
    leading_space: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Translated:
    """Rows of a batch, and the block that they became."""

    rows: list[int]
    block: Block


def authored(batch: Sequence[Completion], rows: list[int], author: TokenizerFacts, apart: Ints) -> Authored | None:
    """Those of these rows of the batch that fit. All are by this author; one with a tag that has to be taken out of its
    text does not."""
    if not rows:
        return None
    own = [batch[i] for i in rows]
    ids, texts = [c.token_ids for c in own], [c.text for c in own]
    sizes = np.fromiter(map(len, ids), np.int64, len(own))
    if not sizes.all():
        return authored(batch, _kept(rows, sizes > 0), author, apart)
    try:
        side = Side.of(ids, sizes, author.tokenizer)
        encoded = [text.encode() for text in texts]
    except (MutualEnvError, UnicodeEncodeError):  # ids that the author does not have, text that is no Unicode
        sound = [i for i in rows if _is_sound(batch[i], author.tokenizer)]
        return authored(batch, sound, author, apart) if len(sound) < len(rows) else None
    logprobs = np.concatenate([c.logprobs for c in own])
    stopped = np.array([c.finish_reason == "stop" for c in own], np.bool_)
    lead = side.widths - np.fromiter(map(len, encoded), np.int64, len(own))
    fits = (lead == 0) | (lead == 1) if author.differs else lead == 0
    fits &= side.only_stops(stopped, author.stops)
    if apart.size:
        fits &= ~np.logical_or.reduceat(np.isin(side.ids, apart), side.at[:-1])
    finite = np.isfinite(logprobs)
    if not finite.all():
        fits &= np.logical_and.reduceat(finite, side.at[:-1])
    if fits.all():
        fits[side.misspelled_rows(author, _behind_spaces(encoded, lead))] = False
    if not fits.all():
        return authored(batch, _kept(rows, fits), author, apart)
    return Authored(rows, texts, encoded, side, logprobs, stopped, lead)


def meant(source: Authored, author: TokenizerFacts, reader: TokenizerFacts, leading_space: LeadingSpace) -> Meant:
    """What the reader is to write: the author's text, but for what the two prompts have written differently."""
    meeting = Meeting(author.says.boundary, reader.says.boundary, leading_space)
    texts, encoded, skip = source.texts, source.encoded, source.lead
    if source.lead.any() and not author.says.prefix_space:  # no prefix: the author said that space
        texts = [" " * n + text for text, n in zip(texts, source.lead.tolist(), strict=True)]
        encoded, skip = [text.encode() for text in texts], np.zeros_like(skip)
    extra = np.zeros_like(skip)
    if not meeting.is_plain:
        fronts = [meeting.front(text) for text in texts]
        cut = [len(text[: front.skip].encode()) for text, front in zip(texts, fronts, strict=True)]
        skip, extra = skip + np.array(cut), np.array([len(front.extra.encode()) for front in fronts])
        texts = [front.text(text) for front, text in zip(fronts, texts, strict=True)]
        encoded = [text.encode() for text in texts]
    return Meant(texts, encoded, skip, extra, _leading_space(texts, extra))


def _leading_space(texts: list[str], extra: Ints) -> Ints:
    """Bytes of white space at the beginning of each, where nothing was put in front."""
    stripped = np.array([len(text) - len(text.lstrip()) for text in texts], np.int64)
    stripped[extra > 0] = 0
    for i in stripped.nonzero()[0].tolist():
        if not texts[i].isascii():
            stripped[i] = len(texts[i][: stripped[i]].encode())
    return stripped


def translated(
    batch: Sequence[Completion],
    source: Authored,
    told: Meant,
    author: TokenizerFacts,
    reader: TokenizerFacts,
    encodings: Encodings,
    actions: Mapping[Fidelity, Action],
    leading_space: LeadingSpace = "keep",
) -> Translated | None:
    """Those of the author's rows that fit on the reader's side too. `told` is what the reader is to write for all."""
    apart = reader.apart(author)
    while True:
        kept = _encodable(source, told, reader, encodings)
        if len(kept) == len(source.rows):
            side, edits, fits = _reader_side(source, told, reader, encodings)
            if fits.all():
                return Translated(source.rows, _block(source, told, side, edits, actions))
            kept = _kept(source.rows, fits)
        fewer = authored(batch, kept, author, apart)
        if fewer is None:
            return None
        source, told = fewer, meant(fewer, author, reader, leading_space)


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
    """All texts joined, each behind so many spaces."""
    if not spaces.any():
        return b"".join(texts)
    return b"".join([b" " * n + text for text, n in zip(texts, spaces.tolist(), strict=True)])


def _encodable(source: Authored, told: Meant, reader: TokenizerFacts, encodings: Encodings) -> list[int]:
    """Rows that have an encoding, and spell no control token of the reader."""
    careful = reader.may_spell_control(told.texts)
    if not encodings.failed and not careful:
        return source.rows
    return [
        row
        for row, text in zip(source.rows, told.texts, strict=True)
        if (text, reader.goes_on) not in encodings.failed and not (careful and reader.spelled_control(text))
    ]


@dataclass(frozen=True, slots=True, eq=False)
class FrontEdits:
    """Bytes at the beginning of each row that the other side has not: one of the two is 0."""

    author: Ints
    reader: Ints

    @property
    def sizes(self) -> Ints:
        return self.author + self.reader


def _reader_side(
    source: Authored, told: Meant, reader: TokenizerFacts, encodings: Encodings
) -> tuple[Side, FrontEdits, Mask]:
    """The reader's tokens, how its rows begin otherwise than the author's, and which rows fit."""
    goes_on = reader.goes_on
    rows = [encodings.ids[text, goes_on] for text in told.texts]
    stop = np.array([reader.tokenizer.stop_id], np.int32)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows)) + source.stopped
    nothing = np.zeros(sizes.size, np.int64)
    if not sizes.all():
        return source.side, FrontEdits(nothing, nothing), sizes > 0
    side = Side.of(_ended(rows, source.stopped, stop), sizes, reader.tokenizer)
    prefix = side.widths - np.fromiter(map(len, told.encoded), np.int64, sizes.size)
    fits = (prefix == 0) | (prefix == 1) if reader.says.prefix_space else prefix == 0
    fits &= side.only_stops(source.stopped, reader.stops)
    edits = FrontEdits(told.skip, prefix + told.extra)
    both = (edits.author > 0) & (edits.reader > 0)
    if both.any():  # a space that both put in front is none; anything else goes the general way
        same = both & (source.lead == 1) & (told.skip == 1) & (prefix == 1) & (told.extra == 0)
        fits &= same | ~both
        edits = FrontEdits(np.where(same, 0, edits.author), np.where(same, 0, edits.reader))
    if fits.all() and not reader.verbatim:
        fits[side.misspelled_rows(reader, _behind_spaces(told.encoded, prefix))] = False
    return side, edits, fits


def _ended(rows: list[Ids], stopped: Mask, stop: Ids) -> list[Ids]:
    """The rows, with the stop token behind those that stopped."""
    parts = [stop] * (2 * len(rows))
    parts[::2] = rows
    if not stopped.all():
        for i in (~stopped).nonzero()[0].tolist():
            parts[2 * i + 1] = stop[:0]
    return parts


def _block(source: Authored, told: Meant, side: Side, edits: FrontEdits, actions: Mapping[Fidelity, Action]) -> Block:
    alignment, chunk_at = _align(source.side, side, source.stopped, edits)
    logprobs, exact = alignment.carry(source.logprobs)
    spans = Spans(source.side.at, side.at, chunk_at)
    residuals = Residuals.of(alignment, source.logprobs, spans)
    sizes = edits.sizes
    outcomes = {0: Outcome("exact", actions["exact"], has_logprobs=True)}
    for size in set(sizes[sizes > 0].tolist()):
        reason = Edits(np.array([[0, 0, 0, size]], np.int64), declared=True).sentence
        outcomes[size] = Outcome("normalised", actions["normalised"], has_logprobs=True, reason=reason)
    return Block(
        side.ids, logprobs, exact, alignment.author_ends, alignment.reader_ends, alignment.exact,
        spans.author_at, spans.reader_at, spans.chunk_at,
        residuals.token_share, residuals.mass_share, sizes, residuals.largest_chunk, told.leading_space,
        [outcomes[size] for size in sizes.tolist()],
    )  # fmt: skip


def _align(author: Side, reader: Side, stopped: Mask, edits: FrontEdits) -> tuple[Alignment, Ints]:
    """Borders of all rows, and where the chunks of each start.

    Both sides share one coordinate: a byte is a step, a stop token is one, and so is the start of a row. What only one
    side has at the beginning of a row is no step: a token that is nothing but that ends at the start of its row, where
    the other side's never do.
    """
    at_a, at_r = _places(author, edits.author, stopped), _places(reader, edits.reader, stopped)
    ends_a, ends_r = _shared(at_a, at_r), _shared(at_r, at_a)
    chunk_at = np.zeros(edits.author.size + 1, np.int64)
    chunk_at[1:] = ends_r.searchsorted(reader.at[1:]) + 1
    exact = np.ones(ends_a.size, np.bool_)
    exact[chunk_at[:-1][edits.sizes > 0]] = False
    return Alignment.of(ends_a, ends_r, exact, _as_edits(author, reader, edits)), chunk_at


def _as_edits(author: Side, reader: Side, edits: FrontEdits) -> Edits:
    """The same as edits of all the rows' bytes."""
    changed = edits.sizes.nonzero()[0]
    if not changed.size:
        return NO_EDITS
    start_a, start_r = ((side.widths.cumsum() - side.widths)[changed] for side in (author, reader))
    ends = start_a + edits.author[changed], start_r + edits.reader[changed]
    return Edits(np.stack([start_a, ends[0], start_r, ends[1]], axis=1), declared=True)


def _places(side: Side, front: Ints, stopped: Mask) -> Ints:
    """Where each token ends."""
    sizes = np.diff(side.at)
    # The bytes, and a step for each row that began and that stopped: a stop token is a row's last, and has no bytes.
    steps = np.arange(1, sizes.size + 1) + (stopped.cumsum() - stopped)
    if front.any():
        within = side.ends - (side.widths.cumsum() - side.widths).repeat(sizes)
        places: Ints = side.ends + (steps - (front.cumsum() - front)).repeat(sizes)
        places -= np.minimum(within, front.repeat(sizes))
    else:
        places = steps.repeat(sizes)
        places += side.ends
    places[side.at[1:] - 1] += stopped
    return places


def _shared(mine: Ints, other: Ints) -> Ints:
    """Behind which of my tokens the borders lie."""
    is_end = np.zeros(int(mine[-1]) + 1, np.bool_)
    is_end[other] = True
    return is_end.take(mine).nonzero()[0] + 1


def same_tokenizer(
    batch: Sequence[Completion], rows: list[int], reader: TokenizerFacts, actions: Mapping[Fidelity, Action]
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
        nothing, nothing, np.zeros(len(own), np.int64), np.minimum(np.diff(at), 1), np.zeros(len(own), np.int64),
        (outcome,) * len(own),
    )  # fmt: skip
    return Translated(rows, block)
