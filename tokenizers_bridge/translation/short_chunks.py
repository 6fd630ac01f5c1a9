"""One completion at a time, for those with something unusual: bytes that differ, control tokens in the middle, a
character cut in two, no trace. Ordinary completions are translated in batches by `blocks`, with identical results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mutual_env.types import Completion, Ids
from tokenizers_bridge.declaration import NOTHING, Declaration
from tokenizers_bridge.edits import Edits, Written, behind_front, edits_between, edits_by_piece, trimmed_tail
from tokenizers_bridge.translation.align import Alignment, Tokens, align_tokens
from tokenizers_bridge.translation.encodings import Encodings
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.reading import OwnTag, Reading
from tokenizers_bridge.translation.residual import Residuals, Spans
from tokenizers_bridge.types import Action, Block, Fidelity, Outcome


def translate_one(
    completion: Completion,
    reading: Reading,
    author: TokenizerFacts | None,
    reader: TokenizerFacts,
    encodings: Encodings,
    actions: Mapping[Fidelity, Action],
) -> Block:
    """A block of this completion alone."""
    parts = _parts(reading, reader, encodings)
    if isinstance(parts, str):
        return Block.failed(parts, actions["failed"])
    source = reading.source
    stop = [np.array([reader.tokenizer.stop_id], np.int32)] if source.stopped else []
    ids = np.concatenate([*parts, *stop, np.empty(0, np.int32)])
    into = Tokens.of(ids, reader.tokenizer)
    edits = _edits(reading, parts, into, NOTHING if author is None else author.says, reader)
    if source.tokens is None:
        verdict, reason = _verdict(reading, edits, (0, 0), reader)
        return Block.without_chunks(ids, edits.unmatched_bytes, Outcome(verdict, actions[verdict], False, reason))
    whole = edits
    if source.kept < len(source.data):
        whole = trimmed_tail(edits, source.kept, len(source.data), int(into.lengths.sum()))
    alignment = align_tokens(source.tokens, into, whole)
    verdict, reason = _verdict(reading, edits, alignment.unpaired, reader)
    outcome = Outcome(verdict, actions[verdict], True, reason, source.text_differs)
    return _aligned(ids, completion, alignment, outcome, reading.leading_space)


def _aligned(ids: Ids, completion: Completion, alignment: Alignment, outcome: Outcome, leading_space: int) -> Block:
    if not alignment.exact.size:
        return Block.without_chunks(ids, alignment.edits.unmatched_bytes, outcome)
    logprobs, exact = alignment.carry(completion.logprobs)
    spans = Spans.of_one(alignment)
    residuals = Residuals.of(alignment, completion.logprobs, spans)
    return Block(
        ids, logprobs, exact, alignment.author_ends, alignment.reader_ends, alignment.exact,
        spans.author_at, spans.reader_at, spans.chunk_at,
        residuals.token_share, residuals.mass_share, np.array([alignment.edits.unmatched_bytes]),
        residuals.largest_chunk, np.array([leading_space]), (outcome,),
    )  # fmt: skip


def _parts(reading: Reading, reader: TokenizerFacts, encodings: Encodings) -> list[Ids] | str:
    """The reader's ids for each part, or why there are none."""
    parts: list[Ids] = []
    for part in reading.said:
        ids = reading.ids(part, reader, encodings)
        if isinstance(ids, str):
            return ids
        parts.append(ids)
    return parts


def _edits(
    reading: Reading, parts: Sequence[Ids], into: Tokens, author_says: Declaration, reader: TokenizerFacts
) -> Edits:
    source, data = reading.source, reader.tokenizer.token_bytes(into.ids)
    kept, extra = source.data[: source.kept], len(reading.front.extra.encode())
    if not reading.front.skip and not extra and (len(reading.said) < 2 or kept == data):
        return edits_between(kept, data, author_says, reader.says)
    pieces = []
    for part, ids in zip(reading.said, parts, strict=True):
        own = isinstance(part, OwnTag)
        wrote = part.author if isinstance(part, OwnTag) else part if isinstance(part, bytes) else _plain(part[0])
        pieces.append(Written(wrote, reader.tokenizer.token_bytes(ids), declared=own))
    edits = edits_by_piece(pieces, author_says, reader.says)
    return behind_front(edits, kept[: reading.skipped], extra, data)


_CUT = "the author was cut in the middle of a character"


def _plain(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _verdict(reading: Reading, edits: Edits, unpaired: tuple[int, int], reader: TokenizerFacts) -> tuple[Fidelity, str]:
    source = reading.source
    if not edits.declared:
        differing = b"".join(source.data[a0:a1] for a0, a1, _, _ in edits.rows.tolist())
        lacking = [f"0x{b:02x}" for b in sorted(set(differing) - set(reader.byte_ids))]
        cause = f": the reader has no token for byte {', '.join(lacking[:8])}" if lacking else ""
        return "failed", f"{edits.unmatched_bytes} bytes differ by no change that a tokenizer declares{cause}"
    if unpaired[0]:
        return "lost-special", f"{unpaired[0]} control tokens of the author have no counterpart in the reader"
    if not edits.lossless:
        return "lossy", f"the reader's tokenizer does not write what was said: {edits.sentence}"
    spelled = next((s for text, _ in reading.wanted if (s := reader.spelled_control(text))), None)
    if spelled:
        told = f"the text spells the reader's control token {spelled!r}: it was encoded as plain text"
        return "injected-special", f"{told}; and {_CUT}" if source.truncated else told
    if source.truncated:
        return "truncated", _CUT
    if len(edits):
        return "normalised", edits.sentence
    return "exact", ""
