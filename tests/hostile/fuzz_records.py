"""Random records of a hostile peer: none ends a reader, under any strategy.

    python -m tests.hostile.fuzz_records --cases 600

`bytes`: a record's bytes, damaged at random, are a record or are refused in a sentence. Every other kind is a strategy:
up to six records a task, whose fields are drawn from what is odd (texts, ids, claims, numbers, turns, names), go
through their bytes as a peer's do; then a policy that reads them does a round. It must come to its end, with
metrics that are finite numbers and weights of the next version.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mutual_env.errors import MutualEnvError
from mutual_env.types import Completion, Reply, Task, Turn
from sharing import InMemoryExchange, Record, Rollout, Statistics, Success
from sharing.codec import decode, encode
from tests.hostile import fuzzing
from tests.hostile.answers import ANSWERS
from tests.hostile.fuzz_data import damaged
from tests.hostile.test_peers import CHARS, PAIRS, STOP, STRATEGIES, At, loop

KINDS = ("bytes", *STRATEGIES)
GOOD = ("read", "refused", "learnt")
LONGEST_SENTENCE = 2000
MEMORY_BYTES = 12 * 2**30

REALS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1e-9, -1e-9, 5e-324, -5e-324, 1e308, -1e308, 1e18, -1e18, -19.0, -40.0, -700.0),
    *(math.nan, math.inf, -math.inf, 2.0, 64.0),
)
WHOLES = (*(0, 1, 2, 3, 7, 63, 64, 65, 1000), *(2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -1, -(2**63)))
NAMES = ("", "mallory", "ada", "tutor", "policy_0", "\x1b[2J", "x" * 300, "a\nb", "\u202e", "half \ud800", "é" * 200)
TOKENIZERS = (CHARS.fingerprint, PAIRS.fingerprint, "", "nobody's", "x" * 300)


def text(at: At, rng: random.Random) -> str:
    letters = "".join(
        rng.choice("0123456789+= !x<|im_end>\n\0é中😀\u0301\u202e") for _ in range(rng.choice((0, 1, 3, 40)))
    )
    return rng.choice((at.right, at.wrong, at.right + letters, letters + at.right, letters, rng.choice(ANSWERS)))


def completion(at: At, rng: random.Random) -> Completion:
    said = text(at, rng)
    honest = CHARS.encode_batch([said if rng.random() < 0.6 and not set(said) - set("0123456789+= !x") else at.right])[
        0
    ]
    ids = np.append(honest, STOP) if rng.random() < 0.8 else honest
    match rng.randrange(8):
        case 0:
            ids = np.array([rng.choice((0, 1, STOP, 5, 2**31 - 1, -1, 300)) for _ in range(rng.choice((0, 1, 4, 70)))])
        case 1:
            ids = np.full(rng.choice((1, 3, 65, 5000)), rng.choice((0, STOP, 3)))
        case 2:
            said, ids = "", np.empty(0)
    claims = np.full(ids.size, rng.choice((-1.0, -2.4, *REALS)))
    if rng.random() < 0.3:
        claims = np.array([rng.choice((-1.0, *REALS)) for _ in range(ids.size)])
    finish: Any = rng.choice(("stop", "stop", "length", "stop_string"))
    tokenizer = CHARS.fingerprint if rng.random() < 0.7 else rng.choice(TOKENIZERS)
    return Completion(said, ids, claims, finish, rng.choice((0, 0, 0, *WHOLES)), tokenizer)


def record(at: At, index: int, rng: random.Random) -> Record:
    origin = at.origin(rng.choice(TOKENIZERS) if rng.random() < 0.1 else CHARS.fingerprint)
    changes: dict[str, Any] = {}
    if rng.random() < 0.15:
        changes["author"] = rng.choice(NAMES)
    if rng.random() < 0.1:
        changes["policy_version"] = rng.choice(WHOLES)
    if rng.random() < 0.1:
        changes["verifier"] = rng.choice(NAMES)
    origin = replace(origin, **changes)
    index = rng.choice(WHOLES) if rng.random() < 0.1 else index
    turns = tuple(
        Turn(
            completion(at, rng),
            Reply(rng.choice(("user", "tool", "", "system")), text(at, rng), rng.choice((None, *REALS))),
        )
        for _ in range(rng.choice((0, 0, 0, 0, 1, 3)))
    )
    reward = rng.choice((0.0, 1.0, *REALS))
    match rng.choice(("rollout", "rollout", "success", "statistics")):
        case "rollout":
            written = completion(at, rng)
            return Rollout(origin, index, written, reward, rng.random() < 0.5, turns)
        case "success":
            finish: Any = rng.choice(("stop", "length", "stop_string"))
            return Success(replace(origin, tokenizer=""), index, text(at, rng), finish, reward, turns)
        case _:
            counts = (rng.choice((1, 2, 4, *WHOLES)), rng.choice(REALS), rng.choice(REALS))
            return Statistics(origin, *counts)


def as_a_peers(made: Callable[[], Record]) -> list[Record]:
    """What arrives of it: nothing, where it has no bytes or none that are read."""
    try:
        return [decode(encode(made()))]
    except MutualEnvError:
        return []


def case(kind: str, seed: int) -> tuple[str, str]:
    """What became of it: "read", "refused", "learnt" or a failure; and what there is to say about it."""
    rng = random.Random(f"{kind} {seed}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _bytes(rng) if kind == "bytes" else _round(kind, rng)
        except MutualEnvError as error:
            return "ended by a sentence", f"{type(error).__name__}: {error}"[:300]
        except Exception as error:
            return "raw exception", f"{type(error).__name__}: {error}"[:300]


def _bytes(rng: random.Random) -> tuple[str, str]:
    at = At(_TASK, rng.randrange(3))
    whole: list[Record] = []
    while not whole:
        whole = as_a_peers(lambda: record(at, 0, rng))
    data = damaged(encode(whole[0]), rng)
    try:
        again = decode(data)
    except MutualEnvError as error:
        said = str(error)
        return ("refused", "") if len(said) <= LONGEST_SENTENCE else ("too long a sentence", said[:200])
    assert decode(encode(again)).origin == again.origin
    return "read", ""


def _round(strategy: str, rng: random.Random) -> tuple[str, str]:
    exchange = InMemoryExchange()
    with loop(strategy, exchange) as running:
        running.env.reset(seed=running.seed, options={"round": 0})
        for task in running.env.unwrapped.tasks:  # type: ignore[attr-defined]
            at = At(task, 0)
            for index in range(rng.randrange(7)):
                exchange.publish(as_a_peers(lambda at=at, index=index: record(at, index, rng)))
        metrics = running.round(0)["ada"]["metrics"]
        ada = running.learners["ada"]
        odd = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if odd:
            return "metrics that are no numbers", str(odd)
        if ada.version != 1 or len(ada.act(["1+1="], 1, seed=0)[0]) != 1:
            return "not learnt", f"version {ada.version}"
    return "learnt", ""


_TASK = Task("t", "1+1=", "2")


@contextlib.contextmanager
def prepared(kinds: Sequence[str]) -> Iterator[fuzzing.Case]:
    yield case


def main() -> int:
    return fuzzing.main("python -m tests.hostile.fuzz_records", __doc__, prepared, KINDS, GOOD, MEMORY_BYTES)


if __name__ == "__main__":
    sys.exit(main())
