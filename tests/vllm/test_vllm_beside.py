"""Policies that vLLM samples for, in runs whose copies sample beside the training: two engines for each policy, which
take long to start (make test-vllm-beside)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from learners.run.config import load_run
from learners.run.lines import read_lines
from learners.run.training import train
from tests.vllm.conftest import ENGINE

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

RUN = """
rounds: 4
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1, modulus: 10}}
sharing: {strategy: sgt, options: {publish: [rollout], max_staleness: 1}}
resources: {mode: asynchronous, executor: threads}
evaluation: {every: 0}
checkpoint: {every: 4}
"""


def test_vllm_samples_for_a_copy_what_it_samples_for_the_policy(tmp_path: Path, model_path: Path) -> None:
    """Token for token, with the same versions; the last digits of its log-probabilities are vLLM's own affair."""
    options = {"path": str(model_path), "max_new_tokens": 3, "learning_rate": 1e-3, "engine": ENGINE, "device": "cpu"}
    policies = json.dumps({"ada": {"learner": "vllm", "options": options}})
    path = tmp_path / "run.yaml"
    path.write_text(f"{RUN}policies: {policies}\noutput: {tmp_path}\n")
    plain, beside = (
        train(load_run(path, [f"name={name}", *further])).directory
        for name, further in (("plain", []), ("beside", ["resources.own_sampler=true"]))
    )
    assert written(beside) == written(plain)
    acts = [line["policy"] for line in read_lines(beside / "timings.jsonl") if line.get("phase") == "act"]
    assert acts.count("ada (sampler)") == 3


def written(directory: Path) -> list[Any]:
    lines = read_lines(directory / "samples.jsonl")
    return [line.get("groups") for line in lines]
