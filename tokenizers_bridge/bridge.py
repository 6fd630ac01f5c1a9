"""The Tokenizer Heterogeneity Layer: completions of any author in the tokens of any reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from mutual_env.errors import IdentityMismatchError, MutualEnvError
from mutual_env.types import Completion, Ids
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.translation.blocks import (
    Authored,
    Meant,
    Translated,
    authored,
    meant,
    same_tokenizer,
    translated,
)
from tokenizers_bridge.translation.cache import ByteBudgetCache
from tokenizers_bridge.translation.encodings import Encodings, Wanted, by_sort
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.front import LeadingSpace
from tokenizers_bridge.translation.reading import Reading, reading_of
from tokenizers_bridge.translation.short_chunks import translate_one
from tokenizers_bridge.translation.source import Truncation, source_of_text, source_of_trace
from tokenizers_bridge.types import ACTIONS, Action, Block, Fidelity, Translation

# A block costs half a millisecond beside its rows, which is nothing to what it takes to encode so many characters.
BLOCK_CHARACTERS = 1 << 20


class TokenizerBridge:
    """Translates completions between the given tokenizers.

    Within a `round`, a text is encoded once for each distinct tokenizer, however many agents share it and however many
    there are. From round to round, encodings and translations stay in least-recently-used caches, of `cache_bytes`
    together; 0 keeps nothing at any time. A row that cannot be translated comes back flagged
    `failed` with a sentence, and the rows beside it are not affected. `truncation` says what becomes of a completion
    that was cut in the middle of a character: the unfinished character is left out ("trim"), or its bytes are carried
    ("carry"); both are flagged. `actions` says what to do on each verdict. `leading_space` says what becomes of white
    space that a completion begins with: a policy that is prompted in the middle of a text begins with a space, one that
    is prompted with a chat template does not, and finds that space most unlikely; "strip" leaves it out.
    """

    def __init__(
        self,
        tokenizers: Iterable[Tokenizer],
        cache_bytes: int = 64 << 20,
        *,
        truncation: Truncation = "trim",
        actions: Mapping[Fidelity, Action] | None = None,
        leading_space: LeadingSpace = "keep",
    ) -> None:
        self._tokenizers = {t.fingerprint: t for t in tokenizers}
        self._facts: dict[str, TokenizerFacts] = {}
        self._truncation = truncation
        self._actions = {**ACTIONS, **(actions or {})}
        self._leading_space: LeadingSpace = leading_space
        self._encodings: ByteBudgetCache[tuple[str, Wanted], Ids] = ByteBudgetCache(cache_bytes // 2)
        # An entry holds its completion, so that the id() in its key cannot pass to another object while it lives.
        self._translations: ByteBudgetCache[tuple[str, int], tuple[Completion, Translation]] = ByteBudgetCache(
            cache_bytes - cache_bytes // 2
        )
        # What was translated together leaves the cache together, so it must be a small part of it.
        self._block_characters = min(BLOCK_CHARACTERS, cache_bytes // 64 or BLOCK_CHARACTERS)

    @property
    def cache_bytes_used(self) -> int:
        return self._encodings.used + self._translations.used

    @contextmanager
    def round(self) -> Iterator[None]:
        """While several readers are given the same completions: nothing that was worked out for one of them is
        forgotten before this is left. Memory grows with the round: about 40 bytes a token."""
        with self._encodings.held(), self._translations.held():
            yield

    def translate(self, completions: Sequence[Completion], reader: Tokenizer) -> list[Translation]:
        """One translation for each completion, in order. The author is known by `completion.tokenizer`."""
        into = self._facts_of(reader)
        done: dict[int, Translation] = {}
        if len(self._translations):
            entries = self._translations.get([(into.fingerprint, id(c)) for c in completions])
            done = {i: entry[1] for i, entry in enumerate(entries) if entry is not None}
        missing = [i for i in range(len(completions)) if i not in done] if done else list(range(len(completions)))
        for part in self._translated(completions, missing, into):
            translations = part.block.translations()
            self._remember(completions, part, translations, into)
            if len(part.rows) == len(completions):
                return translations
            done.update(zip(part.rows, translations, strict=True))
        return [done[i] for i in range(len(completions))]

    def _facts_of(self, tokenizer: Tokenizer) -> TokenizerFacts:
        fingerprint = tokenizer.fingerprint
        if fingerprint not in self._facts:
            self._facts[fingerprint] = TokenizerFacts.of(tokenizer)
        return self._facts[fingerprint]

    def _remember(
        self, batch: Sequence[Completion], part: Translated, translations: list[Translation], reader: TokenizerFacts
    ) -> None:
        if not self._translations.budget:
            return
        completions = [batch[i] for i in part.rows]
        size = part.block.nbytes + sum([12 * c.token_ids.size + 4 * len(c.text) for c in completions])
        entries = zip(completions, translations, strict=True)
        self._translations.put({(reader.fingerprint, id(c)): (c, t) for c, t in entries}, size)

    def _translated(self, batch: Sequence[Completion], rows: list[int], reader: TokenizerFacts) -> Iterator[Translated]:
        """These rows of the batch, in blocks; what fits none of them, one by one."""
        sources: list[tuple[TokenizerFacts, Authored, Meant]] = []
        odd: list[int] = []
        for fingerprint, part in self._parts(batch, rows):
            if fingerprint == reader.fingerprint:
                yield from self._identical(batch, part, reader)
                continue
            tokenizer = self._tokenizers.get(fingerprint)
            author = None if tokenizer is None else self._facts_of(tokenizer)
            source = None if author is None else authored(batch, part, author, reader.apart(author))
            if author is not None and source is not None:
                sources.append((author, source, meant(source, author, reader, self._leading_space)))
            odd += _others(part, source)
        taken_apart = {i: self._reading(batch[i], reader) for i in odd}
        wanted = by_sort(w for one in taken_apart.values() if isinstance(one, Reading) for w in one.wanted)
        for _, _, told in sources:
            texts = dict.fromkeys(told.tape.texts)
            wanted[reader.goes_on] = {**wanted[reader.goes_on], **texts} if reader.goes_on in wanted else texts
        encodings = self._encode(wanted, reader)
        for author, source, told in sources:
            block = translated(batch, source, told, author, reader, encodings, self._actions, self._leading_space)
            taken_apart.update((i, self._reading(batch[i], reader)) for i in _others(source.rows, block))
            if block is not None:
                yield block
        for i, one in taken_apart.items():
            if isinstance(one, Reading):
                tokenizer = self._tokenizers.get(batch[i].tokenizer)
                author = None if tokenizer is None else self._facts_of(tokenizer)
                one = translate_one(batch[i], one, author, reader, encodings, self._actions)
            yield Translated([i], one)

    def _parts(self, batch: Sequence[Completion], rows: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        """The rows of each author, in parts of a bounded number of characters."""
        own = batch if len(rows) == len(batch) else [batch[i] for i in rows]
        authors = [c.tokenizer for c in own]
        by_author: dict[str, list[int]] = {}
        if own and authors.count(authors[0]) == len(own):
            by_author[authors[0]] = list(rows)
        else:
            for i, author in zip(rows, authors, strict=True):
                by_author.setdefault(author, []).append(i)
        for fingerprint, mine in by_author.items():
            for part in self._cut([len(batch[i].text) for i in mine]):
                yield fingerprint, mine[part]

    def _cut(self, sizes: list[int]) -> list[slice]:
        """Runs of rows of about `_block_characters` (or bytes) together."""
        if sum(sizes) < self._block_characters:
            return [slice(0, len(sizes))] if sizes else []
        number = np.array(sizes, np.int64).cumsum() // self._block_characters
        cuts = (np.flatnonzero(np.diff(number)) + 1).tolist()
        return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, len(sizes)], strict=True) if b > a]

    def _identical(self, batch: Sequence[Completion], rows: list[int], reader: TokenizerFacts) -> Iterator[Translated]:
        """Rows of the reader's own tokenizer. A boundary at which a bad row is kept from the good ones."""
        try:
            yield same_tokenizer(batch, rows, reader, self._actions)
        except MutualEnvError as error:
            if len(rows) == 1:
                yield Translated(rows, Block.failed(str(error), self._actions["failed"]))
            else:
                for i in rows:
                    yield from self._identical(batch, [i], reader)

    def _reading(self, completion: Completion, reader: TokenizerFacts) -> Reading | Block:
        """What there is to translate, or a refusal. The other such boundary."""
        try:
            if not completion.has_trace:
                return reading_of(source_of_text(completion), None, reader, self._leading_space)
            tokenizer = self._tokenizers.get(completion.tokenizer)
            if tokenizer is None:
                raise IdentityMismatchError(
                    f"Completion.tokenizer {completion.tokenizer!r} is none of the bridge's "
                    f"{len(self._tokenizers)} tokenizers: give the author's tokenizer to TokenizerBridge"
                )
            author = self._facts_of(tokenizer)
            source = source_of_trace(completion, author, self._truncation)
            return reading_of(source, author, reader, self._leading_space)
        except MutualEnvError as error:
            return Block.failed(str(error), self._actions["failed"])

    def _encode(self, wanted: Mapping[bool, Mapping[str, None]], reader: TokenizerFacts) -> Encodings:
        """Each distinct text once."""
        known: dict[bool, dict[str, Ids]] = {}
        if len(self._encodings):
            for goes_on, texts in wanted.items():
                found = self._encodings.get([(reader.fingerprint, (text, goes_on)) for text in texts])
                known[goes_on] = {t: ids for t, ids in zip(texts, found, strict=True) if ids is not None}
            wanted = {sort: dict.fromkeys(t for t in texts if t not in known[sort]) for sort, texts in wanted.items()}
        new = Encodings.of(wanted, reader)
        if self._encodings.budget:
            self._keep(new, reader.fingerprint)
        return new.beside(known)

    def _keep(self, new: Encodings, fingerprint: str) -> None:
        for goes_on, found in new.by_sort.items():
            texts, rows = found.texts, found.rows
            sizes = [4 * size + 4 * len(text) for text, size in zip(texts, rows.sizes.tolist(), strict=True)]
            for part in self._cut(sizes):
                # Memory of its own, which is free when the last of it is forgotten.
                kept = zip(texts[part], rows.taken(np.arange(len(rows))[part]).apart(), strict=True)
                self._encodings.put({(fingerprint, (text, goes_on)): ids for text, ids in kept}, sum(sizes[part]))


def _others(rows: list[int], found: Authored | Translated | None) -> list[int]:
    """The rows that were not found to fit."""
    if found is None:
        return rows
    if len(found.rows) == len(rows):
        return []
    fitted = set(found.rows)
    return [i for i in rows if i not in fitted]
