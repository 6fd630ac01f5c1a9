"""Every data set of reasoning-gym as a task family."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path
from weakref import WeakValueDictionary

import pytest

import mutual_env
from mutual_env import VerifierPool
from mutual_env.errors import DeadlineExceededError, InvalidInputError, UnknownNameError
from mutual_env.tasks import reasoning_gym as family
from mutual_env.tasks.reasoning_gym import ItemProcess, ReasoningGymTasks
from mutual_env.tasks.reasoning_gym_names import DATASET_NAMES
from mutual_env.testing import check_env

# No answer of their own: any solution that their scorer accepts is right.
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
# What iterates over sets of strings or draws from the global generators.
DEPENDS_ON_PROCESS = (
    "codeio", "family_relationships", "isomorphic_strings", "list_functions", "polynomial_multiplication",
    "pool_matrix", "ransom_note", "word_ladder",
)  # fmt: skip


def test_the_listed_names_are_those_of_the_installed_package() -> None:
    import reasoning_gym  # noqa: F401
    from reasoning_gym.factory import DATASETS

    assert set(DATASET_NAMES) == set(DATASETS)
    assert len(DATASET_NAMES) >= 105


@pytest.mark.parametrize("name", DATASET_NAMES)
def test_every_data_set_passes_check_env_and_scores_its_own_answer(
    name: str, pool: VerifierPool, items: ItemProcess
) -> None:
    options = {"agents": 2, "group_size": 1, "prompts_per_round": 1, "pool": pool, "generator": items}
    check_env(lambda: mutual_env.make(f"reasoning_gym/{name}-v0", **options))  # type: ignore[arg-type]
    env = mutual_env.make(f"reasoning_gym/{name}-v0", **options)  # type: ignore[arg-type]
    env.reset()
    (task,) = env.tasks
    assert (task.answer == "") == (name in WITHOUT_ANSWER)
    answer = f"I think <answer>{task.answer}</answer>"
    _, rewards, *_ = env.step({"policy_0": [[answer]], "policy_1": [["I do not know"]]})
    assert rewards["policy_1"] < 1.0
    if name not in WITHOUT_ANSWER:
        assert rewards["policy_0"] == 1.0


@pytest.mark.long
def test_items_do_not_depend_on_the_hash_seed_or_the_global_generators_of_the_process() -> None:
    program = (
        "import random, sys\n"
        "from mutual_env.tasks.reasoning_gym import ItemProcess, ReasoningGymTasks\n"
        "random.seed(int(sys.argv[1]))\n"
        "items = ItemProcess()\n"
        f"for name in {DEPENDS_ON_PROCESS!r}:\n"
        f"    print(ReasoningGymTasks(dataset=name, generator=items).draw(3, 1, 3))\n"
        "assert 'reasoning_gym' not in sys.modules\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, seed], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE
        )
        for seed in ("1", "2")
    ]
    outputs = [run.communicate(timeout=200)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


def test_the_splits_share_no_question_and_rounds_differ(items: ItemProcess) -> None:
    def questions(split: str, round: int) -> set[str]:
        source = ReasoningGymTasks(dataset="knights_knaves", split=split, generator=items)
        return {str(task.prompt) for task in source.draw(0, round, 30)}

    train = questions("train", 0) | questions("train", 1)
    assert len(train) > 50
    assert not train & (questions("eval", 0) | questions("eval", 1))


def test_the_options_of_a_data_set_are_its_own(items: ItemProcess, pool: VerifierPool) -> None:
    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    (task,) = ReasoningGymTasks(dataset="chain_sum", generator=items, **options).draw(0, 0, 1)
    assert task.metadata["config"] == options
    assert len(task.answer) <= 2  # 9 + 9 at most, 0 - 9 at least


def test_composite_takes_its_parts_as_plain_mappings_and_scores_each_by_its_own(
    items: ItemProcess, pool: VerifierPool
) -> None:
    parts = [{"name": "gcd", "weight": 2}, {"name": "leg_counting", "config": {"max_animals": 3}}]
    env = mutual_env.make(
        "reasoning_gym/composite-v0",
        datasets=parts, agents=["a"], group_size=1, prompts_per_round=12, generator=items, pool=pool,
    )  # fmt: skip
    env.reset()
    assert {task.metadata["dataset"] for task in env.tasks} == {"gcd", "leg_counting"}
    assert {str(task.metadata["config"]) for task in env.tasks} == {"{}", "{'max_animals': 3}"}
    _, rewards, *_ = env.step({"a": [[task.answer] for task in env.tasks]})
    assert rewards == {"a": 1.0}


@pytest.mark.parametrize(
    ("dataset", "options", "error", "says"),
    [
        ("chain_sums", {}, UnknownNameError, "chain_sum"),
        ("chain_sum", {"max_term": 3}, UnknownNameError, "max_terms"),
        ("chain_sum", {"group_sise": 3}, UnknownNameError, "group_size"),
        ("chain_sum", {"size": 3}, UnknownNameError, "size"),
        ("chain_sum", {"min_terms": 9, "max_terms": 3}, InvalidInputError, "AssertionError"),
        ("chain_sum", {"min_terms": "many"}, InvalidInputError, "'min_terms': 'many'"),
        ("chain_sum", {"min_terms": {1}}, InvalidInputError, "JSON"),
        ("chain_sum", {"split": "test"}, InvalidInputError, "'train' or 'eval'"),
        ("composite", {"datasets": []}, InvalidInputError, "at least one dataset"),
        ("composite", {"datasets": [{"weight": 1}]}, InvalidInputError, "KeyError: 'name'"),
    ],
)
def test_a_bad_option_is_refused_when_the_source_is_made(dataset, options, error, says, items) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=says):
        ReasoningGymTasks(dataset=dataset, generator=items, **options)


@pytest.mark.long
def test_a_generator_that_hangs_or_died_is_started_anew() -> None:
    process = ItemProcess(deadline=0.01)
    with pytest.raises(DeadlineExceededError, match=r"not made within 0\.01 s"):
        process.make("sokoban", {}, seed=1, count=50)
    process._deadline = 100.0
    assert len(process.make("gcd", {}, seed=1, count=2)) == 2
    before = process.make("gcd", {}, seed=1, count=2)
    process._running[0]._process.kill()
    process._running[0]._process.wait()
    assert process.make("gcd", {}, seed=1, count=2) == before
    process.close()
    process.close()


@pytest.mark.long
def test_closing_the_envs_ends_the_process_that_they_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "_COMMON", WeakValueDictionary())  # others may not have closed theirs
    envs = [
        mutual_env.make(f"reasoning_gym/{name}-v0", agents=1, group_size=1, prompts_per_round=1)
        for name in ("gcd", "chain_sum")
    ]
    for env in envs:
        env.reset()
    (process,) = {env._source._items._running[0]._process for env in envs}  # type: ignore[attr-defined]
    envs[0].close()
    assert process.poll() is None
    envs[1].close()
    assert process.poll() is not None


@pytest.mark.long
def test_verdicts_do_not_depend_on_the_number_of_workers_and_nothing_is_imported_here() -> None:
    """In a process of its own, since other tests here import reasoning_gym to look at it."""
    program = (
        "import sys, mutual_env\n"
        "def play(workers):\n"
        "    pool = mutual_env.VerifierPool(workers=workers)\n"
        "    env = mutual_env.make('reasoning_gym/countdown-v0', group_size=3, prompts_per_round=2, pool=pool)\n"
        "    env.reset(seed=1)\n"
        "    texts = [[task.answer, '1+1', '__import__(\"os\")'] for task in env.tasks]\n"
        "    result = env.step({agent: texts for agent in env.agents})\n"
        "    env.close(); pool.close()\n"
        "    return result\n"
        "if __name__ == '__main__':\n"
        "    first = play(1)\n"
        "    assert first == play(3)\n"
        "    assert not {'reasoning_gym', 'sympy'} & set(sys.modules)\n"
        "    print(first[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    rewards = set(ast.literal_eval(done.stdout).values())
    assert len(rewards) == 1
    assert 1 / 3 <= rewards.pop() < 0.5  # one of three is right; a wrong one that can be read is worth a little


@pytest.mark.long
def test_a_generator_that_dies_at_its_work_is_named_with_its_status() -> None:
    process = ItemProcess()
    process.make("gcd", {}, seed=1, count=1)
    running = process._running[0]._process
    threading.Timer(0.3, running.kill).start()
    with pytest.raises(InvalidInputError, match=r"ended with status -9 at .*sokoban"):
        process.make("sokoban", {}, seed=1, count=500)
    process.close()


COLLECTED = """
import os, socket
from mutual_env.tasks.reasoning_gym_items import confine_this_process, answer_request
confine_this_process()
attempts = {
    "read": lambda: open("/etc/passwd").read(),
    "write": lambda: open("/var/tmp/mutual-env-canary", "w"),
    "socket": lambda: socket.socket(),
    "process": lambda: os.fork(),
    "mode": lambda: os.chmod("/etc/passwd", 0o644),
    "own file": lambda: open("own", "w").close(),
    "a byte in it": lambda: os.write(os.open("own", os.O_WRONLY), b"x"),
    "items": lambda: answer_request({"dataset": "codeio", "options": {}, "seed": 3, "count": 2})["entries"][1].keys(),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print("done:", name)
    except OSError:
        pass
"""


def test_collected_code_is_confined_where_items_are_made(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(os.path.isabs, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", COLLECTED],
        env={"PYTHONPATH": path, "TMPDIR": str(tmp_path), "PATH": os.defpath},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("done:")] == ["done: own file", "done: items"]


GREEDY = """
import os, sys, types
from dataclasses import dataclass

@dataclass
class Config:
    seed: int = 0
    size: int = 1

class Items:
    def __getitem__(self, index):
        while True:
            for handle in range(3, 12):
                try:
                    os.write(handle, SAID)
                except OSError:
                    pass

def create_dataset(name, **options):
    return Items()

sys.modules["reasoning_gym.factory"] = types.ModuleType("reasoning_gym.factory")
sys.modules["reasoning_gym.factory"].DATASETS = {"codeio": (Items, Config)}
sys.modules["reasoning_gym.composite"] = types.ModuleType("reasoning_gym.composite")
sys.modules["reasoning_gym.composite"].DatasetSpec = dict
"""


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        (b"x" * 65536, InvalidInputError, "wrote without an end"),
        (b"x", DeadlineExceededError, "were not made within 1 s"),
        (b"[1, 2]\n", InvalidInputError, "gave no answer"),
        (b"[" * 100_000 + b"\n", InvalidInputError, "gave no answer"),
        (b"{}\n", InvalidInputError, "gave no answer"),
        (b"\xff\n", InvalidInputError, "gave no answer"),
    ],
)
def test_code_that_writes_in_the_place_of_items_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, error: type[Exception], sentence: str
) -> None:
    """A package that does what collected code could do to the process that makes its items."""
    (tmp_path / "reasoning_gym").mkdir()
    (tmp_path / "reasoning_gym" / "__init__.py").write_text(f"SAID = {said!r}\n{GREEDY}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("mutual_env.tasks.reasoning_gym._MOST_BYTES", 1 << 24)
    process = ItemProcess(deadline=1.0 if error is DeadlineExceededError else 60.0)
    with pytest.raises(error, match=sentence):
        process.make("codeio", {}, seed=1, count=1)
    process.close()
