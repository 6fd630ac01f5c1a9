"""Every option of the learners that need no model directory does something: of a table, and of a tiny model."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from learners.example import Example
from learners.tabular import TabularLearner
from learners.update import UpdateOptions
from tokenizers_bridge import CharTokenizer, load

PROMPTS = ["1+2=", "12+34=", "abc"]
CHARS = CharTokenizer("0123456789+= abcdefgh")

MOVES: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    # option: another value, and what stands beside it in both
    "tokenizer": (CharTokenizer("0123456789+=abc"), {}),
    "name": ("bob", {}),  # seeds are derived from it
    "merges": ([["1", "2"]], {"tokenizer": None}),
    "max_new_tokens": (3, {}),
    "context": (0, {}),
    "alphabet": ("0123", {}),
    "aversion": (0.5, {"alphabet": "0123"}),
    "temperature": (0.5, {}),
    "stop": (("1",), {}),
    "prompt": ({"template": "a {prompt}"}, {}),
    "learning_rate": (1.0, {}),
    "minibatches": (2, {}),
    "minibatches_by": ("samples", {"minibatches": 2}),
    "epochs": (2, {}),
    "shuffle": (True, {"minibatches": 3, "minibatches_by": "samples"}),
    "aggregation": ("sequence_mean", {}),
    "constant_length": (3, {"aggregation": "constant"}),
    "kl_coefficient": (0.5, {}),
    "reference_reset": (1, {"kl_coefficient": 0.5}),
    "entropy_coefficient": (0.5, {}),
    "behaviour": ("off", {}),
    "behaviour_cap": (1.0, {}),
    "behaviour_floor": (1.0, {"behaviour": "icepop"}),
}


def examples(policy: TabularLearner) -> list[Example]:
    """Own samples, the second of each group better than the rest, of lengths that differ."""
    found = []
    for prompt, group in zip(PROMPTS, policy.act(PROMPTS, 4, seed=0), strict=True):
        for index, completion in enumerate(group):
            size = completion.token_ids.size
            credit, mask = np.full(size, 1.0 if index == 1 else -0.4), np.ones(size, np.bool_)
            ids = policy.tokenizer.render_prompt(prompt)
            found.append(Example(ids, completion.token_ids, mask, credit, behaviour=completion.logprobs))
    return found


def lived(options: Mapping[str, Any]) -> tuple[list[list[int]], dict[tuple[int, ...], list[float]]]:
    """What a table wrote first, and what it is after it has learnt twice from that."""
    policy = TabularLearner(**{"tokenizer": CHARS, "name": "ada", **options})
    lessons = examples(policy)
    policy.update(lessons)
    policy.update(lessons)
    return [e.response_ids.tolist() for e in lessons], {key: row.tolist() for key, row in policy._table.items()}


@cache
def usual(beside: tuple[tuple[str, Any], ...]) -> Any:
    return lived(dict(beside))


def test_every_option_of_a_table_is_here() -> None:
    own = {name for name in inspect.signature(TabularLearner.__init__).parameters if name != "self"}
    assert own == MOVES.keys()
    assert {field.name for field in dataclasses.fields(UpdateOptions)} <= own


@pytest.mark.filterwarnings("ignore:own samples were written")
@pytest.mark.parametrize("option", MOVES)
def test_an_option_of_a_table_moves_what_it_writes_or_learns(option: str) -> None:
    value, beside = MOVES[option]
    assert lived({**beside, option: value}) != usual(tuple(beside.items()))


TINY = {"width": 16, "layers": 1, "heads": 2}
WARM = {"env": "mutual/letters-v0", "knows": {"skill": ["sort"]}, "steps": 1, "prompts": 4}
OTHERS: Mapping[str, Any] = {
    "architecture": "gpt_neox",
    "width": 32,
    "layers": 2,
    "heads": 4,
    "seed": 1,
    "tokenizer": load({"kind": "char", "alphabet": "abcdefgh:=rsx"}),
    "warm_start": {**WARM, "steps": 2},
}
WARMED: Mapping[str, Any] = {
    "env": "mutual/arithmetic-v0",
    "knows": {"skill": ["reverse"]},
    "steps": 2,
    "prompts": 5,
    "learning_rate": 1e-2,
    "env_options": {"length": 3},
}


def scores(**options: Any) -> list[float]:
    """What a model makes of one answer."""
    from learners.tiny import make_tiny

    letters = load({"kind": "char", "alphabet": "abcdefgh:=rs0123456789+-"})
    made = make_tiny(**{"name": "ada", "seed": 0, "tokenizer": letters, **TINY, **options})
    [found] = made.score([np.array([1, 2, 3], np.int32)], [np.array([4, 5], np.int32)])
    return found.tolist()


@cache
def usual_scores(warm: bool) -> list[float]:
    return scores(warm_start=WARM) if warm else scores()


@pytest.mark.torch
@pytest.mark.parametrize("option", OTHERS)
def test_an_option_of_a_tiny_model_makes_another_model(option: str) -> None:
    assert scores(**{option: OTHERS[option]}) != usual_scores(warm=False)


@pytest.mark.torch
@pytest.mark.parametrize("option", WARMED)
def test_an_option_of_a_warm_start_teaches_something_else(option: str) -> None:
    assert scores(warm_start={**WARM, option: WARMED[option]}) != usual_scores(warm=True)


@pytest.mark.torch
def test_a_tiny_model_takes_every_option_of_the_torch_learner() -> None:
    """Which of them does what is seen beside that learner; here it is the same object that holds them."""
    from learners.tiny import make_tiny
    from learners.torch.options import TorchOptions
    from tests.learners.test_torch_options import TOGETHER

    quick = {**TOGETHER, "compile": False}  # compiling takes most of a minute: tests/learners/test_compiled.py
    made: Any = make_tiny(name="ada", tokenizer=CHARS, **TINY, **quick)
    assert made._options == TorchOptions(**quick)
    usual = TorchOptions()
    same = [f.name for f in dataclasses.fields(usual) if getattr(made._options, f.name) == getattr(usual, f.name)]
    assert same == ["compile"]
