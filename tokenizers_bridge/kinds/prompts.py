"""How a prompt becomes ids: a chat format of declared pieces, a transformers chat template, or bos and the plain
text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids, Message, Prompt
from tokenizers_bridge.kinds.adapted import Encoder


def messages_of(prompt: Prompt) -> list[Message]:
    """A text prompt is what a user says."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def text_of(prompt: Prompt) -> str:
    """Chat messages for a policy that knows no chat format: their contents, an empty line between them."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)


@dataclass(frozen=True, slots=True)
class PlainPrompt:
    """bos where the policy was trained with one, then the text. An empty prompt is `otherwise`, so that there is one
    token."""

    encoder: Encoder
    bos_id: int | None
    otherwise: int

    def __call__(self, prompt: Prompt) -> Ids:
        ids = self.encoder([text_of(prompt)])[0]
        head = [self.bos_id] if self.bos_id is not None else [] if ids.size else [self.otherwise]
        return np.concatenate([np.array(head, np.int32), ids])


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A chat format as pieces: a control token by its spelling, or text with {role} and {content} in it, or {trimmed}
    for the content without the white space around it.

    `turns` gives the pieces of one message by its role, "*" those of every other role; `generation` is what the policy
    goes on from. What a message says is always encoded as plain text, whatever it spells.
    """

    start: tuple[str, ...]
    turns: Mapping[str, tuple[str, ...]]
    generation: tuple[str, ...]

    def pieces(self, messages: Sequence[Message]) -> list[str | tuple[str]]:
        """In order: a control token as a 1-tuple, text as it is."""
        out: list[str | tuple[str]] = [*map(_control_or_text, self.start)]
        for message in messages:
            role, content = message["role"], message["content"]
            pieces = self.turns.get(role) or self.turns.get("*")
            if pieces is None:
                known = ", ".join(self.turns)
                raise InvalidInputError(
                    f"prompt has a message of role {role!r}, which this chat format lacks: use {known}"
                )
            out += [_filled(p, role, content) if isinstance(p, str) else p for p in map(_control_or_text, pieces)]
        return [*out, *map(_control_or_text, self.generation)]


def _filled(piece: str, role: str, content: str) -> str:
    text = piece.replace("{role}", role)  # what a message says comes last, for it may spell a placeholder
    return text.replace("{trimmed}", content.strip()) if "{trimmed}" in text else text.replace("{content}", content)


def _control_or_text(piece: str) -> str | tuple[str]:
    return (piece,) if piece[:1] in "<[" and piece[-1:] in ">]" else piece


@dataclass(frozen=True, slots=True)
class ChatFormatPrompt:
    """A prompt in a `ChatFormat`."""

    format: ChatFormat
    encoder: Encoder
    control_ids: Mapping[str, int]

    def __call__(self, prompt: Prompt) -> Ids:
        parts: list[Ids] = []
        text = ""
        for piece in [*self.format.pieces(messages_of(prompt)), ("",)]:
            if isinstance(piece, str):
                text += piece
                continue
            if text:
                parts += self.encoder([text])
                text = ""
            if piece[0]:
                parts.append(np.array([self.control_ids[piece[0]]], np.int32))
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class TransformersPrompt:
    """A prompt through the chat template that a transformers tokenizer carries."""

    tokenizer: Any

    def __call__(self, prompt: Prompt) -> Ids:
        rendered = self.tokenizer.apply_chat_template(
            messages_of(prompt), add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return np.array(rendered["input_ids"], np.int32)


CHATML = ChatFormat(
    start=(),
    turns={"*": ("<|im_start|>", "{role}\n{content}", "<|im_end|>", "\n")},
    generation=("<|im_start|>", "assistant\n"),
)
QWEN_3_6 = ChatFormat(
    start=(),
    turns={"*": ("<|im_start|>", "{role}\n{trimmed}", "<|im_end|>", "\n")},
    generation=("<|im_start|>", "assistant\n", "<think>", "\n"),
)
LLAMA_3 = ChatFormat(
    start=("<|begin_of_text|>",),
    turns={"*": ("<|start_header_id|>", "{role}", "<|end_header_id|>", "\n\n{content}", "<|eot_id|>")},
    generation=("<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"),
)
LLAMA_4 = ChatFormat(
    start=("<|begin_of_text|>",),
    turns={"*": ("<|header_start|>", "{role}", "<|header_end|>", "\n\n{content}", "<|eot|>")},
    generation=("<|header_start|>", "assistant", "<|header_end|>", "\n\n"),
)
DEEPSEEK = ChatFormat(
    start=("<｜begin▁of▁sentence｜>",),
    turns={
        "system": ("{content}",),
        "user": ("<｜User｜>", "{content}"),
        "assistant": ("<｜Assistant｜>", "{content}", "<｜end▁of▁sentence｜>"),
    },
    generation=("<｜Assistant｜>",),
)
