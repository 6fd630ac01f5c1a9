"""What is looked up of a tokenizer for every row, worked out once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mutual_env.types import Ids
from tokenizers_bridge.declaration import Declaration, declaration_of
from tokenizers_bridge.protocol import Role, Spelling, Tokenizer
from tokenizers_bridge.roles import STOP_ROLES
from tokenizers_bridge.types import Ints

_LOOKS_LIKE_CONTROL = re.compile(r"<[^<>\s]{1,80}>|\[/?[A-Z_]{2,40}\]")
# Its two halves one by one: a pattern that starts with a fixed character is searched for ten times as fast.
_HALVES = (re.compile(r"<[^<>\s]{1,80}>"), re.compile(r"\[/?[A-Z_]{2,40}\]"))


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """`control_shapes` are what the spellings of its control tokens look like, `stops` the ids that end a completion,
    `by_role` the lowest id of each role, `byte_ids` the ids that stand for a single byte; `misspelled` is the
    tokenizer's own where it has that ability (`Spelling`)."""

    tokenizer: Tokenizer
    fingerprint: str
    says: Declaration
    control_texts: frozenset[str]
    control_shapes: tuple[re.Pattern[str], ...]
    stops: Ints
    by_role: Mapping[Role, int]
    byte_ids: Mapping[int, int]
    misspelled: Callable[[Ids, Ints, bytes], Ints]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Known:
        says = declaration_of(tokenizer)
        every = np.arange(tokenizer.vocab_size, dtype=np.int32)
        single = every[tokenizer.byte_lengths(every) == 1]
        byte_ids = dict(reversed(list(zip(tokenizer.token_bytes(single), single.tolist(), strict=True))))
        by_role = {role: i for i, role in sorted(tokenizer.specials.items(), reverse=True)}
        spelled = frozenset(t for i, t in says.control_texts.items() if t and i in tokenizer.specials)
        stops = np.array([i for i, role in tokenizer.specials.items() if role in STOP_ROLES], np.int64)
        shapes = tuple(half for half in _HALVES if any(map(half.fullmatch, spelled)))
        able = tokenizer.misspelled if isinstance(tokenizer, Spelling) else partial(_misspelled, tokenizer)
        return cls(tokenizer, tokenizer.fingerprint, says, spelled, shapes, stops, by_role, byte_ids, able)

    def spelled_control(self, text: str) -> str | None:
        """A control token that this text spells."""
        if not self.control_texts:
            return None
        return next((s for s in _LOOKS_LIKE_CONTROL.findall(text) if s in self.control_texts), None)

    def may_spell_control(self, texts: Iterable[str]) -> bool:
        """False where none of these texts spells a control token."""
        joined = "\n".join(texts)  # no spelling has white space in it
        return any(not self.control_texts.isdisjoint(shape.findall(joined)) for shape in self.control_shapes)


def _misspelled(tokenizer: Tokenizer, ids: Ids, lengths: Ints, data: bytes) -> Ints:
    """As `Spelling` has it, by spelling the ids out."""
    spelled = tokenizer.token_bytes(ids)
    if spelled == data:
        return np.empty(0, np.int64)
    differ = np.flatnonzero(np.frombuffer(spelled, np.uint8) != np.frombuffer(data, np.uint8))
    return lengths.cumsum().searchsorted(differ, side="right")
