"""Conversations of several turns in a policy's tokens: sampled ids as they are, replies by the chat template.

A reply's ids are what the template puts between the end of one assistant message and the beginning of the next. They
are found by difference: the template renders a conversation in which the assistant says a marker, and what follows the
marker is the reply. What the policy has sampled is never rendered.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mutual_env.errors import IdentityMismatchError, InvalidInputError, MutualEnvError
from mutual_env.types import Completion, Context, Ids, Message, Prompt, Reply
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.protocol import Tokenizer, encode_continuations, stop_ids_of

_MARKERS = ("0123456789", "marker", "a" * 8, "0" * 8)
"""What the assistant says in the template's conversation: the first that a vocabulary can write. No template has it,
as "assistant" has an "a"."""


KEPT = 4096
"""Prompts, and replies, whose ids are remembered; the first ones make room."""


class Conversing:
    """One policy's conversations in its own tokens. A prompt or a reply that comes again is not rendered again."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = self._tokenizer = tokenizer
        self._prompts: dict[str, Ids] = {}
        self._replies: dict[tuple[bool, str, str], Ids] = {}

    def prompt(self, prompt: Prompt) -> Ids:
        key = repr(prompt)
        if key not in self._prompts:
            _make_room(self._prompts)
            self._prompts[key] = self._tokenizer.render_prompt(prompt)
        return self._prompts[key]

    def context(self, context: Context) -> Ids:
        """The ids that the policy goes on from: its prompt, what it sampled, what was answered."""
        parts = [self.prompt(context.prompt)]
        for turn in context.turns:
            own = self._own_ids(turn.completion)
            parts += [own, self.after(context.prompt, turn.reply, own)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def after(self, prompt: Prompt, reply: Reply, written: Ids) -> Ids:
        """The reply's ids behind what was written, up to where the policy writes again. A stop token that was sampled
        is not said twice; a control token that begins the reply's own turn is said whatever the policy stopped with."""
        ids = self.reply(reply, is_chat=not isinstance(prompt, str))
        last = int(written[-1]) if written.size else -1
        stopped = last in stop_ids_of(self._tokenizer)
        return ids[1:] if stopped and ids.size and int(ids[0]) in (last, self._tokenizer.stop_id) else ids

    def _own_ids(self, completion: Completion) -> Ids:
        """The ids that were sampled; a text that was not (a loop without traces, a person) is encoded."""
        if completion.is_silence:
            return np.empty(0, np.int32)
        if not completion.has_trace:
            goes_on = declaration_of(self._tokenizer).boundary.continues
            return (self._continuation if goes_on else self._beginning)(completion.text)
        if completion.tokenizer != self._tokenizer.fingerprint:
            raise IdentityMismatchError(
                f"a turn was sampled with tokenizer {completion.tokenizer[:12]}, and this policy has "
                f"{self._tokenizer.fingerprint[:12]}: translate it through the bridge"
            )
        return completion.token_ids

    def reply(self, reply: Reply, *, is_chat: bool) -> Ids:
        """From behind the policy's last word to where it writes again. `is_chat`: the prompt was chat messages. A text
        prompt of a policy without a chat template is gone on with as text."""
        key = (is_chat, reply.role, reply.text)
        if key not in self._replies:
            _make_room(self._replies)
            if not is_chat and self._is_plain:
                self._replies[key] = self._continuation(reply.text)
            else:
                self._replies[key] = self._by_difference(reply)
        return self._replies[key]

    def _beginning(self, text: str) -> Ids:
        return self._tokenizer.encode_batch([text])[0]

    def _continuation(self, text: str) -> Ids:
        """Text in the middle of a row: nobody wrote a space in front of it."""
        return encode_continuations(self._tokenizer, [text])[0]

    @cached_property
    def _is_plain(self) -> bool:
        """Whether a text prompt is the text alone, behind a bos at most."""
        marker = self._marker
        rendered, plain = self._tokenizer.render_prompt(marker), self._tokenizer.encode_batch([marker])[0]
        return rendered.size <= plain.size + 1 and np.array_equal(rendered[rendered.size - plain.size :], plain)

    @cached_property
    def _marker(self) -> str:
        for marker in _MARKERS:
            try:
                self._tokenizer.encode_batch([marker])
                self._tokenizer.render_prompt(marker)  # what cannot be encoded may be left out, and not refused
            except InvalidInputError:
                continue
            return marker
        raise InvalidInputError(f"a tokenizer that can write none of {_MARKERS} cannot be shown a conversation")

    def _by_difference(self, reply: Reply) -> Ids:
        """What the template adds behind an assistant's message. A role that it lacks speaks as a user."""
        marker = self._marker
        errors: list[MutualEnvError] = []
        for role in dict.fromkeys((reply.role, "user")):
            conversation: tuple[Message, ...] = (
                {"role": "user", "content": "."},
                {"role": "assistant", "content": marker},
                {"role": role, "content": reply.text},
            )
            try:
                return self._behind(self._tokenizer.render_prompt(conversation), marker)
            except MutualEnvError as error:
                errors.append(error)
        raise InvalidInputError(f"the chat template renders no reply of role {reply.role!r}: {errors[-1]}")

    def _behind(self, ids: Ids, marker: str) -> Ids:
        """The ids after the marker, which the template repeats as it is."""
        ends = np.cumsum(self._tokenizer.byte_lengths(ids))
        text = self._tokenizer.token_bytes(ids)
        at = text.find(marker.encode())
        if at < 0:
            raise InvalidInputError("the chat template leaves out what an assistant said before")
        end = at + len(marker.encode())
        if end not in ends:
            raise InvalidInputError("the chat template joins an assistant's last word with what follows it")
        return ids[int(np.searchsorted(ends, end)) + 1 :]


def _make_room(kept: dict[Any, Ids]) -> None:
    if len(kept) >= KEPT:
        del kept[next(iter(kept))]
