"""Texts in a reader's tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tokenizers_bridge.rows import Rows
from tokenizers_bridge.translation.facts import TokenizerFacts

Wanted: TypeAlias = tuple[str, bool]
"""A text, and whether it goes on in the middle of a row."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Distinct texts, and the row of each."""

    texts: list[str]
    rows: Rows

    @classmethod
    def of(cls, by_text: Mapping[str, Ids]) -> Encoded:
        return cls(list(by_text), Rows.of(list(by_text.values())))

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Which row each text has."""
        return dict(zip(self.texts, range(len(self.texts)), strict=True))

    def of_texts(self, texts: list[str]) -> Rows:
        if texts == self.texts:
            return self.rows
        return self.rows.taken(np.fromiter(map(self.number.__getitem__, texts), np.int64, len(texts)))

    def beside(self, known: Mapping[str, Ids]) -> Encoded:
        """These and what was known already."""
        if not known:
            return self
        return Encoded([*self.texts, *known], Rows.joined([self.rows, Rows.of(list(known.values()))]))


@dataclass(frozen=True, slots=True, eq=False)
class Encodings:
    """Texts that go on (True) and such that do not, encoded; and for those that have no encoding the sentence that says
    why."""

    by_sort: Mapping[bool, Encoded]
    failed: Mapping[Wanted, str]

    @classmethod
    def of(cls, wanted: Mapping[bool, Collection[str]], reader: TokenizerFacts) -> Encodings:
        """One batch for texts of either sort; where that raises, text by text, so that only the culprit fails."""
        failed: dict[Wanted, str] = {}
        by_sort = {goes_on: _encoded(list(texts), goes_on, reader, failed) for goes_on, texts in wanted.items()}
        return cls(by_sort, failed)

    def ids(self, wanted: Wanted) -> Ids | str:
        """The ids of a text, or why there are none."""
        if wanted in self.failed:
            return self.failed[wanted]
        found = self.by_sort[wanted[1]]
        return found.rows[found.number[wanted[0]]]

    def rows(self, texts: list[str], goes_on: bool) -> Rows:
        """The ids of texts that have some."""
        return self.by_sort[goes_on].of_texts(texts)

    def beside(self, known: Mapping[bool, Mapping[str, Ids]]) -> Encodings:
        """These and what was known already."""
        by_sort = dict(self.by_sort)
        for goes_on, texts in known.items():
            by_sort[goes_on] = by_sort.get(goes_on, _NOTHING).beside(texts)
        return Encodings(by_sort, self.failed)


_NOTHING = Encoded([], Rows.of([]))


def by_sort(wanted: Iterable[Wanted]) -> dict[bool, dict[str, None]]:
    """The distinct texts of each sort."""
    sorts: dict[bool, dict[str, None]] = {}
    for text, goes_on in wanted:
        sorts.setdefault(goes_on, {})[text] = None
    return sorts


def _encoded(texts: list[str], goes_on: bool, reader: TokenizerFacts, failed: dict[Wanted, str]) -> Encoded:
    rows = _attempt(texts, goes_on, reader)
    if isinstance(rows, Rows):
        return Encoded(texts, rows)
    found: dict[str, Ids] = {}
    for text in texts:
        one = rows if len(texts) == 1 else _attempt([text], goes_on, reader)
        if isinstance(one, Rows):
            found[text] = one[0]
        else:
            failed[text, goes_on] = one
    return Encoded.of(found)


def _attempt(texts: list[str], goes_on: bool, reader: TokenizerFacts) -> Rows | str:
    """Their ids, or why there are none."""
    try:
        rows = reader.encode(texts, goes_on)
        if len(rows) != len(texts):
            raise InvalidInputError(f"it gave {len(rows)} rows for {len(texts)} texts")
    except BaseException as error:  # a third party's encoder may raise anything; a panic in Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return f"the reader's tokenizer could not encode the text: {type(error).__name__}: {error}"
    return rows
