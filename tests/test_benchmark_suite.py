"""Benchmarks of parts: anybody's learner by the suite that measures ours, held to ratios that a machine can keep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bars import AREAS, Area
from benchmarks.parts import BASELINES, PARTS, kept_for, ratios, slower

ROOT = Path(__file__).parent.parent
MINE = '''
from learners.tabular import TabularLearner
from mutual_env.tasks.arithmetic import ArithmeticTasks
from sharing import PeerRolloutPooling
from tokenizers_bridge import CharTokenizer


class Pooling(PeerRolloutPooling):
    """Somebody else's too."""

    def share(self, situation):
        open("shared", "w").close()
        return super().share(situation)


class Doubles(ArithmeticTasks):
    def __init__(self, *, digits: int = 1):
        super().__init__(digits=digits)
        open("drawn", "w").close()


class Nothing:
    pass


def digits():
    return CharTokenizer("0123456789+-*= ?")


class Learner(TabularLearner):
    """Somebody else's, which says that it was asked, and how it was made."""

    def __init__(self, name, tokenizer, *, alphabet: str, learning_rate: float = 1.0, greedy: bool = True):
        super().__init__(tokenizer, name=name, alphabet=alphabet, max_new_tokens=4, learning_rate=learning_rate)
        open("made", "w").write(f"{learning_rate} {greedy}")

    def act(self, *args, **kwargs):
        open("asked", "a").write(f"{self.name} ")
        return super().act(*args, **kwargs)


def without_a_tokenizer(name):
    return TabularLearner(digits(), name=name, alphabet="0123456789", max_new_tokens=4)


def without_a_name(tokenizer):
    return None


def nothing(name, tokenizer):
    return None


def raising(name, tokenizer):
    raise RuntimeError("no device")
'''


def measure(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The shipped suite, run by somebody whose folder has nothing of this repository in it."""
    (folder / "mine.py").write_text(MINE)
    plugins = ["-p", "learners.benchmarking", "-p", "no:cacheprovider"]
    return run_in(folder, "-m", "pytest", "-q", *plugins, "--pyargs", "learners.suites", f"--rootdir={folder}", *words)


def run_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python there, which finds the packages and nothing else of the repository."""
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    command, environment = [sys.executable, *words], {**alone, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)


@pytest.mark.long
def test_a_learner_from_outside_is_measured_by_the_suite_that_measures_ours(tmp_path: Path) -> None:
    options = [f"--mutual-env-learner-option={option}" for option in ("learning_rate=2.5", "greedy=false")]
    done = measure(
        tmp_path,
        "--mutual-env-learner=mine:Learner",
        "--mutual-env-strategy=mine:Pooling",
        "--mutual-env-env=mine:Doubles",
        *["--mutual-env-tokenizer=mine:digits"] * 2,
        *options,
        "--benchmark-json=run.json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "made").read_text() == "2.5 False"
    assert {*(tmp_path / "asked").read_text().split()} == {"ada", "bob"}
    assert (tmp_path / "shared").exists()
    assert (tmp_path / "drawn").exists()
    found = ratios(tmp_path / "run.json")
    assert {*found} == PARTS
    assert all(ratio > 0 for ratio in found.values())


@pytest.mark.long
@pytest.mark.torch
def test_models_with_tokenizers_of_their_own_are_measured_in_the_sizes_that_are_asked_for(tmp_path: Path) -> None:
    from tests.learners.tiny_policies import write_model

    for name in ("one", "two"):
        write_model(tmp_path / name)
    done = measure(
        tmp_path,
        "--mutual-env-learner=torch",
        *[f"--mutual-env-learner-option={option}" for option in ("path=one", "bob.path=two", "max_new_tokens=3")],
        *[f"--mutual-env-env-option={option}" for option in ("group_size=2", "prompts_per_round=3", "digits=2")],
        "--mutual-env-strategy-option=weight=0.5",
        "--mutual-env-rounds=2",
        "--benchmark-json=run.json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    timed = {b["name"]: b["stats"]["rounds"] for b in json.loads((tmp_path / "run.json").read_text())["benchmarks"]}
    assert {timed[part] for part in PARTS} == {2}


@pytest.mark.long
def test_a_learner_that_takes_no_tokenizer_brings_its_own(tmp_path: Path) -> None:
    done = measure(tmp_path, "--mutual-env-learner=mine:without_a_tokenizer", "-k", "test_act or test_translate")
    assert done.returncode == 0, done.stdout + done.stderr


REFUSED = {
    "--mutual-env-learner=mine:without_a_name": "mine:without_a_name takes no name",
    "--mutual-env-learner=torch": "--mutual-env-learner: give either path, a local model directory, or a model",
    "--mutual-env-strategy-option=weigth=2": "unknown option of strategy 'sgt' 'weigth': did you mean 'weight'",
    "--mutual-env-strategy-option=weight=much": "option 'weight' of strategy 'sgt' must be a finite number",
    "--mutual-env-strategy=trrd": "strategy 'trrd' needs the option 'teacher'",
    "--mutual-env-env-option=digit=2": "unknown option of mutual/arithmetic-v0 'digit': did you mean 'digits'",
    "--mutual-env-env-option=group_size=two": "group_size must be a whole number of at least 1, got 'two'",
    "--mutual-env-env-option=agents=2": "option agents: they are ada and bob",
    "--mutual-env-learner-option=bob.name=x": "option bob.name: each learner of the pair is given its own",
    "--mutual-env-rounds=0": "--mutual-env-rounds: must be at least 1, got 0",
    "--mutual-env-learner=mine:Lerner": "unknown attribute of learner 'mine:Lerner' 'Lerner': did you mean 'Learner'",
    "--mutual-env-learner=nobody:Learner": "learner 'nobody:Learner': there is no module 'nobody'",
    "--mutual-env-learner=half:Learner": "SyntaxError: ",
    "--mutual-env-learner-option=alphabets=01": "option of learner 'tabular' 'alphabets': did you mean 'alphabet'",
    "--mutual-env-strategy=mine:Learner": "strategy 'mine:Learner' must be a subclass of sharing.SharingWrapper",
    "--mutual-env-strategy=sgd": "unknown strategy 'sgd': did you mean 'sgt'",
    "--mutual-env-env=mine:Nothing": "mine:Nothing is no task family: it has no verifier, draw",
    "--mutual-env-env=mutual/arithmetics-v0": "unknown env id 'mutual/arithmetics-v0': did you mean 'mutual/arith",
    "--mutual-env-tokenizer=gpt5": "is given twice, once for each of the pair, got 1",
}
"""What is chosen, and what is said of it."""


EACH = """
import sys, pytest
for chosen in sys.argv[1:]:
    plugins = ["-p", "learners.benchmarking", "-p", "no:cacheprovider"]
    pytest.main(["-q", *plugins, "--pyargs", "learners.suites", "-k", "test_act", chosen])
"""
MADE = {
    "--mutual-env-learner=mine:nothing": "mine:nothing makes a NoneType, which has no name, version, tokenizer, act",
    "--mutual-env-learner=mine:raising": "mine:raising cannot be made: RuntimeError: no device (",
}
"""The same of what is only seen when a learner is made."""


@pytest.mark.long
def test_what_cannot_be_measured_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "half.py").write_text("class Learner(")
    done = run_in(tmp_path, "-c", EACH, *REFUSED, *MADE)
    told = [line for line in done.stderr.splitlines() if line]
    assert len(told) == len(REFUSED), done.stdout + done.stderr
    for line, said in zip(told, REFUSED.values(), strict=True):
        assert line.startswith("ERROR: --mutual-env-")
        assert said in line
    for said in MADE.values():
        assert said in done.stdout
    assert "Traceback" not in done.stdout
    assert "def learners_of_a_pair" not in done.stdout


def test_what_takes_longer_than_it_may_is_named() -> None:
    # 1.5 times a kept ratio of 2 is 3: at 3 a part passes, above it does not
    kept = {"test_act": 2.0, "test_round": 4.0}
    assert slower({"test_act": 3.0, "test_round": 4.0}, kept) == []
    assert slower({"test_act": 3.1}, kept) == [
        "test_round was not measured",
        "test_act takes 3.10 yardsticks, 1.55 times the 2.00 kept",
    ]


YARDSTICK = {"name": "test_yardstick", "stats": {"min": 1.0}}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (json.dumps({"benchmarks": [{"name": "test_act", "stats": {"min": 1.0}}]}), "has no test_yardstick"),
        (json.dumps({"benchmarks": [{**YARDSTICK, "stats": {"min": 0.0}}]}), "no positive number"),
        (json.dumps({"benchmarks": [YARDSTICK, {"name": "test_act"}]}), "is not what pytest --benchmark-json writes"),
        ("[1]", "is not what pytest --benchmark-json writes"),
        ("half of a fi", "is not what pytest --benchmark-json writes"),
        (None, "No such file"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused_in_a_sentence(tmp_path: Path, written: str | None, said: str) -> None:
    path = tmp_path / "run.json"
    if written is not None:
        path.write_text(written)
    with pytest.raises(SystemExit, match=said):
        ratios(path)


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_every_area_has_a_benchmark_that_pytest_runs(area: Area) -> None:
    written = (ROOT / "benchmarks" / f"{area.name}.py").read_text()
    assert "(benchmark: Any" in written, "give it a test that takes pytest-benchmark's fixture"


@pytest.mark.long
def test_a_benchmark_may_take_longer_than_a_test() -> None:
    # a step of TRL's on a real model takes over five minutes where others use the machine
    words = ("-q", "-p", "no:cacheprovider", "--collect-only", "benchmarks/env.py", "-m", "timeout")
    done = run_in(ROOT, "-m", "pytest", *words)
    assert "benchmarks/env.py::test_step" in done.stdout, done.stdout + done.stderr


def test_every_part_has_a_baseline() -> None:
    kept = json.loads(BASELINES.read_text())["yardsticks"]
    assert all({*of} == PARTS for of in kept.values())


def test_a_processor_is_held_to_its_own_figures_where_some_are_kept() -> None:
    kept = {"a": dict.fromkeys(PARTS, 1.0), "b": dict.fromkeys(PARTS, 2.0) | {"test_act": 0.5}}
    assert kept_for("a", kept) == kept["a"]
    assert kept_for("c", kept) == dict.fromkeys(PARTS, 2.0) | {"test_act": 1.0}
