"""A tokenizer out of parts: a byte table, an encoder, a prompt format. Every kind we read, and the toys, become one of
these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids, Prompt
from tokenizers_bridge.declaration import Declaration
from tokenizers_bridge.kinds.vocabulary import Vocabulary
from tokenizers_bridge.protocol import Role

Encoder: TypeAlias = Callable[[Sequence[str]], list[Ids]]
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


class AdaptedTokenizer:
    """The `Tokenizer` protocol over a `Vocabulary`. `prompt_format` is what prompts are rendered with; it may use
    `encode_batch`.
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
    ) -> None:
        if stop_id not in vocabulary.specials:
            raise InvalidInputError(f"{name}: stop_id {stop_id} is not a control token: name one of its special tokens")
        self._name = name
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._prompt_format = prompt_format
        self._stop_id = stop_id
        self._declaration = declaration
        self._control = vocabulary.lengths == 0
        roles = [f"{i}:{role}" for i, role in sorted(vocabulary.specials.items())]
        self._fingerprint = fingerprint_of((*definition, "|".join(roles), f"stop:{stop_id}"))

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
        return self._stop_id

    @property
    def declaration(self) -> Declaration:
        return self._declaration

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        rows = self._encoder(texts)
        if rows and self._control.take(np.concatenate(rows)).any():
            for i, row in enumerate(rows):
                if self._control[row].any():
                    rows[i] = self._encode_spelled_out(texts[i], row)
        return rows

    def decode(self, ids: Sequence[int] | Ids) -> str:
        data = self._vocabulary.bytes_of(ids)
        if self._declaration.prefix_space and data[:1] == b" ":
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return self._vocabulary.bytes_of(ids)

    def byte_lengths(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        return self._vocabulary.lengths_of(ids)

    def misspelled(self, ids: Ids, lengths: npt.NDArray[np.int64], data: bytes) -> npt.NDArray[np.int64]:
        """Which of these ids, of these byte lengths, do not stand for the bytes of `data` that they lie on. The same as
        comparing `token_bytes` with it, at a third of the time."""
        return self._vocabulary.misspelled(ids, lengths, data)

    def render_prompt(self, prompt: Prompt) -> Ids:
        return self._prompt_format(prompt)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.vocab_size} ids, {self._fingerprint[:8]}>"

    def _encode_spelled_out(self, text: str, row: Ids) -> Ids:
        """The text that came out with control tokens, cut inside each spelling of one, so that none can be recognised.

        An id of role "unk" stays: it says that the vocabulary cannot write what was there.
        """
        texts = self._declaration.control_texts
        spelled = {
            texts[i] for i in set(row[self._control[row]].tolist()) if self.specials[i] != "unk" and texts.get(i)
        }
        if not spelled:
            return row
        pattern = re.compile("|".join(re.escape(s[0]) + "(?=" + re.escape(s[1:]) + ")" for s in sorted(spelled)))
        cuts = [0, *(m.end() for m in pattern.finditer(text)), len(text)]
        parts = self._encoder([text[a:b] for a, b in pairwise(cuts) if b > a])
        joined = np.concatenate(parts) if parts else row[:0]
        leaked = self._control[joined]
        return joined[~leaked] if leaked.any() else joined
