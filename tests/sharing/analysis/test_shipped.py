"""The analysis is of the code that trains: the real wrappers, through their env and exchange, ask for the updates that
the closed forms describe."""

import itertools

import numpy as np
import pytest

from benchmarks.bandit.shipped import SHIPPED, shipped, shipped_lessons, shipped_update, update_of
from mutual_env.seeding import generator
from mutual_env.types import Floats
from sharing.analysis.bandit import Context, contexts
from sharing.analysis.closed_form import STRATEGIES, Options
from tests.sharing.analysis.enumerated import tiny
from tests.sharing.analysis.simulation import SIMULATED, draw, updates

DRAWN = {"sgt", "auto"}


def test_every_strategy_of_the_analysis_has_its_shipped_one() -> None:
    assert set(SHIPPED) | {"independent 2n"} == set(STRATEGIES)
    assert set(SHIPPED) == set(SIMULATED)


@pytest.mark.parametrize("strategy", SHIPPED)
def test_the_shipped_strategy_has_the_moments_of_its_closed_form(strategy: str) -> None:
    # Every sequence of two groups of two samples, and every way their copies can have exact chunks: no statistics. What
    # is drawn by lot is the same index every time, and samples of one author are exchangeable.
    context = tiny(2, tokens=2)
    wrapper = shipped(strategy, context, 2)
    blank = wrapper.state_dict()
    exact = STRATEGIES[strategy](context, 2, Options())
    mean_K, square_K = np.zeros(3), np.zeros(3)
    for sequence in itertools.product(range(3), repeat=4):
        arms_AG = np.array(sequence).reshape(2, 2)
        chance = float(np.prod(context.policies_AK[[[0], [1]], arms_AG]))
        wrapper.load_state_dict(blank)
        lessons = shipped_lessons(wrapper, arms_AG, seed=0)
        for marks in itertools.product((False, True), repeat=4):
            aligned_AG = np.array(marks).reshape(2, 2)
            marked = np.prod(np.where(aligned_AG, 1 - context.residual_K[arms_AG], context.residual_K[arms_AG]))
            u_K = update_of(lessons, context, aligned_AG)
            mean_K += chance * marked * u_K
            square_K += chance * marked * u_K**2
    np.testing.assert_allclose(exact.mean_K, mean_K, rtol=0, atol=1e-12)
    np.testing.assert_allclose(exact.variance_K, square_K - mean_K**2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strategy", sorted(set(SHIPPED) - DRAWN))
def test_simulated_updates_are_those_of_the_shipped_strategy_draw_by_draw(strategy: str) -> None:
    for tokens in (1, 64):
        for context in contexts(0.6, 0.3, tokens=tokens):
            ours, theirs = paired(strategy, context, 8, draws=6)
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-12, err_msg=f"{context.name}, {tokens} tokens")


def test_three_agents_are_pooled_as_by_the_shipped_strategies() -> None:
    for strategy in sorted(set(SHIPPED) - DRAWN - {"graft", "sapo"}):  # these draw between two sources by lot
        for context in contexts(0.7, 0.3, agents=3, tokens=8):
            ours, theirs = paired(strategy, context, 4, draws=2)
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-12, err_msg=f"{strategy}, {context.name}")


def paired(strategy: str, context: Context, size: int, *, draws: int) -> tuple[Floats, Floats]:
    """The simulation's updates and the shipped strategy's, of the same rollouts."""
    rollouts = draw(context, size, draws, generator("shipped", strategy, context.name))
    wrapper = shipped(strategy, context, size)
    blank = wrapper.state_dict()
    theirs = []
    for arms_AG, aligned_AG in zip(rollouts.arms_DAG, rollouts.aligned_DAG, strict=True):
        wrapper.load_state_dict(blank)  # a first round again: HACPO would learn who is capable
        theirs.append(shipped_update(wrapper, context, arms_AG, aligned_AG))
    return updates(rollouts, SIMULATED[strategy](rollouts, Options())), np.stack(theirs)


def test_a_rescue_is_drawn_uniformly() -> None:
    # The reader fails four times, three of its peer's four samples are right (arm 0 once, arm 1 twice), and one of the
    # three is drawn. Over 600 seeds a share of 1/3 has a standard error of 0.0192.
    context = contexts(1.0, 0.0)[4]
    wrapper = shipped("sgt", context, 4)
    arms_AG = np.array([[2, 2, 2, 2], [0, 1, 1, 2]])
    taken = np.zeros(4)
    for seed in range(600):
        lessons = shipped_lessons(wrapper, arms_AG, seed=seed)
        borrowed = [lesson for lesson in lessons if lesson.experience.author == "agent_1"]
        for lesson in borrowed:
            taken[int(lesson.experience.completion.text.split("#")[1])] += 1 / 600
    np.testing.assert_allclose(taken, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.09)  # 4.7 standard errors


def test_capability_reaches_the_closed_form_through_past_steps() -> None:
    # One step in which the reader solved 1 of 4 and its peer 3 of 4 makes P_k / P_j = 1/3 in the next.
    context = contexts(0.4, 0.0, tokens=16)[0]
    wrapper = shipped("hacpo", context, 4)
    shipped_update(wrapper, context, np.array([[0, 2, 2, 3], [0, 1, 0, 2]]), np.ones((2, 4), dtype=np.bool_))
    rollouts = draw(context, 4, 1, generator("capability"))
    ours = updates(rollouts, SIMULATED["hacpo"](rollouts, Options(capability=(0.25, 0.75))))
    theirs = shipped_update(wrapper, context, rollouts.arms_DAG[0], rollouts.aligned_DAG[0])
    np.testing.assert_allclose(theirs, ours[0], rtol=0, atol=1e-12)
