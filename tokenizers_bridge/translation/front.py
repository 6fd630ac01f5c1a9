"""Where a completion meets its prompt: what the reader's row begins with that the author's does not, and the reverse.

A prompt may have opened a thought already. What the author went on from is then part of what it said, and what the
reader's own prompt has written is not said twice; a reader whose prompt opens a thought that nobody had closes it
first, as its chat template does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tokenizers_bridge.declaration import Boundary
from tokenizers_bridge.roles import think_tags

LeadingSpace: TypeAlias = Literal["keep", "strip"]


@dataclass(frozen=True, slots=True)
class Front:
    """The reader's row says `extra`, then the author's text from character `skip` on."""

    skip: int = 0
    extra: str = ""

    def text(self, said: str) -> str:
        return self.extra + said[self.skip :]


NO_FRONT = Front()


@dataclass(frozen=True, slots=True)
class Meeting:
    """How completions of one boundary are read at another. `leading_space` says what becomes of white space that a
    completion begins with."""

    author: Boundary
    reader: Boundary
    leading_space: LeadingSpace = "keep"

    @property
    def is_plain(self) -> bool:
        """Every row begins alike on both sides."""
        return self.author.opening == self.reader.opening and self.leading_space == "keep"

    def front(self, said: str) -> Front:
        """Of a completion that begins with this. One that was ended without a word said nothing in a thought too."""
        if self.is_plain:
            return NO_FRONT
        front = self._thought(said)
        if self.leading_space == "strip" and not front.extra:
            rest = said[front.skip :]
            return Front(len(said) - len(rest.lstrip()))
        return front

    def _thought(self, said: str) -> Front:
        opened, opens = self.author.opening, self.reader.opening
        if opened == opens:
            return NO_FRONT
        if not opens:
            return Front(0, opened)
        whole = opened + said
        size = _opening_size(whole, opens)
        if not size:
            return Front(0, self.reader.closing)
        return Front(size - len(opened)) if size >= len(opened) else Front(0, opened[size:])


def _opening_size(text: str, wanted: str) -> int:
    """How many characters at the beginning of the text open a thought, as far as `wanted` does; 0 where none does."""
    if text.startswith(wanted):
        return len(wanted)
    start = len(text) - len(text.lstrip())
    for tag in think_tags("think_open"):
        if text.startswith(tag, start):
            end = start + len(tag)
            return end + (wanted.endswith("\n") and text.startswith("\n", end))
    return 0
