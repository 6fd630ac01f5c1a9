"""Importing the four packages loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "accelerate", "datasets", "deepspeed", "flash_attn", "math_verify", "matplotlib", "mistral_common", "openrlhf",
    "pandas", "peft", "pyarrow", "ray", "reasoning_gym", "scipy", "sentencepiece", "sympy", "tiktoken", "tokenizers",
    "torch", "transformers", "trl", "vllm",
)  # fmt: skip


@pytest.mark.parametrize("package", ["mutual_env", "sharing", "tokenizers_bridge", "learners", "mutual_env.testing"])
def test_importing_a_package_loads_no_heavy_library(package: str) -> None:
    program = f"import sys, {package}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_what_a_language_model_takes_is_known_without_loading_one() -> None:
    """A dry run of two real models took ten seconds of a core to load what it did not use."""
    told = "{name: len(registry.options(name)) > 20 for name in ('torch', 'tiny')}"
    program = f"import sys; from learners import registry; print({told}, sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "{'torch': True, 'tiny': True} []\n"
