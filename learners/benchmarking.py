"""A pytest plugin: the parts of a round as fixtures, chosen on the command line, for benchmarks of anybody's parts.

    pytest -p learners.benchmarking --pyargs learners.suites --mutual-env-learner mine:Learner

measures another package's learner by the suite that ours are measured by. Benchmarks of one's own take the fixtures
`learner`, `learners_of_a_pair`, `tokenizer_pair`, `env`, `strategy`. `mine:Learner` is a module, of the folder that
pytest is called in or on the path, and what it calls; a registered name does as well. So it is with strategies, task
families and tokenizers. What cannot be measured is refused before anything is. Needs pytest and pytest-benchmark.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import mutual_env
import sharing
from learners import registry
from learners.protocol import Learner
from learners.run.loop import Loop
from learners.run.overrides import parsed
from mutual_env import registry as families
from mutual_env.catalogue import load as load_attribute
from mutual_env.errors import InvalidInputError, MutualEnvError
from mutual_env.tasks.source import TaskSource
from sharing import registry as strategies
from tokenizers_bridge import CharTokenizer, PairTokenizer, Tokenizer, TokenizerBridge
from tokenizers_bridge import load as load_tokenizer

LEARNER, STRATEGY, ENV = "--mutual-env-learner", "--mutual-env-strategy", "--mutual-env-env"
TOKENIZER, OPTION = "--mutual-env-tokenizer", "--mutual-env-option"
AGENTS = ("ada", "bob")
PROMPTS, GROUP = 8, 8
_LETTERS = "0123456789+-*= ?.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,:'\n()%/"
_SMALL = {"max_new_tokens": 4, "alphabet": "0123456789", "seed": 0}
"""Options for those learners that take them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutual-env", "the parts that mutual-env's fixtures are made of")
    group.addoption(LEARNER, default="tabular", metavar="NAME", help="a learner, or module:callable")
    group.addoption(STRATEGY, default="sgt", metavar="NAME", help="a sharing strategy, or module:class")
    group.addoption(ENV, default="mutual/arithmetic-v0", metavar="ID", help="a task family, or module:class")
    group.addoption(
        TOKENIZER,
        action="append",
        default=[],
        metavar="NAME",
        help="given twice: the tokenizers of the pair, each what `tokenizers_bridge.load` reads, or module:callable",
    )
    group.addoption(OPTION, action="append", default=[], metavar="KEY=VALUE", help="an option of the learner")


def pytest_configure(config: pytest.Config) -> None:
    """What cannot be measured is refused in a sentence, before anything is."""
    if not hasattr(config.option, "mutual_env_learner"):
        return  # a conftest that pytest came upon while it collected: its options are not known
    here = str(config.invocation_params.dir)
    if here not in sys.path:  # where `mine.py` lies, also for the bare `pytest`
        sys.path.insert(0, here)
    for option, check in ((LEARNER, _learner), (STRATEGY, _strategy), (ENV, _env), (TOKENIZER, _tokenizers)):
        try:
            check(config)
        except MutualEnvError as error:
            raise pytest.UsageError(f"{option}: {error}") from error
        except Exception as error:  # of somebody's module, while it is imported
            raise pytest.UsageError(f"{option}: {type(error).__name__}: {error}") from error


@pytest.fixture
def tokenizer_pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, Tokenizer]:
    """The chosen two; else two vocabularies over the same characters: one token each, and some of two and three."""
    first, second = _tokenizers(request.config) or (
        CharTokenizer(_LETTERS),
        PairTokenizer(_LETTERS, [("1", "0"), ("=", " "), ("1", "1"), ("10", "0")]),
    )
    return first, second


@pytest.fixture
def learners_of_a_pair(request: pytest.FixtureRequest, tokenizer_pair: Any) -> Iterator[dict[str, Learner]]:
    """The chosen learner twice, one for each tokenizer."""
    name, given = _learner(request.config)
    small = {key: value for key, value in _SMALL.items() if key in registry.options(name)}
    pairs = zip(AGENTS, tokenizer_pair, strict=True)
    made = {agent: _made(name, {**small, **given, "name": agent, "tokenizer": tokenizer}) for agent, tokenizer in pairs}
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
    made = mutual_env.make(
        _env(request.config), agents=list(AGENTS), group_size=GROUP, prompts_per_round=PROMPTS, seed=0
    )
    yield made
    made.close()


@pytest.fixture
def strategy(request: pytest.FixtureRequest, env: Any) -> Any:
    """The chosen strategy around the env."""
    return sharing.make(_strategy(request.config), env)


@pytest.fixture
def loop(strategy: Any, learners_of_a_pair: dict[str, Learner]) -> Loop:
    """A round of all of it."""
    bridge = TokenizerBridge([learner.tokenizer for learner in learners_of_a_pair.values()])
    return Loop(strategy, learners_of_a_pair, seed=0, group_size=GROUP, bridge=bridge)


def _learner(config: pytest.Config) -> tuple[str, dict[str, Any]]:
    """The registered name of what was chosen, and its options."""
    name, given = config.getoption(LEARNER), dict(map(parsed, config.getoption(OPTION)))
    if ":" in name:
        registry.register(name, name)
        missing = {"name", "tokenizer"} - {*registry.options(name)}
        if missing:
            raise InvalidInputError(f"{name} takes no {' and no '.join(sorted(missing))}")
    registry.check_options(name, given)
    if ours := {"name", "tokenizer"} & given.keys():
        raise InvalidInputError(f"{OPTION} {' and '.join(sorted(ours))}: each learner of the pair is given its own")
    return name, given


def _made(name: str, options: dict[str, Any]) -> Learner:
    """A learner, or in a sentence why there is none."""
    try:
        learner: object = registry.make(name, **options)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"cannot be made: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
    else:
        if isinstance(learner, Learner):
            return learner
        wrong = f"makes a {type(learner).__name__}, which has no {_lacking(learner, Learner)}"
    pytest.fail(f"{LEARNER} {name} {wrong}", pytrace=False)


def _lacking(part: object, protocol: type) -> str:
    return ", ".join(n for n in vars(protocol) if not n.startswith("_") and not hasattr(part, n))


def _strategy(config: pytest.Config) -> str:
    name: str = config.getoption(STRATEGY)
    if ":" in name:
        sharing.register(name, load_attribute(f"strategy {name!r}", name))
    strategies.strategy(name)
    return name


def _env(config: pytest.Config) -> str:
    name: str = config.getoption(ENV)
    if ":" not in name:
        families.target(name)
        return name
    known = f"own/{name}-v0"
    mutual_env.register(known, load_attribute(f"task family {name!r}", name))
    source: object = families.source_of(known)
    if not isinstance(source, TaskSource):
        raise InvalidInputError(f"{name} is no task family: it has no {_lacking(source, TaskSource)}")
    return known


def _tokenizers(config: pytest.Config) -> list[Tokenizer]:
    """Both; none, where none were chosen."""
    names = config.getoption(TOKENIZER)
    if len(names) not in (0, 2):
        raise InvalidInputError(f"is given twice, once for each of the pair, got {len(names)}")
    return [_tokenizer(name) for name in names]


@cache
def _tokenizer(name: str) -> Tokenizer:
    module, colon, attribute = name.partition(":")
    own = bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
    return load_tokenizer(load_attribute(f"tokenizer {name!r}", name)() if own else name)
