"""What an author wrote, taken apart into what a reader can encode: text, raw bytes, control tokens with a role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.protocol import Role, Tokenizer
from tokenizers_bridge.roles import CONTENT_ROLES, STOP_ROLES

Truncation: TypeAlias = Literal["trim", "carry"]


@dataclass(frozen=True, slots=True)
class Control:
    """A control token in the middle of a completion."""

    role: Role


Piece: TypeAlias = str | bytes | Control

NOT_FINITE = "Completion.logprobs must be finite: NaN or infinity cannot be carried over"
_ESCAPED = re.compile("([\udc80-\udcff]+)")


@dataclass(frozen=True, slots=True)
class Source:
    """`data` is every byte the author wrote; the pieces spell its first `kept` bytes. `notes` say what was met on the
    way.
    """

    pieces: tuple[Piece, ...]
    data: bytes
    kept: int
    stopped: bool
    truncated: bool
    notes: tuple[str, ...] = ()


def source_of_text(completion: Completion) -> Source:
    """A completion that came as text alone."""
    data = _utf8(completion.text)
    return Source(_text_pieces(completion.text), data, len(data), completion.finish_reason == "stop", truncated=False)


def source_of_trace(completion: Completion, author: Tokenizer, truncation: Truncation) -> Source:
    """A completion with its sampled ids: they are what is translated; its text only has to agree with them."""
    ids = completion.token_ids
    if not np.isfinite(completion.logprobs).all():
        raise InvalidInputError(NOT_FINITE)
    lengths = author.byte_lengths(ids)
    controls = np.flatnonzero(lengths == 0)
    stopped = completion.finish_reason == "stop"
    if stopped and controls.size and author.specials.get(int(ids[-1]), "other") in STOP_ROLES and lengths[-1] == 0:
        controls = controls[:-1]
    data = author.token_bytes(ids)
    if not controls.size and _plain(completion.text) == data:
        return Source(_text_pieces(completion.text), data, len(data), stopped, truncated=False)
    if _plain(completion.text) != data and completion.text != author.decode(ids):
        raise InvalidInputError(
            "Completion.text is not what its token_ids decode to: pass on the text that was sampled"
        )
    kept = _whole_characters(data)
    truncated = kept < len(data) and completion.finish_reason == "length"
    if not truncated or truncation == "carry":
        kept = len(data)
    roles = {i: author.specials.get(int(ids[i]), "other") for i in controls.tolist()}
    ends = {i: int(end) for i, end in zip(controls.tolist(), lengths.cumsum()[controls].tolist(), strict=True)}
    start = 1 if declaration_of(author).prefix_space and data[:1] == b" " else 0
    return Source(_pieces(data, start, kept, roles, ends), data, kept, stopped, truncated)


def _pieces(
    data: bytes, start: int, kept: int, roles: Mapping[int, Role], ends: Mapping[int, int]
) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    at = start
    for index, role in roles.items():
        if role not in CONTENT_ROLES:
            continue
        end = max(at, min(ends[index], kept))
        pieces += _byte_pieces(data[at:end])
        pieces.append(Control(role))
        at = end
    pieces += _byte_pieces(data[at:kept])
    return tuple(pieces)


def _byte_pieces(data: bytes) -> list[Piece]:
    """Valid UTF-8 as text, the rest as bytes."""
    parts = _ESCAPED.split(data.decode("utf-8", "surrogateescape"))
    return [p.encode("utf-8", "surrogateescape") if i % 2 else p for i, p in enumerate(parts) if p]


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
