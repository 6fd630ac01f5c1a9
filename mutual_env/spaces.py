"""Spaces that hold what policies read and write.

`gymnasium.spaces.Text` lists its alphabet character by character, so it cannot hold ordinary text. These spaces say
what is text by a rule instead: a `str` of bounded length that has a UTF-8 form (no lone surrogate).

    TextSpace     one text
    PromptSpace   one prompt: a text, or a tuple of chat messages
    PromptsSpace  what an agent observes of a round: P prompts
    GroupSpace    what an agent answers with: P groups of G completions, each a `Completion` or a plain text
    ContextsSpace what an agent observes of conversations: P groups of G contexts, None where one is over
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium.spaces import Dict, Space

from mutual_env.types import Completion, Context, Prompt, Reply, Turn

MAX_CHARS = 2**20
_LETTERS = "abcdefghijklmnopqrstuvwxyz 0123456789 .,:;-+*/=()\n\t'\"\\{}<>|éßλЖ中文🙂\u0301\u00a0"


def text_defect(text: object, max_chars: int) -> str | None:
    """What keeps this value from being a text of the space, in words; None where nothing does."""
    if not isinstance(text, str):
        return f"is a {type(text).__name__}, not a str"
    if len(text) > max_chars:
        return f"has {len(text):,} characters, more than max_chars={max_chars:,}"
    if text.isascii():  # at no cost, and true of most
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        return f"has the lone surrogate {text[e.start]!r} at {e.start}, which has no UTF-8 form"
    return None


class TextSpace(Space[str]):
    """Every text of at most `max_chars` characters that has a UTF-8 form."""

    def __init__(self, max_chars: int = MAX_CHARS, seed: int | None = None) -> None:
        self.max_chars = max_chars
        super().__init__(seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """A short text: letters, digits, signs of arithmetic and LaTeX, accents, CJK, emoji."""
        length = int(self.np_random.integers(0, min(24, self.max_chars) + 1))
        return "".join(_LETTERS[i] for i in self.np_random.integers(0, len(_LETTERS), size=length))

    def contains(self, x: object) -> bool:
        return text_defect(x, self.max_chars) is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace) and self.max_chars == other.max_chars

    def __hash__(self) -> int:
        return hash((type(self), self.max_chars))

    def __repr__(self) -> str:
        return f"TextSpace(max_chars={self.max_chars})"


class PromptSpace(Space[Prompt]):
    """A text, or a non-empty tuple of messages, each with a role and a content."""

    def __init__(self, max_chars: int = MAX_CHARS, seed: int | None = None) -> None:
        self.text = TextSpace(max_chars)
        super().__init__(seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def seed(self, seed: int | None = None) -> list[int]:
        return [int(self.text.seed(seed))]

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> Prompt:
        content = self.text.sample()
        return content if self.text.np_random.random() < 0.5 else ({"role": "user", "content": content},)

    def contains(self, x: object) -> bool:
        if isinstance(x, tuple):
            return len(x) > 0 and all(self._is_message(m) for m in x)
        return self.text.contains(x)

    def _is_message(self, m: object) -> bool:
        return (
            isinstance(m, dict) and m.keys() == {"role", "content"} and all(self.text.contains(v) for v in m.values())
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptSpace) and self.text == other.text

    def __hash__(self) -> int:
        return hash((type(self), self.text))

    def __repr__(self) -> str:
        return f"PromptSpace(max_chars={self.text.max_chars})"


class PromptsSpace(Space[tuple[Prompt, ...]]):
    """A tuple of exactly `prompts` prompts."""

    def __init__(self, prompts: int, max_chars: int = MAX_CHARS, seed: int | None = None) -> None:
        self.prompts = prompts
        self.prompt = PromptSpace(max_chars)
        super().__init__(seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def seed(self, seed: int | None = None) -> list[int]:
        return self.prompt.seed(seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> tuple[Prompt, ...]:
        return tuple(self.prompt.sample() for _ in range(self.prompts))

    def contains(self, x: object) -> bool:
        return isinstance(x, tuple) and len(x) == self.prompts and all(self.prompt.contains(p) for p in x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptsSpace) and self.prompts == other.prompts and self.prompt == other.prompt

    def __hash__(self) -> int:
        return hash((type(self), self.prompts, self.prompt))

    def __repr__(self) -> str:
        return f"PromptsSpace({self.prompts}, {self.prompt})"


class GroupSpace(Space[tuple[tuple[str, ...], ...]]):
    """P groups of exactly G completions, each a `Completion` or a plain text; `sample` gives plain texts."""

    def __init__(self, prompts: int, group_size: int, max_chars: int = MAX_CHARS, seed: int | None = None) -> None:
        self.prompts = prompts
        self.group_size = group_size
        self.text = TextSpace(max_chars)
        super().__init__(seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def seed(self, seed: int | None = None) -> list[int]:
        return [int(self.text.seed(seed))]

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self.text.sample() for _ in range(self.group_size)) for _ in range(self.prompts))

    def contains(self, x: object) -> bool:
        return self.defect(x) is None

    def defect(self, x: Any) -> str | None:
        """What keeps this value from being an action, with the place and the remedy; None where nothing does."""
        if not _is_list(x):
            return f" is a {type(x).__name__}: give a sequence of {self.prompts} groups"
        if len(x) != self.prompts:
            return f" has {len(x)} groups: give one for each of the {self.prompts} prompts, in their order"
        return self.groups_defect(x)

    def groups_defect(self, groups: Sequence[Any]) -> str | None:
        """The same of some of an action's groups."""
        for p, group in enumerate(groups):
            if not _is_list(group):
                return f"[{p}] is a {type(group).__name__}: give a group, a sequence of {self.group_size} completions"
            if len(group) != self.group_size:
                what = "is an empty group" if not group else f"has {len(group)} completions"
                return f"[{p}] {what}: give exactly group_size={self.group_size}"
            texts = [item.text if isinstance(item, Completion) else item for item in group]
            for g, text in enumerate(texts):
                defect = text_defect(text, self.text.max_chars)
                if defect is not None:
                    return f"[{p}][{g}] {defect}: give a Completion or a str of Unicode text"
        return None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, GroupSpace)
            and (self.prompts, self.group_size) == (other.prompts, other.group_size)
            and self.text == other.text
        )

    def __hash__(self) -> int:
        return hash((type(self), self.prompts, self.group_size, self.text))

    def __repr__(self) -> str:
        return f"GroupSpace(prompts={self.prompts}, group_size={self.group_size}, {self.text})"


class ContextsSpace(Space[tuple[tuple[Context | None, ...], ...]]):
    """P groups of exactly G contexts, each None where its conversation is over; `sample` gives some of either."""

    def __init__(self, prompts: int, group_size: int, max_chars: int = MAX_CHARS, seed: int | None = None) -> None:
        self.prompts = prompts
        self.group_size = group_size
        self.prompt = PromptSpace(max_chars)
        super().__init__(seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def seed(self, seed: int | None = None) -> list[int]:
        return self.prompt.seed(seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> tuple[tuple[Context | None, ...], ...]:
        return tuple(tuple(self._context() for _ in range(self.group_size)) for _ in range(self.prompts))

    def contains(self, x: object) -> bool:
        if not isinstance(x, tuple) or len(x) != self.prompts:
            return False
        groups = [group for group in x if isinstance(group, tuple) and len(group) == self.group_size]
        return len(groups) == self.prompts and all(self._fits(context) for group in groups for context in group)

    def _context(self) -> Context | None:
        text = self.prompt.text
        prompt, turns = self.prompt.sample(), int(text.np_random.integers(0, 3))
        if turns == 2:
            return None
        spoken = [(Completion.from_text(text.sample()), Reply(text.sample())) for _ in range(turns)]
        return Context(prompt, tuple(Turn(completion, reply) for completion, reply in spoken))

    def _fits(self, context: object) -> bool:
        if context is None:
            return True
        if not isinstance(context, Context) or not self.prompt.contains(context.prompt):
            return False
        text = self.prompt.text
        return all(text.contains(turn.completion.text) and text.contains(turn.reply.text) for turn in context.turns)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ContextsSpace)
            and (self.prompts, self.group_size) == (other.prompts, other.group_size)
            and self.prompt == other.prompt
        )

    def __hash__(self) -> int:
        return hash((type(self), self.prompts, self.group_size, self.prompt))

    def __repr__(self) -> str:
        return f"ContextsSpace(prompts={self.prompts}, group_size={self.group_size}, {self.prompt})"


def conversation_space(prompts: int, group_size: int, max_chars: int = MAX_CHARS) -> Dict:
    """What an agent observes where an episode has several turns: the prompts, and how far each conversation is."""
    return Dict(
        {"conversations": ContextsSpace(prompts, group_size, max_chars), "prompts": PromptsSpace(prompts, max_chars)}
    )


def round_space(prompts: int, max_chars: int = MAX_CHARS) -> Dict:
    """What an agent observes: `{"prompts": (P prompts)}`. No key is named "observation": PettingZoo's AEC test expects
    an array under it."""
    return Dict({"prompts": PromptsSpace(prompts, max_chars)})


def _is_list(x: object) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, (str, bytes))
