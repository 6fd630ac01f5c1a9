"""Where the bytes of two token sequences differ, as a short list of edits.

An edit (a0, a1, r0, r1) says that bytes a0..a1 of the author stand where the reader has bytes r0..r1; outside the
edits the two are equal. Declared changes (a prefix space, a Unicode form) are found one by one, so that the text
between them stays comparable. Anything else becomes a single edit between the longest equal prefix and the longest
equal suffix.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from tokenizers_bridge.declaration import Declaration, Form

ESCAPED = re.compile("([\udc80-\udcff]+)")  # bytes that are no UTF-8, as "surrogateescape" decodes them


@dataclass(frozen=True, slots=True, eq=False)
class Edits:
    """`rows` is (E, 4), sorted and disjoint. `declared`: every edit is a change that one of the tokenizers declares;
    `lossless`: none of them changes what is said, as dropping a line break or a capital does."""

    rows: npt.NDArray[np.int64]
    declared: bool
    lossless: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def unmatched_bytes(self) -> int:
        """Bytes on either side that have no equal on the other."""
        return int((self.rows[:, 1] - self.rows[:, 0] + self.rows[:, 3] - self.rows[:, 2]).sum())

    @property
    def sentence(self) -> str:
        return f"{len(self)} declared changes to the text, {self.unmatched_bytes} bytes"

    @property
    def in_front(self) -> tuple[int, int] | None:
        """How many bytes of the author and of the reader differ at the very beginning, if nothing differs behind
        them."""
        if not len(self.rows):
            return 0, 0
        a0, a1, r0, r1 = self.rows[0].tolist()
        return (a1, r1) if len(self.rows) == 1 and a0 == r0 == 0 else None

    def to_author(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Reader byte offsets as author byte offsets; -1 strictly inside an edit. Where the reader lacks bytes: behind
        them.
        """
        if not len(self.rows):
            return at
        _, a1, r0, r1 = self.rows.T
        done = np.searchsorted(r1, at, side="right")
        shift = np.concatenate(([0], a1 - r1))[done]
        inside = at > np.append(r0, np.iinfo(np.int64).max)[done]
        return np.where(inside, -1, at + shift)

    def to_author_before(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The same, but in front of the bytes that the reader lacks."""
        if not len(self.rows):
            return at
        a0, a1, r0, r1 = self.rows.T
        done = np.searchsorted(r1, at, side="left")
        shift = np.concatenate(([0], a1 - r1))[done]
        lacking = np.append((r0 == r1) & (a0 < a1), False)[done] & (np.append(r0, -1)[done] == at)
        return np.where(lacking, at + shift, -1)


NO_EDITS = Edits(np.empty((0, 4), np.int64), declared=True)


def edits_between(author: bytes, reader: bytes, author_says: Declaration, reader_says: Declaration) -> Edits:
    """What turns the author's bytes into the reader's."""
    if author == reader:
        return NO_EDITS
    prefixes = list(product(_prefixes(author, author_says), _prefixes(reader, reader_says)))
    for skip_a, skip_r in prefixes:
        if author[skip_a:] == reader[skip_r:]:
            return Edits(np.array([(0, skip_a, 0, skip_r)], np.int64), declared=True)
    for skip_a, skip_r in prefixes:
        found = _formed(author[skip_a:], reader[skip_r:], author_says.form, reader_says.form)
        if found is not None:
            shifted = [(a0 + skip_a, a1 + skip_a, r0 + skip_r, r1 + skip_r) for a0, a1, r0, r1 in found]
            prefix = [(0, skip_a, 0, skip_r)] if skip_a or skip_r else []
            return Edits(_merged(prefix + shifted), True, _canonical(author, reader, shifted))
    return Edits(np.array([_middle(author, reader)], np.int64), declared=False)


def _canonical(author: bytes, reader: bytes, rows: Sequence[tuple[int, int, int, int]]) -> bool:
    """Whether these edits only write the same characters in another canonical form."""
    return all(_decomposed(author[a0:a1]) == _decomposed(reader[r0:r1]) for a0, a1, r0, r1 in rows)


def _decomposed(data: bytes) -> str:
    return unicodedata.normalize("NFD", data.decode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of what the author wrote and what the reader makes of it, in bytes. `declared`: they are meant to
    differ."""

    author: bytes
    reader: bytes
    declared: bool = False


def edits_by_piece(pieces: Sequence[Written], author_says: Declaration, reader_says: Declaration) -> Edits:
    """The same for what was encoded piece by piece. The reader's prefix space may stand before the first text alone,
    the author's is a piece of its own."""
    rows: list[tuple[int, ...]] = []
    declared, lossless, at_a, at_r = True, True, 0, 0
    author_says = replace(author_says, prefix_space=False)
    for piece in pieces:
        if piece.declared:
            found = [(0, len(piece.author), 0, len(piece.reader))] if piece.author != piece.reader else []
        else:
            edits = edits_between(piece.author, piece.reader, author_says, reader_says)
            found = [(a0, a1, r0, r1) for a0, a1, r0, r1 in edits.rows.tolist()]
            declared, lossless = declared and edits.declared, lossless and edits.lossless
        reader_says = replace(reader_says, prefix_space=False)
        rows += [(a0 + at_a, a1 + at_a, r0 + at_r, r1 + at_r) for a0, a1, r0, r1 in found]
        at_a, at_r = at_a + len(piece.author), at_r + len(piece.reader)
    author, reader = b"".join(p.author for p in pieces), b"".join(p.reader for p in pieces)
    kept = [row for row in _merged(rows).tolist() if author[row[0] : row[1]] != reader[row[2] : row[3]]]
    return Edits(_merged(kept), declared, lossless)


def behind_front(edits: Edits, skipped: bytes, extra: int, reader: bytes) -> Edits:
    """`edits` are between what the author would have written and what the reader has; in truth the author's first
    `extra` bytes of it are the reader's alone, and the author has the `skipped` bytes instead."""
    front, rows = [0, len(skipped), 0, extra], []
    for a0, a1, r0, r1 in edits.rows.tolist():
        if a0 < extra:
            front[1], front[3] = len(skipped) + max(a1 - extra, 0), max(extra, a1) + r1 - a1
        else:
            rows.append((a0 - extra + len(skipped), a1 - extra + len(skipped), r0, r1))
    merged = _merged([*([tuple(front)] if front[1] or front[3] else []), *rows]).tolist()
    in_front = bool(merged) and merged[0][::2] == [0, 0] and merged[0][1] <= len(skipped)
    if in_front and skipped[: merged[0][1]] == reader[: merged[0][3]]:
        merged = merged[1:]
    return Edits(_merged(merged), edits.declared, edits.lossless)


def trimmed_tail(edits: Edits, author_kept: int, author_size: int, reader_size: int) -> Edits:
    """`edits` hold for the first `author_kept` bytes; the rest of the author's bytes was left out at the end."""
    row = np.array([[author_kept, author_size, reader_size, reader_size]], np.int64)
    rows = _merged([tuple(r) for r in np.concatenate([edits.rows, row]).tolist()])
    return Edits(rows, edits.declared, edits.lossless)


def _prefixes(data: bytes, says: Declaration) -> tuple[int, ...]:
    return (0, 1) if says.prefix_space and data[:1] == b" " else (0,)


def _formed(
    author: bytes, reader: bytes, author_form: Form | None, reader_form: Form | None
) -> list[tuple[int, int, int, int]] | None:
    """The edits that a declared form makes; None where no declared form explains the difference."""
    if author == reader:
        return []
    if reader_form is not None:
        found = _form_edits(author, reader, reader_form)
        if found is not None:
            return found
    found = None if author_form is None else _form_edits(reader, author, author_form)
    return None if found is None else [(t0, t1, s0, s1) for s0, s1, t0, t1 in found]


def _form_edits(source: bytes, target: bytes, form: Form) -> list[tuple[int, int, int, int]] | None:
    """The edits by which `form` turns source into target, segment by segment; None where it does not."""
    runs = valid_runs(source)
    if b"".join(_apply(form, run) for run in runs) != target:
        return None
    rows: list[tuple[int, int, int, bytes]] = []
    at_s = at_t = 0
    for run in runs:
        if isinstance(run, str):
            found, size_s, size_t = _segment_edits(run, form)
            rows += [(s0 + at_s, s1 + at_s, t0 + at_t, new) for s0, s1, t0, new in found]
        else:
            size_s = size_t = len(run)
        at_s, at_t = at_s + size_s, at_t + size_t
    if b"".join(_replay(source, rows)) != target:
        return [_middle(source, target)]
    return [(s0, s1, t0, t0 + len(new)) for s0, s1, t0, new in rows]


def valid_runs(data: bytes) -> list[str | bytes]:
    """Valid UTF-8 as text, the rest as bytes, in order."""
    parts = ESCAPED.split(data.decode("utf-8", "surrogateescape"))
    return [p.encode("utf-8", "surrogateescape") if i % 2 else p for i, p in enumerate(parts) if p]


def _apply(form: Form, run: str | bytes) -> bytes:
    return form(run).encode("utf-8", "replace") if isinstance(run, str) else run


def _segment_edits(text: str, form: Form) -> tuple[list[tuple[int, int, int, bytes]], int, int]:
    """(start, end, start in the result, new bytes) of each segment that `form` changes; bytes before and after in
    all."""
    rows: list[tuple[int, int, int, bytes]] = []
    at = shift = 0
    segments = _segments().findall(text)
    for index, segment in enumerate(segments):
        old = segment.encode()
        if segment.isspace():  # a form may treat white space at the ends of a text in its own way
            left, right = "a" * (index > 0), "a" * (index < len(segments) - 1)
            formed = form(f"{left}{segment}{right}")
            new = formed[len(left) : len(formed) - len(right)].encode("utf-8", "replace")
        else:
            new = form(segment).encode("utf-8", "replace")
        if new != old:
            rows.append((at, at + len(old), at + shift, new))
            shift += len(new) - len(old)
        at += len(old)
    return rows, at, at + shift


def _replay(source: bytes, rows: list[tuple[int, int, int, bytes]]) -> Iterator[bytes]:
    at = 0
    for start, end, _, new in rows:
        yield source[at:start]
        yield new
        at = end
    yield source[at:]


def _middle(author: bytes, reader: bytes) -> tuple[int, int, int, int]:
    a, r = np.frombuffer(author, np.uint8), np.frombuffer(reader, np.uint8)
    n = min(a.size, r.size)
    differ = np.flatnonzero(a[:n] != r[:n])
    prefix = int(differ[0]) if differ.size else n
    differ = np.flatnonzero(a[a.size - n + prefix :][::-1] != r[r.size - n + prefix :][::-1])
    suffix = int(differ[0]) if differ.size else n - prefix
    return prefix, a.size - suffix, prefix, r.size - suffix


def _merged(rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.int64]:
    """Touching edits as one: no border can lie between them."""
    out: list[list[int]] = []
    for row in rows:
        if out and out[-1][1] == row[0] and out[-1][3] == row[2]:
            out[-1][1], out[-1][3] = row[1], row[3]
        else:
            out.append(list(row))
    return np.array(out, np.int64).reshape(-1, 4)


@cache
def _segments() -> re.Pattern[str]:
    """A run of white space, or a character with all that may combine with it in some normal form."""
    seconds = {0x1161 + i for i in range(21)} | {0x11A7 + i for i in range(28)}  # Hangul vowels and finals
    for point in range(0x80, 0x30000):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(int(parts[1], 16))
    # Planes 4 to 13 are not assigned, and asking for each of their characters takes two thirds of the time.
    points = (p for p in (*range(0x300, 0x40000), *range(0xE0000, 0xE2000)) if not 0xD800 <= p < 0xE000)
    joins = [point for point in points if _joins(chr(point), seconds)]
    runs = "".join(f"{re.escape(chr(lo))}-{re.escape(chr(hi))}" for lo, hi in _runs(joins))
    return re.compile(f"\\s+|[\\s\\S][{runs}]*")


def _joins(char: str, seconds: set[int]) -> bool:
    first = unicodedata.normalize("NFKD", char)[0]
    return unicodedata.combining(first) != 0 or ord(first) in seconds


def _runs(points: list[int]) -> Iterator[tuple[int, int]]:
    start = previous = points[0]
    for point in points[1:]:
        if point != previous + 1:
            yield start, previous
            start = point
        previous = point
    yield start, previous
