"""Texts in a reader's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mutual_env.types import Ids
from tokenizers_bridge.translation.facts import TokenizerFacts

Wanted: TypeAlias = tuple[str, bool]
"""A text, and whether it goes on in the middle of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class Encodings:
    """Ids by text, and for texts that have none the sentence that says why."""

    ids: Mapping[Wanted, Ids]
    failed: Mapping[Wanted, str]

    @classmethod
    def of(cls, wanted: Sequence[Wanted], reader: TokenizerFacts) -> Encodings:
        """One batch for texts of either sort; where that raises, text by text, so that only the culprit fails."""
        if len({goes_on for _, goes_on in wanted}) == 1:
            return cls._of_sort(wanted, wanted[0][1], reader)
        parts = [cls._of_sort([w for w in wanted if w[1] is goes_on], goes_on, reader) for goes_on in (False, True)]
        filled = [part for part in parts if part.ids or part.failed]
        return filled[0] if len(filled) == 1 else cls._joined(filled)

    @classmethod
    def _of_sort(cls, wanted: Sequence[Wanted], goes_on: bool, reader: TokenizerFacts) -> Encodings:
        if not wanted:
            return cls({}, {})
        try:
            return cls(dict(zip(wanted, reader.encode([text for text, _ in wanted], goes_on), strict=True)), {})
        except BaseException as error:  # a third party's encoder may raise anything; a panic in Rust is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if len(wanted) == 1:
                why = f"the reader's tokenizer could not encode the text: {type(error).__name__}: {error}"
                return cls({}, {wanted[0]: why})
        return cls._joined([cls._of_sort([one], goes_on, reader) for one in wanted])

    @classmethod
    def _joined(cls, parts: Sequence[Encodings]) -> Encodings:
        return cls({w: i for p in parts for w, i in p.ids.items()}, {w: y for p in parts for w, y in p.failed.items()})
