"""Any data set: columns by name, files of every kind, what is published for verl, and prompts in every shape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

import mutual_env
from mutual_env import EnvSpec, VerifierPool
from mutual_env.errors import DatasetRowError, InvalidInputError, StorageError, UnknownNameError
from mutual_env.prompts import PromptShape
from mutual_env.tasks.dataset_rows import DatasetTasks
from mutual_env.tasks.math_rows import MathTasks, read_problems
from mutual_env.tasks.reasoning_gym import ItemProcess
from mutual_env.tasks.rows import MAX_DEPTH, read_hub, read_rows
from mutual_env.testing import check_env

REAL = Path(__file__).parents[3] / "shared" / "data"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"published data sets are not in {REAL}")

RIDDLE = {"asked": "What has keys and opens no lock?", "said": {"final": "piano"}, "level": 3, "about": "music"}
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [{"role": "user", "content": '2 and 3? Output the final answer after "####".'}],
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"index": 0, "split": "train"},
}
COLUMNS = {"prompt": "asked", "answer": "said.final"}


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_columns_are_named_by_the_caller_also_inside_of_others(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"riddles{suffix}", [RIDDLE])
    (task,) = DatasetTasks(path=path, columns=COLUMNS, keep=["level", "said"], eval_share=0).draw(0, 0, 1)
    assert (task.prompt, task.answer) == (RIDDLE["asked"], "piano")
    assert task.metadata == {"level": 3, "said": {"final": "piano"}}


def test_a_template_speaks_of_any_column_and_leaves_other_braces_alone(tmp_path: Path) -> None:
    row = {**RIDDLE, "asked": "{topic}?"}
    options: dict[str, Any] = {"columns": {**COLUMNS, "topic": "about"}, "eval_share": 0}
    template = "On {topic}: {prompt} Write \\boxed{}, {other} and {answer}."
    (task,) = DatasetTasks(path=write(tmp_path / "a.jsonl", [row]), template=template, **options).draw(0, 0, 1)
    assert task.prompt == "On music: {topic}? Write \\boxed{}, {other} and {answer}."


@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_delimited_files_are_read_with_quotes_and_lines_inside_of_fields(
    tmp_path: Path, suffix: str, mark: str
) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text(f'\ufeffprompt{mark}answer\n"one{mark}\ntwo"{mark}3\n\nfour{mark}"say ""5"""\n', encoding="utf-8")
    rows = list(read_rows(path))
    assert [place.removeprefix(str(path)) for place, _ in rows] == [":3", ":5"]
    assert [row for _, row in rows] == [
        {"prompt": f"one{mark}\ntwo", "answer": "3"},
        {"prompt": "four", "answer": 'say "5"'},
    ]
    assert len(DatasetTasks(path=path, eval_share=0)) == 2


def test_several_paths_are_one_data_set_and_what_follows_a_mark_is_the_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "answer": f"because ... #### {i}"} for i in range(4)]
    paths = [write(tmp_path / "a.jsonl", rows[:2]), write(tmp_path / "b.parquet", rows[1:])]
    source = DatasetTasks(path=paths, answer_after="####", eval_share=0)
    assert {task.answer for task in source.draw(0, 0, len(source))} == {"0", "1", "2", "3"}


def test_messages_stay_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "verl.parquet", [VERL])
    source = DatasetTasks(path=path, columns={"answer": "reward_model.ground_truth"}, eval_share=0)
    assert source.draw(0, 0, 1)[0].prompt == tuple(VERL["prompt"])  # type: ignore[arg-type]


def test_an_answer_is_read_from_any_depth_and_a_step_that_is_wrong_is_said(tmp_path: Path) -> None:
    row = {**VERL, "reward_model": {"ground_truth": {"question": "2 and 3?", "target": "5"}}}
    path = write(tmp_path / "verl.parquet", [row])
    columns = {"answer": "reward_model.ground_truth.target"}
    assert DatasetTasks(path=path, columns=columns, eval_share=0).draw(0, 0, 1)[0].answer == "5"
    with pytest.raises(DatasetRowError, match=r"'reward_model\.ground_truth' has 'question', 'target'"):
        DatasetTasks(path=path, columns={"answer": "reward_model.ground_truth.targt"})
    with pytest.raises(DatasetRowError, match="'reward_model' has 'ground_truth'"):
        DatasetTasks(path=path, columns={"answer": "reward_model.truth"})


def test_any_verifier_checks_what_is_drawn(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [{"prompt": "one half?", "answer": 0.5}, {"prompt": "one?", "answer": 1.0}]
    options: dict[str, Any] = {"path": str(write(tmp_path / "r.jsonl", rows)), "eval_share": 0, "pool": pool}
    env = mutual_env.make(
        "dataset/jsonl-v0", verifier="numeric", agents=1, group_size=2, prompts_per_round=2, **options
    )
    env.reset()
    answers = {"one half?": ["1/2", "2"], "one?": ["1.00", "one"]}
    assert env.step({"policy_0": [answers[str(task.prompt)] for task in env.tasks]})[1] == {"policy_0": 0.5}


def test_the_family_passes_check_env(tmp_path: Path, pool: VerifierPool) -> None:
    path = str(write(tmp_path / "r.jsonl", [{"prompt": f"q{i}", "answer": f"a{i}"} for i in range(8)]))
    options: dict[str, Any] = {"path": path, "eval_share": 0, "group_size": 2, "prompts_per_round": 3, "pool": pool}
    check_env(lambda: mutual_env.make("dataset/jsonl-v0", agents=2, **options))


# -- verl's form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", ["5", 5, {"target": "5", "solution": "so \\boxed{5}"}, {"solution": "5"}])
def test_rows_in_the_form_of_verl_are_problems_as_published(tmp_path: Path, truth: object) -> None:
    row = {**VERL, "reward_model": {"style": "rule", "ground_truth": truth}}
    path = write(tmp_path / "verl.parquet", [row])
    (task,) = MathTasks(path=path, eval_share=0).draw(0, 0, 1)
    assert (task.prompt, task.answer) == (tuple(VERL["prompt"]), "5")  # type: ignore[arg-type]
    assert task.metadata == {"data_source": "openai/gsm8k"}
    (asked,) = MathTasks(path=path, eval_share=0, template="Q: {question}").draw(0, 0, 1)
    assert asked.prompt == f"Q: {VERL['prompt'][0]['content']}"  # type: ignore[index]


def test_rows_without_an_answer_are_refused_or_left_out_as_asked(tmp_path: Path) -> None:
    blank = {**VERL, "reward_model": {"style": "rule", "ground_truth": " "}}
    path = write(tmp_path / "verl.parquet", [VERL, blank])
    with pytest.raises(DatasetRowError, match=r"row 2: field 'reward_model.ground_truth' is blank; skip_unanswered"):
        MathTasks(path=path)
    assert len(MathTasks(path=path, skip_unanswered=True, eval_share=0)) == 1
    columns = {"answer": "reward_model.ground_truth"}
    with pytest.raises(DatasetRowError, match="skip_unanswered"):
        DatasetTasks(path=path, columns=columns)
    assert len(DatasetTasks(path=path, columns=columns, skip_unanswered=True, eval_share=0)) == 1


@needs_real_files
def test_math_as_published_for_verl_is_read_whole() -> None:
    options: dict[str, Any] = {"path": REAL / "math/train.parquet", "eval_path": REAL / "math/test.parquet"}
    train = MathTasks(**options, skip_unanswered=True)
    held_out = MathTasks(**options, skip_unanswered=True, split="eval")
    # Of 7,500 and 5,000 rows four and one have a blank answer; none is a repetition, and none is in both files.
    assert (len(train), len(held_out)) == (7496, 4999)
    (task,) = train.draw(0, 0, 1)
    assert isinstance(task.prompt, tuple)
    assert task.prompt[0]["content"].endswith("output the final answer within \\boxed{}.")


@needs_real_files
@pytest.mark.parametrize(
    ("file", "rows"),
    [("gsm8k/test.jsonl", 1319), ("math/math500.jsonl", 500), ("aime/aime24.jsonl", 30), ("aime/amc23.jsonl", 40)],
)
def test_published_benchmarks_are_read_whole(file: str, rows: int) -> None:
    assert len(read_problems(REAL / file)) == rows


@needs_real_files
def test_gsm8k_as_a_plain_data_set_has_the_answers_of_the_math_family() -> None:
    path = REAL / "gsm8k/test.jsonl"
    source = DatasetTasks(path=path, columns={"prompt": "question"}, answer_after="####", eval_share=0)
    by_question = {problem.question: problem.answer for problem in read_problems(path)}
    assert len(source) == 1319
    for task in source.draw(0, 0, 1319):
        assert task.answer.replace(",", "") == by_question[str(task.prompt)]


# -- what is wrong with a file ----------------------------------------------------------------------------------------


def deep(levels: int) -> str:
    return '{"prompt": ' + "[" * levels + "]" * levels + ', "answer": "1"}'


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.jsonl", deep(100_000), DatasetRowError, ":1 is nested more than 64 deep"),
        ("a.jsonl", deep(MAX_DEPTH + 1), DatasetRowError, ":1 is nested more than 64 deep"),
        ("a.jsonl", '{"prompt": "q", "answer": NaN}', DatasetRowError, "'answer' is nan"),
        ("a.jsonl", '{"prompt": "q", "answer": 1e999}', DatasetRowError, "'answer' is inf"),
        ("a.jsonl", '{"prompt": "q", "answer": 1' + "0" * 5000 + "}", DatasetRowError, "not a JSON object"),
        ("a.jsonl", '{"prompt": [], "answer": "1"}', DatasetRowError, "must be a list of messages"),
        ("a.jsonl", '{"prompt": [{"role": "user"}], "answer": "1"}', DatasetRowError, "no field 'content'"),
        ("a.jsonl", '{"prompt": "q", "answer": {"b": 1}}', DatasetRowError, "name one of them, as in 'answer.b'"),
        ("a.jsonl", '{"prompt": "q", "answer": {}}', DatasetRowError, "'answer' is an empty mapping"),
        ("a.jsonl", '{"question": "q", "answer": "1"}', DatasetRowError, "no field 'prompt'; it has 'question'"),
        ("a.csv", "prompt,answer\nq\n", DatasetRowError, ":2 has 1 fields, and the first line names 2"),
        ("a.csv", "prompt,prompt\n", DatasetRowError, ":1 must name each column once"),
        ("a.csv", 'prompt,answer\n"q,1\n', DatasetRowError, "is not a row of CSV"),
        ("a.csv", "prompt,answer\n" + "q" * 200_000 + ",1\n", DatasetRowError, "field larger than field limit"),
        ("a.csv", "", DatasetRowError, "must name each column once"),
        ("a.parquet", "PAR1", StorageError, "not a whole Parquet file"),
        ("a.txt", "", InvalidInputError, "must end in .jsonl, .ndjson, .parquet, .csv, .tsv"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, content: str, error: type[Exception], says: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=re.escape(says)):
        DatasetTasks(path=tmp_path / name)


def test_bytes_that_are_no_utf8_and_names_that_no_file_can_have_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt,answer\n\xff,1\n")
    with pytest.raises(StorageError, match="UnicodeDecodeError"):
        DatasetTasks(path=tmp_path / "a.csv")
    with pytest.raises(StorageError, match="does not exist"):
        DatasetTasks(path="a\0b.jsonl")
    with pytest.raises(StorageError, match=r"cannot be read: OSError: .* File name too long"):
        DatasetTasks(path="x" * 5000 + ".jsonl")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, InvalidInputError, "path is missing"),
        (
            {"columns": {"answer": 3}},
            InvalidInputError,
            "'columns' of dataset/jsonl-v0 must be a mapping",
        ),
        ({"template": "no place"}, InvalidInputError, "template must contain {prompt}"),
        ({"keep": "level"}, InvalidInputError, "keep must be a list"),
        (
            {"eval_share": "half"},
            InvalidInputError,
            "must be a finite number, got 'half'",
        ),
        ({"colums": {}}, UnknownNameError, "'columns'"),
        ({"prompt": {"sistem": "x"}}, UnknownNameError, "'system'"),
        ({"prompt": {"template": "x"}}, InvalidInputError, "prompt.template must contain {prompt}"),
        ({"prompt": {"chat": "yes"}}, InvalidInputError, "prompt.chat must be"),
        ({"prompt": {"system": 3}}, InvalidInputError, "prompt.system must be a text"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    if options:
        options = {
            "path": str(write(tmp_path / "r.jsonl", [{"prompt": "q", "answer": "a"}])),
            "eval_share": 0,
            **options,
        }
    with pytest.raises(error, match=re.escape(says)):
        mutual_env.make("dataset/jsonl-v0", prompts_per_round=1, **options)


# -- the Hub ----------------------------------------------------------------------------------------------------------


def test_the_hub_is_not_asked_unless_the_network_is_allowed() -> None:
    with pytest.raises(StorageError, match="'acme/riddles' does not exist"):
        DatasetTasks(path="acme/riddles")


def test_a_hub_that_does_not_answer_is_an_error_in_a_sentence() -> None:
    program = (
        "from mutual_env.tasks.dataset_rows import DatasetTasks\n"
        "try: DatasetTasks(path='acme/riddles', network=True)\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith("WrongPathError path 'acme/riddles' is no file here, and the Hub did not give it: ")
    assert "hf download acme/riddles --repo-type dataset" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_folder_in_the_form_of_the_hub_is_read_by_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "riddles"
    folder.mkdir()
    write(folder / "train.jsonl", [{"prompt": "q", "answer": "a"}])
    write(folder / "test.jsonl", [{"prompt": "p", "answer": "b"}])
    assert [row["answer"] for _, row in read_hub(str(folder), None, "test")] == ["b"]
    with pytest.raises(UnknownNameError, match="'train'"):
        list(read_hub(str(folder), None, "trian"))


# -- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, "1+1="),
        ({"template": "2+3=5\n{prompt}"}, "2+3=5\n1+1="),
        ({"system": "Be brief."}, ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1="})),
        ({"chat": True}, ({"role": "user", "content": "1+1="},)),
        ({"system": "Be brief.", "chat": False}, "Be brief.\n\n1+1="),
    ],
)
def test_every_family_takes_a_system_message_and_a_template(
    shape: dict[str, Any], expected: object, items: ItemProcess
) -> None:
    assert PromptShape.of(shape)("1+1=") == expected
    families: dict[str, dict[str, Any]] = {
        "mutual/arithmetic-v0": {},
        "mutual/letters-v0": {},
        "reasoning_gym/chain_sum-v0": {"generator": items},
    }
    for family, options in families.items():
        plain, shaped = (mutual_env.make(family, prompts_per_round=2, **p, **options) for p in ({}, {"prompt": shape}))
        plain.reset()
        observations, _ = shaped.reset()
        assert [PromptShape.of(shape)(task.prompt) for task in plain.tasks] == [task.prompt for task in shaped.tasks]
        assert [task.id for task in plain.tasks] == [task.id for task in shaped.tasks]
        assert observations["policy_0"]["prompts"] == tuple(task.prompt for task in shaped.tasks)
        for env in (plain, shaped):
            env.close()


def test_the_shape_of_prompts_is_part_of_what_an_env_was_made_from() -> None:
    shaped = mutual_env.make("mutual/letters-v0", prompts_per_round=2, prompt={"system": "Be brief."})
    again = mutual_env.make_from(EnvSpec.from_json(shaped.spec.to_json()))
    assert again.spec == shaped.spec
    for env in (shaped, again):
        env.reset()
    assert again.tasks == shaped.tasks
    assert "prompt" not in json.loads(mutual_env.make("mutual/letters-v0").spec.to_json())


def test_a_chat_keeps_its_turns_and_gets_another_system_message() -> None:
    turns = ({"role": "system", "content": "old"}, {"role": "user", "content": "q"})
    shaped = PromptShape(system="new", template="Please: {prompt}")(turns)  # type: ignore[arg-type]
    assert shaped == ({"role": "system", "content": "new"}, {"role": "user", "content": "Please: q"})
    assert PromptShape(chat=False)(turns) == "old\n\nq"  # type: ignore[arg-type]
