"""What a tokenizer says about itself beyond the protocol: the changes it makes to text, and how its control tokens are
spelled.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tokenizers_bridge.protocol import Tokenizer

Form: TypeAlias = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class UnicodeForm:
    """A Unicode normal form as a declared change."""

    name: Literal["NFC", "NFD", "NFKC", "NFKD"]

    def __call__(self, text: str) -> str:
        return unicodedata.normalize(self.name, text)


@dataclass(frozen=True, slots=True)
class Declaration:
    """`prefix_space`  encoding may put one space before the text, and decoding takes one away (SentencePiece's dummy
    prefix)
    `form`             any other change that encoding makes, as a function of the text; None: there is none
    `form_name`        its name for people
    `control_texts`    how each control token is spelled
    """

    prefix_space: bool = False
    form: Form | None = None
    form_name: str = ""
    control_texts: Mapping[int, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (("prefix space",) if self.prefix_space else ()) + ((self.form_name,) if self.form else ())


NOTHING = Declaration()


def declaration_of(tokenizer: Tokenizer) -> Declaration:
    """The tokenizer's attribute `declaration`. One that has nothing to declare need not have it."""
    declared = getattr(tokenizer, "declaration", NOTHING)
    return declared if isinstance(declared, Declaration) else NOTHING
