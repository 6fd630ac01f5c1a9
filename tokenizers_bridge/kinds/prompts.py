"""How a prompt becomes ids: a chat format of declared pieces, a chat template, or bos and the plain text. What a
message says is content in all three: whatever it spells, it becomes no control token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids, Message, Prompt
from tokenizers_bridge.declaration import Boundary
from tokenizers_bridge.kinds.adapted import Encoder, inside_spellings
from tokenizers_bridge.kinds.templates import ChatTemplate
from tokenizers_bridge.roles import is_tag, tags


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
    goes on from. What a message says is encoded as plain text, whatever it spells, but for the tags of a thought or a
    call that an assistant's earlier turn has in it.
    """

    start: tuple[str, ...]
    turns: Mapping[str, tuple[str, ...]]
    generation: tuple[str, ...]

    def pieces(self, messages: Sequence[Message], tags: re.Pattern[str] | None = None) -> list[str | tuple[str]]:
        """In order: a control token or a tag as a 1-tuple, text as it is."""
        out: list[str | tuple[str]] = [*map(_control_or_text, self.start)]
        for message in messages:
            role, content = message["role"], message["content"]
            pieces = self.turns.get(role) or self.turns.get("*")
            if pieces is None:
                known = ", ".join(self.turns)
                raise InvalidInputError(
                    f"prompt has a message of role {role!r}, which this chat format lacks: use {known}"
                )
            for piece in map(_control_or_text, pieces):
                text = _filled(piece, role, content) if isinstance(piece, str) else ""
                found = tags.split(text) if tags is not None and role == "assistant" else [text]
                out += [(t,) if i % 2 else t for i, t in enumerate(found)] if isinstance(piece, str) else [piece]
        return [*out, *map(_control_or_text, self.generation)]

    @property
    def opening(self) -> str:
        """What the last turn has written already of what the policy says: the opening of a thought."""
        start = next((i for i, piece in enumerate(self.generation) if is_tag(piece)), len(self.generation))
        return "".join(self.generation[start:])

    @property
    def closing(self) -> str:
        """What ends such a thought where nothing is thought."""
        return "\n</think>\n\n" if self.opening else ""

    @property
    def boundary(self) -> Boundary:
        left_out = f"an earlier turn stands without {self.opening!r}, with which the prompt of the last one ends"
        said = self.turns.get("assistant") or self.turns.get("*") or ()
        return Boundary(
            opening=self.opening,
            closing=self.closing,
            difference=left_out if self.opening else "",
            trims="both" if any("{trimmed}" in piece for piece in said) else "neither",
        )


def _filled(piece: str, role: str, content: str) -> str:
    text = piece.replace("{role}", role)  # what a message says comes last, for it may spell a placeholder
    return text.replace("{trimmed}", content.strip()) if "{trimmed}" in text else text.replace("{content}", content)


def _control_or_text(piece: str) -> str | tuple[str]:
    return (piece,) if piece[:1] in "<[" and piece[-1:] in ">]" else piece


@dataclass(frozen=True, slots=True)
class ChatFormatPrompt:
    """A prompt in a `ChatFormat`. `encoder` makes no token of any spelling; `token_ids` are control tokens and tags."""

    format: ChatFormat
    encoder: Encoder
    token_ids: Mapping[str, int]
    _tags: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What is looked for in each message is found once: `token_ids` may be a whole vocabulary."""
        spelled = [re.escape(text) for text in tags() if text in self.token_ids]
        object.__setattr__(self, "_tags", re.compile(f"({'|'.join(spelled)})") if spelled else None)

    def __call__(self, prompt: Prompt) -> Ids:
        parts: list[Ids] = []
        text = ""
        for piece in [*self.format.pieces(messages_of(prompt), self._tags), ("",)]:
            if isinstance(piece, str):
                text += piece
                continue
            if text:
                parts += self.encoder([text])
                text = ""
            if piece[0]:
                parts.append(np.array([self.token_ids[piece[0]]], np.int32))
        return np.concatenate(parts)


# Characters that no text has in it: what stands for the first character of a spelling, so that nobody recognises it.
STAND_INS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


@dataclass(frozen=True, slots=True)
class TemplatePrompt:
    """A prompt through a chat template.

    `encode` is the publisher's own tokenizer, which recognises control tokens in what the template wrote; `goes_on` is
    the same for what goes on in the middle of a text. Where a message spells one, the first character of the spelling
    goes through the template as a stand-in, and the text is encoded in parts that end there. `controls` and `tags` are
    the spellings; a tag is content where the assistant wrote it.
    """

    template: ChatTemplate
    encode: Encoder
    goes_on: Encoder
    controls: tuple[str, ...]
    tags: tuple[str, ...] = ()

    def __call__(self, prompt: Prompt) -> Ids:
        return self.ids(messages_of(prompt), generation=True)

    def ids(self, messages: Sequence[Message], *, generation: bool) -> Ids:
        """The conversation as ids: with `generation`, up to where the policy goes on."""
        shown, characters = self._disguise(messages)
        text = self.template.render(shown, generation=generation)
        if not characters:
            return self.encode([text])[0]
        ends = [match.end() for match in re.finditer(f"[{''.join(characters)}]", text)]
        spelled = text.translate({ord(stand_in): char for stand_in, char in characters.items()})
        parts = [spelled[a:b] for a, b in pairwise([0, *ends, len(text)])]
        return np.concatenate([*self.encode(parts[:1]), *self.goes_on(parts[1:])])

    def _disguise(self, messages: Sequence[Message]) -> tuple[list[Message], dict[str, str]]:
        """The messages with a stand-in at the start of each spelling, and the character that each stands for."""
        characters: dict[str, str] = {}
        shown: list[Message] = []
        for message in messages:
            spellings = self.controls if message["role"] == "assistant" else (*self.controls, *self.tags)
            content = message["content"]
            if any(text in content for text in spellings):
                spelled = inside_spellings(spellings)
                for first in dict.fromkeys(spelled.findall(content)):
                    if first not in characters.values():
                        characters[_unused(messages, characters)] = first
                content = _with_stand_ins(content, spelled, characters)
            shown.append({**message, "content": content})
        return shown, characters


def _with_stand_ins(content: str, spelled: re.Pattern[str], characters: Mapping[str, str]) -> str:
    stand_ins = {first: char for char, first in characters.items()}
    return spelled.sub(lambda match: stand_ins[match.group()], content)


def _unused(messages: Sequence[Message], taken: Mapping[str, str]) -> str:
    for char in STAND_INS:
        if char not in taken and not any(char in message["content"] for message in messages):
            return char
    raise InvalidInputError("prompt spells control tokens and has all of U+FDD0 to U+FDEF in it: take some of them out")


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
