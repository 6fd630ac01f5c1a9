"""What is looked up of a tokenizer for every row, worked out once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from mutual_env.types import Ids
from tokenizers_bridge.declaration import Declaration, declaration_of
from tokenizers_bridge.loops import Bytes, Words
from tokenizers_bridge.protocol import Role, Spelling, Tokenizer, encode_rows
from tokenizers_bridge.roles import STOP_ROLES, THINK_ROLES, is_plain_tag
from tokenizers_bridge.rows import Rows
from tokenizers_bridge.types import Ints
from tokenizers_bridge.words import heads_of

# Most spellings of control tokens look like one of these: a pattern that starts with a fixed character is searched for
# ten times as fast as one with many alternatives.
_SHAPES = (re.compile(r"<[^<>\s]{1,80}>"), re.compile(r"\[[^\[\]\s]{1,80}\]"))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What each id stands for: blob[starts[i] : starts[i] + lengths[i]], of which `heads` are the first eight bytes."""

    blob: Bytes
    starts: Ints
    lengths: Ids
    heads: Words

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Table | None:
        """None where the tokenizer contradicts itself."""
        every = np.arange(tokenizer.vocab_size, dtype=np.int32)
        blob, lengths = np.frombuffer(tokenizer.token_bytes(every), np.uint8), tokenizer.byte_lengths(every)
        starts = lengths.cumsum() - lengths
        if blob.size != lengths.sum():
            return None
        return cls(blob, starts, lengths.astype(np.int32), heads_of(blob, starts, lengths))


@dataclass(frozen=True, eq=False)
class TokenizerFacts:
    """`says` is what the tokenizer declares of completions: one that goes on where its prompt ends has no prefix space.
    `control_shapes` are what the spellings of its control tokens look like, `odd_spellings` finds those that look like
    none of them; `stops` are the ids of every role that ends a completion, `byte_ids` those that stand for a single
    byte. `tags` are its tags by spelling, `think_tags` the one of each role of a thought. `differs`: a text is encoded
    otherwise where it goes on than where it begins; `verbatim`: it changes nothing in a text (`Tokenizer`);
    `misspelled` is the tokenizer's own where it has that ability (`Spelling`).
    """

    tokenizer: Tokenizer
    fingerprint: str
    says: Declaration
    control_texts: frozenset[str]
    control_shapes: tuple[re.Pattern[str], ...]
    odd_spellings: re.Pattern[str] | None
    stops: Ints
    byte_ids: Mapping[int, int]
    tags: Mapping[str, int]
    tag_roles: Mapping[int, Role]
    think_tags: Mapping[Role, str]
    differs: bool
    verbatim: bool
    misspelled: Callable[[Ids, Ints, Ints, bytes], Ints]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenizerFacts:
        says = declaration_of(tokenizer)
        every = np.arange(tokenizer.vocab_size, dtype=np.int32)
        single = every[tokenizer.byte_lengths(every) == 1]
        byte_ids = dict(reversed(list(zip(tokenizer.token_bytes(single), single.tolist(), strict=True))))
        spelled = frozenset(t for i, t in says.control_texts.items() if t and i in tokenizer.specials)
        stops = np.array([i for i, role in tokenizer.specials.items() if role in STOP_ROLES], np.int64)
        shapes = tuple(shape for shape in _SHAPES if any(map(shape.fullmatch, spelled)))
        odd = sorted(text for text in spelled if not any(shape.fullmatch(text) for shape in _SHAPES))
        tags = {tokenizer.token_bytes([i]).decode("utf-8", "replace"): i for i in says.tags}
        able = tokenizer.misspelled if isinstance(tokenizer, Spelling) else partial(_misspelled, tokenizer)
        thinks = {says.tags[i]: text for text, i in tags.items() if says.tags[i] in THINK_ROLES}
        return cls(
            tokenizer, tokenizer.fingerprint,
            replace(says, prefix_space=says.prefix_space and not says.boundary.continues),
            spelled, shapes, re.compile("|".join(map(re.escape, odd))) if odd else None,
            stops, byte_ids, tags, says.tags, thinks, says.prefix_space, getattr(tokenizer, "verbatim", False), able,
        )  # fmt: skip

    @cached_property
    def table(self) -> Table | None:
        return Table.of(self.tokenizer)

    @property
    def goes_on(self) -> bool:
        """Whether a completion is encoded as what goes on, and not as a text from its beginning."""
        return self.differs and self.says.boundary.continues

    def encode(self, texts: Sequence[str], goes_on: bool) -> Rows:
        return encode_rows(self.tokenizer, texts, goes_on=goes_on)

    def spelled_control(self, text: str) -> str | None:
        """A control token that this text spells."""
        for shape in self.control_shapes:
            for found in shape.findall(text):
                if found in self.control_texts:
                    return str(found)
        odd = self.odd_spellings.search(text) if self.odd_spellings is not None else None
        return None if odd is None else str(odd.group())

    def may_spell_control(self, joined: str) -> bool:
        """False where none of these texts, which white space joins, spells a control token: no spelling in one of the
        shapes has white space in it."""
        if any(not self.control_texts.isdisjoint(shape.findall(joined)) for shape in self.control_shapes):
            return True
        return self.odd_spellings is not None and self.odd_spellings.search(joined) is not None

    def own_tag(self, text: str, role: Role) -> str | None:
        """The spelling of the tag of mine that stands for another's; None: it is spelled out as text."""
        if text in self.tags:
            return text
        return self.think_tags.get(role)

    def reads(self, text: str, own: str) -> bool:
        """Whether this spelling, as text, becomes that tag of mine."""
        return own == text and is_plain_tag(text)

    def apart(self, author: TokenizerFacts) -> Ints:
        """The author's tags that have to be taken out of their text: those that become a tag of mine that their
        spelling, as text, does not become."""
        owned = {i: self.own_tag(text, author.tag_roles[i]) for text, i in author.tags.items()}
        texts = {i: text for text, i in author.tags.items()}
        return np.array([i for i, own in owned.items() if own is not None and not self.reads(texts[i], own)], np.int64)


def _misspelled(tokenizer: Tokenizer, ids: Ids, starts: Ints, lengths: Ints, data: bytes) -> Ints:
    """As `Spelling` has it, by spelling the ids out."""
    spelled = np.frombuffer(tokenizer.token_bytes(ids), np.uint8)
    ends = lengths.cumsum()
    on = np.arange(spelled.size) + (starts - (ends - lengths)).repeat(lengths)
    differ = (spelled != np.frombuffer(data, np.uint8)[on]).nonzero()[0]
    wrong: Ints = ends.searchsorted(differ, side="right")
    return wrong
