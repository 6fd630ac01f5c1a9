"""The one seam of this package: what the bridge, the learners and a third party's tokenizer agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from mutual_env.types import Ids, Prompt
from tokenizers_bridge.rows import Rows

Role: TypeAlias = Literal[
    "bos", "eos", "end_of_turn", "pad", "unk", "think_open", "think_close", "tool_open", "tool_close", "other"
]


@runtime_checkable
class Tokenizer(Protocol):
    """A vocabulary with a byte meaning for every id.

    `fingerprint` is a hash of the full definition: equal fingerprints mean equal tokenizers, in every process.
    A tokenizer that changes text when it encodes (a prefix space, a Unicode form) says so in an attribute
    `declaration`, a `Declaration`; one that does not need not have it. Three more attributes are asked for and need
    not be there: `stop_ids`, where several tokens end a completion; `encode_continuations`, where a text is encoded
    otherwise in the middle of a row than at the beginning of a document; and `verbatim`, true where encoding only cuts
    a text into pieces, so that ids whose byte lengths add up to the text's need not be compared with it.
    `check_tokenizer` tests all of this.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def specials(self) -> Mapping[int, Role]:
        """Control tokens: ids that stand for no bytes."""

    @property
    def stop_id(self) -> int:
        """The token that ends a completion: the one with which the policy's own chat template ends a turn."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Plain text to ids. Text that spells a control token is text: no id in `specials` is returned, but for one of
        role "unk" where the vocabulary cannot write what is there."""

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of these ids, control tokens left out, invalid UTF-8 as U+FFFD."""

    def token_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The exact bytes of these ids, control tokens as nothing."""

    def byte_lengths(self, ids: Sequence[int] | Ids) -> npt.NDArray[np.int64]:
        """How many bytes each id stands for; 0 for control tokens."""

    def render_prompt(self, prompt: Prompt) -> Ids:
        """The ids a policy with this tokenizer is prompted with: its own chat template, its own bos."""


@runtime_checkable
class Spelling(Protocol):
    """What a tokenizer may be able to do beside: comparing takes a third of the time of `token_bytes`."""

    def misspelled(
        self, ids: Ids, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], data: bytes
    ) -> npt.NDArray[np.int64]:
        """Which of these ids do not stand for the bytes of `data` that they lie on, each from its place in `starts`
        on. `lengths` are theirs, as `byte_lengths` gives them; all lie within the data."""


@runtime_checkable
class RowCoding(Protocol):
    """What a tokenizer may be able to do beside: a thousand short texts are encoded without a thousand arrays."""

    def encode_rows(self, texts: Sequence[str], *, goes_on: bool) -> Rows:
        """The ids of `encode_batch`, or, for texts that go on, of `encode_continuations`."""


def stop_ids_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Every token that ends a completion of this tokenizer's policy, `stop_id` first: what a sampler stops at."""
    return tuple(getattr(tokenizer, "stop_ids", (tokenizer.stop_id,)))


def encode_continuations(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Texts that go on in the middle of a row: nothing is put in front of them."""
    encode = getattr(tokenizer, "encode_continuations", tokenizer.encode_batch)
    rows: list[Ids] = encode(texts)
    return rows


def encode_rows(tokenizer: Tokenizer, texts: Sequence[str], *, goes_on: bool) -> Rows:
    """All ids in one array."""
    if _codes_rows(type(tokenizer)):
        rows: Rows = tokenizer.encode_rows(texts, goes_on=goes_on)  # type: ignore[attr-defined]
        return rows
    return Rows.of(encode_continuations(tokenizer, texts) if goes_on else tokenizer.encode_batch(texts))


@cache
def _codes_rows(of: type) -> bool:
    """Whether it is a `RowCoding`, and no class has put other ways to encode above that one."""
    first = next((vars(cls).keys() for cls in of.__mro__ if _ENCODES & vars(cls).keys()), ())
    return "encode_rows" in first


_ENCODES = {"encode_batch", "encode_continuations", "encode_rows"}


@runtime_checkable
class Promptable(Tokenizer, Protocol):
    """What a tokenizer may be able to do beside: a policy's `prompt` option needs it."""

    def with_prompts(self, prompt_format: Callable[[Prompt], Ids]) -> Tokenizer:
        """The same vocabulary, of the same fingerprint, with another `render_prompt`."""
