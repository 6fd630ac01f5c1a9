"""Where in a completion the final answer stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

from mutual_env.errors import UnknownNameError

Extraction: TypeAlias = Literal["auto", "tag", "boxed", "line", "none"]


def final_answer(text: str, extraction: Extraction = "auto") -> str | None:
    """The last `<answer>...</answer>` ("tag"), the last balanced `\\boxed{...}` ("boxed"), the first line that is not
    blank ("line": of a policy that was given examples and goes on with more of them), the whole text ("none"); or
    ("auto") the first of these that is there: tag, boxed, what follows the last `####`, the whole text. None where
    nothing was found, or it is blank.
    """
    found = _FINDERS[extraction](text)
    return None if found is None else found.strip() or None


def readable(text: str, extraction: Extraction, most: int) -> str:
    """So many characters of a text: its end, where an answer stands, but its beginning where the first line is it."""
    return text[:most] if extraction == "line" else text[-most:]


def check_extraction(owner: str, extraction: str) -> None:
    if extraction not in get_args(Extraction):
        raise UnknownNameError.of(f"{owner} extraction", extraction, get_args(Extraction))


def _tagged(text: str) -> str | None:
    start = text.rfind("</answer>")
    opening = text.rfind("<answer>", 0, start) if start >= 0 else -1
    return text[opening + len("<answer>") : start] if opening >= 0 else None


def last_boxed(text: str) -> str | None:
    """What the last `\\boxed{` holds; None where its braces never close."""
    opening = text.rfind("\\boxed{")
    depth = 0
    for i in range(opening + len("\\boxed{") - 1, len(text) if opening >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[opening + len("\\boxed{") : i]
    return None


def _anywhere(text: str) -> str | None:
    for marked in (_tagged(text), last_boxed(text)):
        if marked is not None:
            return marked
    _, mark, rest = text.rpartition("####")
    return rest if mark else text


def _first_line(text: str) -> str | None:
    return next((line for line in text.splitlines() if line.strip()), None)


def _everything(text: str) -> str:
    return text


_FINDERS: Mapping[Extraction, Callable[[str], str | None]] = {
    "auto": _anywhere,
    "tag": _tagged,
    "boxed": last_boxed,
    "line": _first_line,
    "none": _everything,
}
