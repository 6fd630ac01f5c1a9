"""The library verifiers, for real: its tasksets in our env, our families as its tasksets."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("verifiers")
import mutual_env
from mutual_env import VerifierPool
from mutual_env.adapters.verifiers_tasksets import as_taskset, traced
from mutual_env.testing import check_env, seed_test

pytestmark = pytest.mark.adapters
RIDDLES = "test/riddles-v0"
mutual_env.register(
    RIDDLES, "mutual_env.adapters.verifiers_tasksets:TasksetTasks", taskset="tests.adapters.riddles:riddles"
)


def test_a_taskset_is_a_family_and_its_own_rewards_score_it() -> None:
    with VerifierPool(1, deadline=30.0) as pool:
        env = mutual_env.make(RIDDLES, agents=1, group_size=3, prompts_per_round=2, pool=pool)
        observations, _ = env.reset(seed=0)
        prompts = observations["policy_0"]["prompts"]
        assert prompts[0][0] == {"role": "system", "content": "Be brief."}
        twice = [str(2 * int(prompt[1]["content"].split()[1].rstrip("?"))) for prompt in prompts]
        *_, infos = env.step({"policy_0": [[right, "no", "a longer wrong answer"] for right in twice]})
        rewards = [[e.verdict.reward for e in group] for group in infos["policy_0"]["groups"]]
        assert rewards == [[1.0, 0.25, 0.0]] * 2  # .75 for the answer, .25 for brevity
        check_env(lambda: mutual_env.make(RIDDLES, group_size=2, prompts_per_round=2, pool=pool))
        seed_test(lambda: mutual_env.make(RIDDLES, group_size=2, prompts_per_round=2, pool=pool))


def test_our_family_is_a_taskset_that_its_library_views_and_scores() -> None:
    with VerifierPool(1) as pool:
        taskset = as_taskset("mutual/arithmetic-v0", n=20, seed=3, pool=pool)
        ours = mutual_env.registry.source_of("mutual/arithmetic-v0").draw(3, 0, 20)
        tasks = list(taskset.take(5))
        assert [t.data.prompt for t in tasks] == [t.prompt for t in ours[:5]]
        assert [t.data.idx for t in tasks] == [0, 1, 2, 3, 4]
        for text, reward in ((ours[0].answer, 1.0), ("-1", 0.0)):
            trace = traced(tasks[0], text)
            asyncio.run(tasks[0].score(trace, None))
            assert trace.reward == reward
