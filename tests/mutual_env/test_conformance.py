"""The conformance tests themselves: each finds the fault that it is there to find."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Space

import mutual_env
from mutual_env import EnvSpec, ReasoningEnv, VerifierSpec
from mutual_env.errors import MutualEnvError
from mutual_env.spaces import GroupSpace
from mutual_env.tasks.arithmetic import ArithmeticTasks
from mutual_env.testing import check_env, fuzz_actions, seed_test

SPEC = EnvSpec(id="faulty-v0", verifier=VerifierSpec("numeric"), group_size=2, prompts_per_round=2)


def maker(env_class: type[ReasoningEnv]) -> Callable[[], ReasoningEnv]:
    return lambda: env_class(SPEC, ArithmeticTasks())


class FreshSpaces(ReasoningEnv):
    def action_space(self, agent: str) -> GroupSpace:
        return GroupSpace(2, 2)


class WrongSpace(ReasoningEnv):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        observations, infos = super().reset(seed, options)
        return {agent: {"prompts": list(o["prompts"])} for agent, o in observations.items()}, infos


class ForgetsAgent(ReasoningEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, *rest = super().step(actions)
        rewards.popitem()
        return observations, rewards, *rest


class NeverEnds(ReasoningEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, terminations, *rest = super().step(actions)
        return observations, rewards, dict.fromkeys(terminations, False), *rest


class FillsUp(ReasoningEnv):
    """Accepts short groups by repeating them."""

    def step(self, actions: Any) -> Any:
        if isinstance(actions, dict):
            fill = {a: [list(g) * 2 if len(g) == 1 else g for g in x] for a, x in actions.items() if x is not None}
            actions = {**actions, **{a: [g[:2] if g else ["", ""] for g in x] for a, x in fill.items()}}
        return super().step(actions)


class ClosesOnRefusal(ReasoningEnv):
    def step(self, actions: Any) -> Any:
        try:
            return super().step(actions)
        except MutualEnvError:
            self.agents = []
            raise


class SwapsAuthors(ReasoningEnv):
    def step(self, actions: Any) -> Any:
        *rest, infos = super().step(actions)
        a, b = infos
        return *rest, {a: infos[b], b: infos[a]}


class MovesRounds(ReasoningEnv):
    def step(self, actions: Any) -> Any:
        *rest, infos = super().step(actions)
        for info in infos.values():
            info["groups"] = tuple(tuple(replace(e, round=e.round + 1) for e in g) for g in info["groups"])
        return *rest, infos


class SeedsGlobals(ReasoningEnv):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        random.seed(0)
        np.random.seed(0)
        return super().reset(seed, options)


class IgnoresSeed(ReasoningEnv):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(None, options)


@pytest.mark.parametrize(
    ("faulty", "says"),
    [
        (FreshSpaces, "same object"),
        (WrongSpace, "lies in its space"),
        (ForgetsAgent, "rewards are for every agent"),
        (NeverEnds, "one round is one episode"),
        (FillsUp, "empty group is refused"),
        (ClosesOnRefusal, "leaves the round open"),
        (SwapsAuthors, "says whose it is"),
        (MovesRounds, "says whose it is"),
        (SeedsGlobals, "leaves the generators"),
        (IgnoresSeed, "starts the task stream of that seed over"),
    ],
)
def test_check_env_finds_what_is_wrong(faulty: type[ReasoningEnv], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_env(maker(faulty))


def test_seed_test_finds_an_env_that_draws_from_a_shared_generator() -> None:
    shared = np.random.default_rng(0)

    class Shares(ReasoningEnv):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed=int(shared.integers(1000)), options=options)

    with pytest.raises(AssertionError, match="two envs with seed 42 is the same"):
        seed_test(maker(Shares))


def test_fuzz_actions_finds_an_env_that_takes_anything() -> None:
    class Takes(ReasoningEnv):
        def step(self, actions: Any) -> Any:
            try:
                return super().step(actions)
            except MutualEnvError:
                return None

    with pytest.raises(AssertionError, match="outside the action space is refused"):
        fuzz_actions(maker(Takes))


def test_fuzz_actions_finds_an_error_that_is_not_of_the_tree() -> None:
    class Crashes(ReasoningEnv):
        def step(self, actions: Any) -> Any:
            return super().step(dict(actions.items()))

    with pytest.raises(AttributeError):
        fuzz_actions(maker(Crashes))


def test_spaces_of_an_env_are_spaces_of_gymnasium() -> None:
    env = mutual_env.make("mutual/arithmetic-v0")
    assert isinstance(env.action_space("policy_0"), Space)
    assert isinstance(env.observation_space("policy_0"), Space)
