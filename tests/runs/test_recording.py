"""Every lesson is counted, the borrowed ones are told one by one, and nothing grows beyond its allowance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from learners.batch import build_batch
from learners.run.config import load_run
from learners.run.lines import read_lines
from learners.run.recording import Allowance, _short, cut, lessons_line, samples_line, transcript
from learners.run.results import read_run
from learners.run.training import train
from learners.tabular import TabularLearner
from mutual_env.types import (
    AgentInfo,
    AuthorPolicy,
    AuthorWeight,
    Completion,
    CrossEntropy,
    Experience,
    Lesson,
    PolicyGradient,
    Reply,
    Task,
    Turn,
    Verdict,
)
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

ADA = TabularLearner(CharTokenizer("0123456789+=t"), name="ada", max_new_tokens=4)
BOB = TabularLearner(PairTokenizer("0123456789+=t", [("1", "2")]), name="bob", max_new_tokens=4)
BRIDGE = TokenizerBridge([ADA.tokenizer, BOB.tokenizer])
WIDE = Allowance(10**6, 2)


def experience(learner: TabularLearner, text: str, *, right: bool, task: str = "t0") -> Experience:
    ids = np.append(learner.tokenizer.encode_batch([text])[0], learner.tokenizer.stop_id).astype(np.int32)
    traced = Completion(text, ids, np.full(ids.size, -1.0), "stop", 0, learner.tokenizer.fingerprint)
    return Experience(
        Task(task, f"{task}=", "12"), learner.name, traced, Verdict.scored(float(right), correct=right), 3
    )


def test_own_and_borrowed_lessons_are_counted_and_the_borrowed_told_one_by_one() -> None:
    wrong, right = experience(ADA, "3", right=False), experience(BOB, "12", right=True)
    closed = Lesson(experience(BOB, "7", right=False), -1.0, PolicyGradient(), AuthorWeight(max_kl=1e-9))
    lessons = [Lesson(wrong, -0.5), Lesson(right, 1.0, CrossEntropy(), weight=0.1), closed]
    batch = build_batch(lessons, ADA, BRIDGE)
    line = lessons_line(ADA, batch.outcomes, WIDE)
    # own: one lesson of pull .5; bob: one of .1 accepted, one dropped for being too far from its author
    assert line["flow"] == {"ada": [1, 1, 0.5], "bob": [2, 1, 0.1]}
    assert line["dropped"] == {"too_far_from_author": 1}
    told, refused = line["lessons"]
    assert (told["author"], told["task"], told["text"], told["given"], told["tokens"]) == ("bob", "t0", "12", 0.1, 3)
    assert refused["dropped"] == "too_far_from_author"
    assert "given" not in refused
    # bob's token "12" is two of ada's: one chunk, then the stop token
    assert [piece[:2] for piece in told["pieces"]] == [["1", 0], ["2", 0], ["", 1]]


def test_ratios_are_kept_where_they_are_known() -> None:
    lesson = Lesson(experience(BOB, "12", right=True), 1.0, PolicyGradient(), AuthorPolicy())
    batch = build_batch([lesson], ADA, BRIDGE)
    (told,) = lessons_line(ADA, batch.outcomes, WIDE)["lessons"]
    # ada is uniform over 14 tokens (13 characters, stop): log π = -2.639 twice against the author's -1 for both
    first, second, _ = (piece[2] for piece in told["pieces"])
    assert first + second == pytest.approx(2 * -np.log(14) + 1.0, abs=1e-3)


def info_of(groups: Sequence[tuple[Experience, ...]]) -> AgentInfo:
    return {"round": 3, "groups": tuple(groups), "metrics": {}}


def test_a_round_is_kept_as_far_as_its_allowance_goes_prompts_with_borrowed_lessons_first() -> None:
    groups = [(experience(ADA, str(i % 10) * 9, right=False, task=f"t{i}"),) * 2 for i in range(20)]
    taught = Lesson(experience(BOB, "12", right=True, task="t17"), 1.0, CrossEntropy())
    batch = build_batch([taught], ADA, BRIDGE)
    line = samples_line("ada", info_of(groups), batch.outcomes, Allowance(900, 2))
    assert [group["task"] for group in line["groups"]][-1] == "t17"
    # a group is about two texts of 9 and 45 around each, prompt, task and answer of 9, and 90: 900 bytes hold four
    assert (len(line["groups"]), line["left_out"]) == (4, 16)
    assert line["right"] == [0] * 20
    assert len(json.dumps(line["groups"])) < 900
    whole = samples_line("ada", info_of(groups), batch.outcomes, WIDE)
    assert (len(whole["groups"]), whole["left_out"]) == (20, 0)


@pytest.mark.parametrize("first", [0.0, -0.0])
def test_a_value_is_written_the_same_whatever_was_written_before(first: float) -> None:
    # 0.0 == -0.0: a resumed run that remembers less must not write other bytes.
    assert [repr(_short(value)) for value in (first, 0.0, -0.0)] == [repr(first), "0.0", "-0.0"]


def test_a_text_that_is_too_long_keeps_its_ends() -> None:
    assert cut("a" * 50 + "b" * 50, 40) == "a" * 20 + " [… 60 characters …] " + "b" * 20
    assert cut("short", 40) == "short"
    assert Allowance(1000, 8).longest_text == 62  # two prompts of eight
    said = experience(ADA, "12", right=True)
    turns = Experience(
        said.task, "ada", said.completion, said.verdict, 3, (Turn(Completion.from_text("5"), Reply("no")),)
    )
    assert transcript(turns) == "5\n[user] no\n12"


CONFIG = """
name: r
rounds: 40
output: {output}
env: {{id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 6, options: {{digits: 1, modulus: 10}}}}
sharing: {{strategy: sgt}}
record: {{megabytes: {megabytes}}}
policies:
  ada: {{learner: tabular, options: {{tokenizer: {{kind: char, alphabet: "0123456789+=()%"}}, max_new_tokens: 2}}}}
  bob: {{learner: tabular, options: {{tokenizer: {{kind: char, alphabet: "0123456789+=()%"}}, max_new_tokens: 2}}}}
evaluation: {{every: 20, prompts: 6, samples: 2, part: operation}}
"""


@pytest.mark.parametrize("megabytes", [64, 0.02])
def test_what_a_run_keeps_is_bounded_and_says_of_every_round_who_taught_whom(tmp_path: Path, megabytes: float) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(output=tmp_path, megabytes=megabytes))
    run = train(load_run(path)).directory
    lessons = list(read_lines(run / "lessons.jsonl"))
    assert [(line["round"], line["policy"]) for line in lessons] == [(r, p) for r in range(40) for p in ("ada", "bob")]
    rescued = read_run(run).total("ada", "share/rescued")
    assert rescued > 0
    assert sum(line["flow"].get("bob", [0])[0] for line in lessons if line["policy"] == "ada") == rescued
    samples = list(read_lines(run / "samples.jsonl"))
    assert {len(line["right"]) for line in samples} == {6}
    kept = sum((run / name).stat().st_size for name in ("samples.jsonl", "lessons.jsonl"))
    if megabytes < 1:  # two prompts of each round and the counts are kept whatever the allowance
        assert kept < 110_000
        assert sum(line["left_out"] for line in samples) > 0
    else:
        assert sum(line["left_out"] for line in [*samples, *lessons]) == 0
    evaluated = list(read_lines(run / "evaluations.jsonl"))
    assert [(line["round"], line["policy"]) for line in evaluated] == [
        (r, p) for r in (0, 20, 40) for p in ("ada", "bob")
    ]
    right = "".join(right for _, right, _ in evaluated[-1]["tasks"].values())
    assert right.count("1") / 12 == pytest.approx(read_run(run).evaluations["bob"]["accuracy"][-1][1])
