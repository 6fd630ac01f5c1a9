"""Every option of every strategy: reached from a configuration, it changes what somebody is taught; and what makes no
sense is refused by its name."""

from __future__ import annotations

import dataclasses
import inspect
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import sharing
from learners.run.check import check
from learners.run.config import load_run
from mutual_env.errors import MutualEnvError
from mutual_env.types import Completion
from sharing.registry import OWN, strategy
from sharing.testing import ScriptedEnv, play, scripted_completion
from tests.sharing.toys import REQUIRED

AGENTS = ("policy_0", "policy_1", "policy_2")
NOT_HERE = {  # what these change is seen elsewhere
    "independent": {"credit", "gamma"},  # turns: tests/learners/test_credit.py
    "hacpo": {"baseline_guard"},  # tests/sharing/test_corrected_rivals.py
    "auto": {"was_learnt"},  # takes a function, which no configuration holds: tests/sharing/test_auto.py
}

# Option -> what it is set to, and what it needs beside itself to be felt.
POOLED = {"std": "sample", "clip_low": 0.1, "clip_high": 0.3}
RESCUED = {
    "weight": {"policy_0": {"policy_1": 0.4, "*": 0.2}, "*": 0.3},
    "per_rescue": True,
    "target_share": 0.3,
}
MOVES: dict[str, dict[str, Any]] = {
    "independent": {
        **POOLED,
        "ratio": "sequence",
        "dual_clip": 3.0,
        "aggregation": "constant",
    },
    "prp": {**POOLED, "ratio_cap": math.inf, "above_cap": "mask", "normalise": "author", "naive": True},
    "xgrpo": {**POOLED, "eta": {"policy_0": 0.5, "*": 0.25}},
    "sgt": {**RESCUED, "compatible": True},
    "graft": {
        **POOLED,
        "gate": False,
        "floor": 0.5,
        "balance": False,
        "peers_at": "first",
        "pooled": True,
        "success_only": True,
        "stored": True,
    },
    "hacpo": {
        **POOLED,
        "alpha": 0.5,
        "floor": 0.7,
        "floor_step": 0.0,
        "cap_tolerance": 0.0,
        "capability": "positive_share",
        "aggregation": None,
    },
    "ftis": {**POOLED, "max_kl": 1.0, "ratio_cap": math.inf, "normalise": "union"},
    "luffy": {"gamma": 0.2, "external": 1, "clip_low": 0.1, "clip_high": 0.3},
    "sapo": {"std": "sample", "local": 2, "external": 1, "informative": False},
    "trrd": {"teacher": "policy_2", "alpha": 0.9, "log_ratio_limit": math.inf},
    "kdrl": {"teacher": "policy_2", "coefficient": 0.2},
    "topd": {"teacher": "policy_2", "alpha": 0.3, "verified": 1.0, "std": False},
    "offline": {"teacher": "policy_2", "weight": 0.5, "per_prompt": 1},
    "memory": {
        **RESCUED,
        "compatible": True,
        "own": False,
        "own_weight": 1e-9,
        "half_life": 0.1,
        "per_task": 1,
        "capacity": 1,
        "budget": 1,
        "replay": (2, {"fixed": False}),
    },
    "auto": {**POOLED, **RESCUED, "graft_above": 0.0, "floor": (0.5, {"graft_above": 0.0})},
    "corl": {**POOLED, "extraction": "tag", "threshold": 0.9},
    "placebo": {**RESCUED, "source": "own", "capacity": (1, {"source": "own"})},
    "frozen": {"agents": ["policy_2"]},
}
COMMON: dict[str, Any] = {
    "peers": {"policy_0": ["policy_2"], "policy_1": [], "policy_2": ["policy_0"]},
    "publish": ["statistics", "rollout", "success"],
    "trust": {"policy_0": {"policy_1": 0.5, "*": 0.0}, "*": 0.25},
    "length_penalty": {"limit": 12, "buffer": 10},
    "truncated": "mask",
}
ELSEWHERE = {  # said of strangers, who are in other tests: test_hostile_peers, test_wrapper, test_dialogue
    "exchange", "wait", "max_staleness", "reverify", "verify", "limits", "max_divergence",
}  # fmt: skip
OPTIONS = [(name, option) for name, moves in MOVES.items() for option in moves]


def wrote(text: str, *, cut: bool = False) -> Completion:
    made = scripted_completion(text, logprob=-0.5)
    return dataclasses.replace(made, finish_reason="length") if cut else made


def answers(round: int) -> dict[str, Any]:
    """Six prompts, on which policies fail, are mixed and solve in every combination, and what failed comes back."""
    good, bad, half = wrote("yes"), wrote("no"), wrote("0.5")
    long = wrote("yes, and at length", cut=True)
    other = wrote(f"yes {round}")
    failed, mixed, solved = [bad, bad, bad, bad], [good, bad, half, bad], [good, other, long, good]
    better = [good, other, bad, long]
    of = {
        "policy_0": [failed, failed, mixed, solved, mixed, better],
        "policy_1": [better, solved, failed, failed, solved, mixed],
        "policy_2": [mixed, [wrote("4"), good, bad, bad], better, mixed, failed, failed],
    }
    turn = round % 3  # what one solved, it fails on later
    return {agent: groups[turn:] + groups[:turn] for agent, groups in of.items()}


def taught(name: str, options: dict[str, Any]) -> list[Any]:
    """Everything that a strategy says over some rounds of the same tasks, or of others where they are not `fixed`."""
    given = {**REQUIRED.get(name, {}), **options}
    scripted = ScriptedEnv(AGENTS, prompts=6, group=4, fixed=given.pop("fixed", True))
    env = sharing.make(name, scripted, **given)
    said: list[Any] = []
    for round in range(6):
        infos = play(env, answers(round), round=round)
        for agent in AGENTS:
            env.learnt(agent, {"batch/imitation_gradient_share": 0.5})
            metrics = {k: v for k, v in infos[agent]["metrics"].items() if k != "share/weight_factor"}
            said.append((infos[agent]["lessons"], metrics))
    return said


@cache
def usual(name: str, beside: tuple[tuple[str, Any], ...] = ()) -> list[Any]:
    return taught(name, dict(beside))


@pytest.mark.parametrize("name", OWN)
def test_no_option_is_forgotten(name: str) -> None:
    parameters = inspect.signature(strategy(name).__init__).parameters.values()
    mine = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert mine - NOT_HERE.get(name, set()) == set(MOVES[name])
    assert set(sharing.situation.Common.__annotations__) == set(COMMON) | ELSEWHERE


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_changes_what_is_taught(name: str, option: str) -> None:
    given = MOVES[name][option]
    value, beside = given if isinstance(given, tuple) else (given, {})
    assert taught(name, {**beside, option: value}) != usual(name, tuple(beside.items()))


@pytest.mark.parametrize("option", COMMON)
@pytest.mark.parametrize("name", ["prp", "xgrpo", "sgt", "memory", "auto"])
def test_a_common_option_changes_what_is_taught(name: str, option: str) -> None:
    assert taught(name, {option: COMMON[option]}) != usual(name)


CONFIG = """
name: options
rounds: 1
env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2}
policies:
  policy_0: &table {learner: tabular, options: {max_new_tokens: 2}}
  policy_1: *table
  policy_2: *table
sharing:
"""


def checked(path: Path, name: str, options: dict[str, Any]) -> None:
    (path / "run.yaml").write_text(f"{CONFIG}  strategy: {name}\n  options: {as_yaml(options)}\noutput: {path}\n")
    check(load_run(path / "run.yaml"), here=False)


def as_yaml(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f'"{key}": {as_yaml(item)}' for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_yaml, value)) + "]"
        case float():
            return ".inf" if value == math.inf else str(value)
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case _:
            return str(value)


WRONG = ({"policy_9": "nobody"}, "nonsense", [{}])


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_a_configuration_reaches_it_and_a_wrong_value_is_refused_by_name(
    name: str, option: str, tmp_path: Path
) -> None:
    given = MOVES[name][option]
    value, beside = given if isinstance(given, tuple) else (given, {})
    options = {**REQUIRED.get(name, {}), **{key: item for key, item in beside.items() if key != "fixed"}}
    checked(tmp_path, name, {**options, option: value})
    for wrong in WRONG[:2] if option not in ("agents", "teacher") else ():  # names are known to a run alone
        with pytest.raises(MutualEnvError, match=option):
            sharing.make(name, ScriptedEnv(AGENTS), **{**options, option: wrong})
    with pytest.raises(MutualEnvError, match=option):
        checked(tmp_path, name, {**options, option: WRONG[2]})


@pytest.mark.parametrize("option", [*COMMON, "max_staleness", "wait", "reverify", "limits", "max_divergence"])
def test_so_it_is_with_common_options(option: str, tmp_path: Path) -> None:
    if option in COMMON:
        checked(tmp_path, "sgt", {option: COMMON[option]})
    for wrong in WRONG:
        with pytest.raises(MutualEnvError, match=option):
            checked(tmp_path, "sgt", {option: wrong})


BELOW_0 = [(name, side) for name in MOVES for side in ("clip_low", "clip_high", "floor_step") if side in MOVES[name]]


@pytest.mark.parametrize(("name", "option"), BELOW_0)
def test_a_bound_on_the_wrong_side_is_refused(name: str, option: str) -> None:
    for wrong in (-0.1, -math.inf):
        with pytest.raises(MutualEnvError, match=option):
            sharing.make(name, ScriptedEnv(AGENTS), **{**REQUIRED.get(name, {}), option: wrong})
