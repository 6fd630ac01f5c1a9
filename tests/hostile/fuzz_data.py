"""Damaged data sets: every one is read, or refused in a sentence. `python -m tests.hostile.fuzz_data --cases 10000`.

Sound files of every kind are damaged at random (bits turned, parts cut, doubled, moved, numbers made huge) and given to
every family that reads files. An error that is not this project's own, or one whose sentence does not fit on a screen,
is a failure and prints what repeats it. A crash of the process or a limit of its memory ends the run with the case
named in the last line of its log.
"""

from __future__ import annotations

import contextlib
import csv
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet

from mutual_env.errors import MutualEnvError
from mutual_env.tasks.dataset_rows import DatasetTasks
from mutual_env.tasks.knights import KnightsKnavesTasks
from mutual_env.tasks.math_rows import MathTasks
from tests.hostile import fuzzing

ROWS: Sequence[Mapping[str, Any]] = [
    {
        "question": f"What is {i} and {i}? äöü 中文",
        "answer": f"so it is #### {2 * i}",
        "quiz": "Zoe says: I am a knight.",
        "solution_text_format": "(1) Zoe is a knight",
        "prompt": [{"role": "user", "content": f"{i}?"}],
        "reward_model": {"style": "rule", "ground_truth": str(i)},
        "level": i,
        "score": i / 7,
        "maybe": None if i % 3 else "x" * i,
    }
    for i in range(40)
]
FAMILIES: Sequence[Callable[[Path], object]] = (
    lambda path: DatasetTasks(path=path, columns={"prompt": "question"}, keep=["level", "reward_model"], eval_share=0),
    lambda path: DatasetTasks(path=path, columns={"answer": "reward_model.ground_truth"}, eval_share=0),
    lambda path: MathTasks(path=path, eval_share=0),
    lambda path: KnightsKnavesTasks(path=path, eval_share=0),
)
KINDS = ("parquet", "json lines", "csv", "folder")
LONGEST_SENTENCE = 2000
MEMORY_BYTES = 12 * 2**30


def sound(kind: str, rng: random.Random, folder: Path) -> Path:
    """A data set without fault; what the fuzzer damages is one of its files."""
    if kind == "parquet":
        path = folder / "rows.parquet"
        table = pyarrow.Table.from_pylist(list(ROWS))
        options = {"compression": rng.choice(["none", "snappy", "zstd", "gzip"]), "use_dictionary": rng.random() < 0.5}
        pyarrow.parquet.write_table(table, path, row_group_size=rng.choice([7, 40]), **options)
    elif kind == "json lines":
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in ROWS))
    elif kind == "csv":
        path = folder / "rows.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*ROWS[0], "reward_model.ground_truth"])
            writer.writeheader()
            writer.writerows({**row, "prompt": "q", "reward_model.ground_truth": row["level"]} for row in ROWS)
    else:
        path = folder / "stored"
        whole = datasets.Dataset.from_list([dict(row) for row in ROWS])
        stored = datasets.DatasetDict({"train": whole}) if rng.random() < 0.3 else whole
        stored.save_to_disk(str(path))
    return path


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same bytes with one to eight faults."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not out:
            break
        at = rng.randrange(len(out))
        length = rng.choice([1, 2, 4, 8, rng.randint(1, max(1, len(out) // 3))])
        match rng.randrange(8):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, ord('"'), ord("["), ord("{"), ord("\n")])
            case 2:
                del out[at:]
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = out[at : at + length]
            case 5:
                out[at : at + length] = rng.choice([b"\xff", b"\x7f", b"\x00"]) * min(length, 16)
            case 6:
                out[at:at] = rng.choice([b"[" * 2000, b"{" * 2000, b"9" * 400, b"\xed\xa0\x80", b"\0", b'"', b"\\u"])
            case _:
                other = rng.randrange(len(out))
                out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
    return bytes(out)


def case(kind: str, seed: int, cache: dict[str, list[Path]]) -> tuple[str, str]:
    """What became of one damaged data set: "read", "refused", or a failure; and what there is to say about it."""
    rng = random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory(prefix="mutual-env-fuzz-") as scratch:
        path = _copied(rng.choice(cache[kind]), Path(scratch))
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        if rng.random() < 0.7:
            files = [file for file in files if file.suffix == ".arrow"] or files
        for file in rng.sample(files, k=min(len(files), rng.randint(1, 2))):
            file.write_bytes(damaged(file.read_bytes(), rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rng.choice(FAMILIES)(path)
        except MutualEnvError as error:
            said = str(error)
            return ("refused", said) if len(said) <= LONGEST_SENTENCE else ("too long a sentence", said[:200])
        except Exception as error:
            return "raw exception", f"{type(error).__name__}: {error}"[:300]
        return "read", ""


def _copied(path: Path, to: Path) -> Path:
    target = to / path.name
    return Path(shutil.copytree(path, target)) if path.is_dir() else Path(shutil.copy(path, target))


@contextlib.contextmanager
def prepared(kinds: Sequence[str]) -> Iterator[fuzzing.Case]:
    """Four whole data sets of each kind, of which each case damages one."""
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="mutual-env-fuzz-") as scratch:
        cache = {
            kind: [sound(kind, random.Random(i), _made(Path(scratch), kind, i)) for i in range(4)] for kind in kinds
        }
        yield lambda kind, seed: case(kind, seed, cache)


def _made(scratch: Path, kind: str, index: int) -> Path:
    folder = scratch / kind.replace(" ", "-") / str(index)
    folder.mkdir(parents=True)
    return folder


GOOD = ("read", "refused")


def main() -> int:
    return fuzzing.main("python -m tests.hostile.fuzz_data", __doc__, prepared, KINDS, GOOD, MEMORY_BYTES)


if __name__ == "__main__":
    sys.exit(main())
