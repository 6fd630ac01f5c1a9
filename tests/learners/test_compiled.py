"""Layers that torch.compile makes: the numbers of those that it does not, few programs, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from learners import registry
from learners.example import Example
from learners.torch.compiled import CompiledLayers, Kind
from learners.torch.learner import TorchLearner
from mutual_env.errors import InvalidInputError
from mutual_env.types import PolicyGradient
from tests.learners.test_torch_learner import catch_gradients
from tests.learners.tiny_policies import gemma, learner, llama, neox

pytestmark = pytest.mark.torch

CASES: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, Any]]] = {
    "llama": (llama, {"kl_coefficient": 0.1, "minibatches": 2}),
    "neox": (neox, {"share_prompts": False}),
    "windows": (gemma, {}),
    "an adapter": (llama, {"lora_rank": 2, "kl_coefficient": 0.1}),
    "checkpointing": (llama, {"gradient_checkpointing": True, "lora_rank": 2}),
    "bfloat16": (llama, {"dtype": "bfloat16"}),
}
FLOAT32, BFLOAT16 = 1e-5, 0.05
"""Of the largest number of each kind. A compiled layer rounds less often in bfloat16: it keeps more digits inside."""


def batch(policy: TorchLearner, prompts: int, group: int, longest: int, seed: int = 0) -> list[Example]:
    """`group` responses to each of `prompts`, of lengths up to `longest`."""
    numbers = np.random.default_rng(seed)
    found = []
    for _ in range(prompts):
        prompt = numbers.integers(0, 20, int(numbers.integers(2, 12))).astype(np.int32)
        for index in range(group):
            size = int(numbers.integers(1, longest + 1))
            ids = numbers.integers(0, 20, size).astype(np.int32)
            credit = np.full(size, 1.0 if index else -0.5)
            found.append(Example(prompt, ids, np.ones(size, np.bool_), credit, PolicyGradient()))
    return found


def scores(policy: TorchLearner, examples: list[Example]) -> np.ndarray[Any, Any]:
    return np.concatenate(policy.score([e.prompt_ids for e in examples], [e.response_ids for e in examples]))


def programs(policy: TorchLearner) -> CompiledLayers:
    made = policy.language_model.compiled
    assert made is not None
    return made


def is_near(one: Any, other: Any, tolerance: float) -> bool:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(np.abs(one - other).max(initial=0.0)) <= tolerance * max(1.0, float(np.abs(one).max(initial=0.0)))


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_log_probabilities_are_those_of_layers_that_are_not_compiled(case: str) -> None:
    build, options = CASES[case]
    settings = {"learning_rate": 0.0, "max_gradient_norm": 0.0, **options}
    plain, compiled = learner(build(), **settings), learner(build(), compile=True, **settings)
    tolerance = BFLOAT16 if options.get("dtype") == "bfloat16" else FLOAT32
    for prompts, group, longest in ((4, 1, 9), (3, 4, 9), (1, 4, 14), (1, 1, 6)):
        caught: list[dict[str, torch.Tensor]] = [{}, {}]
        examples = batch(plain, prompts, group, longest)
        metrics = []
        for policy, into in zip((plain, compiled), caught, strict=True):
            catch_gradients(policy, into)
            metrics.append(policy.update(examples))
        assert is_near(metrics[0]["loss"], metrics[1]["loss"], tolerance)
        assert is_near(metrics[0]["gradient_norm"], metrics[1]["gradient_norm"], tolerance)
        assert is_near(scores(plain, examples), scores(compiled, examples), tolerance)
        assert caught[0].keys() == caught[1].keys()
        for name, gradient in caught[0].items():
            assert is_near(gradient.float(), caught[1][name].float(), 10 * tolerance), name
    assert programs(compiled).programs > 0
    assert programs(compiled).unforeseen == 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("build", [llama, gemma])
def test_batches_of_other_lengths_compile_nothing_anew(build: Callable[[], PreTrainedModel]) -> None:
    policy = learner(build(), compile=True)
    for seed, (prompts, group, longest) in enumerate([(4, 1, 12), (3, 4, 12), (1, 4, 12), (1, 1, 12), (6, 2, 3)]):
        examples = batch(policy, prompts, group, longest, seed)
        policy.update(examples)
        scores(policy, examples)
    counted = torch._dynamo.utils.counters["stats"]
    before, made = counted["unique_graphs"], programs(policy).programs
    numbers = np.random.default_rng(7)
    kinds = len(programs(policy)._known)
    for seed in range(24):
        examples = batch(policy, int(numbers.integers(1, 9)), int(numbers.integers(1, 7)), 40, 100 + seed)
        policy.update(examples)
        scores(policy, examples)
    assert programs(policy).unforeseen == 0
    new_kinds = len(programs(policy)._known) - kinds
    assert counted["unique_graphs"] - before == programs(policy).programs - made
    assert programs(policy).programs - made <= 2 * new_kinds
    assert len(programs(policy)._known) <= 16


WALK = """
import sys
from pathlib import Path
from tests.learners.test_compiled import batch, learner, llama
policy = learner(llama(), compile=True, kl_coefficient=0.1, minibatches=2)
at, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if first:
    policy.load(at / str(first))
for round in range(first, last):
    policy.update(batch(policy, *((4, 1, 12), (3, 4, 20), (1, 4, 9), (1, 1, 30), (5, 1, 3))[round], seed=round))
policy.save(at / str(last))
"""


def walk(at: Path, first: int, last: int, cache: Path) -> None:
    """In a process of its own, with an empty cache of the compiler."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    words = [sys.executable, "-c", WALK, str(at), str(first), str(last)]
    subprocess.run(words, env=environment, check=True, timeout=800)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_policy_that_goes_on_in_another_process_meets_its_batches_in_another_order_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    """The first batch that the second process meets is of lengths that the first has met last."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    walk(whole, 0, 5, tmp_path / "cache")
    walk(parts, 0, 3, tmp_path / "another")
    walk(parts, 3, 5, tmp_path / "third")
    files = sorted(file.name for file in (whole / "5").iterdir())
    assert files
    assert all((whole / "5" / file).read_bytes() == (parts / "5" / file).read_bytes() for file in files)


@pytest.mark.long
def test_names_and_files_are_those_of_a_policy_that_is_not_compiled_and_no_process_is_left(tmp_path: Path) -> None:
    plain, compiled = learner(llama()), learner(llama(), compile=True, kl_coefficient=0.1)
    examples = batch(compiled, 3, 3, 9)
    compiled.update(examples)
    compiled.offload()
    compiled.update(examples)
    assert [name for name, _ in compiled.export_weights()] == [name for name, _ in plain.export_weights()]
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    compiled.save(tmp_path / "checkpoint")
    compiled.save_pretrained(tmp_path / "model")
    plain.load(tmp_path / "checkpoint")
    assert np.abs(scores(plain, examples) - scores(compiled, examples)).max() < 1e-4
    assert not any(b"_orig_mod" in file.read_bytes() for file in tmp_path.glob("*/*"))
    assert all(layer._compiled_call_impl is None for layer in compiled.language_model.decoder.layers)
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() == []


def test_a_kind_decides_its_example() -> None:
    device, windows = torch.device("cpu"), (5,)
    kinds = [
        Kind(is_packed, is_one_row, False, (is_far,), True, True, 1)
        for is_packed in (False, True)
        for is_one_row in (False, True)
        for is_far in (False, True)
    ]
    for kind in kinds:
        ids, positions, layout = kind.example(windows, device)
        assert Kind.of(ids.shape, layout, windows, is_trained=True) == kind
        assert torch.equal(positions, kind.example(windows, device)[1])


def test_what_the_compiler_lacks_is_said_before_anything_is_built() -> None:
    from torch._inductor import config

    said = (
        r"compile=True cannot be had on this machine: torch finds no C\+\+ compiler: install g\+\+.*leave compile out"
    )
    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        with pytest.raises(InvalidInputError, match=said):
            learner(llama(), compile=True)
        with pytest.raises(InvalidInputError, match=said):
            registry.check("torch", {"name": "ada", "model": llama(), "compile": True, "device": "cpu"})
        registry.check("torch", {"name": "ada", "model": llama(), "compile": False, "device": "cpu"})


def test_headers_that_are_not_there_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"compile=True .*Python\.h.* install python3-dev"):
        learner(llama(), compile=True)


@pytest.mark.parametrize("name", ["openrlhf", "openrlhf_ray"])
def test_openrlhfs_learners_do_not_compile(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"compile is no option of learner .*leave it out"):
        registry.check_options(name, {"compile": True})
