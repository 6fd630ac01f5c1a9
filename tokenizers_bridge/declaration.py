"""What a tokenizer says about itself beyond the protocol: the changes it makes to text, how its control tokens are
spelled, which tokens are tags, and where its policy's prompts end and completions begin.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tokenizers_bridge.protocol import Role, Tokenizer

Form: TypeAlias = Callable[[str], str]
Trims: TypeAlias = Literal["neither", "leading", "trailing", "both"]


@dataclass(frozen=True, slots=True)
class UnicodeForm:
    """A Unicode normal form as a declared change."""

    name: Literal["NFC", "NFD", "NFKC", "NFKD"]

    def __call__(self, text: str) -> str:
        return unicodedata.normalize(self.name, text)


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the policy's prompts end and its completions begin.

    `continues`   a completion goes on where its prompt ends, and no prefix space stands in front of it
    `opening`     what the prompt has written of the answer already: the opening of a thought, "<think>\\n"
    `closing`     what ends such a thought where nothing is thought: "\\n</think>\\n\\n"
    `difference`  how prompt and completion together differ from what the chat template makes of the finished
                  conversation, as a sentence; empty where they are the same ids, or where there is no template
    `trims`       at which ends of what the policy says the finished conversation leaves white space out, which a
                  completion keeps
    """

    continues: bool = False
    opening: str = ""
    closing: str = ""
    difference: str = ""
    trims: Trims = "neither"


@dataclass(frozen=True, slots=True)
class Declaration:
    """`prefix_space`  encoding may put one space before a text, and decoding takes one away (SentencePiece's dummy
    prefix)
    `form`             any other change that encoding makes, as a function of the text; None: there is none
    `form_name`        its name for people
    `control_texts`    how each control token is spelled
    `tags`             content tokens with a role: they open or close a thought or a call of a tool, and stand for the
                       bytes of their spelling
    `boundary`         where prompts end and completions begin
    """

    prefix_space: bool = False
    form: Form | None = None
    form_name: str = ""
    control_texts: Mapping[int, str] = field(default_factory=dict)
    tags: Mapping[int, Role] = field(default_factory=dict)
    boundary: Boundary = Boundary()

    @property
    def names(self) -> tuple[str, ...]:
        return (("prefix space",) if self.prefix_space else ()) + ((self.form_name,) if self.form else ())


NOTHING = Declaration()


def declaration_of(tokenizer: Tokenizer) -> Declaration:
    """The tokenizer's attribute `declaration`. One that has nothing to declare need not have it."""
    declared = getattr(tokenizer, "declaration", NOTHING)
    return declared if isinstance(declared, Declaration) else NOTHING
