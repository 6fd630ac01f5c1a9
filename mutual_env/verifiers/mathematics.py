"""Mathematical equality, as math-verify sees it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.types import Task, Verdict
from mutual_env.verifiers.answers import final_answer, last_boxed
from mutual_env.verifiers.spec import MAX_CHARS, require, spec_id

_WARM_UP = (
    ("\\frac{1}{2}", "so \\boxed{0.5}"),
    ("\\frac{17}{39}", "We get \\boxed{17/39}."),
    ("\\frac{17}{39}", "The total is 12, so the answer is \\boxed{0.436}."),
    ("-\\frac{7}{12}", "\\[ x = -\\frac{7}{12} \\]"),
    ("3x+2", "$y = 2+3x$"),
    ("34x+2", "\\boxed{2+34x}"),
    ("x^2-4", "it is \\boxed{(x-2)(x+2)}"),
    ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"),
    ("12\\pi", "\\boxed{12\\pi \\text{ cm}^2}"),
    ("2^{10}", "\\boxed{1{,}024}"),
    ("(1,2)", "\\boxed{\\{2,1\\}}"),
    ("[0,\\infty)", "\\boxed{[0,\\infty)}"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}"),
    ("50", "about \\boxed{50\\%}"),
    ("12", "#### 13"),
    ("45", "\\boxed{0+1+2+3+4+5+6+7+8+9}"),
    ("45", "\\boxed{0.1+1.2+2.3+3.4+4.5+5.6+6.7+7.8+8.9+9.0}"),
    ("1", "\\boxed{1234567890.0123456789}"),
    ("x", "\\boxed{a+b+c+k+m+n+p+q+r+s+t+u+v+w+x+y+z}"),
)
"""One for each path that most answers take, and each digit in each place: SymPy imports much on its first use, and the
LaTeX parser learns its grammar as it meets it, character by character. What is learnt before a worker is forked, no
worker learns again."""


@dataclass(frozen=True, slots=True)
class MathVerify:
    """1 where math-verify finds the text's answer equal to the task's, which may be plain or LaTeX; else 0.

    The answer is read with the strict settings that math-verify advises for rewards: every box counts, a malformed
    operator is not mended, an equation is not split; a single box with the task's answer, letter for letter, is right
    however that is written. Where there is an `<answer>` tag, only what it holds is read. Not
    symmetric, and generous in places: "x=5" answers "5", and a set answers a tuple. Degenerate: nothing to read is
    `wrong_format`; a task whose own answer cannot be parsed is refused. math-verify's own time limits are off, because
    they need the main thread and SIGALRM: this verifier belongs in a pool, whose deadline ends what hangs.
    """

    inline: bool = False

    def __post_init__(self) -> None:
        require("math_verify", "verifier 'math_verify'", "math")

    @property
    def id(self) -> str:
        return spec_id("math_verify", {})

    def warm(self) -> None:
        for answer, text in _WARM_UP:
            self.verify(Task("warm", "", answer), text)

    def verify(self, task: Task, text: str) -> Verdict:
        from math_verify import verify

        gold = _gold(task.answer)
        if not gold:
            raise InvalidInputError(f"task {task.id!r}: math-verify cannot parse its answer {task.answer[:80]!r}")
        region = _region(text[-MAX_CHARS:])
        if region.count("\\boxed") == 1 and (last_boxed(region) or "").strip() == task.answer.strip():
            return Verdict.scored(1.0, correct=True)
        parsed = _parse(region, strict=True)
        if not parsed:
            return Verdict.wrong_format(detail="no mathematical expression found")
        correct = bool(verify(list(gold), parsed, timeout_seconds=None))
        return Verdict.scored(float(correct), correct=correct)


def _region(text: str) -> str:
    tagged = final_answer(text, "tag")
    if tagged is None:
        return text
    return tagged if _is_marked(tagged) else _boxed(tagged)


def _is_marked(text: str) -> bool:
    """Does it say where its LaTeX is? `\\$` is money."""
    return "\\boxed" in text or "$" in text.replace("\\$", "")


def _boxed(text: str) -> str:
    return f"\\boxed{{{text}}}"


@functools.lru_cache(maxsize=1024)
def _gold(answer: str) -> tuple[Any, ...]:
    return tuple(_parse(answer if _is_marked(answer) else _boxed(answer), strict=False))


def _parse(text: str, *, strict: bool) -> list[Any]:
    from math_verify import parse

    found: list[Any] = parse(text, extraction_config=_targets(strict), parsing_timeout=None)
    return found


@functools.cache
def _targets(strict: bool) -> tuple[Any, ...]:
    from latex2sympy2_extended import NormalizationConfig  # type: ignore[import-untyped]
    from math_verify import ExprExtractionConfig, LatexExtractionConfig

    if not strict:
        return LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()
    normalization = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=False, nits=False, boxed="all", equations=False
    )
    return LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization), ExprExtractionConfig()
