"""A pytest plugin: the parts of a round as fixtures, chosen on the command line, for benchmarks of anybody's parts.

    pytest -p learners.benchmarking --pyargs learners.suites --mutual-env-learner mine:Learner

measures another package's learner by the suite that ours are measured by. Benchmarks of one's own take the fixtures
`learner`, `learners_of_a_pair`, `tokenizer_pair`, `env`, `strategy`, `loop`, `group_size` and `measured_rounds`.
`mine:Learner` is a module, of the folder that pytest is called in or on the path, and what it calls; a registered name
does as well. So it is with strategies, task families and tokenizers. Options of each are given as `KEY=VALUE`:

    ... --mutual-env-learner torch --mutual-env-learner-option path=models/smollm2 --mutual-env-env-option group_size=2

A learner that does not ask for a tokenizer brings its own. What cannot be measured is refused before anything is. Needs
pytest and pytest-benchmark.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import cache
from inspect import Parameter, signature
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
TOKENIZER, ROUNDS = "--mutual-env-tokenizer", "--mutual-env-rounds"
AGENTS = ("ada", "bob")
PROMPTS, GROUP = 8, 8
_LETTERS = "0123456789+-*= ?.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,:'\n()%/"
_SMALL: dict[str, Any] = {"max_new_tokens": 4, "alphabet": "0123456789", "seed": 0}
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
    for part, what in (
        ((f"{LEARNER}-option", "--mutual-env-option"), f"the learner; {AGENTS[1]}.KEY=VALUE: of the second alone"),
        ((f"{STRATEGY}-option",), "the strategy"),
        ((f"{ENV}-option",), "the task family, or group_size, prompts_per_round and the like"),
    ):
        group.addoption(*part, action="append", default=[], metavar="KEY=VALUE", help=f"an option of {what}")
    group.addoption(ROUNDS, type=int, default=15, metavar="N", help="how often each part is measured (default: 15)")


def pytest_configure(config: pytest.Config) -> None:
    """What cannot be measured is refused in a sentence, before anything is."""
    if not hasattr(config.option, "mutual_env_learner"):
        return  # a conftest that pytest came upon while it collected: its options are not known
    here = str(config.invocation_params.dir)
    if here not in sys.path:  # where `mine.py` lies, also for the bare `pytest`
        sys.path.insert(0, here)
    checks = ((TOKENIZER, _tokenizers), (LEARNER, _check_learner), (ENV, _check_env), (STRATEGY, _check_strategy))
    for option, check in (*checks, (ROUNDS, _rounds)):
        try:
            check(config)
        except MutualEnvError as error:
            raise pytest.UsageError(f"{option}: {error}") from error
        except Exception as error:  # of somebody's module, while it is imported
            raise pytest.UsageError(f"{option}: {type(error).__name__}: {error}") from error


@pytest.fixture
def tokenizer_pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, Tokenizer]:
    """The chosen two; else those that the learners bring; else two vocabularies over the same characters: one token
    each, and some of two and three."""
    if _bring_their_own(request.config):
        first, second = (learner.tokenizer for learner in request.getfixturevalue("learners_of_a_pair").values())
    else:
        first, second = _given_tokenizers(request.config)
    return first, second


@pytest.fixture
def learners_of_a_pair(request: pytest.FixtureRequest) -> Iterator[dict[str, Learner]]:
    """The chosen learner twice, one for each tokenizer."""
    own = _bring_their_own(request.config)
    name, tokenizers = _learner(request.config), [] if own else request.getfixturevalue("tokenizer_pair")
    made = {agent: _made(name, options) for agent, options in _learner_options(request.config, tokenizers).items()}
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
    made = _made_env(request.config)
    yield made
    made.close()


@pytest.fixture
def strategy(request: pytest.FixtureRequest, env: Any) -> Any:
    """The chosen strategy around the env."""
    return sharing.make(_strategy(request.config), env, **_options(request.config, STRATEGY))


@pytest.fixture
def group_size(request: pytest.FixtureRequest) -> int:
    """Completions for each prompt."""
    size: int = _env_options(request.config)["group_size"]
    return size


@pytest.fixture
def measured_rounds(request: pytest.FixtureRequest) -> int:
    """How often each part is measured."""
    return _rounds(request.config)


@pytest.fixture
def loop(strategy: Any, learners_of_a_pair: dict[str, Learner], group_size: int) -> Loop:
    """A round of all of it."""
    bridge = TokenizerBridge([learner.tokenizer for learner in learners_of_a_pair.values()])
    return Loop(strategy, learners_of_a_pair, seed=0, group_size=group_size, bridge=bridge)


def _options(config: pytest.Config, part: str) -> dict[str, Any]:
    """What was given of the learner, the strategy or the task family."""
    return dict(map(parsed, config.getoption(f"{part}-option")))


def _rounds(config: pytest.Config) -> int:
    rounds: int = config.getoption(ROUNDS)
    if rounds < 1:
        raise InvalidInputError(f"must be at least 1, got {rounds}")
    return rounds


# -- learners and tokenizers ------------------------------------------------------------------------------------------


def _learner(config: pytest.Config) -> str:
    """The registered name of what was chosen."""
    name: str = config.getoption(LEARNER)
    if ":" in name:
        registry.register(name, name)
        if "name" not in registry.options(name):
            raise InvalidInputError(f"{name} takes no name")
    return name


def _bring_their_own(config: pytest.Config) -> bool:
    """Whether the learners are made without a tokenizer from here: none was chosen, and they do not ask for one."""
    name = _learner(config)
    asked = registry.value(name, {}, "tokenizer") is Parameter.empty
    return not asked and not _tokenizers(config)


def _given_tokenizers(config: pytest.Config) -> list[Tokenizer]:
    merges = [("1", "0"), ("=", " "), ("1", "1"), ("10", "0")]
    return _tokenizers(config) or [CharTokenizer(_LETTERS), PairTokenizer(_LETTERS, merges)]


def _learner_options(config: pytest.Config, tokenizers: Sequence[Tokenizer]) -> dict[str, dict[str, Any]]:
    """What each of the pair is made with."""
    name, given = _learner(config), _options(config, LEARNER)
    small = {key: value for key, value in _SMALL.items() if key in registry.options(name)}
    each: dict[str, dict[str, Any]] = {agent: {**small, "name": agent} for agent in AGENTS}
    for agent, tokenizer in zip(AGENTS, tokenizers, strict=False):  # none, where they bring their own
        each[agent]["tokenizer"] = tokenizer
    for key, value in given.items():
        who, dot, option = key.partition(".")
        of_one = bool(dot) and who in AGENTS
        if (option if of_one else key) in ("name", "tokenizer"):
            raise InvalidInputError(f"option {key}: each learner of the pair is given its own")
        for agent in [who] if of_one else AGENTS:
            each[agent][option if of_one else key] = value
    return each


def _check_learner(config: pytest.Config) -> None:
    tokenizers = [] if _bring_their_own(config) else _given_tokenizers(config)
    for options in _learner_options(config, tokenizers).values():
        registry.check(_learner(config), options)


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


# -- strategies and task families -------------------------------------------------------------------------------------


def _strategy(config: pytest.Config) -> str:
    """The registered name of what was chosen."""
    name: str = config.getoption(STRATEGY)
    if ":" in name:
        sharing.register(name, load_attribute(f"strategy {name!r}", name))
    strategies.strategy(name)
    return name


def _check_strategy(config: pytest.Config) -> None:
    sharing.make(_strategy(config), _made_env(config), **_options(config, STRATEGY)).close()


def _env(config: pytest.Config) -> str:
    """The id of what was chosen."""
    name: str = config.getoption(ENV)
    if ":" not in name:
        families.target(name)
        return name
    known = f"own/{name}-v0"
    mutual_env.register(known, load_attribute(f"task family {name!r}", name))
    return known


def _env_options(config: pytest.Config) -> dict[str, Any]:
    given = _options(config, ENV)
    if "agents" in given:
        raise InvalidInputError(f"option agents: they are {' and '.join(AGENTS)}")
    return {"group_size": GROUP, "prompts_per_round": PROMPTS, "seed": 0, **given}


def _made_env(config: pytest.Config) -> Any:
    return mutual_env.make(_env(config), agents=list(AGENTS), **_env_options(config))


def _check_env(config: pytest.Config) -> None:
    known, name = _env(config), config.getoption(ENV)
    if ":" in name:
        every = signature(families.build).parameters  # options of any env
        own = {key: value for key, value in _options(config, ENV).items() if key not in every}
        source: object = families.source_of(known, **own)
        if not isinstance(source, TaskSource):
            raise InvalidInputError(f"{name} is no task family: it has no {_lacking(source, TaskSource)}")
    _made_env(config).close()
