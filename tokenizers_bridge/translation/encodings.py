"""Texts in a reader's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mutual_env.types import Ids
from tokenizers_bridge.protocol import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Encodings:
    """Ids by text, and for texts that have none the sentence that says why."""

    ids: Mapping[str, Ids]
    failed: Mapping[str, str]

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer) -> Encodings:
        """One batch; where that raises, text by text, so that only the culprit fails."""
        if not texts:
            return cls({}, {})
        try:
            return cls(dict(zip(texts, tokenizer.encode_batch(texts), strict=True)), {})
        except Exception as error:  # a third party's encoder may raise anything
            if len(texts) == 1:
                why = f"the reader's tokenizer could not encode the text: {type(error).__name__}: {error}"
                return cls({}, {texts[0]: why})
        parts = [cls.of([text], tokenizer) for text in texts]
        return cls({t: i for p in parts for t, i in p.ids.items()}, {t: w for p in parts for t, w in p.failed.items()})
