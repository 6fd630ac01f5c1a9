"""Knights and knaves: puzzles with one solution, the rows of Logic-RL's files, and their scoring."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import mutual_env
from mutual_env import Task, VerifierPool, verifiers
from mutual_env.errors import DatasetRowError, InvalidInputError
from mutual_env.seeding import generator
from mutual_env.tasks.islanders import MOST, NAMES, Claim, make_puzzle, solutions
from mutual_env.tasks.knights import SYSTEM, KnightsKnavesTasks, question_of
from mutual_env.testing import check_env, check_verifier

REAL = Path(__file__).parents[3] / "shared" / "data" / "kk"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"the files of Logic-RL are not in {REAL}")

SOLVED = Task("t", "who?", "(1) Zoe is a knight\n(2) Ada is a knave")
GOOD = "<think>Ada lies.</think>\n<answer>(1) Zoe is a knight\n(2) Ada is a knave</answer>"


def believed(claim: Claim, world: tuple[bool, ...]) -> bool:
    """The truth of a claim in one world, the slow and plain way."""
    match claim:
        case ("knight", int(person)):
            return world[person]
        case ("knave", int(person)):
            return not world[person]
        case ("not", inner):
            return not believed(inner, world)  # type: ignore[arg-type]
        case (word, left, right):
            a, b = believed(left, world), believed(right, world)
            return {"and": a and b, "or": a or b, "->": not a or b, "<=>": a == b}[word]
    raise AssertionError(claim)


@pytest.mark.parametrize("people", range(2, MOST + 1))
def test_a_puzzle_has_exactly_the_solution_that_it_says(people: int) -> None:
    rng = generator(0, "puzzles", people)
    for _ in range(20):
        puzzle = make_puzzle(rng, people)
        worlds = [
            world
            for world in itertools.product((False, True), repeat=people)
            if all(world[i] == believed(claim, world) for i, claim in enumerate(puzzle.claims))
        ]
        assert worlds == [puzzle.knights]
        assert all(name in puzzle.text for name in puzzle.names)
        assert len(set(puzzle.names)) == people


def test_a_pair_is_worked_out_by_hand() -> None:
    # "We are both knaves", says A: a knight cannot say so. So A is a knave, not both are, and B is a knight.
    both = ("and", ("knave", 0), ("knave", 1))
    assert solutions((both, ("knave", 0))) == [(False, True)]  # type: ignore[arg-type]
    # "I am a knight", say both: everything is possible.
    every = [(False, False), (True, False), (False, True), (True, True)]
    assert solutions((("knight", 0), ("knight", 1))) == every


def test_names_are_told_apart_by_their_first_word() -> None:
    assert len({name.lower() for name in NAMES}) == len(NAMES)
    assert all(name.isalpha() for name in NAMES)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_same_seed_gives_the_same_puzzles_and_the_splits_share_none(depth: int) -> None:
    source = KnightsKnavesTasks(people=[2, 8, 5], depth=depth)
    drawn = source.draw(3, 1, 6)
    assert drawn == KnightsKnavesTasks(people=[2, 8, 5], depth=depth).draw(3, 1, 6)
    assert [task.metadata["people"] for task in drawn] == [2, 8, 5, 2, 8, 5]
    held_out = KnightsKnavesTasks(people=[2, 8, 5], depth=depth, split="eval").draw(3, 1, 6)
    assert not {t.id for t in drawn} & {t.id for t in held_out}


def test_the_family_passes_check_env(pool: VerifierPool) -> None:
    options: dict[str, Any] = {"agents": 2, "group_size": 1, "prompts_per_round": 2, "pool": pool}
    check_env(lambda: mutual_env.make("logic/knights-knaves-v0", people=[2, 3], **options))
    env = mutual_env.make("logic/knights-knaves-v0", **options)
    env.reset()
    answers = [[f"<think>hm</think><answer>{task.answer}</answer>"] for task in env.tasks]
    _, rewards, *_ = env.step({"policy_0": answers, "policy_1": [["I do not know"]] * 2})
    assert rewards == {"policy_0": 3.0, "policy_1": -3.0}


@pytest.mark.parametrize(
    ("text", "reward", "status"),
    [
        (GOOD, 3.0, "ok"),
        (GOOD.removeprefix("<think>"), 3.0, "ok"),  # the prompt's last word was <think>
        (GOOD.replace("Ada is a knave", "Ada is a knight"), -0.5, "ok"),  # 1 for the form, -1.5 for the answer
        (GOOD.replace("\n(2) Ada is a knave", ""), -1.0, "wrong_format"),  # one of two persons
        (GOOD.replace("Ada is a knave", "Ada, the knave"), -1.0, "wrong_format"),
        (GOOD.replace("Zoe is a knight", "Zoe is a knight, not a knave"), -1.0, "wrong_format"),  # three roles for two
        (GOOD.replace("</think>", ""), -3.0, "wrong_format"),
        (GOOD + "<answer>again</answer>", -3.0, "wrong_format"),
        ("<answer>" + GOOD, -3.0, "wrong_format"),
        (GOOD.replace("<think>", "<think><think>"), -3.0, "wrong_format"),
        ("Zoe is a knight, Ada is a knave", -3.0, "wrong_format"),
        ("", -3.0, "wrong_format"),
    ],
)
def test_form_and_answer_are_scored_as_in_logic_rl(text: str, reward: float, status: str) -> None:
    verdict = verifiers.make("knights_knaves").verify(SOLVED, text)
    assert (verdict.reward, verdict.status, verdict.correct) == (reward, status, reward == 3.0)


def test_who_opens_the_thought_can_be_told() -> None:
    given, written = GOOD.removeprefix("<think>"), GOOD
    for opening, right, wrong in (("written", written, given), ("given", given, written)):
        verifier = verifiers.make("knights_knaves", opening=opening)
        assert verifier.verify(SOLVED, right).reward == 3.0
        assert verifier.verify(SOLVED, wrong).reward == -3.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, (-3.0, 3.0)),
        ({"form": 0, "right": 1, "wrong": 0, "unreadable": 0}, (0.0, 1.0)),
        ({"form": -1.0, "wrong": 5.0}, (-3.0, 4.0)),
    ],
)
def test_what_rewards_there_are_is_said(options: dict[str, Any], said: tuple[float, float], pool: VerifierPool) -> None:
    spec = verifiers.VerifierSpec("knights_knaves", options)
    assert pool.reward_range(spec) == said
    env = mutual_env.make("logic/knights-knaves-v0", verifier={"name": spec.name, "kwargs": options}, pool=pool)
    assert env.reward_range == said
    given = pool.verify(spec, [(SOLVED, text) for text in (GOOD, "", GOOD.replace("knave", "fool"))])
    assert all(said[0] <= (verdict.reward or 0.0) <= said[1] for verdict in given)


def test_a_range_that_is_none_is_refused() -> None:
    class Odd:
        id, inline, reward_range = "odd", True, (1.0, float("inf"))

        def verify(self, task: Task, text: str) -> Any: ...

    with pytest.raises(InvalidInputError, match="two finite numbers, least first"):
        verifiers.spec.reward_range_of(Odd())


def test_rewards_can_be_those_of_plain_accuracy() -> None:
    plain = {"form": 0.0, "right": 1.0, "wrong": 0.0, "unreadable": 0.0}
    check_verifier(
        mutual_env.VerifierSpec("knights_knaves", plain), right=[(SOLVED, GOOD)], wrong=[(SOLVED, "no"), (SOLVED, "")]
    )
    assert verifiers.make("knights_knaves", **plain).verify(SOLVED, GOOD).reward == 1.0


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"people": 9}, InvalidInputError, "from 2 to 8, got 9"),
        ({"people": [3, "4"]}, InvalidInputError, "item 2 is '4'"),
        ({"people": []}, InvalidInputError, "people is empty"),
        ({"people": True}, InvalidInputError, "got True"),
        ({"depth": 1}, InvalidInputError, "depth must be"),
        ({"split": "test"}, InvalidInputError, "got 'test'"),
        ({"verifier": {"name": "knights_knaves", "kwargs": {"opening": "gven"}}}, InvalidInputError, "'given'"),
        ({"verifier": {"name": "knights_knaves", "kwargs": {"right": float("nan")}}}, InvalidInputError, "JSON"),
        ({"verifier": {"name": "knights_knaves", "kwargs": {"form": "one"}}}, InvalidInputError, "finite number"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        mutual_env.make("logic/knights-knaves-v0", **options)


def test_a_row_without_roles_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"quiz": "who?", "solution_text_format": "nobody knows"}\n')
    with pytest.raises(DatasetRowError, match=r"rows.jsonl:1: field 'solution_text_format' names no knight"):
        KnightsKnavesTasks(path=tmp_path / "rows.jsonl")


@needs_real_files
def test_the_files_of_logic_rl_are_read_and_asked_as_published() -> None:
    source = KnightsKnavesTasks(path=[REAL / f"{n}ppl-train.parquet" for n in (3, 4, 5, 6, 7)])
    drawn = source.draw(0, 0, 50)
    published = [row for n in (3, 4, 5, 6, 7) for row in rows_of(f"{n}ppl-train")]
    by_quiz = {row["quiz"].strip(): row for row in published}
    assert {task.metadata["people"] for task in drawn} == {3, 4, 5, 6, 7}
    for task in drawn:
        row = by_quiz[question_of(task.prompt)]
        system, user = row["prompt"][0]["content"].split("<|im_end|>")[:2]
        assert task.answer == row["reward_model"]["ground_truth"]["solution_text_format"]
        assert system.split("system\n")[1].strip() == SYSTEM
        assert question_of(task.prompt) == user.split("user\n")[1].strip()


@needs_real_files
def test_our_solver_agrees_with_every_published_solution() -> None:
    for n in (3, 7):
        for row in rows_of(f"{n}ppl-test"):
            assert solutions([as_claim(c) for c in ast.literal_eval(row["statements"])]) == [tuple(row["solution"])]


@needs_real_files
def test_the_published_test_rows_are_held_out_and_can_be_chosen_by_their_number_of_people(pool: VerifierPool) -> None:
    files = {"path": [str(REAL / f"{n}ppl-train.parquet") for n in (3, 4)]}
    held_out = {"eval_path": [str(REAL / f"{n}ppl-test.parquet") for n in (3, 4)]}
    env = mutual_env.make(
        "logic/knights-knaves-v0", split="eval", people=4, prompts_per_round=100, agents=1, group_size=1, pool=pool,
        **files, **held_out,
    )  # fmt: skip
    env.reset()
    assert {task.metadata["people"] for task in env.tasks} == {4}
    answers = [[f"<think></think><answer>{task.answer}</answer>"] for task in env.tasks]
    assert env.step({"policy_0": answers})[1] == {"policy_0": 3.0}


def rows_of(name: str) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(REAL / f"{name}.parquet").to_pylist()


def as_claim(published: tuple[Any, ...]) -> Claim:
    words = {"telling-truth": "knight", "lying": "knave"}
    word, *parts = published
    return (words.get(word, word), *(as_claim(p) if isinstance(p, tuple) else p for p in parts))
