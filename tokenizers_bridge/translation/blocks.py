"""Many completions at once, where nothing is odd: each spells its text, ends in one stop token or none, and the reader
writes the same bytes, but for a prefix space that either side may put in front.

The rows stand behind one another in one array a quantity, and every step is one call over all of them: Python costs the
same few microseconds a row however long the rows are. A row that does not fit is left out, for `short_chunks` to
translate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mutual_env.errors import InvalidInputError, MutualEnvError
from mutual_env.types import Completion, FinishReason, Floats
from tokenizers_bridge.edits import NO_EDITS, Edits
from tokenizers_bridge.loops import LONGEST_SUM, compiled
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.rows import behind_one_another, spread
from tokenizers_bridge.translation.align import Alignment, sums_of_runs
from tokenizers_bridge.translation.encodings import Encodings
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.front import NO_FRONT, LeadingSpace, Meeting
from tokenizers_bridge.translation.residual import Residuals, Spans, lost_mass
from tokenizers_bridge.translation.source import NOT_FINITE
from tokenizers_bridge.translation.tape import Side, Tape
from tokenizers_bridge.types import Action, Block, Fidelity, Ints, Mask, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Authored:
    """Rows of a batch that fit, on their author's side. Row i is text i of the tape, with a space in front of it where
    `side.lead` says so."""

    rows: list[int]
    tape: Tape
    side: Side
    logprobs: Floats
    stopped: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Meant:
    """What one reader is to write for the rows of an `Authored`: the texts of this tape. The author's first skip[i]
    bytes and the first extra[i] of these have no equal on the other side."""

    tape: Tape
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
    own = batch if len(rows) == len(batch) else [batch[i] for i in rows]
    ids = [c.token_ids for c in own]
    sizes = np.fromiter(map(len, ids), np.int64, len(own))
    if not sizes.all():
        return authored(batch, _kept(rows, sizes > 0), author, apart)
    stopped = _stopped([c.finish_reason for c in own])
    try:
        tape = Tape.of([c.text for c in own])
        at = _at(sizes)
        joined = behind_one_another(ids, int(at[-1]))
        side = Side.laid(joined, at, stopped, tape, author, may_lead=author.differs, compared=True)
    except (MutualEnvError, UnicodeEncodeError):  # ids that the author does not have, text that is no Unicode
        sound = [i for i in rows if _is_sound(batch[i], author.tokenizer)]
        return authored(batch, sound, author, apart) if len(sound) < len(rows) else None
    logprobs = behind_one_another([c.logprobs for c in own], joined.size)
    fits = side.fits
    if apart.size:
        fits &= ~np.logical_or.reduceat(np.isin(side.ids, apart), side.at[:-1])
    finite = np.isfinite(logprobs)
    if not finite.all():
        fits &= np.logical_and.reduceat(finite, side.at[:-1])
    if not fits.all():
        return authored(batch, _kept(rows, fits), author, apart)
    return Authored(rows, tape, side, logprobs, stopped)


def meant(source: Authored, author: TokenizerFacts, reader: TokenizerFacts, leading_space: LeadingSpace) -> Meant:
    """What the reader is to write: the author's text, but for what the two prompts have written differently."""
    meeting = Meeting(author.says.boundary, reader.says.boundary, leading_space)
    tape, skip = source.tape, source.side.lead
    if skip.any() and not author.says.prefix_space:  # no prefix: the author said that space
        tape = Tape.of([" " * n + text for text, n in zip(tape.texts, skip.tolist(), strict=True)])
        skip = np.zeros_like(skip)
    extra = np.zeros_like(skip)
    if not meeting.is_plain:
        begun = zip(tape.texts, source.stopped.tolist(), strict=True)
        fronts = [meeting.front(text) if text or stopped else NO_FRONT for text, stopped in begun]
        cut = [len(text[: front.skip].encode()) for text, front in zip(tape.texts, fronts, strict=True)]
        skip, extra = skip + np.array(cut), np.array([len(front.extra.encode()) for front in fronts])
        tape = Tape.of([front.text(text) for front, text in zip(fronts, tape.texts, strict=True)])
    return Meant(tape, skip, extra, np.where(extra > 0, 0, tape.leading_space))


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


def _at(sizes: Ints) -> Ints:
    """Where rows of these sizes begin, and the last ends."""
    at = np.zeros(sizes.size + 1, np.int64)
    sizes.cumsum(out=at[1:])
    return at


def _stopped(reasons: list[FinishReason]) -> Mask:
    if reasons.count("stop") == len(reasons):
        return np.ones(len(reasons), np.bool_)
    return np.array([reason == "stop" for reason in reasons], np.bool_)


def _is_sound(completion: Completion, author: Tokenizer) -> bool:
    try:
        author.byte_lengths(completion.token_ids)
        completion.text.encode()
    except (MutualEnvError, UnicodeEncodeError):
        return False
    return True


def _kept(rows: list[int], fits: Mask) -> list[int]:
    return [row for row, fit in zip(rows, fits.tolist(), strict=True) if fit]


def _encodable(source: Authored, told: Meant, reader: TokenizerFacts, encodings: Encodings) -> list[int]:
    """Rows that have an encoding, and spell no control token of the reader."""
    careful = reader.may_spell_control(told.tape.joined)
    if not encodings.failed and not careful:
        return source.rows
    return [
        row
        for row, text in zip(source.rows, told.tape.texts, strict=True)
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
    rows = encodings.rows(told.tape.texts, reader.goes_on)
    some = (rows.sizes > 0) | source.stopped
    if not some.all():
        nothing = np.zeros(some.size, np.int64)
        return source.side, FrontEdits(nothing, nothing), some
    ids, at = rows.ended(source.stopped, reader.tokenizer.stop_id)
    prefixed, compared = reader.says.prefix_space, not reader.verbatim
    side = Side.laid(ids, at, source.stopped, told.tape, reader, may_lead=prefixed, compared=compared)
    fits, prefix = side.fits, side.lead
    edits = FrontEdits(told.skip, prefix + told.extra)
    both = (edits.author > 0) & (edits.reader > 0)
    if both.any():  # a space that both put in front is none; anything else goes the general way
        same = both & (source.side.lead == 1) & (told.skip == 1) & (prefix == 1) & (told.extra == 0)
        fits &= same | ~both
        edits = FrontEdits(np.where(same, 0, edits.author), np.where(same, 0, edits.reader))
    return side, edits, fits


def _block(source: Authored, told: Meant, side: Side, edits: FrontEdits, actions: Mapping[Fidelity, Action]) -> Block:
    sizes = edits.sizes
    ends_a, ends_r = _shared(_on_tape(source, told), side.ends, int(told.tape.starts[-1]))
    found = _carried(source, side, ends_a, ends_r, sizes > 0)
    residuals = found.residuals
    return Block(
        side.ids, found.logprobs, found.exact, ends_a, ends_r, found.chunk_exact,
        source.side.at, side.at, found.chunk_at,
        residuals.token_share, residuals.mass_share, sizes, residuals.largest_chunk, told.leading_space,
        _outcomes(sizes, actions),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Carried:
    """What comes of the borders: see `Block`."""

    logprobs: Floats
    exact: Mask
    chunk_exact: Mask
    chunk_at: Ints
    residuals: Residuals


def _carried(source: Authored, side: Side, ends_a: Ints, ends_r: Ints, differ: Mask) -> _Carried:
    if (loops := compiled(side.ids.size)) is None:
        return _in_passes(source, side, ends_a, ends_r, differ)
    logprobs, exact, chunk_exact, chunk_at, share, largest, more = loops.carried(
        ends_a, ends_r, side.at, differ, source.logprobs
    )
    if more:
        _carry_long(source.logprobs, ends_a, ends_r, logprobs)
    begins = source.side.at[:-1][differ]
    inexact = spread(begins, ends_a[chunk_at[:-1][differ]] - begins)
    lost = lost_mass(source.logprobs, inexact, source.side.at)
    return _Carried(logprobs, exact, chunk_exact, chunk_at, Residuals(share, lost, largest))


def _carry_long(logprobs: Floats, ends_a: Ints, ends_r: Ints, into: Floats) -> None:
    """The chunks whose sums NumPy makes in an order of its own."""
    counts_a, counts_r = np.diff(ends_a, prepend=0), np.diff(ends_r, prepend=0)
    long = (counts_a > LONGEST_SUM).nonzero()[0]
    sums, counts = sums_of_runs(logprobs, ends_a[long] - counts_a[long], ends_a[long]), counts_r[long]
    into[spread(ends_r[long] - counts, counts)] = (sums / counts).repeat(counts)


def _in_passes(source: Authored, side: Side, ends_a: Ints, ends_r: Ints, differ: Mask) -> _Carried:
    chunk_at = np.zeros(differ.size + 1, np.int64)
    chunk_at[1:] = ends_r.searchsorted(side.at[1:]) + 1
    chunk_exact = np.ones(ends_a.size, np.bool_)
    chunk_exact[chunk_at[:-1][differ]] = False
    alignment = Alignment.of(ends_a, ends_r, chunk_exact, NO_EDITS)  # nobody asks this one for its edits
    logprobs, exact = alignment.carry(source.logprobs)
    residuals = Residuals.of(alignment, source.logprobs, Spans(source.side.at, side.at, chunk_at))
    return _Carried(logprobs, exact, chunk_exact, chunk_at, residuals)


def _outcomes(sizes: Ints, actions: Mapping[Fidelity, Action]) -> Sequence[Outcome]:
    """By how many bytes each row begins otherwise."""
    exact = Outcome("exact", actions["exact"], has_logprobs=True)
    if not sizes.any():
        return (exact,) * sizes.size
    outcomes = {0: exact}
    for size in set(sizes[sizes > 0].tolist()):
        reason = Edits(np.array([[0, 0, 0, size]], np.int64), declared=True).sentence
        outcomes[size] = Outcome("normalised", actions["normalised"], has_logprobs=True, reason=reason)
    return [outcomes[size] for size in sizes.tolist()]


def _on_tape(source: Authored, told: Meant) -> Ints:
    """Where the author's tokens end on the tape of what the reader is to write. What only one side has at the beginning
    of a row lies where the other side's tokens never end."""
    side, tape = source.side, source.tape
    if told.tape is tape:
        return side.ends
    sizes = np.diff(side.at)
    within = side.ends - (tape.starts[:-1] + 1 - side.lead + told.skip).repeat(sizes)
    places: Ints = np.maximum(within, 0) + (told.tape.starts[:-1] + 1 + told.extra).repeat(sizes)
    return places


def _shared(at_a: Ints, at_r: Ints, size: int) -> tuple[Ints, Ints]:
    """Behind which tokens of either side the borders lie."""
    if (loops := compiled(at_a.size + at_r.size)) is not None:
        return loops.borders(at_a, at_r, size)
    marks = np.zeros(size + 1, np.uint8)
    marks[at_a] = 1
    ends_r = marks.take(at_r).view(np.bool_).nonzero()[0]
    marks[at_r] = 2
    ends_a = (marks.take(at_a) == 2).nonzero()[0]
    ends_a += 1
    ends_r += 1
    return ends_a, ends_r


def same_tokenizer(
    batch: Sequence[Completion], rows: list[int], reader: TokenizerFacts, actions: Mapping[Fidelity, Action]
) -> Translated:
    """Rows that the reader's own tokenizer wrote: the sampled ids, untouched. One that is unsound raises."""
    own = [batch[i] for i in rows]
    at = _at(np.fromiter((c.token_ids.size for c in own), np.int64, len(own)))
    ids = behind_one_another([c.token_ids for c in own], int(at[-1]))
    logprobs = behind_one_another([c.logprobs for c in own], ids.size)
    reader.tokenizer.byte_lengths(ids)
    if not np.isfinite(logprobs).all():
        raise InvalidInputError(NOT_FINITE)
    ends, nothing = np.arange(1, ids.size + 1), np.zeros(len(own))
    outcome = Outcome("exact", actions["exact"], has_logprobs=True)
    block = Block(
        ids, logprobs, np.ones(ids.size, np.bool_), ends, ends, np.ones(ids.size, np.bool_), at, at, at,
        nothing, nothing, np.zeros(len(own), np.int64), np.minimum(np.diff(at), 1), np.zeros(len(own), np.int64),
        (outcome,) * len(own),
    )  # fmt: skip
    return Translated(rows, block)
