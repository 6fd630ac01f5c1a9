"""Text that somebody else wrote, on a terminal or in a log: shown, never obeyed.

A model's words can hold escape sequences that move the cursor, rename the window, or hide what follows, and characters
that reverse the direction of a line.
"""

from __future__ import annotations

import re

LONGEST_LINE = 1200
_OBEYED = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # direction of writing, and line ends of other kinds
    "\ufff9-\ufffb\ufeff\U000e0000-\U000e007f"  # annotations, byte-order mark, invisible tags
    "\ud800-\udfff]"  # halves of surrogate pairs: no terminal's encoding has them
)
_HALVES = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    """The text with every character that a terminal would obey written out: `\\x1b[2J` instead of a cleared screen."""
    return _OBEYED.sub(lambda found: _written(found.group()), text)


def shown_on_one_line(text: str) -> str:
    """The same with tabs and line feeds written out too: for a table's cell, or one line of a log."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs written out, which no encoding has; what is JSON means the same."""
    return _HALVES.sub(lambda found: _written(found.group()), text)


def said_shortly(text: str) -> str:
    """The same with the middle of every line left out that is longer than a person reads: an error quotes the value
    that it is about, and a value may be a file's every byte."""
    return "\n".join(_cut(line) for line in shown(text).split("\n"))


def _cut(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    head, tail = LONGEST_LINE * 2 // 3, LONGEST_LINE // 4
    return f"{line[:head]} [... {len(line) - head - tail:,} characters ...] {line[-tail:]}"


def _written(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
