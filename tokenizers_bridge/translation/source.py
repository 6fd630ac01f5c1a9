"""What an author wrote, taken apart into what a reader can encode: text, raw bytes, tags of a thought or a call."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion
from tokenizers_bridge.edits import valid_runs
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.translation.align import Tokens
from tokenizers_bridge.translation.facts import TokenizerFacts

Truncation: TypeAlias = Literal["trim", "carry"]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that the author wrote as the one token that it has for it."""

    text: str
    role: Role


Piece: TypeAlias = str | bytes | Tag

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
    text_differs: bool = False


def source_of_text(completion: Completion) -> Source:
    """A completion that came as text alone."""
    data = _utf8(completion.text)
    return Source(_text_pieces(completion.text), data, 0, len(data), completion.finish_reason == "stop", False, None)


def source_of_trace(completion: Completion, author: TokenizerFacts, truncation: Truncation) -> Source:
    """A completion with its sampled ids: they are what is translated; its text only has to agree with them."""
    if not np.isfinite(completion.logprobs).all():
        raise InvalidInputError(NOT_FINITE)
    tokens = Tokens.of(completion.token_ids, author.tokenizer)
    data = author.tokenizer.token_bytes(tokens.ids)
    stopped = completion.finish_reason == "stop"
    differs = _differs(completion.text, data, tokens, author)
    kept = _whole_characters(data)
    truncated = kept < len(data) and not stopped
    if not truncated or truncation == "carry":
        kept = len(data)
    spaces = len(data) - len(data.lstrip(b" ")) - (len(completion.text) - len(completion.text.lstrip(" ")))
    start = min(1 if author.says.prefix_space and data[:1] == b" " and spaces > 0 else 0, kept)
    return Source(_pieces(data, start, kept, tokens, author), data, start, kept, stopped, truncated, tokens, differs)


def _pieces(data: bytes, start: int, kept: int, tokens: Tokens, author: TokenizerFacts) -> tuple[Piece, ...]:
    """Control tokens are nothing; a text goes on across them."""
    pieces: list[Piece] = []
    at = start
    ends = tokens.lengths.cumsum()
    for index in np.isin(tokens.ids, list(author.tag_roles)).nonzero()[0].tolist() if author.tag_roles else ():
        role, end = author.tag_roles[int(tokens.ids[index])], int(ends[index])
        begin = end - int(tokens.lengths[index])
        if at <= begin and end <= kept:
            pieces += [*valid_runs(data[at:begin]), Tag(data[begin:end].decode("utf-8", "replace"), role)]
            at = end
    pieces += valid_runs(data[at:kept])
    return tuple(pieces)


def piece_bytes(piece: Piece) -> bytes:
    return piece if isinstance(piece, bytes) else _plain(piece.text if isinstance(piece, Tag) else piece)


def _text_pieces(text: str) -> tuple[Piece, ...]:
    return (text,) if text else ()


def _differs(text: str, data: bytes, tokens: Tokens, author: TokenizerFacts) -> bool:
    """Whether the text is not what its ids decode to. One that no engine would make of them raises: the ids are another
    text's."""
    if _plain(text) == data:
        return False
    own = author.tokenizer.decode(tokens.ids)
    if text == own:
        return False
    last = author.says.control_texts.get(int(tokens.ids[-1]), "") if tokens.ids.size else ""
    if not any(_made_of(shown, own) for shown in {text, text.removesuffix(last)}):
        raise InvalidInputError(
            "Completion.text is not what its token_ids decode to: pass on the text that was sampled"
        )
    return True


_BLANK = re.compile("[\\s\ufffd]+")
_MOST_REPLACED = 8


def _made_of(text: str, own: str) -> bool:
    """Whether an engine may have made this text of ids that decode to `own`: white space stripped, what is no whole
    character held back or replaced."""
    if _BLANK.sub("", text) == _BLANK.sub("", own):
        return True
    kept = re.split("\ufffd+", text)
    if not 1 < len(kept) <= _MOST_REPLACED + 1:
        return False
    return re.fullmatch(".{0,8}?".join(map(re.escape, kept)), own, re.DOTALL) is not None


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
