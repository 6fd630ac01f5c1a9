"""What `check_tokenizer` sees: a sound tokenizer, broken in one place at a time for each thing that the bridge trusts.

All are wrappers around one that was read from files, with a chat template, tags of a thought, and a prefix space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken

from mutual_env.errors import ConformanceError
from mutual_env.types import Ids, Prompt
from tests.tiers import rest_long
from tests.tokenizers_bridge.test_bridge_loading import unigram
from tokenizers_bridge import Tokenizer, check_tokenizer
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.templates import ChatTemplate

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}[sep]{{ m.content }}<|done|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant[sep]{% endif %}"
)
TEXTS = ("<|start|>", "[sep]", "<|done|>", "<pad>", "<think>", "</think>", "<|tool_call|>")


@cache
def sound() -> Tokenizer:
    source = unigram(byte_fallback=True)
    source.add_tokens([AddedToken(text, special=False, normalized=False) for text in TEXTS])
    return from_huggingface(source, template=ChatTemplate(TEMPLATE))


@cache
def ids() -> Mapping[str, int]:
    says = declaration_of(sound())
    tags = {sound().token_bytes([i]).decode(): i for i in says.tags}
    return {**{text: i for i, text in says.control_texts.items()}, **tags}


class Broken:
    """The sound one, but for what is given. A function takes what the sound one gives, and its arguments."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def __getattr__(self, name: str) -> Any:
        own = getattr(sound(), name)
        changed = self.changes.get(name)
        if changed is None:
            return own
        return (lambda *given: changed(own(*given), *given)) if callable(changed) else changed


def saying(**changes: Any) -> Broken:
    return Broken(declaration=replace(declaration_of(sound()), **changes))


def bounded(**changes: Any) -> Broken:
    return saying(boundary=replace(declaration_of(sound()).boundary, **changes))


def put(text: str) -> Callable[[list[Ids], Sequence[str]], list[Ids]]:
    """Encoding that makes one token of what is spelled like this."""

    def changed(_: list[Ids], texts: Sequence[str]) -> list[Ids]:
        return [_with(text, said) for said in texts]

    return changed


def _with(text: str, said: str) -> Ids:
    parts = sound().encode_continuations(said.split(text))  # type: ignore[attr-defined]
    own = np.array([ids()[text]], np.int32)
    rows = [row for part in parts for row in (own, part)][1:]
    return np.concatenate([*sound().encode_batch([""]), *rows])


def asked(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "".join(m["content"] for m in prompt)


def prompting(change: Callable[[Ids, str], Ids]) -> Broken:
    return Broken(render_prompt=lambda row, prompt: change(row, asked(prompt)))


def without(table: Mapping[int, Any], text: str) -> dict[int, Any]:
    return {i: value for i, value in table.items() if i != ids()[text]}


def roles(**changed: str) -> Mapping[int, str]:
    return {**sound().specials, **{ids()[f"<|{text}|>"]: role for text, role in changed.items()}}


def as_content(text: str) -> Broken:
    """What acts is content: it stands for its spelling."""
    i, spelled = ids()[text], text.encode()

    def data(_: bytes, row: Sequence[int]) -> bytes:
        return b"".join(spelled if k == i else sound().token_bytes([k]) for k in np.asarray(row).tolist())

    def lengths(found: np.ndarray, row: Sequence[int]) -> np.ndarray:
        return np.where(np.asarray(row) == i, len(spelled), found)

    says = declaration_of(sound())
    return Broken(
        specials=without(sound().specials, text), token_bytes=data, byte_lengths=lengths,
        declaration=replace(says, control_texts=without(says.control_texts, text)),
        misspelled=lambda found, *_: found, encode_batch=put(text), encode_continuations=put(text), encode_rows=None,
    )  # fmt: skip


def told(text: str, role: str = "") -> Callable[[Ids, Prompt], Ids]:
    """Prompts in which this spelling acts where a message of that role has it."""

    def changed(row: Ids, prompt: Prompt) -> Ids:
        said = prompt if isinstance(prompt, str) else " ".join(m["content"] for m in prompt if m["role"] == role)
        return np.append(row, ids()[text]).astype(np.int32) if text in said else row

    return changed


def acting_tag() -> Broken:
    """A thought's tag is a control token."""
    says, i = declaration_of(sound()), ids()["<think>"]
    return Broken(
        specials={**sound().specials, i: "think_open"},
        declaration=replace(
            says, tags=without(says.tags, "<think>"), control_texts={**says.control_texts, i: "<think>"}
        ),
        byte_lengths=lambda found, row: np.where(np.asarray(row) == i, 0, found),
        token_bytes=lambda _, row: sound().token_bytes([k for k in np.asarray(row).tolist() if k != i]),
        misspelled=lambda found, *_: found, encode_batch=put_nothing, encode_continuations=put_nothing,
    )  # fmt: skip


def put_nothing(rows: list[Ids], _: Sequence[str]) -> list[Ids]:
    return [row[~np.isin(row, [ids()["<think>"], ids()["</think>"]])] for row in rows]


def in_letters(_: list[Ids], texts: Sequence[str]) -> list[Ids]:
    """No text becomes a tag."""
    return [np.concatenate(sound().encode_continuations(list(said) or [""])) for said in texts]  # type: ignore[attr-defined]


def named(**changed: str) -> Broken:
    says = declaration_of(sound())
    return saying(tags={**says.tags, **{ids()["<think>" if k == "think" else k]: role for k, role in changed.items()}})


def stopping(*texts: str) -> dict[str, Any]:
    return {"stop_id": ids()[texts[0]], "stop_ids": tuple(ids()[text] for text in texts)}


def swapped(text: str) -> str:
    form = declaration_of(sound()).form
    assert form is not None
    return form(text.swapcase())


def shorter(found: np.ndarray, row: Sequence[int]) -> np.ndarray:
    return found - (found > 1)


BROKEN: Mapping[str, tuple[Callable[[], Any], str]] = {
    # 1. what acts is a control token, and no text becomes one
    "a token in the shape of one is content": (lambda: as_content("<|start|>"), "acts as a control token"),
    "what its template writes is content": (lambda: as_content("[sep]"), "its prompts are written with"),
    "text becomes one": (lambda: Broken(encode_batch=put("[sep]")), "was encoded as control tokens"),
    "text that goes on becomes one": (lambda: Broken(encode_continuations=put("[sep]")), "encoded as control tokens"),
    "text becomes one that it does not tell of": (
        lambda: Broken(
            encode_batch=put("<pad>"),
            declaration=replace(
                declaration_of(sound()), control_texts=without(declaration_of(sound()).control_texts, "<pad>")
            ),
        ),
        "was encoded as control tokens",
    ),
    "a user writes one": (lambda: Broken(render_prompt=told("[sep]", "user")), "makes control tokens of what"),
    "a system message writes one": (lambda: Broken(render_prompt=told("[sep]", "system")), "makes control tokens of"),
    "an earlier answer writes one": (lambda: Broken(render_prompt=told("[sep]", "assistant")), "makes control tokens"),
    "a tag is a control token": (acting_tag, "is a tag of a thought or a call"),
    "a tag stands for nothing": (
        lambda: Broken(byte_lengths=lambda found, row: np.where(np.asarray(row) == ids()["<think>"], 0, found)),
        "byte_lengths and token_bytes disagree|stands for the bytes",
    ),
    "a tag closes what it opens": (lambda: named(think="think_close"), "a tag of role 'think_close'"),
    "a tag is no tag": (lambda: saying(tags={ids()["<think>"] + 1: "think_open", 40: "think_open"}), "tag"),
    "a tag is never what its letters become": (
        lambda: Broken(encode_batch=in_letters, encode_continuations=in_letters),
        "does not become the tag",
    ),
    "letters become a call": (
        lambda: Broken(encode_batch=put("<|tool_call|>"), encode_continuations=put("<|tool_call|>")),
        "comes from its own token alone",
    ),
    "decoding leaves tags out": (
        lambda: Broken(decode=lambda text, _: text.replace("<think>", "")), "decode gives",
    ),
    # 2. where prompts end and completions begin
    "a prefix space before what goes on": (
        lambda: Broken(encode_continuations=lambda _, texts: sound().encode_batch(texts)),
        "nothing may stand in front of it",
    ),
    "completions go on where the template has a space": (
        lambda: bounded(continues=not declaration_of(sound()).boundary.continues),
        "not what its template makes of the finished conversation",
    ),
    "a thought that no prompt opened": (lambda: bounded(opening="<think>\n"), "do not end with '<think>"),
    "a thought that cannot be closed": (
        lambda: Broken(
            declaration=replace(
                declaration_of(sound()), boundary=replace(declaration_of(sound()).boundary, opening="<think>")
            ),
            render_prompt=lambda row, _: np.append(row, ids()["<think>"]).astype(np.int32),
        ),
        "closing",
    ),
    "turns end otherwise": (lambda: Broken(**stopping("</s>")), "not what its template makes of the finished"),
    "another stop comes first": (
        lambda: Broken(stop_ids=stopping("</s>", "<|done|>")["stop_ids"]), "stop_ids begin with",
    ),
    "what stops is content": (lambda: Broken(stop_id=40, stop_ids=(40,)), "is not among its control tokens"),
    "what stops is padding": (lambda: Broken(**stopping("<pad>")), "it ends a completion, 'eos'"),
    "white space is lost that is said to stay": (lambda: bounded(trims="both"), "white space"),
    # 3. what is lost is told
    "a prefix space in silence": (lambda: saying(prefix_space=False), "no declared change explains that"),
    "line breaks go in silence": (
        lambda: Broken(encode_batch=lambda _, texts: sound().encode_batch([t.replace("\n", " ") for t in texts])),
        "no declared change explains that",
    ),
    "lengths are not those of the bytes": (lambda: Broken(byte_lengths=shorter), "disagree"),
    "it changes nothing, it says": (
        lambda: Broken(verbatim=True, encode_batch=lambda _, texts: sound().encode_batch([t.swapcase() for t in texts]),
                       declaration=replace(declaration_of(sound()), form=swapped)),
        "says that it is verbatim",
    ),
    "it finds no byte that differs": (lambda: Broken(misspelled=lambda found, *_: found[:0]), "misspelled finds 0"),
    "ids outside of its vocabulary": (lambda: Broken(vocab_size=100), "vocab_size"),
    "a row too few": (lambda: Broken(encode_batch=lambda rows, _: rows[1:]), "rows for"),
    "decoding gives another text": (lambda: Broken(decode=lambda text, _: text.upper()), "decode gives"),
}  # fmt: skip


def test_the_sound_one_is_sound() -> None:
    check_tokenizer(Broken())


@pytest.mark.parametrize("name", rest_long(tuple(BROKEN), quick=8))
def test_each_broken_one_is_seen(name: str) -> None:
    broken, message = BROKEN[name]
    with pytest.raises(ConformanceError, match=message):
        check_tokenizer(broken())
