"""What an author wrote, as one reader will have it: texts to encode, bytes, tags of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mutual_env.types import Ids
from tokenizers_bridge.declaration import Boundary
from tokenizers_bridge.translation.encodings import Encodings, Wanted
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.front import NO_FRONT, Front, LeadingSpace, Meeting
from tokenizers_bridge.translation.source import Piece, Source, Tag, piece_bytes


@dataclass(frozen=True, slots=True)
class OwnTag:
    """A tag of the reader's, where the author wrote these bytes."""

    token_id: int
    author: bytes


Said: TypeAlias = Wanted | bytes | OwnTag


@dataclass(frozen=True, slots=True)
class Reading:
    """`said` is what the reader's row is made of, the front included. `text` is what the author's first text was."""

    source: Source
    said: tuple[Said, ...]
    front: Front
    text: str

    @property
    def wanted(self) -> list[Wanted]:
        return [part for part in self.said if isinstance(part, tuple)]

    @property
    def skipped(self) -> int:
        """How many of the author's bytes are left out in front."""
        return self.source.skipped + len(self.text[: self.front.skip].encode("utf-8", "surrogatepass"))

    @property
    def leading_space(self) -> int:
        """Bytes of white space that the row begins with, by what the author wrote."""
        rest = "" if self.front.extra else self.text[self.front.skip :]
        return len(rest[: len(rest) - len(rest.lstrip())].encode())

    def ids(self, part: Said, reader: TokenizerFacts, encodings: Encodings) -> Ids | str:
        """The reader's ids for one part, or why there are none."""
        if isinstance(part, tuple):
            return encodings.ids(part)
        if isinstance(part, OwnTag):
            return np.array([part.token_id], np.int32)
        return np.array([reader.byte_ids[b] for b in part if b in reader.byte_ids], np.int32)


def reading_of(
    source: Source, author: TokenizerFacts | None, reader: TokenizerFacts, leading_space: LeadingSpace
) -> Reading:
    boundary = Boundary() if author is None else author.says.boundary
    meeting = Meeting(boundary, reader.says.boundary, leading_space)
    pieces = _resolved(source.pieces, reader, in_text=not meeting.is_plain)
    text = pieces[0] if pieces and isinstance(pieces[0], str) else ""
    front = meeting.front(text) if pieces or source.stopped else NO_FRONT
    said: list[Said] = [(front.extra, reader.goes_on)] if front.extra and not text else []
    for i, piece in enumerate(pieces):
        if isinstance(piece, str):
            shown = front.text(piece) if i == 0 else piece
            said += [(shown, reader.goes_on if i == 0 else reader.differs)] if shown else []
        else:
            said.append(piece)
    return Reading(source, tuple(said), front, text)


def _resolved(pieces: tuple[Piece, ...], reader: TokenizerFacts, in_text: bool) -> list[str | bytes | OwnTag]:
    """Tags as the reader's own, or spelled out; texts between which nothing else stands are one. With `in_text`, a tag
    at the very beginning is spelled out too: whether it is said at all depends on the reader's prompt."""
    out: list[str | bytes | OwnTag] = []
    for i, piece in enumerate(pieces):
        found: str | bytes | OwnTag
        if isinstance(piece, Tag):
            own = reader.own_tag(piece.text, piece.role)
            apart = own is not None and not reader.reads(piece.text, own) and not (in_text and i == 0)
            found = OwnTag(reader.tags[own], piece_bytes(piece)) if own is not None and apart else piece.text
        else:
            found = piece
        last = out[-1] if out else None
        if isinstance(found, str) and isinstance(last, str):
            out[-1] = last + found
        else:
            out.append(found)
    return out
