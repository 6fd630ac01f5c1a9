"""One round of the env: what it gives, what it refuses, what it does not depend on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec

import mutual_env
from mutual_env import Completion, ReasoningEnv, Task, Verdict, VerifierPool, VerifierSpec
from mutual_env.errors import InvalidActionError, InvalidInputError, UnknownNameError, VerificationError
from mutual_env.spec import EnvSpec
from mutual_env.tasks.arithmetic import ArithmeticTasks
from mutual_env.tasks.reasoning_gym import ItemProcess
from mutual_env.testing import check_env, check_wrapper, fuzz_actions, seed_test

# What PettingZoo advises of every space that is no array; everything else it warns of is an error here.
_ADVICE = (
    "Observation is not a NumPy array",
    "Observation space for each agent probably should be",
    "Action space for each agent probably should be",
)
FAMILIES = ("arithmetic", "letters", "reasoning_gym", "math", "dataset", "knights")
Make = Callable[[], ReasoningEnv]


@pytest.fixture(params=FAMILIES)
def make_family(request: pytest.FixtureRequest, pool: VerifierPool, items: ItemProcess, problems: Path) -> Make:
    options: dict[str, object] = {"agents": 3, "group_size": 2, "prompts_per_round": 3, "pool": pool}
    family: dict[str, tuple[str, dict[str, object]]] = {
        "arithmetic": ("mutual/arithmetic-v0", {"operation": ["add", "mul"], "modulus": 7}),
        "letters": ("mutual/letters-v0", {}),
        "reasoning_gym": ("reasoning_gym/knights_knaves-v0", {"generator": items}),
        "math": ("math/jsonl-v0", {"path": problems, "chat": True}),
        "dataset": (
            "dataset/jsonl-v0",
            {"path": problems, "columns": {"prompt": "problem"}, "prompt": {"system": "x"}},
        ),
        "knights": ("logic/knights-knaves-v0", {"people": [2, 3]}),
    }
    id, more = family[request.param]
    return lambda: mutual_env.make(id, **options, **more)  # type: ignore[arg-type]


@pytest.fixture
def strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for advice in _ADVICE:
            warnings.filterwarnings("ignore", message=advice)
        yield


def small(**options: object) -> ReasoningEnv:
    return mutual_env.make("mutual/arithmetic-v0", **{"group_size": 2, "prompts_per_round": 2, **options})  # type: ignore[arg-type]


def answers(env: ReasoningEnv, *, wrong: int = 0) -> list[list[str]]:
    """A group of two right answers for each task, the first `wrong` of them spoilt."""
    texts = [task.answer for task in env.tasks for _ in range(2)]
    texts = ["-1" if i < wrong else text for i, text in enumerate(texts)]
    return [texts[i : i + 2] for i in range(0, len(texts), 2)]


@pytest.mark.usefixtures("strict")
def test_every_family_passes_the_parallel_tests_of_pettingzoo_with_warnings_as_errors(make_family: Make) -> None:
    parallel_api_test(make_family(), num_cycles=10)
    parallel_seed_test(make_family)


@pytest.mark.usefixtures("strict")
def test_every_family_passes_the_aec_test_of_pettingzoo_with_warnings_as_errors(make_family: Make) -> None:
    api_test(parallel_to_aec(make_family()), num_cycles=10)


@pytest.mark.usefixtures("strict")
def test_every_family_passes_our_own_tests(make_family: Make) -> None:
    check_env(make_family)
    seed_test(make_family)
    counts = fuzz_actions(make_family, n=40)
    assert counts["scored"] > 0
    assert counts["refused"] > 0


def test_a_wrapper_that_only_adds_passes_and_one_that_changes_rewards_does_not() -> None:
    from pettingzoo.utils import BaseParallelWrapper

    class Adds(BaseParallelWrapper):  # type: ignore[misc]
        def __str__(self) -> str:
            return f"Adds({self.env})"

        def step(self, actions):  # type: ignore[no-untyped-def]
            *rest, infos = self.env.step(actions)
            return *rest, {agent: {**info, "lessons": ()} for agent, info in infos.items()}

    class Halves(Adds):
        def step(self, actions):  # type: ignore[no-untyped-def]
            observations, rewards, *rest = super().step(actions)
            return observations, {agent: r / 2 - 1 for agent, r in rewards.items()}, *rest

    check_wrapper(Adds)
    with pytest.raises(AssertionError, match="mean over the groups"):
        check_wrapper(Halves)


def test_rewards_are_the_mean_over_what_was_submitted() -> None:
    env = small(agents=2)
    env.reset()
    _, rewards, terminations, truncations, infos = env.step(
        {"policy_0": answers(env, wrong=1), "policy_1": answers(env, wrong=3)}
    )
    assert rewards == {"policy_0": 0.75, "policy_1": 0.25}  # 3 of 4 and 1 of 4 are right
    assert terminations == {"policy_0": True, "policy_1": True}
    assert truncations == {"policy_0": False, "policy_1": False}
    metrics = infos["policy_1"]["metrics"]
    assert metrics["accuracy"] == 0.25
    assert metrics["solved"] == 0.5  # the second task has one right answer, the first none
    assert metrics["verify/ok"] == 4
    assert metrics["verify/unscored"] == 0
    assert "length/tokens" not in metrics


def test_infos_hold_the_experiences_of_their_agent_in_the_order_of_the_prompts() -> None:
    env = small(agents=["alice", "bob"])
    env.reset(options={"round": 5})
    completion = Completion("7", np.array([3, 4, 5]), np.array([-0.1, -0.2, -0.3]), "length", 9, "toy")
    action = [["1", completion], [completion, "2"]]
    *_, infos = env.step({"bob": action, "alice": answers(env)})
    assert list(infos) == ["alice", "bob"]
    assert infos["bob"]["round"] == 5
    groups = infos["bob"]["groups"]
    assert [[e.task for e in group] for group in groups] == [[t, t] for t in env.tasks]
    assert {e.author for group in groups for e in group} == {"bob"}
    assert groups[0][1].completion is completion  # a policy's own trace is not copied, cut or re-encoded
    assert infos["bob"]["metrics"]["length/tokens"] == 3.0


def test_resets_count_the_rounds_and_options_jump() -> None:
    env, other = small(), small()
    rounds = [env.reset()[0] for _ in range(4)]
    assert rounds[0] != rounds[1]
    assert other.reset(options={"round": 2})[0] == rounds[2]
    assert other.reset()[0] == rounds[3]
    assert other.reset(seed=0)[0] == rounds[0]
    assert other.reset(seed=1)[0] != rounds[0]


def test_agents_made_apart_see_the_same_tasks_and_get_the_same_verdicts() -> None:
    """A process that acts for one policy alone makes an env of that policy, with the same seed."""
    together = small(agents=["a", "b"], seed=3)
    alone = small(agents=["b"], seed=3)
    together.reset()
    observations, _ = alone.reset()
    assert list(observations) == ["b"]
    assert together.tasks == alone.tasks
    *_, infos = together.step({"a": answers(together), "b": answers(together, wrong=2)})
    *_, own = alone.step({"b": answers(alone, wrong=2)})
    assert own["b"] == infos["b"]


def test_tasks_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = (
        "import mutual_env\n"
        "env = mutual_env.make('mutual/arithmetic-v0', agents=2, operation=['add', 'sub', 'mul'])\n"
        "letters = mutual_env.make('mutual/letters-v0', agents=2)\n"
        "for e in (env, letters):\n"
        "    for agent in e.possible_agents: e.action_space(agent).seed(1)\n"
        "    print(e.reset(), e.step({a: e.action_space(a).sample() for a in e.agents})[1:4])\n"
        "print(env.tasks, sorted(env.spec.to_json()))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


def test_the_global_generators_are_neither_read_nor_written() -> None:
    def play() -> object:
        env = small(seed=8)
        env.reset()
        return env.tasks, env.step({a: answers(env) for a in env.agents})[1]

    random.seed(0)
    np.random.seed(0)
    first = play()
    state = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    random.seed(1)
    np.random.seed(1)
    assert play() == first
    random.seed(0)
    np.random.seed(0)
    play()
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == state  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ({"policy_0": [["1", "2"]] * 2}, "exactly the agents"),
        ({"policy_0": [["1", "2"]] * 2, "policy_1": [["1", "2"]] * 2, "eve": []}, "'eve'"),
        ({"policy_0": [["1", "2"]] * 3, "policy_1": [["1", "2"]] * 2}, "actions['policy_0'] has 3 groups"),
        ({"policy_0": [["1", "2"], ["1"]], "policy_1": [["1", "2"]] * 2}, "actions['policy_0'][1] has 1 completions"),
        ({"policy_0": [["1", "2"], []], "policy_1": [["1", "2"]] * 2}, "actions['policy_0'][1] is an empty group"),
        ({"policy_0": [["1", 2], ["1", "2"]], "policy_1": [["1", "2"]] * 2}, "actions['policy_0'][0][1] is a int"),
        ({"policy_0": ["12", ["1", "2"]], "policy_1": [["1", "2"]] * 2}, "actions['policy_0'][0] is a str"),
        ({"policy_0": [["1", "x\udc80"]] * 2, "policy_1": [["1", "2"]] * 2}, "lone surrogate '\\udc80' at 1"),
        ({"policy_0": [["1", "2" * 101]] * 2, "policy_1": [["1", "2"]] * 2}, "101 characters, more than max_chars=100"),
        ([], "got a list"),
    ],
)
def test_a_refused_action_names_the_place_and_leaves_the_round_open(action: object, says: str) -> None:
    env = small(agents=2, max_chars=100)
    env.reset()
    with pytest.raises(InvalidActionError) as refusal:
        env.step(action)  # type: ignore[arg-type]
    assert says in str(refusal.value)
    _, rewards, *_ = env.step({a: answers(env) for a in env.agents})
    assert rewards == {"policy_0": 1.0, "policy_1": 1.0}


def test_nul_and_a_megabyte_are_text_that_a_policy_can_write_and_get_a_verdict() -> None:
    env = small(agents=1)
    env.reset()
    right = env.tasks[0].answer
    *_, infos = env.step({"policy_0": [["\0", "x" * 1_000_000 + right], [right + "\0", "9" * 1_000_000]]})
    verdicts = [e.verdict for group in infos["policy_0"]["groups"] for e in group]
    assert [v.status for v in verdicts[:2]] == ["wrong_format", "ok"]
    assert len(verdicts) == 4


def test_a_step_needs_a_reset_each_time() -> None:
    env = small(agents=1)
    with pytest.raises(InvalidActionError, match="call reset"):
        env.step({"policy_0": [["1", "2"]] * 2})
    env.reset()
    env.step({"policy_0": [["1", "2"]] * 2})
    with pytest.raises(InvalidActionError, match="call reset"):
        env.step({"policy_0": [["1", "2"]] * 2})


def test_an_unknown_agent_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="policy_1"):
        small().action_space("polcy_1")


class Grumpy:
    """A verifier that raises on an answer of "boom": what a third party's bug looks like."""

    id = "grumpy"
    inline = True

    def verify(self, task: Task, text: str) -> Verdict:
        if text == "boom":
            raise RuntimeError("I do not like this")
        return Verdict.scored(1.0, correct=True)


def grumpy(**options: object) -> ReasoningEnv:
    verifier = VerifierSpec("tests.mutual_env.test_env:Grumpy")
    return small(agents=1, group_size=10, verifier=verifier, **options)


class Divides:
    """A verifier whose rewards are not all finite."""

    id = "divides"
    inline = True

    def verify(self, task: Task, text: str) -> Verdict:
        return Verdict.scored(float(text), correct=False)


@pytest.mark.parametrize("reward", ["nan", "inf", "-inf"])
def test_a_reward_that_is_no_finite_number_is_named_and_the_round_stays_open(reward: str) -> None:
    env = small(agents=1, verifier=VerifierSpec("tests.mutual_env.test_env:Divides"))
    env.reset()
    with pytest.raises(VerificationError, match=f"reward must be finite, got {reward}"):
        env.step({"policy_0": [[reward, reward], ["0.5", "1"]]})
    _, rewards, *_ = env.step({"policy_0": [["0.25", "0.75"], ["0.5", "0.5"]]})
    assert rewards == {"policy_0": 0.5}


def test_a_completion_without_a_verdict_leaves_its_group_and_is_counted() -> None:
    env = grumpy()
    env.reset()
    _, rewards, _, _, infos = env.step({"policy_0": [["x"] * 9 + ["boom"], ["x"] * 10]})
    assert [len(group) for group in infos["policy_0"]["groups"]] == [9, 10]
    assert rewards == {"policy_0": 1.0}  # 19 of 19: what was dropped is not a 0
    metrics = infos["policy_0"]["metrics"]
    assert metrics["verify/error"] == 1
    assert metrics["verify/unscored"] == 1
    assert metrics["verify/ok"] == 19


def test_a_completion_without_a_verdict_counts_as_zero_where_that_is_asked_for() -> None:
    env = grumpy(on_unscored="zero")
    env.reset()
    _, rewards, _, _, infos = env.step({"policy_0": [["x"] * 9 + ["boom"], ["x"] * 10]})
    assert [len(group) for group in infos["policy_0"]["groups"]] == [10, 10]
    assert rewards == {"policy_0": 19 / 20}
    assert infos["policy_0"]["metrics"]["verify/unscored"] == 1


def test_too_many_without_a_verdict_are_an_error_that_leaves_the_round_open() -> None:
    env = grumpy()
    env.reset()
    with pytest.raises(VerificationError, match="2 of 20"):  # 10% is more than 5%
        env.step({"policy_0": [["boom"] + ["x"] * 9] * 2})
    _, rewards, *_ = env.step({"policy_0": [["x"] * 10] * 2})
    assert rewards == {"policy_0": 1.0}


def test_where_nothing_was_scored_the_reward_is_zero_and_the_count_says_so() -> None:
    env = grumpy(unscored_limit=1.0)
    env.reset()
    _, rewards, _, _, infos = env.step({"policy_0": [["boom"] * 10] * 2})
    assert rewards == {"policy_0": 0.0}
    assert infos["policy_0"]["groups"] == ((), ())
    assert infos["policy_0"]["metrics"]["verify/unscored"] == 20


class Sloppy:
    """A source that breaks its contract in the way it is told to."""

    verifier = VerifierSpec("exact")

    def __init__(self, *, how: str) -> None:
        self.how = how

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        tasks = [Task(f"t{i}", "q", "a") for i in range(n)]
        return {
            "short": tasks[1:],
            "repeated": [tasks[0]] * n,
            "surrogate": [*tasks[1:], Task("bad", "\ud800", "a")],
            "no messages": [*tasks[1:], Task("bad", (), "a")],
        }[self.how]


@pytest.mark.parametrize(
    ("how", "says"),
    [("short", "got 7 items"), ("repeated", "7 repeated"), ("surrogate", "'bad'"), ("no messages", "'bad'")],
)
def test_a_source_that_breaks_its_contract_is_named(how: str, says: str) -> None:
    spec = EnvSpec(id="sloppy-v0", verifier=VerifierSpec("exact"))
    env = ReasoningEnv(spec, Sloppy(how=how))
    with pytest.raises(InvalidInputError, match=says):
        env.reset()
    assert env.agents == []


def test_a_failed_reset_leaves_the_env_as_it_was() -> None:
    class Fails(ArithmeticTasks):
        def draw(self, seed: int, round: int, n: int) -> list[Task]:
            if round == 1:
                raise OSError("disk")
            return super().draw(seed, round, n)

    env = ReasoningEnv(EnvSpec(id="fails-v0", verifier=VerifierSpec("numeric"), agents=("a_0",)), Fails())
    env.reset()
    tasks = env.tasks
    with pytest.raises(OSError, match="disk"):
        env.reset()
    assert env.tasks == tasks
    assert env.agents == ["a_0"]
    assert env.round == 0


def test_the_text_of_an_env_names_its_id() -> None:
    env = small()
    env.reset()
    assert str(env) == "mutual/arithmetic-v0"
    assert all(task.id in env.render() for task in env.tasks)
