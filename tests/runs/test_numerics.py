"""A run's digits do not hang on how wide the processor's instructions are: programs settle that as they begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners import numerics
from learners.run.directory import RunDirectory, versions

ROOT = Path(__file__).parents[2]
KNOWN = ROOT / "docs" / "figures" / "data" / "pinned.json"


WARM = """
import hashlib
from learners.tiny import make_tiny
from tokenizers_bridge import load
warm = {"env": "mutual/letters-v0", "knows": {"skill": ["sort"]}, "steps": 25}
tokenizer = load({"kind": "char", "alphabet": "abcdefgh:=rs"})
learner = make_tiny(name="ada", seed=0, tokenizer=tokenizer, warm_start=warm, learning_rate=1e-3, max_new_tokens=8)
state = sorted(learner.model.state_dict().items())
print(hashlib.sha256(b"".join(v.numpy().tobytes() for _, v in state)).hexdigest())
"""


def born_with(**environment: str) -> dict[str, str]:
    """The environment of the tests without what pins numbers, and with this."""
    rest = {k: v for k, v in os.environ.items() if k not in numerics.environment("avx2", 1)}
    return {**rest, "PYTHONPATH": str(ROOT), **environment}


def train(output: Path, *words: str, **environment: str) -> tuple[bytes, dict[str, Any]]:
    """A round of the quickstart in a process of its own: its metrics, and what run.json says of the process."""
    small = ["base.rounds=1", "base.evaluation.every=1", "base.evaluation.prompts=16", "base.env.prompts_per_round=6"]
    warm = [f"base.policies.{name}.options.warm_start.steps=5" for name in ("llama", "neox")]
    command = [sys.executable, "-m", "learners.cli", "train", "configs/quickstart.yaml", "--arm=sgt", "--quiet"]
    command += [f"output={output}", *small, *warm, *words]
    subprocess.run(command, check=True, cwd=ROOT, env=born_with(**environment), timeout=200)
    run = RunDirectory(output / "quickstart" / "sgt" / "seed_0")
    return run.metrics.read_bytes(), run.read_info()["processes"][-1]


@pytest.mark.long
@pytest.mark.torch
def test_a_pinned_run_is_the_same_whatever_the_environment_said(tmp_path: Path) -> None:
    first, process = train(tmp_path / "a")
    again, other = train(tmp_path / "b", ATEN_CPU_CAPABILITY="default", OMP_NUM_THREADS="2", MKL_CBWR="COMPATIBLE")
    assert first == again
    assert (process["instructions"], process["threads"]) == (other["instructions"], other["threads"]) == ("avx2", 1)
    assert "learners.cli train configs/quickstart.yaml" in process["command"]


@pytest.mark.long
@pytest.mark.torch
def test_pinned_weights_are_those_that_another_machine_got() -> None:
    """After 25 optimizer steps, under the versions that the figures' file names, on a processor of a maker that it
    names; others need only agree with themselves, in two processes."""
    known = json.loads(KNOWN.read_text())
    pinned = born_with(**numerics.environment("avx2", 1))
    command = [sys.executable, "-c", WARM]
    found = subprocess.run(command, env=pinned, capture_output=True, text=True, check=True, timeout=200).stdout.strip()
    maker = str(numerics.in_force()["processor"]).partition(" ")[0].partition("(")[0]
    weights = known["weights"].get(maker)
    if weights is None or any(versions().get(name) != version for name, version in known["versions"].items()):
        weights = subprocess.run(command, env=pinned, capture_output=True, text=True).stdout.strip()
    assert found == weights


@pytest.mark.long
@pytest.mark.torch
def test_a_native_run_is_left_as_the_environment_has_it(tmp_path: Path) -> None:
    words = ("base.resources.instructions=native", "base.resources.threads=0")
    _, process = train(tmp_path, *words, ATEN_CPU_CAPABILITY="default", OMP_NUM_THREADS="2")
    assert (process["instructions"], process["threads"], process["pinned"]) == (
        "default",
        2,
        {"ATEN_CPU_CAPABILITY": "default"},
    )


def test_numpys_own_loops_are_held_too() -> None:
    # exp of AVX-512 differs from that of AVX2 in the last bit for some arguments; where there is no AVX-512, nothing to
    # hold. The pinned process is compared with itself under a wish for less than AVX2.
    code = "import numpy as np; print(np.exp(np.linspace(-9, 9, 4001)).tobytes().hex())"
    pinned = {**os.environ, **numerics.environment("avx2")}
    narrow = {**pinned, "NPY_DISABLE_CPU_FEATURES": f"{pinned['NPY_DISABLE_CPU_FEATURES']} AVX2 FMA3"}
    shown = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        for env in (pinned, narrow)
    ]
    assert shown[0] == shown[1]
    assert np.frombuffer(bytes.fromhex(shown[0].strip())).size == 4001


def test_what_nobody_counted_is_not_set() -> None:
    assert "OMP_NUM_THREADS" not in numerics.environment("avx2")
    assert numerics.environment("native") == {}
    assert numerics.environment("native", 3)["OMP_NUM_THREADS"] == "3"


def test_the_page_says_what_was_measured() -> None:
    page = " ".join((ROOT / "docs" / "reproducing.md").read_text().split())
    seconds = json.loads(KNOWN.read_text())["seconds"]
    assert f"{seconds['native']} s of processor time as it finds the processor, {seconds['pinned']} s pinned" in page
