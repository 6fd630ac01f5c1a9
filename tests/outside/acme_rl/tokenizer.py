"""A kind of tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mutual_env.types import Ids, Prompt
from tokenizers_bridge import Role


class Bytes:
    """Each byte is a token, and one more ends a completion."""

    vocab_size = 257
    stop_id = 256

    def __init__(self, *, greeting: str = "") -> None:
        self._greeting = greeting
        self.fingerprint = f"acme bytes {greeting!r}"

    @property
    def specials(self) -> Mapping[int, Role]:
        return {256: "eos"}

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return self.token_bytes(ids).decode("utf-8", "replace")

    def token_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return bytes(int(i) for i in ids if int(i) != self.stop_id)

    def byte_lengths(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        return (np.asarray(ids) != self.stop_id).astype(np.int64)

    def misspelled(
        self, ids: Ids, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], data: bytes
    ) -> npt.NDArray[np.int64]:
        written = np.flatnonzero(lengths)
        return written[ids[written] != np.frombuffer(data, np.uint8)[starts[written]]]

    def render_prompt(self, prompt: Prompt) -> Ids:
        text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
        return self.encode_batch([self._greeting + text])[0]
