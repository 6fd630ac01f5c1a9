"""Hugging Face fast tokenizers: byte-level BPE, SentencePiece-style BPE with byte fallback, Unigram."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mutual_env.errors import InvalidInputError
from tokenizers_bridge.declaration import Boundary
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer, Encoder, PlainText, PromptFormat
from tokenizers_bridge.kinds.boundary import PROBES, boundary_of, render, turn_end
from tokenizers_bridge.kinds.definitions import (
    Definition,
    HuggingFaceEncoder,
    Kind,
    encoding_copy,
    ids_of,
    pieces_of,
    publishers_copy,
)
from tokenizers_bridge.kinds.prompts import ChatFormat, ChatFormatPrompt, PlainPrompt, TemplatePrompt
from tokenizers_bridge.kinds.templates import ChatTemplate
from tokenizers_bridge.kinds.vocabulary import Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import STOP_ROLES, acts_as_control, is_plain_tag, is_tag, looks_like_control, role_of


def from_huggingface(
    backend: Any,
    *,
    name: str = "",
    special_texts: Mapping[Role, str] | None = None,
    stop: str | Sequence[str] | None = None,
    chat: ChatFormat | None = None,
    template: ChatTemplate | None = None,
    also_stops: Collection[int] = (),
) -> AdaptedTokenizer:
    """A `tokenizers.Tokenizer`. `special_texts` name control tokens where their spelling does not say their role;
    `template` renders the prompts, else `chat`. A completion ends with `stop`, where it is not given with the token
    with which the template ends a turn, else with the end of the text; `also_stops` are ids that end one too."""
    definition = json.loads(backend.to_str())
    kind, named, shown = Kind.of(definition, name), special_texts or {}, name or "tokenizer"
    chatting = None if template is None else _Chatting.of(template, definition, kind)
    tokens = _Tokens.of(definition, named, chatting, stop, shown)
    stops = tokens.stops(named, chatting, stop, also_stops, shown)
    begins = HuggingFaceEncoder(encoding_copy(definition, tokens.controls, tokens.plain_tags, begins=True))
    goes_on = _going_on(definition, tokens) if kind.prefix_space else begins
    texts = {i: text for text, i in tokens.ids.items() if i in tokens.controls}
    declaration = replace(kind.declaration(begins.tokenizer.normalizer, definition, texts), tags=tokens.tags)
    vocabulary = Vocabulary.of(pieces_of(definition, kind, goes_on.tokenizer.normalizer), tokens.controls)
    plain = PlainText.of(begins, goes_on, vocabulary, declaration, tags=False)
    if chatting is not None:
        prompt_format, boundary = _templated(tokens, stops[0], (begins, goes_on), chatting)
    else:
        prompt_format, boundary = _untemplated(backend, tokens, stops[0], plain, chat)
    return AdaptedTokenizer(
        name=name or "huggingface",
        vocabulary=vocabulary,
        encoder=begins,
        continuation=goes_on,
        prompt_format=prompt_format,
        stop_id=stops[0],
        stop_ids=stops,
        declaration=replace(declaration, boundary=boundary),
        definition=("huggingface", begins.tokenizer.to_str()),
        verbatim=kind.verbatim,
    )


def _going_on(definition: Definition, tokens: _Tokens) -> HuggingFaceEncoder:
    return HuggingFaceEncoder(encoding_copy(definition, tokens.controls, tokens.plain_tags, begins=False))


@dataclass(frozen=True, slots=True)
class _Chatting:
    """A chat template, and the publisher's tokenizer that encodes what it writes: from its beginning, or where it goes
    on."""

    template: ChatTemplate
    encode: Encoder
    goes_on: Encoder

    @classmethod
    def of(cls, template: ChatTemplate, definition: Definition, kind: Kind) -> _Chatting:
        encode = HuggingFaceEncoder(publishers_copy(definition))
        goes_on = HuggingFaceEncoder(publishers_copy(definition, begins=False)) if kind.prefix_space else encode
        return cls(template, encode, goes_on)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Ids by spelling, and what is a control token or a tag among them."""

    ids: Mapping[str, int]
    controls: Mapping[int, Role]
    tags: Mapping[int, Role]

    @classmethod
    def of(
        cls,
        definition: Definition,
        named: Mapping[Role, str],
        chatting: _Chatting | None,
        stop: str | Sequence[str] | None,
        name: str,
    ) -> _Tokens:
        ids = ids_of(definition)
        added: dict[int, str] = {row["id"]: row["content"] for row in definition["added_tokens"]}
        tags = {i: role_of(text) for i, text in added.items() if is_tag(text)}
        special = {row["id"] for row in definition["added_tokens"] if row["special"]}
        rendered = _rendered(chatting, added) if chatting is not None else set()
        acting = {i: text for i, text in added.items() if i in special or i in rendered or acts_as_control(text)}
        acting |= {i: text for text, i in ids.items() if looks_like_control(text)}  # RoBERTa has GPT-2's left over
        roles: dict[int, Role] = {i: role_of(text) for i, text in acting.items() if i not in tags}
        roles |= dict.fromkeys(_unknowns(definition, ids), "unk")
        for role, text in named.items():
            if text in ids and roles.get(ids[text], "other") == "other" and ids[text] not in tags:
                roles[ids[text]] = role
        for text in _as_list(stop):
            if text not in ids:
                raise InvalidInputError(f"{name}: stop token {text!r} is not in its vocabulary")
            if roles.get(ids[text], "other") not in STOP_ROLES:
                roles[ids[text]] = "eos"
        return cls(ids, roles, {i: role for i, role in tags.items() if i not in roles})

    @property
    def plain_tags(self) -> set[int]:
        """Tags that text may become."""
        return {i for text, i in self.ids.items() if i in self.tags and is_plain_tag(text)}

    def spellings(self, of: Collection[int]) -> tuple[str, ...]:
        return tuple(text for text, i in self.ids.items() if i in of and text)

    def stops(
        self,
        named: Mapping[Role, str],
        chatting: _Chatting | None,
        stop: str | Sequence[str] | None,
        also: Collection[int],
        name: str,
    ) -> list[int]:
        """The ids that end a completion, the one that the policy's own turns end with first.

        That is what the template ends a turn with, where nothing that is told knows better: an end of a turn in
        generation_config.json, or as the eos token (gpt-oss ends messages with one token and its turns with another).
        A file that names the end of the text alone, as a base model's does, knows nothing of turns.
        """
        ends = [self.ids[text] for text in _as_list(stop)]
        if not ends:
            told = [i for i in also if i in self.controls]
            eos = [self.ids[t] for role, t in named.items() if role == "eos" and t in self.ids]
            turn = None if chatting is None else turn_end(chatting.template, chatting.encode, self.controls)
            if turn is not None and not any(self.controls.get(i) == "end_of_turn" for i in told or eos):
                ends = [turn]
            ends += [i for i in (turn, *eos) if i in told] + told if told else eos
        if not ends:
            known = [i for i, role in self.controls.items() if role in STOP_ROLES]
            ends = sorted(known, key=lambda i: (self.controls[i] != "eos", i))[:1]
        if not ends:
            raise InvalidInputError(f"{name}: no end-of-text token is known: name the stop token, load(..., stop=...)")
        return list(dict.fromkeys(ends))


def _as_list(stop: str | Sequence[str] | None) -> list[str]:
    return [] if stop is None else [stop] if isinstance(stop, str) else list(stop)


def _unknowns(definition: Definition, ids: Mapping[str, int]) -> list[int]:
    model = definition["model"]
    unk, unk_id = model.get("unk_token"), model.get("unk_id")
    found = [ids[unk]] if isinstance(unk, str) and unk in ids else []
    return found + ([unk_id] if unk_id is not None else [])


def _rendered(chatting: _Chatting, added: Mapping[int, str]) -> set[int]:
    """Added tokens that the chat template writes: those that its renderings have outside of what messages say, and
    those that its source spells with a mark in it. White space is what any text may have."""
    said = "\n".join(message["content"] for messages in PROBES for message in messages)
    candidates = {i: text for i, text in added.items() if text.strip() and not is_tag(text) and text not in said}
    spelled = {i for i, text in candidates.items() if not text.isalnum() and text in chatting.template.source}
    texts = [text for messages in PROBES for text in render(chatting.template, messages)]
    met = {i for row in chatting.encode(texts) for i in row.tolist()}
    return spelled | (met & set(candidates))


def _templated(
    tokens: _Tokens,
    stop_id: int,
    encoders: tuple[Encoder, Encoder],
    chatting: _Chatting,
) -> tuple[PromptFormat, Boundary]:
    prompt = TemplatePrompt(
        chatting.template,
        chatting.encode,
        chatting.goes_on,
        tokens.spellings(tokens.controls),
        tokens.spellings(tokens.tags),
    )
    return prompt, boundary_of(prompt, encoders, stop_id)


def _untemplated(
    backend: Any, tokens: _Tokens, stop_id: int, plain: PlainText, chat: ChatFormat | None
) -> tuple[PromptFormat, Boundary]:
    if chat is not None:
        return ChatFormatPrompt(chat, plain, tokens.ids), chat.boundary
    head = backend.encode("").ids  # what its post-processor puts around a text
    bos = next((i for i in head if tokens.controls.get(i) == "bos"), None)
    return PlainPrompt(plain, bos, stop_id), Boundary(continues=True)
