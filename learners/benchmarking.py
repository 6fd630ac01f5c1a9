"""A pytest plugin: the parts of a round as fixtures, chosen on the command line, for benchmarks of anybody's parts.

    pytest -p learners.benchmarking --pyargs learners.suites --mutual-env-learner mine:Learner

measures another package's learner by the suite that ours are measured by. Benchmarks of one's own take the fixtures
`learner`, `learners_of_a_pair`, `tokenizer_pair`, `env`, `strategy`. `mine:Learner` is a module and what it calls; a
registered name does as well. Needs pytest and pytest-benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mutual_env
import sharing
from learners import registry
from learners.protocol import Learner
from learners.run.loop import Loop
from learners.run.overrides import parsed
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

AGENTS = ("ada", "bob")
PROMPTS, GROUP = 8, 8
_LETTERS = "0123456789+-*= ?.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,:'\n()%/"
_SMALL = {"max_new_tokens": 4, "alphabet": "0123456789", "seed": 0}
"""Options for those learners that take them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutual-env", "the parts that mutual-env's fixtures are made of")
    group.addoption("--mutual-env-learner", default="tabular", metavar="NAME", help="a learner, or module:callable")
    group.addoption("--mutual-env-strategy", default="sgt", metavar="NAME", help="a sharing strategy")
    group.addoption("--mutual-env-env", default="mutual/arithmetic-v0", metavar="ID", help="a task family")
    group.addoption(
        "--mutual-env-option", action="append", default=[], metavar="KEY=VALUE", help="an option of the learner"
    )


@pytest.fixture
def tokenizer_pair() -> tuple[CharTokenizer, PairTokenizer]:
    """Two vocabularies over the same characters: one token each, and some of two and three."""
    merges = [("1", "0"), ("=", " "), ("1", "1"), ("10", "0")]
    return CharTokenizer(_LETTERS), PairTokenizer(_LETTERS, merges)


@pytest.fixture
def learners_of_a_pair(request: pytest.FixtureRequest, tokenizer_pair: Any) -> Iterator[dict[str, Learner]]:
    """The chosen learner twice, one for each tokenizer."""
    name = _named(request.config.getoption("--mutual-env-learner"))
    given = dict(map(parsed, request.config.getoption("--mutual-env-option")))
    small = {key: value for key, value in _SMALL.items() if key in registry.options(name)}
    pairs = zip(AGENTS, tokenizer_pair, strict=True)
    made = {
        agent: registry.make(name, name=agent, tokenizer=tokenizer, **{**small, **given}) for agent, tokenizer in pairs
    }
    yield made
    for learner in made.values():
        learner.close()


@pytest.fixture
def learner(learners_of_a_pair: dict[str, Learner]) -> Learner:
    """The chosen learner, behind the first tokenizer."""
    return learners_of_a_pair[AGENTS[0]]


@pytest.fixture
def env(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The chosen task family, for two agents."""
    chosen = request.config.getoption("--mutual-env-env")
    made = mutual_env.make(chosen, agents=list(AGENTS), group_size=GROUP, prompts_per_round=PROMPTS, seed=0)
    yield made
    made.close()


@pytest.fixture
def strategy(request: pytest.FixtureRequest, env: Any) -> Any:
    """The chosen strategy around the env."""
    return sharing.make(request.config.getoption("--mutual-env-strategy"), env)


@pytest.fixture
def loop(strategy: Any, learners_of_a_pair: dict[str, Learner]) -> Loop:
    """A round of all of it."""
    bridge = TokenizerBridge([learner.tokenizer for learner in learners_of_a_pair.values()])
    return Loop(strategy, learners_of_a_pair, seed=0, group_size=GROUP, bridge=bridge)


def _named(chosen: str) -> str:
    """The registered name of what was chosen."""
    if ":" not in chosen:
        return chosen
    registry.register(chosen, chosen)
    missing = {"name", "tokenizer"} - {*registry.options(chosen)}
    if missing:
        raise pytest.UsageError(f"--mutual-env-learner {chosen} takes no {' and no '.join(sorted(missing))}")
    return chosen
