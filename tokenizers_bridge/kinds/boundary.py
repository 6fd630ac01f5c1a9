"""Where a chat template's prompts end and what a policy says begins, found out by rendering a conversation before and
after the answer."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids, Message
from tokenizers_bridge.declaration import Boundary, Trims
from tokenizers_bridge.kinds.adapted import Encoder
from tokenizers_bridge.kinds.prompts import TemplatePrompt
from tokenizers_bridge.kinds.templates import ChatTemplate
from tokenizers_bridge.roles import opened_thought, think_tags

# A word at either end, so that no tokenizer joins the answer to a line break beside it.
ANSWER = "It is seven apples"
_QUESTION: Message = {"role": "user", "content": "How many are there"}
_ANSWERED: Message = {"role": "assistant", "content": ANSWER}
PROBES: tuple[tuple[Message, ...], ...] = (
    (_QUESTION, _ANSWERED),
    (_QUESTION, _ANSWERED, _QUESTION),
    ({"role": "system", "content": "Be brief"}, _QUESTION, _ANSWERED),
)


def render(template: ChatTemplate, messages: Sequence[Message]) -> Iterator[str]:
    """The conversation, with and without the beginning of another turn; nothing where the template refuses it."""
    for generation in (False, True):
        try:
            yield template.render(messages, generation=generation)
        except InvalidInputError:
            return


def turn_end(template: ChatTemplate, encode: Encoder, controls: Container[int]) -> int | None:
    """The control token with which the template ends the policy's turn."""
    text = next(render(template, PROBES[0]), "")
    start = text.rfind(ANSWER)
    behind = encode([text[start + len(ANSWER) :]])[0].tolist() if start >= 0 else []
    return next((i for i in behind if i in controls), None)


def boundary_of(prompt: TemplatePrompt, encoders: tuple[Encoder, Encoder], stop_id: int) -> Boundary:
    """What the template does between a prompt and its answer. `encoders` are for a text from its beginning, and for one
    that goes on."""
    try:
        before, after = (prompt.ids(m, generation=g) for m, g in ((PROBES[0][:1], True), (PROBES[0], False)))
        text, finished = (
            prompt.template.render(m, generation=g) for m, g in ((PROBES[0][:1], True), (PROBES[0], False))
        )
    except InvalidInputError as error:
        return Boundary(continues=True, difference=f"the template cannot render a short conversation: {error}")
    opening = _opening(text)
    closing = _closing(text, finished) if opening else ""
    continues = _continues(before, after, closing, encoders)
    begins, goes_on = encoders
    answer = (goes_on if continues else begins)([closing + ANSWER])[0]
    wanted = np.concatenate([before, answer, np.array([stop_id], np.int32)])
    same = np.array_equal(after[: wanted.size], wanted)
    difference = "" if same else _difference(text, finished, closing)
    return Boundary(continues, opening, closing, difference, _trims(prompt, encoders))


def _continues(before: Ids, after: Ids, closing: str, encoders: tuple[Encoder, Encoder]) -> bool:
    """Whether no prefix space stands in front of an answer."""
    begins, goes_on = encoders
    for continues, encode in ((True, goes_on), (False, begins)):
        told = np.concatenate([before, encode([closing + ANSWER])[0]])
        if np.array_equal(after[: told.size], told):
            return continues
    plain = goes_on([ANSWER])[0]
    return np.array_equal(plain, begins([ANSWER])[0]) or _find(after, plain) >= 0


def _trims(prompt: TemplatePrompt, encoders: tuple[Encoder, Encoder]) -> Trims:
    """Where white space around an answer is lost, by the template or by a token that takes it along."""
    spaced: Message = {"role": "assistant", "content": f" {ANSWER}\n"}
    after = prompt.ids((_QUESTION, spaced), generation=False)
    leading = all(_find(after, encode([f" {ANSWER}"])[0]) < 0 for encode in encoders)
    trailing = all(_find(after, encode([f"{ANSWER}\n"])[0]) < 0 for encode in encoders)
    # With the space in front of it kept, the answer's first token is another one.
    trailing &= all(_find(after, encode([f" {ANSWER}\n"])[0]) < 0 for encode in encoders)
    return "both" if leading and trailing else "leading" if leading else "trailing" if trailing else "neither"


def _opening(text: str) -> str:
    """The thought that a prompt opens at its end."""
    opened = opened_thought(text)
    return "" if ANSWER in opened else opened


def _closing(text: str, finished: str) -> str:
    """How the template ends a thought in which there is nothing."""
    end = finished.rfind(ANSWER)
    if finished.startswith(text) and any(tag in finished[len(text) : end] for tag in think_tags("think_close")):
        return finished[len(text) : end]
    return "\n</think>\n\n"


def _difference(text: str, finished: str, closing: str) -> str:
    at = finished.rfind(ANSWER)
    if at < 0:
        return f"the template changes what the policy says: {ANSWER!r} is not in the finished conversation"
    if finished[:at] == text + closing:
        return "the same text, cut into other tokens where prompt and answer meet, or without the same end"
    common = next((i for i, (a, b) in enumerate(zip(text, finished, strict=False)) if a != b), min(len(text), at))
    there, here = finished[common:at], text[common:]
    return f"the finished conversation has {there!r} before the answer where the prompt has {here!r}"


def _find(row: Ids, part: Ids) -> int:
    """Where `part` stands in `row` last, -1 if nowhere."""
    if not part.size or part.size > row.size:
        return -1
    windows = np.lib.stride_tricks.sliding_window_view(row, part.size)
    found = (windows == part).all(axis=1).nonzero()[0]
    return int(found[-1]) if found.size else -1
