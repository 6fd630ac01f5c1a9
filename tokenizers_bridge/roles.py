"""Which published spelling of a token plays which role, and which spellings act as control tokens.

A *control token* does something: it begins or ends a text, a turn, a message. It stands for no bytes, and no text ever
becomes one. A *tag* marks a thought or a call of a tool inside what a policy writes: it is content, and stands for the
bytes of its spelling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tokenizers_bridge.protocol import Role

_SPELLINGS: Mapping[Role, tuple[str, ...]] = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "[EOS]"),
    "end_of_turn": (
        "<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<|end|>", "<|eom_id|>", "<|eom|>", "<|return|>",
        "<turn|>", "<|call|>", "<|END_OF_TURN_TOKEN|>",
    ),
    "pad": (
        "<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|finetune_right_pad|>", "<|fim_pad|>",
        "<｜▁pad▁｜>",
    ),
    "unk": ("<unk>", "[UNK]"),
    "think_open": ("<think>", "[THINK]", "<|thinking_start|>"),
    "think_close": ("</think>", "[/THINK]", "<|thinking_end|>"),
    "tool_open": (
        "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|python_start|>", "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>", "<|tool_call|>", "<|tool_call>",
    ),
    "tool_close": (
        "</tool_call>", "<|python_end|>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<|/tool_call|>",
        "<tool_call|>",
    ),
}  # fmt: skip
_ROLES: Mapping[str, Role] = {text: role for role, texts in _SPELLINGS.items() for text in texts}

# Known control tokens without a role of their own: what opens a turn, or stands around its header.
_OTHERS = frozenset(
    (
        "<start_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
        "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[gMASK]", "[sMASK]", "[MASK]",
        "[CLS]", "[SEP]",
    )
)  # fmt: skip

# A completion may end with either, depending on whether its author is a chat model: they pair with each other.
STOP_ROLES: frozenset[Role] = frozenset(("eos", "end_of_turn"))

# Roles that mean the same inside a completion whoever wrote it.
CONTENT_ROLES: frozenset[Role] = frozenset(("think_open", "think_close", "tool_open", "tool_close"))
THINK_ROLES: frozenset[Role] = frozenset(("think_open", "think_close"))

# <|word|>, <|word>, <word|>, and the same with the full-width bars of DeepSeek.
_CONTROL_SHAPE = re.compile(r"<(?=[^<>\s]*\w)(?:[|｜][^<>\s]{1,80}|[^<>\s]{1,80}[|｜])>")
_BRACKETS = re.compile(r"\[/?[A-Z_]{2,40}\]")


def role_of(text: str) -> Role:
    """The role of a token that is spelled like this; "other" where it is not a published spelling."""
    return _ROLES.get(text, "other")


def think_tags(role: Role) -> tuple[str, ...]:
    """The published spellings of what opens a thought, or closes one."""
    return _SPELLINGS[role]


def opened_thought(text: str) -> str:
    """From where on this text is a thought that nobody has closed; "" where it is none."""
    opens = max(text.rfind(tag) for tag in think_tags("think_open"))
    closed = any(tag in text[opens:] for tag in think_tags("think_close"))
    return "" if opens < 0 or closed else text[opens:]


def tags() -> list[str]:
    """The published spellings of all tags, longer ones first."""
    return sorted(filter(is_tag, _ROLES), key=lambda text: (-len(text), text))


def control_spellings() -> list[str]:
    """The published spellings of control tokens."""
    return sorted({text for text in _ROLES if not is_tag(text)} | _OTHERS)


def is_tag(text: str) -> bool:
    """Whether this spells a tag: content with a role."""
    return role_of(text) in CONTENT_ROLES


def is_plain_tag(text: str) -> bool:
    """Whether this spells a tag that text may become: `<think>` means the same whether it was written as one token or
    in letters. A tag in the shape of a control token, `<|python_tag|>` or `[TOOL_CALLS]`, comes from its own token
    alone."""
    return is_tag(text) and not _CONTROL_SHAPE.fullmatch(text) and not _BRACKETS.fullmatch(text)


def looks_like_control(text: str) -> bool:
    """Whether this has the shape that publishers give to control tokens alone, `<|word|>`."""
    return _CONTROL_SHAPE.fullmatch(text) is not None and not is_tag(text)


def acts_as_control(text: str) -> bool:
    """Whether a token that is spelled like this acts as a control token, whatever its vocabulary says of it."""
    known = role_of(text) != "other" or text in _OTHERS
    return (known and not is_tag(text)) or looks_like_control(text)
