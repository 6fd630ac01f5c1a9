"""A checkpoint that does not say how many steps were taken is refused before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learners.torch.learner import TorchLearner
from mutual_env.errors import StorageError
from tests.learners.tiny_policies import TOKENIZER, llama


def test_a_checkpoint_without_its_step_count_changes_nothing(tmp_path: Path) -> None:
    TorchLearner(llama(), TOKENIZER, name="saved").save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({key: state[key] for key in state if key != "optimizer_steps"}))
    with pytest.raises(StorageError, match="it says neither optimizer_steps nor version"):
        TorchLearner(llama(), TOKENIZER, name="other").load(tmp_path)
