"""What every tokenizer must do before the bridge can trust it. `load` runs this; a third party's tokenizer should
too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mutual_env.errors import ConformanceError, InvalidInputError
from mutual_env.types import Ids, Message, Prompt
from tokenizers_bridge.declaration import NOTHING, Declaration, declaration_of
from tokenizers_bridge.edits import edits_between
from tokenizers_bridge.protocol import Spelling, Tokenizer, encode_continuations, encode_rows, stop_ids_of
from tokenizers_bridge.roles import (
    CONTENT_ROLES,
    STOP_ROLES,
    control_spellings,
    is_plain_tag,
    is_tag,
    looks_like_control,
    opened_thought,
    role_of,
    think_tags,
)

PROBES = (
    "Hello, world",
    " leading space",
    "  two,    four,\t\ttabs and trailing  ",
    "def f(x):\n        return x ** 2\n\n\n# end",
    "line\r\nline\rline\n",
    "中文和日本語のテキスト、한국어",
    "😀👩\u200d👩\u200d👧🏽 🇺🇳",
    "e\u0301 a\u0308\u0323 \u0915\u094d\u0937\u093f \u1112\u1161\u11ab",
    "مرحبا שלום ไทย",
    "\x00\x01\x1b\x7f\x85\u2028\ufeff\ufffd",
    "𝔘𝔫𝔦 \U0010fffd \ue000",
    "1234567890 3.14e-10 ∑∫√ x²",
    "▁ literal ▁▁ Ġ Ċ ##ing",
    "",
)


# So many spellings are looked at in one prompt: a vocabulary has hundreds, and all are treated alike.
MOST_SPELLED = 64


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raise ConformanceError, with the probe, where bytes(encode(text)) is not the text up to declared changes (what
    is lost must be declared, and makes a row `lossy`), where text that spells a control token becomes one, in a
    completion or in a prompt, where a token that acts as one is not said to be one or a tag is, where prompts do not
    end with the opening that is declared or differ from a finished conversation in silence, where it says falsely that
    it changes nothing or finds no byte that differs, or where the tables disagree with each other."""
    _check_probes(tokenizer)
    _check_spelling(tokenizer)
    _check_rows(tokenizer)
    _check_continuations(tokenizer)
    _check_tables(tokenizer)
    _check_tags(tokenizer)
    _check_spelled(tokenizer)
    _check_prompts(tokenizer)
    _check_boundary(tokenizer)


def _encoded(tokenizer: Tokenizer, encode: Callable[[Sequence[str]], list[Ids]], texts: Sequence[str]) -> list[Ids]:
    """A row of known ids for each text."""
    rows = encode(texts)
    if len(rows) != len(texts):
        raise ConformanceError(f"{tokenizer!r}: encoding gives {len(rows)} rows for {len(texts)} texts")
    last = max((int(row.max()) for row in rows if row.size), default=0)
    if last >= tokenizer.vocab_size:
        raise ConformanceError(f"{tokenizer!r}: encoding gives id {last}, and vocab_size is {tokenizer.vocab_size}")
    return rows


def _check_probes(tokenizer: Tokenizer) -> None:
    says = declaration_of(tokenizer)
    for probe, ids in zip(PROBES, _encoded(tokenizer, tokenizer.encode_batch, PROBES), strict=True):
        data = tokenizer.token_bytes(ids)
        edits = edits_between(probe.encode(), data, NOTHING, says)
        if not edits.declared and not _unknown(tokenizer) & set(ids.tolist()):
            raise ConformanceError(f"{tokenizer!r} turns {probe!r} into {data!r}: no declared change explains that")
        if int(tokenizer.byte_lengths(ids).sum()) != len(data):
            raise ConformanceError(f"{tokenizer!r}: byte_lengths and token_bytes disagree on {probe!r}")
        _check_decoded(tokenizer, ids, data, says)


def _check_decoded(tokenizer: Tokenizer, ids: Ids, data: bytes, says: Declaration) -> None:
    text, shown = data.decode("utf-8", "replace"), tokenizer.decode(ids)
    if "\ufffd" not in text and shown not in (text, text.removeprefix(" ") if says.prefix_space else text):
        raise ConformanceError(f"{tokenizer!r}: decode gives {shown!r} for ids that stand for {data!r}")


def _check_continuations(tokenizer: Tokenizer) -> None:
    """A text that goes on has nothing put in front of it."""
    says = declaration_of(tokenizer)
    if not says.prefix_space:
        return
    for probe, ids in zip(PROBES, _encoded(tokenizer, partial(encode_continuations, tokenizer), PROBES), strict=True):
        data = tokenizer.token_bytes(ids)
        edits = edits_between(probe.encode(), data, NOTHING, replace(says, prefix_space=False))
        if not edits.declared and not _unknown(tokenizer) & set(ids.tolist()):
            raise ConformanceError(
                f"{tokenizer!r}: encode_continuations turns {probe!r} into {data!r}: nothing may stand in front of it"
            )


def _check_spelling(tokenizer: Tokenizer) -> None:
    """What the bridge takes a tokenizer's word for: that it changes nothing, and that ids are not what they lie on."""
    rows = tokenizer.encode_batch(PROBES)
    for probe, ids in zip(PROBES, rows, strict=True):
        data, said = tokenizer.token_bytes(ids), probe.encode()
        if getattr(tokenizer, "verbatim", False) and data != said and len(data) == len(said):
            raise ConformanceError(f"{tokenizer!r} says that it is verbatim, and turns {probe!r} into {data!r}")
    if not isinstance(tokenizer, Spelling):
        return
    ids = np.concatenate(rows).astype(np.int32)
    lengths = tokenizer.byte_lengths(ids)
    starts = lengths.cumsum() - lengths
    sound = np.frombuffer(tokenizer.token_bytes(ids), np.uint8)
    written = lengths.nonzero()[0]
    for wrong in (written[:0], written, written[::3]):
        changed = sound.copy()
        changed[(starts + lengths - 1)[wrong]] ^= 1  # the last byte of each
        # Behind one byte more: where a token lies is what `starts` says.
        found = tokenizer.misspelled(ids, starts + 1, lengths, b" " + changed.tobytes())
        if sorted(set(found.tolist())) != wrong.tolist():
            raise ConformanceError(
                f"{tokenizer!r}: misspelled finds {len(set(found.tolist()))} tokens that are not the bytes they lie "
                f"on, of {wrong.size}"
            )


def _check_rows(tokenizer: Tokenizer) -> None:
    """Many texts at once are what each is alone."""
    for goes_on in (False, True):
        rows = encode_rows(tokenizer, PROBES, goes_on=goes_on)
        alone = encode_continuations(tokenizer, PROBES) if goes_on else tokenizer.encode_batch(PROBES)
        if not all(map(np.array_equal, rows, alone)) or len(rows) != len(PROBES):
            name = "encode_continuations" if goes_on else "encode_batch"
            raise ConformanceError(f"{tokenizer!r}: encode_rows gives other ids than {name}")


def _unknown(tokenizer: Tokenizer) -> set[int]:
    return {i for i, role in tokenizer.specials.items() if role == "unk"}


def _check_tables(tokenizer: Tokenizer) -> None:
    specials, says = tokenizer.specials, declaration_of(tokenizer)
    if tokenizer.byte_lengths(np.fromiter(specials, np.int32, len(specials))).any():
        raise ConformanceError(f"{tokenizer!r}: a control token stands for bytes")
    stops = stop_ids_of(tokenizer)
    for i in {tokenizer.stop_id, *stops}:
        if i not in specials:
            raise ConformanceError(f"{tokenizer!r}: stop_id {i} is not among its control tokens")
        if specials[i] not in STOP_ROLES:
            raise ConformanceError(f"{tokenizer!r}: stop_id {i} has role {specials[i]!r}: it ends a completion, 'eos'")
    if stops[0] != tokenizer.stop_id:
        raise ConformanceError(f"{tokenizer!r}: stop_ids begin with {stops[0]}, stop_id is {tokenizer.stop_id}")
    for i, text in _shaped(tokenizer):
        if i not in says.tags and looks_like_control(text):
            raise ConformanceError(
                f"{tokenizer!r}: token {i}, {text!r} acts as a control token: list it in `specials`, or in the tags of "
                "its declaration"
            )


def _check_tags(tokenizer: Tokenizer) -> None:
    """A tag is content, and what text becomes where it is a plain one."""
    specials, says, stops = tokenizer.specials, declaration_of(tokenizer), stop_ids_of(tokenizer)
    for i, role in specials.items():
        text = says.control_texts.get(i, "")
        if i not in stops and (role in CONTENT_ROLES or is_tag(text)):
            raise ConformanceError(
                f"{tokenizer!r}: control token {i}, {text!r}, is a tag of a thought or a call, which a policy says: "
                "list it in the tags of its declaration, and let it stand for its spelling"
            )
    tags = np.fromiter(says.tags, np.int32, len(says.tags))
    if set(says.tags) & set(specials) or not tokenizer.byte_lengths(tags).all():
        raise ConformanceError(f"{tokenizer!r}: a tag is content, and stands for the bytes of its spelling")
    for i, role in says.tags.items():
        data = tokenizer.token_bytes([i])
        text = data.decode("utf-8", "replace")
        if role not in CONTENT_ROLES or role_of(text) not in ("other", role):
            raise ConformanceError(f"{tokenizer!r}: token {i}, {text!r}, is a tag of role {role!r}: {role_of(text)!r}?")
        _check_decoded(tokenizer, np.array([i], np.int32), data, says)
        for encode in (tokenizer.encode_batch, partial(encode_continuations, tokenizer)):
            (ids,) = _encoded(tokenizer, encode, [f"a{text}b"])
            if is_plain_tag(text) and i not in ids:
                raise ConformanceError(f"{tokenizer!r}: the text {text!r} does not become the tag that is spelled so")
            if not is_plain_tag(text) and i in ids:
                raise ConformanceError(f"{tokenizer!r}: the tag {i}, {text!r}, comes from its own token alone, no text")


def _shaped(tokenizer: Tokenizer) -> Iterator[tuple[int, str]]:
    """Ids that stand for something in angle brackets, and that."""
    every = np.arange(tokenizer.vocab_size, dtype=np.int32)
    lengths = tokenizer.byte_lengths(every)
    ends = lengths.cumsum()
    data = tokenizer.token_bytes(every)
    if lengths.sum() != len(data):
        raise ConformanceError(f"{tokenizer!r}: byte_lengths and token_bytes disagree on the whole vocabulary")
    raw = np.frombuffer(data + b"\0", np.uint8)
    open_, close = raw[ends - lengths] == ord("<"), raw[np.maximum(ends - 1, 0)] == ord(">")
    for i in (open_ & close & (lengths > 2)).nonzero()[0].tolist():
        yield i, data[ends[i] - lengths[i] : ends[i]].decode("utf-8", "replace")


def _spellings(tokenizer: Tokenizer) -> list[str]:
    return sorted({text for text in declaration_of(tokenizer).control_texts.values() if text})


def _check_spelled(tokenizer: Tokenizer) -> None:
    specials, unknown = set(tokenizer.specials), _unknown(tokenizer)
    spelled = [f"a{text}b {text}" for text in dict.fromkeys([*_spellings(tokenizer), *control_spellings()])]
    for encode in (tokenizer.encode_batch, partial(encode_continuations, tokenizer)):
        for text, ids in zip(spelled, _encoded(tokenizer, encode, spelled), strict=True):
            leaked = (set(ids.tolist()) & specials) - unknown
            if leaked:
                raise ConformanceError(
                    f"{tokenizer!r}: the text {text!r} was encoded as control tokens {sorted(leaked)}"
                )


# What a token looks like that a template writes and no prose has.
_BRACKETED = re.compile(r"<[^<>\s]{2,}>|\[[^\[\]\s]{2,}\]")


def _check_prompts(tokenizer: Tokenizer) -> None:
    """What a message says adds no control token to a prompt, whatever it spells and whoever says it."""
    spelled = " ".join(_spellings(tokenizer)[:MOST_SPELLED])
    for said in _conversations("ab"):
        try:
            plain = tokenizer.render_prompt(said("ab"))
            ids = tokenizer.render_prompt(said(f"a{spelled}b"))
        except InvalidInputError:  # its template wants another conversation, or its alphabet has no such letters
            continue
        expected, found = (
            Counter(i for i in row.tolist() if tokenizer.specials.get(i, "unk") != "unk") for row in (plain, ids)
        )
        if expected != found:
            more = sorted((found - expected).elements())[:8]
            raise ConformanceError(f"{tokenizer!r}: render_prompt makes control tokens of what a message says, {more}")
        _check_written(tokenizer, plain)


def _conversations(word: str) -> tuple[Callable[[str], Prompt], ...]:
    """Prompts in which what is given is said by each in turn; the others say `word`."""
    asked: Message = {"role": "user", "content": word}
    answered: Message = {"role": "assistant", "content": word}
    return (
        lambda text: text,
        lambda text: ({"role": "system", "content": text}, asked),
        lambda text: (asked, {"role": "assistant", "content": text}, asked),
        lambda text: (asked, answered, {"role": "user", "content": text}),
    )


def _check_written(tokenizer: Tokenizer, prompt: Ids) -> None:
    """A prompt is written with control tokens, tags, and prose."""
    content = set(prompt.tolist()) - set(tokenizer.specials) - set(declaration_of(tokenizer).tags)
    for i in sorted(content):
        text = tokenizer.token_bytes([i]).decode("utf-8", "replace")
        if _BRACKETED.fullmatch(text):
            raise ConformanceError(
                f"{tokenizer!r}: its prompts are written with token {i}, {text!r}, which text becomes too: list it in "
                "`specials`"
            )


_ASKED: Message = {"role": "user", "content": "How many are there"}
_ANSWER = "It is seven apples"


def _check_boundary(tokenizer: Tokenizer) -> None:
    """Prompts end with the opening that is declared, and prompt and completion together begin what the template makes
    of the conversation when it has gone on, unless the difference is named."""
    boundary = declaration_of(tokenizer).boundary
    answered: Message = {"role": "assistant", "content": _ANSWER}
    try:
        before, later = (tokenizer.render_prompt(m) for m in ((_ASKED,), (_ASKED, answered, _ASKED)))
    except InvalidInputError:  # its template wants another conversation, or its alphabet has no such letters
        return
    if not tokenizer.token_bytes(before).endswith(boundary.opening.encode()):
        raise ConformanceError(
            f"{tokenizer!r}: its prompts do not end with {boundary.opening!r}, the opening that its boundary declares"
        )
    opened = opened_thought(tokenizer.token_bytes(before).decode("utf-8", "replace"))
    if opened and not boundary.opening:
        raise ConformanceError(
            f"{tokenizer!r}: its prompts open a thought with {opened!r}: declare it as the opening of its boundary"
        )
    if opened_thought(boundary.opening) and not any(tag in boundary.closing for tag in think_tags("think_close")):
        raise ConformanceError(f"{tokenizer!r}: its boundary has no closing for the thought that its prompts open")
    _check_finished(tokenizer, before, later)
    _check_trims(tokenizer, later)


def _check_finished(tokenizer: Tokenizer, before: Ids, later: Ids) -> None:
    boundary, specials = declaration_of(tokenizer).boundary, tokenizer.specials
    acting = {specials[i] for i in set(later.tolist()) & set(specials)}
    if boundary.difference or acting <= {"bos", "unk"}:  # or there is no template
        return
    encode = partial(encode_continuations, tokenizer) if boundary.continues else tokenizer.encode_batch
    stop = np.array([tokenizer.stop_id], np.int32)
    wanted = np.concatenate([before, *encode([boundary.closing + _ANSWER]), stop])
    if not np.array_equal(later[: wanted.size], wanted):
        raise ConformanceError(
            f"{tokenizer!r}: prompt and completion are not what its template makes of the finished conversation, and "
            "its boundary names no difference"
        )


def _check_trims(tokenizer: Tokenizer, later: Ids) -> None:
    """White space around an earlier answer stays or goes as the boundary says, where a completion keeps it and the rest
    of the conversation is the same."""
    boundary, size = declaration_of(tokenizer).boundary, len(tokenizer.token_bytes(later))
    if boundary.difference:
        return
    encode = partial(encode_continuations, tokenizer) if boundary.continues else tokenizer.encode_batch
    for where, text in (("leading", f" {_ANSWER}"), ("trailing", f"{_ANSWER}\n")):
        bare, spaced = (int(tokenizer.byte_lengths(row).sum()) for row in encode([_ANSWER, text]))
        try:
            ids = tokenizer.render_prompt((_ASKED, {"role": "assistant", "content": text}, _ASKED))
        except InvalidInputError:
            continue
        trims = boundary.trims in (where, "both")
        if spaced > bare and (len(tokenizer.token_bytes(ids)) == size) != trims:
            raise ConformanceError(
                f"{tokenizer!r}: its boundary trims {boundary.trims!r}, and {where} white space of an answer "
                f"{'stays' if trims else 'goes'} in the finished conversation"
            )
