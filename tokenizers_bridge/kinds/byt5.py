"""ByT5: every byte is a token, behind a few control tokens. There is no file of it to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tokenizers_bridge.declaration import Boundary, Declaration
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer
from tokenizers_bridge.kinds.prompts import PlainPrompt
from tokenizers_bridge.kinds.vocabulary import Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import role_of


@dataclass(frozen=True, slots=True)
class ByteEncoder:
    """The bytes of a text, as ids from `offset` on."""

    offset: int

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + self.offset for text in texts]


def from_byt5(tokenizer: Any, *, name: str = "", stop: str | Sequence[str] | None = None) -> AdaptedTokenizer:
    """A transformers ByT5Tokenizer."""
    offset = int(tokenizer.offset)
    texts = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    pieces = [b""] * (max(offset + 255, *texts) + 1)
    for byte in range(256):
        pieces[offset + byte] = bytes([byte])
    roles: dict[int, Role] = {i: role_of(text) for i, text in texts.items()}
    by_text = {text: i for i, text in texts.items()}
    stops = [stop] if isinstance(stop, str) else list(stop or [str(tokenizer.eos_token)])
    for text in stops:
        if text not in by_text:
            raise InvalidInputError(f"{name}: stop token {text!r} is not among {sorted(by_text)[:8]}: name another")
    encoder = ByteEncoder(offset)
    return AdaptedTokenizer(
        name=name or "byt5",
        vocabulary=Vocabulary.of(pieces, roles),
        encoder=encoder,
        prompt_format=PlainPrompt(encoder, None, by_text[stops[0]]),
        stop_id=by_text[stops[0]],
        stop_ids=[by_text[text] for text in stops],
        declaration=Declaration(control_texts=texts, boundary=Boundary(continues=True)),
        definition=("byt5", str(offset), *(f"{i}:{text}" for i, text in sorted(texts.items()))),
    )
