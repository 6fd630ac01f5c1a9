"""A checkpoint is read whole, in however many files it lies, or refused before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from learners.torch import storage
from learners.torch.learner import TorchLearner
from mutual_env.errors import StorageError
from tests.learners.tiny_policies import TOKENIZER, llama


def test_a_checkpoint_without_its_step_count_changes_nothing(tmp_path: Path) -> None:
    TorchLearner(llama(), TOKENIZER, name="saved").save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({key: state[key] for key in state if key != "optimizer_steps"}))
    with pytest.raises(StorageError, match="it says neither optimizer_steps nor version"):
        TorchLearner(llama(), TOKENIZER, name="other").load(tmp_path)


def saved_in_parts(directory: Path) -> TorchLearner:
    """As two ranks of a cluster write it, every other tensor each."""
    learner = TorchLearner(llama(), TOKENIZER, name="saved")
    whole = learner._saved(copy=True)
    for part in storage.Part(of=2).all:
        weights, moments = (
            {name: held[name] for name in sorted(held)[part.number :: 2]} for held in (whole.weights, whole.moments)
        )
        storage.Saved(weights, moments, whole.state, part=part).write(directory)
    return learner


def test_a_checkpoint_in_several_files_is_read_whole(tmp_path: Path) -> None:
    learner = saved_in_parts(tmp_path)
    other = TorchLearner(llama(initializer_range=0.1), TOKENIZER, name="other")
    other.load(tmp_path)
    pairs = zip(learner.export_weights(), other.export_weights(), strict=True)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in pairs)


@pytest.mark.parametrize("parts", [2, 0, "x", 2.5, [2], 10**9])
def test_a_checkpoint_without_all_of_its_parts_changes_nothing(tmp_path: Path, parts: object) -> None:
    saved_in_parts(tmp_path)
    (tmp_path / "weights-00002-of-00002.safetensors").unlink()
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**state, "parts": parts}))
    with pytest.raises(StorageError, match="holds no whole torch checkpoint"):
        TorchLearner(llama(), TOKENIZER, name="other").load(tmp_path)
