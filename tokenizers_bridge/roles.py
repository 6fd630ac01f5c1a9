"""Which published spelling of a control token plays which role."""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers_bridge.protocol import Role

_SPELLINGS: Mapping[Role, tuple[str, ...]] = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "[EOS]"),
    "end_of_turn": (
        "<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<|end|>", "<|eom_id|>", "<|eom|>", "<|return|>",
    ),
    "pad": (
        "<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|finetune_right_pad|>", "<|fim_pad|>",
        "<｜▁pad▁｜>",
    ),
    "unk": ("<unk>", "[UNK]"),
    "think_open": ("<think>", "[THINK]", "<|thinking_start|>"),
    "think_close": ("</think>", "[/THINK]", "<|thinking_end|>"),
    "tool_open": ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|python_start|>", "<｜tool▁call▁begin｜>"),
    "tool_close": ("</tool_call>", "<|python_end|>", "<｜tool▁call▁end｜>"),
}  # fmt: skip
_ROLES: Mapping[str, Role] = {text: role for role, texts in _SPELLINGS.items() for text in texts}

# A completion may end with either, depending on whether its author is a chat model: they pair with each other.
STOP_ROLES: frozenset[Role] = frozenset(("eos", "end_of_turn"))

# Roles that mean the same inside a completion whoever wrote it, so that one token can stand for another's.
CONTENT_ROLES: frozenset[Role] = frozenset(("think_open", "think_close", "tool_open", "tool_close"))


def role_of(text: str) -> Role:
    """The role of a control token that is spelled like this; "other" where it is not a published spelling."""
    return _ROLES.get(text, "other")
