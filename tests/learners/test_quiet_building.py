"""What building a policy prints: nothing. A run has one progress bar, and it is the run's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.learners.tiny_policies import llama

pytestmark = pytest.mark.torch

BUILD = """
import sys
from pathlib import Path
from learners.torch.learner import TorchLearner
from learners.torch.model import load_pretrained
from learners.torch.options import TorchOptions
from tokenizers_bridge import CharTokenizer

options = TorchOptions.of({"device": "cpu", "max_new_tokens": 4, "learning_rate": 1e-2, "lora_rank": 2})
model = load_pretrained(Path(sys.argv[1]))
TorchLearner(model, CharTokenizer("0123456789+= abcdefgh"), name="toy", options=options)
"""


@pytest.mark.long
def test_loading_a_model_and_adapting_it_prints_nothing(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
