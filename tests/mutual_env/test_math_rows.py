"""Stored data sets in their published columns, whole and broken."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

import mutual_env
from mutual_env import VerifierPool
from mutual_env.errors import DatasetRowError, InvalidInputError, StorageError, UnknownNameError
from mutual_env.tasks.math_rows import MathTasks, read_problems

GSM8K = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many in all?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72.\n#### 1,072",
}
MATH_500 = {
    "problem": "Convert the point $(0,3)$ to polar coordinates.",
    "solution": "We have that $r = 3$. The answer is $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$",
    "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
    "subject": "Precalculus",
    "level": 2,
    "unique_id": "test/precalculus/807.json",
}
AIME_2024 = {"ID": "2024-II-4", "Problem": "Let $x,y$ be ... Find $m+n$.", "Solution": "... $033$", "Answer": 33}
AIME_2025 = {"question": "Find the sum of all integer bases $b>9$ ...", "answer": "70"}
AIME_BOXED = {
    "id": 60,
    "problem": "Every morning Aya ...",
    "solution": "So it is $\\boxed{\\frac{2{0}4}{1}}$.",
    "url": "x",
}


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (GSM8K, "1072"),
        (MATH_500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
        (AIME_2024, "33"),
        (AIME_2025, "70"),
        (AIME_BOXED, "\\frac{2{0}4}{1}"),
    ],
    ids=["gsm8k", "math500", "aime2024", "aime2025", "boxed"],
)
def test_the_published_columns_are_read(tmp_path: Path, row: dict[str, object], answer: str, suffix: str) -> None:
    (task,) = MathTasks(path=write(tmp_path / f"rows{suffix}", [row]), eval_share=0).draw(0, 0, 1)
    assert task.answer == answer
    question = next(row[c] for c in ("question", "problem", "Problem") if c in row)
    assert str(question) in str(task.prompt)
    assert "\\boxed{}" in str(task.prompt)


def test_a_data_set_saved_by_hugging_face_is_read_and_its_parts_are_named(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([GSM8K, {**GSM8K, "question": "Another?"}])
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows, "test": datasets.Dataset.from_list([GSM8K])}).save_to_disk(
        str(tmp_path / "two")
    )
    assert len(read_problems(tmp_path / "one")) == 2
    assert len(read_problems(tmp_path / "two", "test")) == 1
    with pytest.raises(UnknownNameError, match="'train'"):
        read_problems(tmp_path / "two", "trian")
    # The test part is held out; of the two training rows one is the same question, and is left out.
    options: dict[str, str] = {"path": str(tmp_path / "two"), "eval_path": str(tmp_path / "two"), "part": "train"}
    assert len(MathTasks(**options, eval_part="test")) == 1
    assert len(MathTasks(**options, eval_part="test", split="eval")) == 1


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, question in (("b.parquet", "second"), ("a.jsonl", "first"), ("notes.txt", "")):
        if question:
            write(tmp_path / name, [{"question": question, "answer": "1"}])
        else:
            (tmp_path / name).write_text("not read")
    assert [p.question for p in read_problems(tmp_path)] == ["first", "second"]


def test_the_parts_of_a_published_folder_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", [GSM8K, {**GSM8K, "question": "Another?"}])
    write(tmp_path / "test-00000-of-00001.parquet", [{**GSM8K, "question": "Held out?"}])
    with pytest.raises(InvalidInputError, match="holds the parts test, train"):
        read_problems(tmp_path)
    with pytest.raises(UnknownNameError, match="'test'"):
        read_problems(tmp_path, "tests")
    assert len(read_problems(tmp_path, "train")) == 2
    assert [p.question for p in read_problems(tmp_path, "test")] == ["Held out?"]


def test_math_verify_scores_what_is_drawn(tmp_path: Path, pool: VerifierPool) -> None:
    path = write(tmp_path / "rows.jsonl", [MATH_500, {"problem": "1/2+1/4?", "answer": "\\frac{3}{4}"}])
    env = mutual_env.make(
        "math/jsonl-v0", path=str(path), eval_share=0.0, agents=["a"], group_size=2, prompts_per_round=2, pool=pool
    )
    env.reset()
    right = {task.id: f"So it is $\\boxed{{{task.answer}}}$." for task in env.tasks}
    _, rewards, *_ = env.step({"a": [[right[task.id], "It is \\boxed{17}."] for task in env.tasks]})
    assert rewards == {"a": 0.5}


def test_every_row_comes_up_in_every_pass_and_none_twice_in_a_round(problems: Path) -> None:
    source = MathTasks(path=problems, eval_share=0)
    assert len(source) == 12
    passes = [
        [[t.id for t in source.draw(3, 3 * p + r, 5)] for r in range(3)] for p in range(2)
    ]  # 12 rows in rounds of 5
    for rounds in passes:
        assert all(len(set(ids)) == 5 for ids in rounds)
        counts = Counter(id for ids in rounds for id in ids)
        assert len(counts) == 12
        assert sum(counts.values()) == 15  # the last round is filled up with the first three of the pass
        assert rounds[2][2:] == rounds[0][:3]
    assert passes[0] != passes[1]
    assert source.draw(3, 4, 5) == MathTasks(path=problems, eval_share=0).draw(3, 4, 5)


def test_a_share_of_the_questions_is_held_out_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(300)]
    forth, back = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[::-1])

    def ids(path: Path, split: str) -> set[str]:
        source = MathTasks(path=path, split=split)
        return {task.id for task in source.draw(0, 0, len(source))}

    assert ids(forth, "eval") == ids(back, "eval")
    assert not ids(forth, "train") & ids(forth, "eval")
    assert len(ids(forth, "train")) + len(ids(forth, "eval")) == 300
    assert 10 <= len(ids(forth, "eval")) <= 60  # a tenth, up to chance
    assert len(MathTasks(path=forth, split="eval", eval_share=1)) == 300


def test_a_benchmark_of_its_own_is_held_out_whole_and_kept_from_training(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [GSM8K, {**GSM8K, "question": "Another?"}])
    test = write(tmp_path / "test.jsonl", [GSM8K])
    assert [t.answer for t in MathTasks(eval_path=test, split="eval").draw(0, 0, 1)] == ["1072"]
    (task,) = MathTasks(path=train, eval_path=test).draw(0, 0, 1)
    assert "Another?" in str(task.prompt)


def test_repeated_rows_are_one_task(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [AIME_2025, AIME_2025, {**AIME_2025, "answer": "71"}])
    assert len(read_problems(path)) == 2


def test_a_prompt_can_be_a_chat_and_a_template(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [AIME_2025])
    (task,) = MathTasks(path=path, eval_share=0, chat=True, template="Q: {question}\nA:").draw(0, 0, 1)
    assert task.prompt == ({"role": "user", "content": f"Q: {AIME_2025['question']}\nA:"},)


GOOD = json.dumps({"question": "q", "answer": "1"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "q", "answer": ', "not a JSON object"),
        ("[1, 2]", "is a JSON list"),
        ('{"query": "q", "answer": "1"}', "no field 'problem' or 'question'; it has 'query', 'answer'"),
        ('{"question": "q"}', "no field 'solution' or 'answer'; it has 'question'"),
        ('{"question": "q", "solution": "so \\\\boxed{1"}', "no whole \\boxed{...}"),
        ('{"question": " ", "answer": "1"}', "field 'question' is blank"),
        ('{"question": "q", "answer": ""}', "field 'answer' is blank"),
        ('{"question": "q", "answer": null}', "field 'answer' is a NoneType, not a str"),
        ('{"question": ["q"], "answer": "1"}', "field 'question' is a list, not a str"),
        ('{"question": "q", "answer": true}', "field 'answer' is a bool, not a str"),
        ('{"question": "a\\u0000b", "answer": "1"}', "field 'question' has a NUL at 1"),
        ('{"question": "a\\ud800", "answer": "1"}', "lone surrogate '\\ud800' at 1"),
        (b'{"question": "\xff", "answer": "1"}', "in UTF-8"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path: Path, line: str | bytes, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    raw = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(f"{GOOD}\n\n".encode() + raw + b"\n")
    with pytest.raises(DatasetRowError, match=re.escape(f"{path}:3")) as refusal:
        MathTasks(path=path)
    assert says in str(refusal.value)


def test_a_row_of_gsm8k_without_its_mark_is_malformed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [GSM8K, {**GSM8K, "answer": "no mark"}])
    with pytest.raises(DatasetRowError, match=r"rows.parquet: row 2: field 'answer' must end in '#### <number>'"):
        MathTasks(path=path)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda p: MathTasks(), InvalidInputError, "path is missing"),
        (lambda p: MathTasks(path=p / "nothing.jsonl"), StorageError, "does not exist"),
        (lambda p: MathTasks(path=p / "rows.xlsx"), InvalidInputError, "got '.xlsx'"),
        (lambda p: MathTasks(path=p / "empty"), InvalidInputError, "holds neither"),
        (lambda p: MathTasks(path=p / "blank.jsonl"), InvalidInputError, "no rows for split 'train'"),
        (lambda p: MathTasks(path=p / "torn.parquet"), StorageError, "not a whole Parquet file"),
        (lambda p: MathTasks(path=p / "rows.jsonl", eval_share=0).draw(0, 0, 2), InvalidInputError, "only 1 rows"),
        (lambda p: MathTasks(path=p / "rows.jsonl", eval_share=2), InvalidInputError, "eval_share"),
        (lambda p: MathTasks(path=p / "rows.jsonl", template="x"), InvalidInputError, "{question}"),
        (lambda p: MathTasks(path=p / "rows.jsonl", split="test"), InvalidInputError, "got 'test'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, make, error, says) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.xlsx").write_text("question,answer\n")
    (tmp_path / "blank.jsonl").write_text("\n")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "rows.jsonl").write_text(GOOD)
    with pytest.raises(error, match=re.escape(says)):
        make(tmp_path)
