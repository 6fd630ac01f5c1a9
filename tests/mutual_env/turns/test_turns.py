"""Episodes of several turns: the env's contract, each family's rules."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import mutual_env
from mutual_env import Completion, VerifierSpec
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.interaction import Conversation, InteractionSpec, Over
from mutual_env.tasks.tools import calculated
from mutual_env.tasks.undercut import UndercutTable
from mutual_env.testing import check_env, fuzz_actions, seed_test
from mutual_env.turns import ConversationEnv
from mutual_env.types import Prompt, Reply, Task


def echo(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """Sits in a seat, and says what it read."""
    return [f"{prompt} ({seed % 100})" for prompt in prompts]


FAMILIES: dict[str, dict[str, Any]] = {
    "mutual/guess-v0": {"limit": 4},
    "mutual/undercut-v0": {},
    "mutual/retries-v0": {"family": "mutual/arithmetic-v0", "digits": 1, "turns": 3},
    "mutual/debate-v0": {"family": "mutual/letters-v0"},
    "mutual/calculator-v0": {"family": "mutual/arithmetic-v0"},
    "mutual/python-v0": {"family": "mutual/arithmetic-v0"},
    "mutual/judged-v0": {"family": "mutual/letters-v0", "seats": {"judge": echo}},
    "mutual/user-v0": {"family": "mutual/letters-v0", "seats": {"user": echo}},
}


def making(name: str) -> Callable[[], ConversationEnv]:
    def make() -> ConversationEnv:
        env = mutual_env.make(name, agents=3, group_size=2, prompts_per_round=2, **FAMILIES[name])
        assert isinstance(env, ConversationEnv)
        return env

    return make


def play(env: ConversationEnv, write: Callable[[str, Any], str]) -> list[Any]:
    """A whole round; `write(agent, context)` is what an agent says next. Returns what each step returned."""
    observations, _ = env.reset(seed=3)
    steps = []
    while env.agents:
        actions = {
            a: [[None if c is None else write(a, c) for c in group] for group in observations[a]["conversations"]]
            for a in env.agents
        }
        steps.append(env.step(actions))
        observations = steps[-1][0]
    return steps


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_holds_the_contract(name: str) -> None:
    check_env(making(name))
    seed_test(making(name))
    fuzz_actions(making(name), n=60)


@pytest.mark.parametrize("name", FAMILIES)
def test_pettingzoo_finds_nothing_to_warn_of(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(is not a|should be) .*(Box|numpy).*")  # text has no arrays
        parallel_api_test(making(name)(), num_cycles=20)
        parallel_seed_test(making(name))


class Remembers:
    """Counts whom it has answered, in all rounds."""

    inline, joint, max_turns = True, False, 3

    def __init__(self) -> None:
        self.answered = 0

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Reply]:
        self.answered += 1
        return [Reply(f"you are number {self.answered}") for _ in conversations]


class Wanders(Remembers):
    """Says something else to everybody, from the second turn on."""

    moods = itertools.count()

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Reply]:
        return [Reply(f"{next(self.moods)}" if c.earlier else "no") for c in conversations]


class Asking:
    verifier = VerifierSpec("exact")

    def __init__(self, *, world: str = "Remembers") -> None:
        self.interaction = InteractionSpec(f"{__name__}:{world}")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"{round}.{i}", "?", "yes") for i in range(n)]


@pytest.mark.parametrize(
    ("world", "says"),
    [("Remembers", "the same where no round was played before it"), ("Wanders", "round 0 of two envs with seed 42")],
)
def test_seed_test_finds_a_world_that_does_not_depend_on_what_is_said_alone(world: str, says: str) -> None:
    id = f"test/asking-{world.lower()}-v0"
    mutual_env.register(id, Asking)
    with pytest.raises(AssertionError, match=says):
        seed_test(lambda: mutual_env.make(id, group_size=1, prompts_per_round=1, world=world))


def test_a_guess_is_answered_until_it_is_right() -> None:
    env = mutual_env.make("mutual/guess-v0", agents=["a"], group_size=1, prompts_per_round=1, limit=4, turns=4)
    assert isinstance(env, ConversationEnv)
    env.reset(seed=3)
    secret = int(env.tasks[0].answer)
    steps = play(env, lambda agent, context: str(len(context.turns)))  # 0, 1, 2, ...
    assert len(steps) == secret + 1
    _, rewards, terminations, truncations, infos = steps[-1]
    [[experience]] = infos["a"]["groups"]
    assert [turn.reply.text for turn in experience.earlier] == ["higher\n"] * secret
    assert [c.text for c in experience.written] == [str(i) for i in range(secret + 1)]
    assert (rewards, terminations, truncations) == ({"a": 1.0}, {"a": True}, {"a": False})


def test_an_agent_ends_when_it_is_done_and_the_others_go_on() -> None:
    env = mutual_env.make("mutual/guess-v0", agents=["quick", "slow"], group_size=1, prompts_per_round=1, limit=4)
    assert isinstance(env, ConversationEnv)
    env.reset(seed=3)
    secret = env.tasks[0].answer
    steps = play(env, lambda agent, context: secret if agent == "quick" else "x")
    assert [sorted(step[1]) for step in steps] == [["quick", "slow"], ["slow"], ["slow"], ["slow"]]
    assert steps[0][2] == {"quick": True, "slow": False}
    assert steps[-1][3] == {"slow": True}  # four guesses, and no number among them: cut
    assert steps[-1][4]["slow"]["metrics"]["turns/cut_share"] == 1.0


def test_written_tokens_bound_a_conversation() -> None:
    env = mutual_env.make("mutual/guess-v0", agents=1, group_size=1, prompts_per_round=1, max_tokens=3)
    env.reset(seed=0)
    two = Completion("no", [1, 2], [-1.0, -1.0], "stop", 0, "some tokenizer")  # type: ignore[arg-type]
    assert env.step({"policy_0": [[two]]})[3] == {"policy_0": False}
    assert env.step({"policy_0": [[two]]})[3] == {"policy_0": True}


def test_a_conversation_that_leaves_no_room_is_cut_as_it_was_before_the_answer() -> None:
    env = mutual_env.make("mutual/guess-v0", agents=1, group_size=3, prompts_per_round=1, limit=4, turns=4)
    env.reset(seed=3)
    full = Completion.no_room(0, "some tokenizer")
    env.step({"policy_0": [["x", "x", full]]})  # a first turn is what it is: an empty text
    *_, truncations, infos = env.step({"policy_0": [["y", full, full]]})
    assert truncations == {"policy_0": False}
    while env.agents:
        *_, truncations, infos = env.step({"policy_0": [["z", None, None]]})
    assert truncations == {"policy_0": True}
    [[first, second, third]] = infos["policy_0"]["groups"]
    assert [c.text for c in first.written] == ["x", "y", "z", "z"]
    assert ([c.text for c in second.written], second.earlier) == (["x"], ())
    assert [c.text for c in third.written] == [""]
    assert infos["policy_0"]["metrics"]["turns/cut_share"] == 1.0


def test_a_retry_is_told_that_it_is_one_and_worth_less() -> None:
    options: dict[str, Any] = {"family": "mutual/arithmetic-v0", "digits": 1, "discount": 0.5, "turns": 3}
    env = mutual_env.make(
        "mutual/retries-v0", agents=1, group_size=2, prompts_per_round=1, hint="no: {prompt}", **options
    )
    assert isinstance(env, ConversationEnv)
    env.reset(seed=3)
    task = env.tasks[0]
    steps = play(env, lambda agent, context: task.answer if context.turns else "-1")
    [group] = steps[-1][4]["policy_0"]["groups"]
    assert [e.verdict.reward for e in group] == [0.5, 0.5]
    assert group[0].earlier[0].reply == Reply(f"no: {task.prompt}", reward=0.0)
    assert steps[-1][4]["policy_0"]["metrics"]["turns/to_right"] == 1.0


def test_in_a_debate_everybody_reads_the_others_and_it_is_known_who_moved_whom() -> None:
    options: dict[str, Any] = {"family": "mutual/letters-v0"}
    env = mutual_env.make("mutual/debate-v0", agents=["a", "b", "c"], group_size=1, prompts_per_round=1, **options)
    assert isinstance(env, ConversationEnv)

    def write(agent: str, context: Any) -> str:
        if not context.turns:
            return f"from {agent}"
        assert "a: from a" in context.turns[0].reply.text or agent == "a"
        return "from b" if agent == "a" else f"from {agent}"

    infos = play(env, write)[-1][4]
    assert infos["a"]["metrics"]["debate/moved_by/b"] == 1.0
    assert infos["a"]["metrics"]["debate/moved_by/c"] == 0.0
    assert infos["b"]["metrics"]["debate/changed_share"] == 0.0


def test_undercut_has_a_winner() -> None:
    table = UndercutTable(max_turns=2, limit=5)
    # Moves 5 and 4: 4 undercuts and takes 9. Moves 1 and 5: each keeps its own. 6 against 13.
    conversations = [Conversation("a", 0, "1", (("5", ""),)), Conversation("b", 0, "5", (("4", ""),))]
    answers = table.respond(Task("t", "p", ""), conversations)
    rewards = [a.verdict.reward for a in answers if isinstance(a, Over) and a.verdict]
    assert rewards == [0.0, 1.0]
    draw = [Conversation("a", 0, "3", (("5", ""),)), Conversation("b", 0, "3", (("5", ""),))]
    assert [a.verdict.reward for a in table.respond(Task("t", "p", ""), draw) if isinstance(a, Over) and a.verdict] == [
        0.5,
        0.5,
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3*(4+5)", "27"), ("1/3+1/6", "1/2"), ("-2.5*2", "-5"), ("0.1+0.2", "3/10"), ("1/0", None), ("9**9", None),
        ("__import__('os')", None), ("(" * 190, None), ("9" * 199, None), ("1e400*2", None), ("a", None),
        ("'x'*9", None), ("10 if 1 else 2", None), ("True", None), ("", None),
    ],
)  # fmt: skip
def test_the_calculator_works_out_arithmetic_and_nothing_else(expression: str, value: str | None) -> None:
    assert calculated(expression) == value


def test_a_call_is_answered_and_a_text_without_one_is_the_answer() -> None:
    options: dict[str, Any] = {"family": "mutual/arithmetic-v0", "digits": 1}
    env = mutual_env.make("mutual/calculator-v0", agents=1, group_size=1, prompts_per_round=1, **options)
    assert isinstance(env, ConversationEnv)

    def write(agent: str, context: Any) -> str:
        return context.turns[-1].reply.text if context.turns else f"<calc>{context.prompt.rstrip('=')}"

    steps = play(env, write)
    [[experience]] = steps[-1][4]["policy_0"]["groups"]
    assert experience.verdict.correct
    assert experience.earlier[0].reply.role == "tool"


def test_what_does_not_fit_is_refused_with_a_sentence() -> None:
    with pytest.raises(InvalidInputError, match="ends after one turn"):
        mutual_env.make("mutual/arithmetic-v0", max_turns=2)
    with pytest.raises(UnknownNameError, match="did you mean 'mutual/arithmetic-v0'"):
        mutual_env.make("mutual/retries-v0", family="mutual/arithmetics-v0")
    with pytest.raises(InvalidInputError, match="has turns of its own"):
        mutual_env.make("mutual/retries-v0", family="mutual/guess-v0")
    with pytest.raises(UnknownNameError, match="'digits'"):
        mutual_env.make("mutual/retries-v0", family="mutual/arithmetic-v0", digit=1)
    env = making("mutual/guess-v0")()
    env.reset(seed=0)
    with pytest.raises(InvalidInputError, match=r"\[0\]\[1\] is a NoneType"):
        env.step({agent: [["1", None], ["1", "2"]] for agent in env.agents})


def test_a_spec_of_one_turn_is_written_as_it_always_was_and_one_of_turns_makes_its_env_again() -> None:
    assert "max_turns" not in mutual_env.make("mutual/arithmetic-v0").spec.to_json()
    env = mutual_env.make("mutual/guess-v0", max_turns=2)
    again = mutual_env.make_from(mutual_env.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, ConversationEnv)
    assert again.max_turns == 2
