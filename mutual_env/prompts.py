"""The shape of a prompt: what stands before and around a task's question, and whether it is a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import Message, Prompt

PLACE = "{prompt}"


@dataclass(frozen=True, slots=True)
class PromptShape:
    """Applied to a prompt it gives the prompt that a policy is given.

    system    a system message; it takes the place of one that is there. Empty: none is added, none is taken away
    template  what the question becomes, `{prompt}` standing for it; in a chat it is the first message of the user
    chat      True: a text becomes a message of the user. False: messages become one text, an empty line between them,
              and a policy renders it without its chat template. None: texts stay texts and chats stay chats, but that a
              system message makes a chat

    The default shape changes nothing.
    """

    system: str = ""
    template: str = PLACE
    chat: bool | None = None

    def __post_init__(self) -> None:
        for name in ("system", "template"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInputError(f"prompt.{name} must be a text, got {getattr(self, name)!r}")
        if PLACE not in self.template:
            raise InvalidInputError(f"prompt.template must contain {PLACE}, got {self.template!r}")
        if self.chat not in (None, True, False):
            raise InvalidInputError(f"prompt.chat must be true, false or left out, got {self.chat!r}")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> PromptShape:
        """From a configuration's mapping; an unknown key is refused with the nearest right one."""
        known = [field.name for field in fields(cls)]
        if not isinstance(given, (Mapping, type(None))):
            raise InvalidInputError(f"prompt must be a mapping of {', '.join(known)}, got {given!r}")
        for key in given or {}:
            if key not in known:
                raise UnknownNameError.of("key of prompt", key, known)
        return cls(**(given or {}))

    def __call__(self, prompt: Prompt) -> Prompt:
        shaped = self._around_question(prompt)
        if self.system:
            turns = [message for message in messages_of(shaped) if message["role"] != "system"]
            shaped = ({"role": "system", "content": self.system}, *turns)
        if self.chat is None:
            return shaped
        return messages_of(shaped) if self.chat else text_of(shaped)

    def _around_question(self, prompt: Prompt) -> Prompt:
        if isinstance(prompt, str):
            return self.template.replace(PLACE, prompt)
        at = next((i for i, message in enumerate(prompt) if message["role"] == "user"), len(prompt) - 1)
        asked: Message = {**prompt[at], "content": self.template.replace(PLACE, prompt[at]["content"])}
        return (*prompt[:at], asked, *prompt[at + 1 :])


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """A text prompt is what a user says."""
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)


def text_of(prompt: Prompt) -> str:
    """Chat messages for a policy that knows no chat format: their contents, an empty line between them."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)
