"""The Tokenizer Heterogeneity Layer: completions of any author in the tokens of any reader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mutual_env.errors import IdentityMismatchError, MutualEnvError
from mutual_env.types import Completion, Floats, Ids
from tokenizers_bridge.align import Alignment, Tokens, align_tokens, aligned_to_itself
from tokenizers_bridge.cache import ByteBudgetCache
from tokenizers_bridge.declaration import NOTHING, Declaration, declaration_of
from tokenizers_bridge.edits import Edits, edits_between, edits_by_piece, trimmed_tail
from tokenizers_bridge.protocol import Role, Tokenizer
from tokenizers_bridge.source import (
    NOT_FINITE,
    Control,
    Piece,
    Source,
    Truncation,
    piece_bytes,
    source_of_text,
    source_of_trace,
)
from tokenizers_bridge.types import ACTIONS, Action, Residual, Translation, Verdict

_REPLACEMENT = "\ufffd"
_LOOKS_LIKE_CONTROL = re.compile(r"<[^<>\s]{1,80}>|\[/?[A-Z_]{2,40}\]")


class TokenizerBridge:
    """Translates completions between the given tokenizers.

    A text is encoded once for each distinct tokenizer, however many agents share it: encodings and translations stay
    in one least-recently-used cache of `cache_bytes`. A row that cannot be translated comes back flagged `failed` with
    a sentence, and the rows beside it are not affected. `truncation` says what becomes of a completion that was cut in
    the middle of a character: the unfinished character is left out ("trim"), or its bytes are carried ("carry"); both
    are flagged. `actions` says what to do on each verdict.
    """

    def __init__(
        self,
        tokenizers: Iterable[Tokenizer],
        cache_bytes: int = 64 << 20,
        *,
        truncation: Truncation = "trim",
        actions: Mapping[Verdict, Action] | None = None,
    ) -> None:
        self._tokenizers = {t.fingerprint: t for t in tokenizers}
        self._readers: dict[str, _Reader] = {}
        self._truncation = truncation
        self._actions = {**ACTIONS, **(actions or {})}
        self._encodings: ByteBudgetCache[Ids] = ByteBudgetCache(cache_bytes // 2)
        self._translations: ByteBudgetCache[tuple[Completion, Translation]] = ByteBudgetCache(
            cache_bytes - cache_bytes // 2
        )

    @property
    def cache_bytes_used(self) -> int:
        return self._encodings.used + self._translations.used

    def translate(self, completions: Sequence[Completion], reader: Tokenizer) -> list[Translation]:
        """One translation for each completion, in order. The author is known by `completion.tokenizer`."""
        into = self._reader(reader)
        done: dict[int, Translation] = {}
        sources: dict[int, Source] = {}
        for i, completion in enumerate(completions):
            known = self._recall(completion, into)
            if known is not None:
                done[i] = known
            elif completion.tokenizer == into.fingerprint:
                done[i] = self._identity(completion, reader)
                self._remember(completion, into, done[i])
            else:
                outcome = self._source(completion)
                if isinstance(outcome, Source):
                    sources[i] = outcome
                else:
                    done[i] = outcome
        encodings = self._encode([p for s in sources.values() for p in s.pieces if isinstance(p, str)], into)
        for i, source in sources.items():
            done[i] = self._finish(completions[i], source, into, encodings)
            self._remember(completions[i], into, done[i])
        return [done[i] for i in range(len(completions))]

    def _reader(self, tokenizer: Tokenizer) -> _Reader:
        fingerprint = tokenizer.fingerprint
        if fingerprint not in self._readers:
            self._readers[fingerprint] = _Reader.of(tokenizer)
        return self._readers[fingerprint]

    def _recall(self, completion: Completion, reader: _Reader) -> Translation | None:
        # The entry holds the completion, so that its id() cannot pass to another object while the entry lives.
        entry = self._translations.get((reader.fingerprint, id(completion)))
        return entry[1] if entry is not None else None

    def _remember(self, completion: Completion, reader: _Reader, translation: Translation) -> None:
        size = translation.nbytes + completion.token_ids.nbytes + completion.logprobs.nbytes + 4 * len(completion.text)
        self._translations.put((reader.fingerprint, id(completion)), (completion, translation), size)

    def _source(self, completion: Completion) -> Source | Translation:
        """What there is to translate, or a refusal. The boundary at which one bad row is kept from the good ones."""
        try:
            if not completion.has_trace:
                return source_of_text(completion)
            author = self._tokenizers.get(completion.tokenizer)
            if author is None:
                raise IdentityMismatchError(
                    f"Completion.tokenizer {completion.tokenizer!r} is none of the bridge's "
                    f"{len(self._tokenizers)} tokenizers: give the author's tokenizer to TokenizerBridge"
                )
            return source_of_trace(completion, author, self._truncation)
        except MutualEnvError as error:
            return Translation.failed(str(error), self._actions["failed"])

    def _identity(self, completion: Completion, reader: Tokenizer) -> Translation:
        """The same tokenizer: the sampled ids, untouched."""
        try:
            lengths = reader.byte_lengths(completion.token_ids)
        except MutualEnvError as error:
            return Translation.failed(str(error), self._actions["failed"])
        if not np.isfinite(completion.logprobs).all():
            return Translation.failed(NOT_FINITE, self._actions["failed"])
        alignment = aligned_to_itself(lengths.size)
        return self._translation(completion.token_ids, completion, alignment, "exact", "")

    def _encode(self, texts: Sequence[str], reader: _Reader) -> dict[str, Ids | str]:
        """Each distinct text once: its ids, or the sentence that says why there are none."""
        out: dict[str, Ids | str] = {}
        for text in texts:
            ids = self._encodings.get((reader.fingerprint, text))
            if ids is not None:
                out[text] = ids
        missing = [text for text in dict.fromkeys(texts) if text not in out]
        for text, result in zip(missing, _encode_isolated(missing, reader.tokenizer), strict=True):
            out[text] = result
            if not isinstance(result, str):
                result.flags.writeable = False
                self._encodings.put((reader.fingerprint, text), result, result.nbytes + 4 * len(text))
        return out

    def _finish(
        self, completion: Completion, source: Source, reader: _Reader, encodings: Mapping[str, Ids | str]
    ) -> Translation:
        parts = reader.parts(source, encodings)
        if isinstance(parts, str):
            return Translation.failed(parts, self._actions["failed"])
        ids = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.int32)
        into = Tokens.of(ids, reader.tokenizer)
        author = source.tokens
        edits = _edits(source, parts, into, NOTHING if author is None else declaration_of(author.tokenizer), reader)
        if author is None:
            return self._without_trace(ids, source, edits, reader)
        whole = edits
        if source.kept < len(source.data):
            whole = trimmed_tail(edits, source.kept, len(source.data), int(into.lengths.sum()))
        alignment = align_tokens(author, into, whole)
        verdict, reason = _verdict(source, edits, alignment.unpaired, reader)
        return self._translation(ids, completion, alignment, verdict, reason)

    def _without_trace(self, ids: Ids, source: Source, edits: Edits, reader: _Reader) -> Translation:
        verdict, reason = _verdict(source, edits, (0, 0), reader)
        nothing = np.empty(0, np.int64)
        return Translation(
            ids, np.zeros(ids.size), np.zeros(ids.size, np.bool_), nothing, nothing, np.empty(0, np.bool_),
            Residual(unmatched_bytes=edits.unmatched_bytes), verdict, self._actions[verdict],
            has_logprobs=False, reason=reason,
        )  # fmt: skip

    def _translation(
        self, ids: Ids, completion: Completion, alignment: Alignment, verdict: Verdict, reason: str
    ) -> Translation:
        logprobs, exact = alignment.carry(completion.logprobs)
        return Translation(
            ids, logprobs, exact, alignment.author_ends, alignment.reader_ends, alignment.exact,
            _residual(alignment, completion.logprobs), verdict, self._actions[verdict],
            has_logprobs=True, reason=reason,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is looked up of a reader's tokenizer for every row."""

    tokenizer: Tokenizer
    fingerprint: str
    says: Declaration
    control_texts: frozenset[str]
    by_role: Mapping[Role, int]
    byte_ids: Mapping[int, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> _Reader:
        says = declaration_of(tokenizer)
        every = np.arange(tokenizer.vocab_size, dtype=np.int32)
        single = every[tokenizer.byte_lengths(every) == 1]
        byte_ids = dict(reversed(list(zip(tokenizer.token_bytes(single), single.tolist(), strict=True))))
        by_role = {role: i for i, role in sorted(tokenizer.specials.items(), reverse=True)}
        spelled = frozenset(t for i, t in says.control_texts.items() if t and i in tokenizer.specials)
        return cls(tokenizer, tokenizer.fingerprint, says, spelled, by_role, byte_ids)

    def parts(self, source: Source, encodings: Mapping[str, Ids | str]) -> list[Ids] | str:
        """The reader's ids for each piece, and its stop token where the author stopped; or why there are none."""
        parts: list[Ids] = []
        for piece in source.pieces:
            ids = self._ids(piece, encodings)
            if isinstance(ids, str):
                return ids
            parts.append(ids)
        return [*parts, np.array([self.tokenizer.stop_id], np.int32)] if source.stopped else parts

    def _ids(self, piece: Piece, encodings: Mapping[str, Ids | str]) -> Ids | str:
        if isinstance(piece, str):
            return encodings[piece]
        if isinstance(piece, Control):
            return np.array([self.by_role[piece.role]] if piece.role in self.by_role else [], np.int32)
        return np.array([self.byte_ids[b] for b in piece if b in self.byte_ids], np.int32)

    def spelled_control(self, text: str) -> str | None:
        """A control token of the reader that this text spells."""
        if not self.control_texts:
            return None
        return next((s for s in _LOOKS_LIKE_CONTROL.findall(text) if s in self.control_texts), None)


def _encode_isolated(texts: Sequence[str], tokenizer: Tokenizer) -> list[Ids | str]:
    """One batch; where that raises, text by text, so that only the culprit fails."""
    if not texts:
        return []
    try:
        return list(tokenizer.encode_batch(texts))
    except Exception as error:  # a third party's encoder may raise anything
        if len(texts) == 1:
            return [f"the reader's tokenizer could not encode the text: {type(error).__name__}: {error}"]
        return [row for text in texts for row in _encode_isolated([text], tokenizer)]


def _residual(alignment: Alignment, logprobs: Floats) -> Residual:
    author_counts, reader_counts = alignment.author_counts, alignment.reader_counts
    if not author_counts.size:
        return Residual()
    longest = np.maximum(author_counts, reader_counts)
    paired, lost = int(np.count_nonzero(longest == 1)), 0.0
    if not alignment.exact.all():
        paired = int(np.count_nonzero((longest == 1) & alignment.exact))
        mass = np.abs(logprobs)
        total = float(mass.sum())
        lost = float(mass[~alignment.exact.repeat(author_counts)].sum()) / total if total else 0.0
    reader_tokens = int(alignment.reader_ends[-1])
    return Residual(
        token_share=1 - paired / reader_tokens if reader_tokens else 0.0,
        mass_share=lost,
        unmatched_bytes=alignment.edits.unmatched_bytes,
        largest_chunk=int(longest.max()),
    )


def _edits(source: Source, parts: Sequence[Ids], into: Tokens, author_says: Declaration, reader: _Reader) -> Edits:
    data = reader.tokenizer.token_bytes(into.ids)
    kept = source.data[: source.kept]
    if len(source.pieces) < 2 or kept == data:
        return edits_between(kept, data, author_says, reader.says)
    pairs = [
        (piece_bytes(piece), reader.tokenizer.token_bytes(part))
        for piece, part in zip(source.pieces, parts[: len(source.pieces)], strict=True)
    ]
    return edits_by_piece(pairs, source.data[: source.skipped], author_says, reader.says)


def _verdict(source: Source, edits: Edits, unpaired: tuple[int, int], reader: _Reader) -> tuple[Verdict, str]:
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
        return "normalised", f"{len(edits)} declared changes to the text, {edits.unmatched_bytes} bytes"
    return "exact", ""
