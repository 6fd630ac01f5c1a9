"""The simulation against the closed forms, at every point of the sweep; and the criterion notices mistakes."""

import numpy as np
import pytest

from benchmarks.bandit.agreement import compare
from mutual_env.seeding import generator
from sharing.analysis.bandit import contexts
from sharing.analysis.closed_form import STRATEGIES, Options
from sharing.analysis.plane import chunks_sweep, divergent_sweep, lengths_sweep, sweep
from tests.sharing.analysis.simulation import agree, simulate

OPTIONS = Options()


@pytest.mark.long
def test_simulation_and_closed_form_agree_at_every_point_of_the_sweep() -> None:
    responses = (*divergent_sweep((1, 4, 16)), *chunks_sweep((4, 16)), *lengths_sweep((8, 32, 256)))
    points = (*sweep(), *responses)
    found = agree(points, 8, 500, OPTIONS)
    assert found.comparisons == len(points) * 8 * len(STRATEGIES) * 6  # 8 contexts, 5 components and one length
    assert found.worst <= 1.0
    # A normal deviate is within two standard errors in 95.4 of 100 cases: the stated variances are neither too large
    # (the share would be near 1) nor too small. Over 6,000 correlated deviates, some skewed, leave a per cent or so.
    assert 0.93 <= found.within_two_errors <= 0.975
    assert found.normal_components > 6000


def test_three_agents_agree_too() -> None:
    for context in contexts(0.6, 0.4, agents=3, tokens=4):
        simulated = simulate(tuple(STRATEGIES), context, 3, 4000, generator("three", context.name), OPTIONS)
        for name, exact in STRATEGIES.items():
            assert compare(exact(context, 3, OPTIONS), simulated[name], 8 * 14 * 6).excess <= 1.0, (context.name, name)


@pytest.mark.parametrize(
    ("simulated", "formula", "context"),
    [
        ("xgrpo", "independent", "rescue"),  # the same direction: only the length ||u||² tells them apart here
        ("independent", "xgrpo", "reader ahead"),
        ("prp", "prp unclipped", "contested"),
        ("ftis", "prp", "contested"),
        ("sgt", "independent", "rescue"),
        ("luffy", "sapo", "peer ahead"),
        ("hacpo", "prp", "contested"),
        ("trrd", "independent", "contested"),
        ("kd-rl", "independent", "rescue"),
        ("graft", "sgt", "rescue"),
    ],
)
def test_the_criterion_notices_the_wrong_formula(simulated: str, formula: str, context: str) -> None:
    where = next(c for c in contexts(1.0, 0.0) if c.name == context)
    u_DK = simulate((simulated,), where, 8, 20_000, np.random.default_rng(3), OPTIONS)[simulated]
    comparisons = 15_000  # as strict as for the whole sweep
    assert compare(STRATEGIES[simulated](where, 8, OPTIONS), u_DK, comparisons).excess <= 1.0
    assert compare(STRATEGIES[formula](where, 8, OPTIONS), u_DK, comparisons).excess > 1.0
