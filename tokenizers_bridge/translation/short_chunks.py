"""One completion at a time, for those with something unusual: bytes that differ, control tokens in the middle, a
character cut in two, no trace. Ordinary completions are translated in batches by `blocks`, with identical results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mutual_env.types import Completion, Ids
from tokenizers_bridge.declaration import NOTHING, Declaration, declaration_of
from tokenizers_bridge.edits import Edits, edits_between, edits_by_piece, trimmed_tail
from tokenizers_bridge.translation.align import Alignment, Tokens, align_tokens
from tokenizers_bridge.translation.encodings import Encodings
from tokenizers_bridge.translation.facts import Known
from tokenizers_bridge.translation.residual import Residuals, Spans
from tokenizers_bridge.translation.source import Control, Piece, Source, piece_bytes
from tokenizers_bridge.types import Action, Block, Fidelity, Outcome


def translate_one(
    completion: Completion,
    source: Source,
    reader: Known,
    encodings: Encodings,
    actions: Mapping[Fidelity, Action],
) -> Block:
    """A block of this completion alone."""
    parts = _parts(source, reader, encodings)
    if isinstance(parts, str):
        return Block.failed(parts, actions["failed"])
    ids = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.int32)
    into = Tokens.of(ids, reader.tokenizer)
    author = source.tokens
    edits = _edits(source, parts, into, NOTHING if author is None else declaration_of(author.tokenizer), reader)
    if author is None:
        verdict, reason = _verdict(source, edits, (0, 0), reader)
        return Block.without_chunks(
            ids.copy(), edits.unmatched_bytes, Outcome(verdict, actions[verdict], False, reason)
        )
    whole = edits
    if source.kept < len(source.data):
        whole = trimmed_tail(edits, source.kept, len(source.data), int(into.lengths.sum()))
    alignment = align_tokens(author, into, whole)
    verdict, reason = _verdict(source, edits, alignment.unpaired, reader)
    return _aligned(ids, completion, alignment, Outcome(verdict, actions[verdict], True, reason))


def _aligned(ids: Ids, completion: Completion, alignment: Alignment, outcome: Outcome) -> Block:
    if not alignment.exact.size:
        return Block.without_chunks(ids.copy(), alignment.edits.unmatched_bytes, outcome)
    logprobs, exact = alignment.carry(completion.logprobs)
    spans = Spans.of_one(alignment)
    residuals = Residuals.of(alignment, completion.logprobs, spans)
    return Block(
        ids.copy(), logprobs, exact, alignment.author_ends, alignment.reader_ends, alignment.exact,
        spans.author_at, spans.reader_at, spans.chunk_at,
        residuals.token_share, residuals.mass_share, np.array([alignment.edits.unmatched_bytes]),
        residuals.largest_chunk, (outcome,),
    )  # fmt: skip


def _parts(source: Source, reader: Known, encodings: Encodings) -> list[Ids] | str:
    """The reader's ids for each piece, and its stop token where the author stopped; or why there are none."""
    parts: list[Ids] = []
    for piece in source.pieces:
        ids = _ids(piece, reader, encodings)
        if isinstance(ids, str):
            return ids
        parts.append(ids)
    return [*parts, np.array([reader.tokenizer.stop_id], np.int32)] if source.stopped else parts


def _ids(piece: Piece, reader: Known, encodings: Encodings) -> Ids | str:
    if isinstance(piece, str):
        return encodings.failed[piece] if piece in encodings.failed else encodings.ids[piece]
    if isinstance(piece, Control):
        return np.array([reader.by_role[piece.role]] if piece.role in reader.by_role else [], np.int32)
    return np.array([reader.byte_ids[b] for b in piece if b in reader.byte_ids], np.int32)


def _edits(source: Source, parts: Sequence[Ids], into: Tokens, author_says: Declaration, reader: Known) -> Edits:
    data = reader.tokenizer.token_bytes(into.ids)
    kept = source.data[: source.kept]
    if len(source.pieces) < 2 or kept == data:
        return edits_between(kept, data, author_says, reader.says)
    pairs = [
        (piece_bytes(piece), reader.tokenizer.token_bytes(part))
        for piece, part in zip(source.pieces, parts[: len(source.pieces)], strict=True)
    ]
    return edits_by_piece(pairs, source.data[: source.skipped], author_says, reader.says)


def _verdict(source: Source, edits: Edits, unpaired: tuple[int, int], reader: Known) -> tuple[Fidelity, str]:
    if not edits.declared:
        differing = b"".join(source.data[a0:a1] for a0, a1, _, _ in edits.rows.tolist())
        lacking = [f"0x{b:02x}" for b in sorted(set(differing) - set(reader.byte_ids))]
        cause = f": the reader has no token for byte {', '.join(lacking[:8])}" if lacking else ""
        return "failed", f"{edits.unmatched_bytes} bytes differ by no change that a tokenizer declares{cause}"
    if unpaired[0]:
        return "injected-special", f"{unpaired[0]} control tokens of the author have no counterpart in the reader"
    for piece in source.pieces:
        spelled = reader.spelled_control(piece) if isinstance(piece, str) else None
        if spelled:
            return (
                "injected-special",
                f"the text spells the reader's control token {spelled!r}: it was encoded as plain text",
            )
    if source.truncated:
        return "truncated", "the author was cut in the middle of a character"
    if len(edits):
        return "normalised", edits.sentence
    return "exact", ""
