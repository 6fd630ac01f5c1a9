"""What an author wrote, taken apart into what a reader can encode: text, raw bytes, control tokens with a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.edits import valid_runs
from tokenizers_bridge.protocol import Role, Tokenizer
from tokenizers_bridge.roles import CONTENT_ROLES
from tokenizers_bridge.translation.align import Tokens

Truncation: TypeAlias = Literal["trim", "carry"]


@dataclass(frozen=True, slots=True)
class Control:
    """A control token in the middle of a completion."""

    role: Role


Piece: TypeAlias = str | bytes | Control

NOT_FINITE = "Completion.logprobs must be finite: NaN or infinity cannot be carried over"


@dataclass(frozen=True, slots=True)
class Source:
    """`data` is every byte the author wrote; the pieces spell data[skipped:kept]. `tokens` are None for text alone."""

    pieces: tuple[Piece, ...]
    data: bytes
    skipped: int
    kept: int
    stopped: bool
    truncated: bool
    tokens: Tokens | None


def source_of_text(completion: Completion) -> Source:
    """A completion that came as text alone."""
    data = _utf8(completion.text)
    return Source(_text_pieces(completion.text), data, 0, len(data), completion.finish_reason == "stop", False, None)


def source_of_trace(completion: Completion, author: Tokenizer, truncation: Truncation) -> Source:
    """A completion with its sampled ids: they are what is translated; its text only has to agree with them."""
    if not np.isfinite(completion.logprobs).all():
        raise InvalidInputError(NOT_FINITE)
    tokens = Tokens.of(completion.token_ids, author)
    data = author.token_bytes(tokens.ids)
    stopped = completion.finish_reason == "stop"
    agrees = _plain(completion.text) == data
    if agrees and (not tokens.controls.size or (stopped and tokens.only_stops)):
        return Source(_text_pieces(completion.text), data, 0, len(data), stopped, False, tokens)
    if not agrees and completion.text != author.decode(tokens.ids):
        raise InvalidInputError(
            "Completion.text is not what its token_ids decode to: pass on the text that was sampled"
        )
    kept = _whole_characters(data)
    truncated = kept < len(data) and not stopped
    if not truncated or truncation == "carry":
        kept = len(data)
    start = 1 if declaration_of(author).prefix_space and data[:1] == b" " else 0
    pieces = _pieces(data, start, kept, tokens)
    return Source(pieces, data, min(start, kept), kept, stopped, truncated, tokens)


def _pieces(data: bytes, start: int, kept: int, tokens: Tokens) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    at = start
    ends = tokens.lengths.cumsum()[tokens.controls]
    for index, position in zip(tokens.controls.tolist(), ends.tolist(), strict=True):
        role = tokens.role(index)
        if role not in CONTENT_ROLES:
            continue
        end = max(at, min(position, kept))
        pieces += valid_runs(data[at:end])
        pieces.append(Control(role))
        at = end
    pieces += valid_runs(data[at:kept])
    return tuple(pieces)


def piece_bytes(piece: Piece) -> bytes:
    return b"" if isinstance(piece, Control) else piece if isinstance(piece, bytes) else _plain(piece)


def _text_pieces(text: str) -> tuple[Piece, ...]:
    return (text,) if text else ()


def _plain(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"Completion.text has a lone surrogate at character {error.start}: pass on text that is valid Unicode"
        ) from error


def _whole_characters(data: bytes) -> int:
    """How many bytes are left when an unfinished character at the end is taken off."""
    for size in (3, 2, 1):
        try:
            data[len(data) - size :].decode("utf-8") if len(data) >= size else None
        except UnicodeDecodeError as error:
            if error.start == 0 and error.reason == "unexpected end of data":
                return len(data) - size
    return len(data)
