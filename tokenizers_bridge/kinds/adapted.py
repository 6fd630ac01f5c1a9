"""A tokenizer out of parts: a byte table, an encoder, a prompt format. Every kind we read, and the toys, become one of
these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids, Prompt
from tokenizers_bridge.declaration import Declaration
from tokenizers_bridge.kinds.vocabulary import Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import STOP_ROLES, is_plain_tag
from tokenizers_bridge.rows import Rows

Encoder: TypeAlias = Callable[[Sequence[str]], list[Ids]]
"""One that can make one array of all ids has a method `rows` too."""

PromptFormat: TypeAlias = Callable[[Prompt], Ids]


def fingerprint_of(parts: Iterable[str | bytes]) -> str:
    """A hash of these parts in this order, each with its length, so that no two lists of parts collide by
    concatenation.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class PlainText:
    """An encoder that makes none of the `forbidden` ids of a text: where it comes out with one, the text is encoded
    again, cut inside each of the `spellings`. `continuation` is the encoder of what goes on behind a cut. An `ordinary`
    encoder knows them and makes none."""

    encoder: Encoder
    continuation: Encoder
    forbidden: npt.NDArray[np.bool_]
    spellings: Mapping[int, str]
    unknown: frozenset[int]
    ordinary: bool

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        continuation: Encoder,
        vocabulary: Vocabulary,
        declaration: Declaration,
        *,
        tags: bool,
    ) -> PlainText:
        """Without `tags`, no text becomes one either; with them, a plain one does."""
        texts = declaration.control_texts
        spellings = {i: texts[i] for i, role in vocabulary.specials.items() if role != "unk" and texts.get(i)}
        for i in declaration.tags:
            text = vocabulary.bytes_of([i]).decode("utf-8", "replace")
            spellings |= {} if tags and is_plain_tag(text) else {i: text}
        forbidden = vocabulary.lengths == 0
        forbidden[[i for i in declaration.tags if i in spellings]] = True
        unknown = frozenset(i for i, role in vocabulary.specials.items() if role == "unk")
        ordinary = getattr(encoder, "ordinary", False)
        return cls(encoder, continuation, forbidden, spellings, unknown, ordinary)

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [row.copy() for row in self.rows(texts)]

    def rows(self, texts: Sequence[str]) -> Rows:
        in_rows: Callable[[Sequence[str]], Rows] | None = getattr(self.encoder, "rows", None)
        rows = Rows.of(self.encoder(texts)) if in_rows is None else in_rows(texts)
        if self.ordinary or not self.forbidden.take(rows.ids).any():
            return rows
        return Rows.of([self._plain(text, row) for text, row in zip(texts, rows, strict=True)])

    def _plain(self, text: str, row: Ids) -> Ids:
        return self._spelled_out(text, row) if self.forbidden[row].any() else row

    def _spelled_out(self, text: str, row: Ids) -> Ids:
        """An id of role "unk" stays: it says that the vocabulary cannot write what was there."""
        spelled: set[str] = set()
        while met := {self.spellings[i] for i in row[self.forbidden[row]].tolist() if i in self.spellings} - spelled:
            spelled |= met
            cuts = [0, *(m.end() for m in inside_spellings(spelled).finditer(text)), len(text)]
            parts = [text[a:b] for a, b in pairwise(cuts) if b > a]
            row = np.concatenate([*self.encoder(parts[:1]), *self.continuation(parts[1:])])
        leaked = self.forbidden[row]
        if spelled and leaked.any():
            row = row[~(leaked & np.array([i not in self.unknown for i in row.tolist()]))]
        return row


class AdaptedTokenizer:
    """The `Tokenizer` protocol over a `Vocabulary`. `prompt_format` is what prompts are rendered with; it may use
    `encode_batch`.

    `encoder` encodes a text from its beginning, `continuation` one that goes on in the middle of a row; None: there is
    no difference. Neither has to know what is a control token: what comes out with one is encoded again, spelled out.
    `stop_ids` are all ids that end a completion, `stop_id` first. `verbatim`: see there.
    """

    def __init__(
        self,
        *,
        name: str,
        vocabulary: Vocabulary,
        encoder: Encoder,
        prompt_format: PromptFormat,
        stop_id: int,
        declaration: Declaration,
        definition: Iterable[str | bytes],
        continuation: Encoder | None = None,
        stop_ids: Sequence[int] = (),
        verbatim: bool = False,
    ) -> None:
        if stop_id not in vocabulary.specials:
            raise InvalidInputError(f"{name}: stop_id {stop_id} is not a control token: name one of its special tokens")
        stop_ids = tuple(dict.fromkeys([stop_id, *(i for i in stop_ids if i in vocabulary.specials)]))
        for i in stop_ids:
            if vocabulary.specials[i] not in STOP_ROLES:
                vocabulary = vocabulary.with_role(i, "eos")
        self._name = name
        self._vocabulary = vocabulary
        goes_on = continuation or encoder
        self._encoder = encoder
        self._begins = PlainText.of(encoder, goes_on, vocabulary, declaration, tags=True)
        self._goes_on = replace(self._begins, encoder=goes_on)
        self._prompt_format = prompt_format
        self._stop_ids = stop_ids
        self._verbatim = verbatim
        self._declaration = declaration
        roles = [f"{i}:{role}" for i, role in sorted(vocabulary.specials.items())]
        stops = [f"stop:{i}" for i in self._stop_ids]
        self._fingerprint = fingerprint_of((*definition, "|".join(roles), *stops))

    @property
    def name(self) -> str:
        return self._name

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def vocab_size(self) -> int:
        return self._vocabulary.size

    @property
    def specials(self) -> Mapping[int, Role]:
        return self._vocabulary.specials

    @property
    def stop_id(self) -> int:
        return self._stop_ids[0]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self._stop_ids

    @property
    def declaration(self) -> Declaration:
        return self._declaration

    @property
    def verbatim(self) -> bool:
        """Encoding cuts a text into pieces that it does not change, though it may leave one out: ids whose byte lengths
        add up to the text's spell it, and need not be compared with it."""
        return self._verbatim

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return self._begins(texts)

    def encode_continuations(self, texts: Sequence[str]) -> list[Ids]:
        """Texts that go on in the middle of a row: no prefix space, nothing that belongs to the beginning of a text."""
        return self._goes_on(texts)

    def encode_rows(self, texts: Sequence[str], *, goes_on: bool) -> Rows:
        """The same as the one or the other, without an object for each text."""
        return (self._goes_on if goes_on else self._begins).rows(texts)

    def decode(self, ids: Sequence[int] | Ids) -> str:
        data = self._vocabulary.bytes_of(ids)
        if self._declaration.prefix_space and data[:1] == b" ":
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return self._vocabulary.bytes_of(ids)

    def byte_lengths(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        return self._vocabulary.lengths_of(ids)

    def misspelled(
        self, ids: Ids, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], data: bytes
    ) -> npt.NDArray[np.int64]:
        """Which of these ids, of these byte lengths, do not stand for the bytes of `data` that they lie on. The same as
        comparing `token_bytes` with it, at a third of the time."""
        return self._vocabulary.misspelled(ids, starts, lengths, data)

    def render_prompt(self, prompt: Prompt) -> Ids:
        return self._prompt_format(prompt)

    def with_prompts(self, prompt_format: PromptFormat) -> AdaptedTokenizer:
        """The same but for how prompts are rendered."""
        other = copy(self)
        other._prompt_format = prompt_format
        return other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.vocab_size} ids, {self._fingerprint[:8]}>"


def inside_spellings(spellings: Iterable[str]) -> re.Pattern[str]:
    """The first character of each place at which one of these is spelled, overlapping ones included."""
    return re.compile("|".join(re.escape(s[0]) + "(?=" + re.escape(s[1:]) + ")" for s in sorted(set(spellings))))
