"""Damaged run directories: every command that reads a run does its work, or says in a sentence why not.

    python -m tests.hostile.fuzz_runs --cases 10000

A sound run and a sound suite are made once. Of a copy one or two files are damaged: bytes, values inside of JSON lines,
lines gone or doubled, files gone, a folder or a link in their place. Then one command is asked: report, view, compare,
eval, export, resume, plan --like. An error that is not this project's own, one whose sentence does not fit on a
screen, a file outside of the run that changed, and a case that takes two minutes are failures.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.hostile import fuzzing
from tests.hostile.fuzz_config import MEMORY_BYTES, SUITE, told, value
from tests.hostile.fuzz_data import damaged

KINDS = (
    "report",
    "view",
    "compare",
    "eval",
    "export",
    "resume",
    "plan",
    "suite report",
    "suite compare",
    "compare evaluated",
)
GOOD = ("done", "refused")
LONGEST_SENTENCE = 3000
RUN = """
name: run
rounds: 5
env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2, options: {digits: 1, modulus: 10}}
sharing: {strategy: sgt, options: {weight: 0.2}}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, max_new_tokens: 1}}
  bob:
    learner: tabular
    options: {tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["%1"]}, learning_rate: 60}
evaluation: {every: 1, prompts: 4, samples: 1}
checkpoint: {every: 2}
"""


def sound(folder: Path) -> None:
    """A run `run` and a suite `s` in this folder."""
    with contextlib.chdir(folder):
        Path("run.yaml").write_text(RUN)
        Path("s.yaml").write_text(SUITE)
        assert told(["train", "run.yaml", "output=.", "--quiet"])[0] == 0
        shutil.rmtree("begun", ignore_errors=True)
        assert told(["train", "run.yaml", "output=.", "name=begun", "rounds=4", "--quiet"])[0] == 0
        assert told(["eval", "run", "--prompts", "4", "--samples", "1", "--out", "evaluated", "--json"])[0] == 0
        shutil.copytree("evaluated", "again", dirs_exist_ok=True)  # an evaluation is not compared with itself
        assert told(["suite", "s.yaml", "output=.", "--quiet"])[0] == 0


def damage(root: Path, rng: random.Random) -> str:
    """One or two files of a run; what was done."""
    said = []
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted(f for f in root.rglob("*") if _is_own_file(f) and f.name not in (".lock", "report.html"))
        if not files:
            break
        file = rng.choice(files)
        said.append(f"{file.relative_to(root)}: {_damage(file, rng)}")
    return "; ".join(said)


def _is_own_file(file: Path) -> bool:
    """No link that was put there before: what is behind it is not to be damaged by us."""
    return file.is_file() and not file.is_symlink()


def _damage(file: Path, rng: random.Random) -> str:
    match rng.randrange(12):
        case 0:
            file.unlink()
            return "gone"
        case 1:
            file.unlink()
            file.mkdir()
            return "a folder"
        case 2:
            file.unlink()
            file.symlink_to(rng.choice(("/dev/null", "/nowhere", file.name, "../../../outside")))
            return "a link"
        case 3 | 4 | 5 | 6 | 7 if file.suffix in (".json", ".jsonl"):
            file.write_bytes(_changed(file.read_bytes(), rng, lines=file.suffix == ".jsonl"))
            return "changed"
    file.write_bytes(damaged(file.read_bytes(), rng))
    return "damaged"


def _changed(data: bytes, rng: random.Random, *, lines: bool) -> bytes:
    """JSON still: values of other types, keys gone or renamed, lines gone, doubled, moved."""
    texts = data.splitlines() if lines else [data]
    if not texts:
        return data
    at = rng.randrange(len(texts))
    if lines and rng.random() < 0.3:
        match rng.randrange(3):
            case 0:
                del texts[at]
            case 1:
                texts.insert(at, rng.choice(texts))
            case _:
                texts[at] = rng.choice((b"null", b"[]", b"3", b'"x"', b"{}", b"[" * 3000, b'{"round": 0}'))
    else:
        try:
            tree = json.loads(texts[at])
        except ValueError:  # it was damaged before
            return data
        _change(tree, rng)
        texts[at] = json.dumps(tree, default=str).encode()
    return b"\n".join(texts) + b"\n"


def _change(tree: Any, rng: random.Random) -> None:
    at = tree
    while isinstance(at, (dict, list)) and at:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.75:
            at = at[key]
            continue
        if rng.random() < 0.25:
            del at[key]
        elif isinstance(at, dict) and rng.random() < 0.15:
            at[f"{key}x"] = at.pop(key)
        else:
            at[key] = _plain(value(rng))
        return


def _plain(given: Any) -> Any:
    """What JSON can hold."""
    if isinstance(given, Mapping):
        return {str(k): _plain(v) for k, v in given.items()}
    return [_plain(v) for v in given] if isinstance(given, list) else given


def words(kind: str) -> tuple[list[str], str]:
    """A command, and the folder that is damaged before it."""
    return {
        "report": (["report", "run"], "run"),
        "view": (["view", "run", "--plain"], "run"),
        "compare": (["compare", "run", "begun", "--json"], "run"),
        "eval": (["eval", "run", "--json"], "run"),
        "export": (["export", "run", "ada", "exported"], "run"),
        "resume": (["train", "--resume", "begun", "--quiet"], "begun"),
        "plan": (["plan", "run.yaml", "--like", "run"], "run"),
        "compare evaluated": (["compare", "evaluated", "again", "--json"], "evaluated"),
        "suite report": (["report", "s"], "s"),
        "suite compare": (["compare", "s", "--json"], "s"),
    }[kind]


def case(kind: str, seed: int, home: Path) -> tuple[str, str]:
    """What became of it: "done", "refused" or a failure; and what there is to say about it."""
    rng = random.Random(f"{kind} {seed}")
    command, folder = words(kind)
    with tempfile.TemporaryDirectory(prefix="mutual-env-fuzz-") as scratch, contextlib.chdir(scratch):
        outside = Path("outside")
        outside.write_text("untouched")
        place = Path("a") / "b"
        shutil.copytree(home, place)
        done = damage(place / folder, rng)
        if rng.random() < 0.3:
            command = [*command, "--accept-changes"] if kind == "resume" else command
        try:
            with contextlib.chdir(place):
                code, said = told(command)
        except (Exception, SystemExit) as error:
            return "raw exception", f"{type(error).__name__}: {error}"[:300] + f" ({done})"
        if outside.read_text() != "untouched":
            return "wrote outside", done
    if code == 0:
        return "done", ""
    if "error: " not in said:
        return "a strange end", f"{code}: {said[-300:]} ({done})"
    return ("refused", "") if len(said) <= LONGEST_SENTENCE else ("too long a sentence", f"{said[:300]} ({done})")


@contextlib.contextmanager
def prepared(kinds: Sequence[str]) -> Iterator[fuzzing.Case]:
    """Whole runs, of which each case damages a copy."""
    with tempfile.TemporaryDirectory(prefix="mutual-env-fuzz-") as name:
        home = Path(name)
        sound(home)
        yield lambda kind, seed: case(kind, seed, home)


def main() -> int:
    return fuzzing.main("python -m tests.hostile.fuzz_runs", __doc__, prepared, KINDS, GOOD, MEMORY_BYTES)


if __name__ == "__main__":
    sys.exit(main())
