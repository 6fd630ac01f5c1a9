"""A draft of the last turn, made one of the whole conversation: what was written before, and the replies between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from learners.corrections import Draft
from learners.units import Ints, Mask
from mutual_env.types import Completion, Floats, Ids, Lesson, Turn
from tokenizers_bridge.bridge import TokenizerBridge
from tokenizers_bridge.declaration import NOTHING, declaration_of
from tokenizers_bridge.edits import edits_between
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.replies import Conversing
from tokenizers_bridge.types import Translation


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A part of a conversation in the reader's tokens; see `Draft` for what its arrays mean."""

    ids: Ids
    logprobs: Floats | None
    exact: Mask
    chunks: Ints
    written: bool
    credit: Floats | None = None

    @classmethod
    def own(cls, completion: Completion) -> Piece:
        size = completion.token_ids.size
        return cls(completion.token_ids, completion.logprobs, np.ones(size, np.bool_), np.arange(size), written=True)

    @classmethod
    def borrowed(cls, translation: Translation) -> Piece:
        logprobs = translation.logprobs if translation.has_logprobs else None
        return cls(translation.token_ids, logprobs, translation.exact, translation.chunks, written=True)

    @classmethod
    def last(cls, draft: Draft) -> Piece:
        return cls(draft.response_ids, draft.author_logprobs, draft.exact, draft.chunks, True, draft.credit)

    @classmethod
    def reply(cls, ids: Ids) -> Piece:
        """Read, and never trained on."""
        nothing = np.zeros(ids.size, np.bool_)
        return cls(ids, np.zeros(ids.size), nothing, np.full(ids.size, -1, np.int64), written=False)


def with_turns(draft: Draft, earlier: Sequence[Piece], conversing: Conversing) -> Draft:
    """The draft of the last turn with the turns before it in front; `earlier` holds what was written in each."""
    experience = draft.lesson.experience
    pieces: list[Piece] = []
    for number, (turn, piece) in enumerate(zip(experience.earlier, earlier, strict=True)):
        credit = credit_of(draft.lesson, number, piece.ids, conversing.tokenizer)
        pieces += [
            replace(piece, credit=credit),
            Piece.reply(conversing.after(experience.task.prompt, turn.reply, piece.ids)),
        ]
    pieces.append(Piece.last(draft))
    written = np.concatenate([np.full(piece.ids.size, piece.written) for piece in pieces])
    logprobs = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    own = [c.logprobs for c in experience.written]
    return replace(
        draft,
        response_ids=np.concatenate([piece.ids for piece in pieces]),
        author_logprobs=np.concatenate(logprobs) if len(logprobs) == len(pieces) else None,
        author_mean=float(np.concatenate(own).mean()) if any(part.size for part in own) else 0.0,
        exact=np.concatenate([piece.exact for piece in pieces]),
        chunks=_numbered([piece.chunks for piece in pieces]),
        written=None if written.all() else written,
        credit=np.concatenate([_worth(piece) for piece in pieces]) if draft.lesson.spans else None,
    )


def credit_of(lesson: Lesson, turn: int, ids: Ids, tokenizer: Tokenizer) -> Floats | None:
    """What each token of a written turn is worth, where the lesson has spans. A token belongs to the span in which its
    first byte lies, one without bytes (a stop token) to where it stands."""
    if not lesson.spans:
        return None
    text = lesson.experience.written[turn].text
    begins = _begins_in(text, ids, tokenizer)
    credit = np.full(ids.size, lesson.advantage, np.float64)
    for span in lesson.spans:
        if span.turn == turn:
            inside = begins >= len(text[: span.start].encode("utf-8", "replace"))
            if span.end is not None:
                inside &= begins < len(text[: span.end].encode("utf-8", "replace"))
            credit[inside] = span.advantage
    return credit


def _begins_in(text: str, ids: Ids, tokenizer: Tokenizer) -> Ints:
    """Where in the bytes of the text each token begins. A reader's row may say more or less in front of it (a prefix
    space, the opening of a thought) or another normal form: what is not the text's lies where it stands."""
    lengths = tokenizer.byte_lengths(ids)
    at: Ints = np.cumsum(lengths) - lengths
    said, row = text.encode("utf-8", "replace"), tokenizer.token_bytes(ids)
    if row.endswith(said) or said.endswith(row):
        at = np.maximum(at - (len(row) - len(said)), 0)
    else:
        edits = edits_between(said, row, NOTHING, declaration_of(tokenizer))
        at = np.maximum.accumulate(edits.to_author(at))
    return at


def _worth(piece: Piece) -> Floats:
    return np.zeros(piece.ids.size) if piece.credit is None else piece.credit


def earlier_in_tokens_of(
    turns: Sequence[Turn], bridge: TokenizerBridge, tokenizer: Tokenizer
) -> list[Piece] | Translation:
    """What was written in these turns in a tokenizer's ids; a translation that is to be rejected comes back alone."""
    return pieces_of(turns, bridge.translate(written_in(turns), tokenizer) if turns else [])


def written_in(turns: Sequence[Turn]) -> list[Completion]:
    """What was written in these turns, without the silence that the world answers where it speaks first."""
    return [turn.completion for turn in turns if not turn.is_opening]


def pieces_of(turns: Sequence[Turn], translations: Sequence[Translation]) -> list[Piece] | Translation:
    """These turns as pieces, from a translation of each text that is written in them."""
    rejected = next((t for t in translations if t.action == "reject"), None)
    if rejected is not None:
        return rejected
    borrowed = map(Piece.borrowed, translations)
    return [Piece.own(turn.completion) if turn.is_opening else next(borrowed) for turn in turns]


def _numbered(chunks: Sequence[Ints]) -> Ints:
    """The chunks of all pieces, no number twice."""
    numbered: list[Ints] = []
    used = 0
    for part in chunks:
        numbered.append(np.where(part < 0, -1, part + used))
        used += int(part.max(initial=-1)) + 1
    return np.concatenate(numbered)
