"""reasoning-gym's own scorers, kept from running the answer as a program.

What a task must carry (its metadata, all JSON):

    dataset   the name of the reasoning-gym data set, e.g. "countdown"
    config    the options it was made with; may be left out
    entry     the entry as the data set made it: question, answer, metadata
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import JSON, Task, Verdict
from mutual_env.verifiers.answers import Extraction, check_extraction, final_answer
from mutual_env.verifiers.gym_rules import RULES, RefusedError, as_json_list
from mutual_env.verifiers.spec import MAX_CHARS, require, spec_id

_TUPLES = frozenset({"arc_agi", "rearc"})
"""Their scorer compares `output` with a tuple of tuples, which JSON turned into lists."""
_LISTS = frozenset({"number_sorting"})
"""Theirs evaluates the task's own answer, unless that is JSON."""


@dataclass(frozen=True, slots=True)
class ReasoningGymScorer:
    """The reward is the data set's own `score_answer`, in [0, 1]; an answer is correct where that is 1.

    The answer is what stands in the last `<answer>` tag, else the whole text. Where the scorer raises on it, the answer
    is `wrong_format` (several raise on junk: a policy that writes junk is at fault, and its sample must not vanish from
    the round); where it raises on the task's own answer too, the task is at fault and the exception passes on. Nine
    scorers would run the answer as a program: theirs are replaced by rules that give the same score, and read formulas
    and lists by a grammar (`gym_rules`); what it refuses is `wrong_format`. Degenerate: a few data sets score 0 on
    their own `answer` field.
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
        """What SymPy imports on its first use, no worker imports again."""
        entry = {"answer": "", "metadata": {"variable": "x", "integrand": "2*x", "numbers": [1], "target": 1}}
        _scorer("countdown", "{}")("1.0", entry)
        for answer in ("24", "x**2 + C", "sin(3*x)/3", "sqrt(x)*log(x)", "exp(x)*atan(x)"):
            _scorer("simple_integration", "{}")(answer, entry)

    def verify(self, task: Task, text: str) -> Verdict:
        name, config, entry = _contract(task)
        tail = text[-MAX_CHARS:]
        answer = final_answer(tail, self.extraction)
        if answer is None and "</answer>" not in tail:
            answer = final_answer(tail, "none")
        if answer is None:
            return Verdict.wrong_format(detail="no answer found")
        score = _scorer(name, json.dumps(config, sort_keys=True))
        try:
            reward = float(score(answer, entry))
        except MemoryError:
            raise
        except RefusedError as cause:
            return Verdict(cause.worth, False, "wrong_format", detail=str(cause))
        except Exception as cause:
            score(entry["answer"], entry)  # raises where the task itself cannot be scored
            return Verdict.wrong_format(
                detail=f"the scorer could not read the answer: {type(cause).__name__}: {cause}"[:300]
            )
        return Verdict.scored(reward, correct=reward >= 1.0)


def _contract(task: Task) -> tuple[str, Mapping[str, JSON], dict[str, Any]]:
    name, config, entry = (task.metadata.get(key) for key in ("dataset", "config", "entry"))
    if not isinstance(name, str) or not isinstance(entry, Mapping) or not {"answer", "metadata"} <= entry.keys():
        raise InvalidInputError(
            f"task {task.id!r}: the verifier 'reasoning_gym' needs metadata['dataset'], a name, and metadata['entry'], "
            f"the entry as the data set made it; the metadata holds {sorted(task.metadata)}"
        )
    name, config = _part(name, config if isinstance(config, Mapping) else {}, entry)
    restored = dict(entry)
    if name in _TUPLES and isinstance(entry["metadata"], Mapping):
        restored["metadata"] = {**entry["metadata"], "output": _as_tuples(entry["metadata"]["output"])}
    if name in _LISTS:
        restored["answer"] = as_json_list(str(entry["answer"]))
    return name, config, restored


def _part(name: str, config: Mapping[str, JSON], entry: Mapping[str, Any]) -> tuple[str, Mapping[str, JSON]]:
    """`composite` hands an answer on to the scorer of the entry's own data set; so does this."""
    if name != "composite":
        return name, config
    source = entry["metadata"]["source_dataset"]
    parts: Any = config.get("datasets", ())
    return source, next((dict(part.get("config", {})) for part in parts if part["name"] == source), {})


def _as_tuples(value: JSON) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@functools.lru_cache(maxsize=256)
def _scorer(name: str, config: str) -> Callable[[str, Mapping[str, Any]], float]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS or name == "composite":
        raise UnknownNameError.of("reasoning-gym data set", name, DATASETS)
    dataset = reasoning_gym.create_dataset(name, **json.loads(config))
    if name not in RULES:
        score: Callable[[str, Mapping[str, Any]], float] = dataset.score_answer
        return score
    return lambda answer, entry: RULES[name](answer, entry, dataset.config)
