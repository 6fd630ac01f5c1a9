"""reasoning-gym's own scorers, kept from running the answer as a program.

What a task must carry (its metadata, all JSON):

    dataset   the name of the reasoning-gym data set, e.g. "countdown"
    config    the options it was made with; may be left out
    entry     the entry as the data set made it: question, answer, metadata
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import JSON, Task, Verdict
from mutual_env.verifiers.answers import Extraction, check_extraction, final_answer
from mutual_env.verifiers.spec import MAX_CHARS, require, spec_id

LITERAL_SCORERS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Their `score_answer` evaluates the answer as Python, to accept lists: with the true answer in reach as a local
variable."""
SYMBOLIC_SCORERS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Theirs hands the answer to SymPy's `parse_expr`, which evaluates it with all built-in functions in reach."""
_TUPLES = frozenset({"arc_agi", "rearc"})
"""Theirs compares `output` with a tuple of tuples, which JSON turned into lists."""
_FUNCTIONS = frozenset(
    {"Abs", "Integer", "Rational", "acos", "acosh", "acot", "asec", "acsc", "asin", "asinh", "atan", "atanh", "cbrt"}
    | {"cos", "cosh", "cot", "coth", "csc", "csch", "erf", "exp", "factorial", "ln", "log", "root", "sec", "sech"}
    | {"sign", "sin", "sinh", "sqrt", "tan", "tanh"}
)
_CALL = re.compile(r"([^\W\d]\w*)\s*\(")
_ATTRIBUTE = re.compile(r"[\w)]\s*\.\s*[^\W\d]")
_PLAIN = re.compile(r"[\w\s+\-*/^().,!×÷−·]*")


@dataclass(frozen=True, slots=True)
class ReasoningGymScorer:
    """The reward is the data set's own `score_answer`, in [0, 1]; an answer is correct where that is 1.

    The answer is what stands in the last `<answer>` tag, else the whole text. Where the scorer raises on it, the answer
    is `wrong_format` (several raise on junk: a policy that writes junk is at fault, and its sample must not vanish from
    the round); where it raises on the task's own answer too, the task is at fault and the exception passes on. Nine
    scorers would run the answer as a program: of those, four are only given Python literals, five only plain formulas;
    anything else is not run, and is worth 0. Degenerate: a few data sets score 0 on their own `answer` field.
    """

    extraction: Extraction = "tag"
    inline: bool = False

    def __post_init__(self) -> None:
        check_extraction("reasoning_gym", self.extraction)
        require("reasoning_gym", "verifier 'reasoning_gym'", "gym")

    @property
    def id(self) -> str:
        return spec_id("reasoning_gym", {"extraction": self.extraction})

    def warm(self) -> None:
        _scorer("countdown", "{}")

    def verify(self, task: Task, text: str) -> Verdict:
        name, config, entry = _contract(task)
        tail = text[-MAX_CHARS:]
        answer = final_answer(tail, self.extraction)
        if answer is None and "</answer>" not in tail:
            answer = final_answer(tail, "none")
        if answer is None:
            return Verdict.wrong_format(detail="no answer found")
        if name in SYMBOLIC_SCORERS and not is_plain_formula(answer):
            return Verdict.wrong_format(detail="the answer is no plain formula, so it was not evaluated")
        if name in LITERAL_SCORERS and not _harmless(answer, entry):
            return Verdict.scored(0.0, correct=False, detail="neither the answer nor a Python literal")
        score = _scorer(name, json.dumps(config, sort_keys=True))
        try:
            reward = float(score(answer, entry))
        except MemoryError:
            raise
        except Exception as cause:
            score(entry["answer"], entry)  # raises where the task itself cannot be scored
            return Verdict.wrong_format(
                detail=f"the scorer could not read the answer: {type(cause).__name__}: {cause}"[:300]
            )
        return Verdict.scored(reward, correct=reward >= 1.0)


def is_plain_formula(answer: str) -> bool:
    """Numbers, symbols, operators and elementary functions: no string, no attribute, no index, no other call."""
    return (
        _PLAIN.fullmatch(answer) is not None
        and "__" not in answer
        and not _ATTRIBUTE.search(answer)
        and all(name in _FUNCTIONS or len(name) == 1 for name in _CALL.findall(answer))
    )


def _harmless(answer: str, entry: Mapping[str, Any]) -> bool:
    """Is it what the scorer compares as a string before it evaluates, or a literal, whose evaluation does nothing?"""
    if answer.strip() == entry["answer"].strip() or answer in entry["metadata"].get("valid_answers", ()):
        return True
    try:
        ast.literal_eval(answer)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _contract(task: Task) -> tuple[str, Mapping[str, JSON], dict[str, Any]]:
    name, config, entry = (task.metadata.get(key) for key in ("dataset", "config", "entry"))
    if not isinstance(name, str) or not isinstance(entry, Mapping) or not {"answer", "metadata"} <= entry.keys():
        raise InvalidInputError(
            f"task {task.id!r}: the verifier 'reasoning_gym' needs metadata['dataset'], a name, and metadata['entry'], "
            f"the entry as the data set made it; the metadata holds {sorted(task.metadata)}"
        )
    restored = dict(entry)
    if name in _TUPLES and isinstance(entry["metadata"], Mapping):
        restored["metadata"] = {**entry["metadata"], "output": _as_tuples(entry["metadata"]["output"])}
    return name, config if isinstance(config, Mapping) else {}, restored


def _as_tuples(value: JSON) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@functools.lru_cache(maxsize=256)
def _scorer(name: str, config: str) -> Any:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        raise UnknownNameError.of("reasoning-gym data set", name, DATASETS)
    return reasoning_gym.create_dataset(name, **json.loads(config)).score_answer
