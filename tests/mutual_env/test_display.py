from __future__ import annotations

import sys
import unicodedata

import pytest

from mutual_env.display import shown, shown_on_one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ünïcödé 漢字 🙂\n\tindented", "plain, ünïcödé 漢字 🙂\n\tindented"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("right\rwrong", "right\\x0dwrong"),
        ("a\u202eb", "a\\u202eb"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("half \ud83d", "half \\ud83d"),
        ("\\x1b stays", "\\x1b stays"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_every_control_character_is_written_out_but_for_tab_and_line_feed() -> None:
    controls = [chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) == "Cc"]
    assert [c for c in controls if shown(c) == c] == ["\t", "\n"]
    bidirectional = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
    assert [c for c in bidirectional if shown(c) == c] == []


def test_one_line_stays_one_line() -> None:
    assert shown_on_one_line("a\n\tb\u2028c") == "a\\n\\tb\\u2028c"
