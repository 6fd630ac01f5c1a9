"""Texts in a reader's tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mutual_env.types import Ids
from tokenizers_bridge.translation.facts import TokenizerFacts

Wanted: TypeAlias = tuple[str, bool]
"""A text, and whether it goes on in the middle of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class Encodings:
    """Ids by text, of texts that go on (True) and of those that do not; and for texts that have none the sentence that
    says why."""

    by_sort: Mapping[bool, Mapping[str, Ids]]
    failed: Mapping[Wanted, str]

    @classmethod
    def of(cls, wanted: Mapping[bool, Collection[str]], reader: TokenizerFacts) -> Encodings:
        """One batch for texts of either sort; where that raises, text by text, so that only the culprit fails."""
        failed: dict[Wanted, str] = {}
        by_sort = {goes_on: _encoded(list(texts), goes_on, reader, failed) for goes_on, texts in wanted.items()}
        return cls(by_sort, failed)

    def ids(self, wanted: Wanted) -> Ids | str:
        """The ids of a text, or why there are none."""
        return self.failed[wanted] if wanted in self.failed else self.by_sort[wanted[1]][wanted[0]]

    def rows(self, texts: Iterable[str], goes_on: bool) -> list[Ids]:
        """The ids of texts that have some."""
        return list(map(self.by_sort[goes_on].__getitem__, texts))

    def beside(self, known: Mapping[bool, Mapping[str, Ids]]) -> Encodings:
        """These and what was known already."""
        if not known:
            return self
        sorts = {**known, **self.by_sort}
        return Encodings({s: {**known.get(s, {}), **self.by_sort.get(s, {})} for s in sorts}, self.failed)


def by_sort(wanted: Iterable[Wanted]) -> dict[bool, dict[str, None]]:
    """The distinct texts of each sort."""
    sorts: dict[bool, dict[str, None]] = {}
    for text, goes_on in wanted:
        sorts.setdefault(goes_on, {})[text] = None
    return sorts


def _encoded(texts: Sequence[str], goes_on: bool, reader: TokenizerFacts, failed: dict[Wanted, str]) -> dict[str, Ids]:
    if not texts:
        return {}
    try:
        return dict(zip(texts, reader.encode(texts, goes_on), strict=True))
    except BaseException as error:  # a third party's encoder may raise anything; a panic in Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if len(texts) == 1:
            why = f"the reader's tokenizer could not encode the text: {type(error).__name__}: {error}"
            failed[texts[0], goes_on] = why
            return {}
    return {t: ids for text in texts for t, ids in _encoded([text], goes_on, reader, failed).items()}
