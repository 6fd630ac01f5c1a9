"""Whole rounds, end to end: two runs of TRL's `GRPOTrainer`, one for each model, against one run of the two policies.

    python -m benchmarks.rounds [--models models] [--steps 2]    writes docs/figures/data/rounds.json

The same two models (SmolLM2-135M and Gemma-3-270M, LoRA on all linear layers, float32, AdamW), the same prompts, the
same samples of the same most tokens, a reward of the same kind; sampling, verifying and the update all count. Each of
the three runs is a process of its own, one after the other: `rounds_an_hour` of TRL's two is that of a round of the one
and then of the other, their memory the larger peak (one after the other) and the sum (at once). Ours shares nothing
(`grpo`), or rescues (`sgt`). TRL runs with its defaults beside sizes and precision; so do ours. What is counted is the
last step, in processor seconds of one thread with `--processor-time`: on a machine that others use, that can be
compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.beside import arms_beside
from benchmarks.costs import REAL, SEED
from benchmarks.figures import DATA, machine, write
from learners.run.config import SuiteConfig, load_suite
from learners.run.envs import Envs
from sharing.exchange import InMemoryExchange

MODELS = ("smollm2", "gemma3")
PROMPTS, GROUP, NEW_TOKENS, RANK = 1, 8, 12, 16
OURS = ("grpo", "sgt")

Clock = Callable[[], float]


def setting(models: Path) -> SuiteConfig:
    """Ours: the real pair of the evidence, in these sizes, and nobody stops before the limit."""
    changes = [f"base.env.group_size={GROUP}", f"base.env.prompts_per_round={PROMPTS}"]
    for name in MODELS:
        options = f"base.policies.{name}.options"
        changes += [f"{options}.path={models / name}", f"{options}.max_new_tokens={NEW_TOKENS}", f"{options}.stop=[]"]
        changes += [f"{options}.lora_rank={RANK}"]
    return load_suite(REAL, changes)


def tasks(suite: SuiteConfig, rounds: int) -> list[tuple[str, str]]:
    """Prompt and answer of the rounds' tasks, in their order."""
    env: Any = Envs.of(suite.base, apart=False).shared(["one"], InMemoryExchange())
    found = []
    for number in range(rounds):
        env.reset(seed=suite.base.seed, options={"round": number})
        found += [(str(task.prompt), task.answer) for task in env.tasks]
    env.close()
    return found


def ours(models: Path, arm: str, steps: int, clock: Clock) -> dict[str, float]:
    """A run of both policies."""
    taken, tokens = 0.0, 0.0
    with arms_beside(setting(models), [arm], SEED) as loops:
        for number in range(steps):
            start = clock()
            infos = loops[arm].round(number)
            taken = clock() - start
            tokens = sum(c.token_ids.size for info in infos.values() for c in _written(info))
    return {"seconds": taken, "tokens": tokens, "peak_mib": _peak()}


def _written(info: Any) -> list[Any]:
    return [completion for group in info["groups"] for experience in group for completion in experience.written]


def trl(models: Path, name: str, steps: int, clock: Clock) -> dict[str, float]:
    """A run of one model."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(models / name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = tasks(setting(models), steps)
    written: list[int] = []

    def right(
        completions: Sequence[str], answer: Sequence[str], completion_ids: Sequence[Any], **_: Any
    ) -> list[float]:
        written.append(sum(len(ids) for ids in completion_ids))
        lines = [said.partition("\n")[0].strip() for said in completions]
        return [float(line == wanted) for line, wanted in zip(lines, answer, strict=True)]

    timed = _timed(clock)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(models / name, dtype=torch.float32),
        reward_funcs=right,
        args=_options(steps),
        train_dataset=Dataset.from_dict({"prompt": [p for p, _ in rows], "answer": [a for _, a in rows]}),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[timed],
    )
    trainer.train()
    return {"seconds": timed.taken, "tokens": float(written[-1]), "peak_mib": _peak()}


def _options(steps: int) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=NEW_TOKENS,
        max_steps=steps,
        learning_rate=1e-6,
        shuffle_dataset=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        save_strategy="no",
        report_to=[],
    )


def _timed(clock: Clock) -> Any:
    """A callback that knows how long the last step took: sampling, rewards, update."""
    from transformers import TrainerCallback

    class Timed(TrainerCallback):  # type: ignore[misc]
        began, taken = 0.0, 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = clock()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.taken = clock() - self.began

    return Timed()


def _peak() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(which: str, models: Path, steps: int, processor_time: bool) -> dict[str, float]:
    """In this process."""
    clock = time.process_time if processor_time else time.perf_counter
    if processor_time:
        torch.set_num_threads(1)
    return ours(models, which, steps, clock) if which in OURS else trl(models, which, steps, clock)


def in_a_process(which: str, models: Path, steps: int, processor_time: bool) -> dict[str, float]:
    request = json.dumps([which, str(models), steps, processor_time])
    command = [sys.executable, "-m", "benchmarks.rounds", "--measure", request]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1800)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    print(which, found, flush=True)
    return found


def compared(theirs: dict[str, dict[str, float]], mine: dict[str, dict[str, float]]) -> dict[str, Any]:
    """TRL's two runs as one, and each of ours against them."""
    both = {
        "seconds": sum(run["seconds"] for run in theirs.values()),
        "tokens": sum(run["tokens"] for run in theirs.values()),
        "peak_mib": max(run["peak_mib"] for run in theirs.values()),
        "peaks_mib": sum(run["peak_mib"] for run in theirs.values()),
    }
    found: dict[str, Any] = {"trl": {**theirs, "both": {**both, "rounds_an_hour": 3600.0 / both["seconds"]}}}
    for arm, run in mine.items():
        found[arm] = {
            **run,
            "rounds_an_hour": 3600.0 / run["seconds"],
            "times_the_rounds_of_trl": both["seconds"] / run["seconds"],
            "share_of_the_larger_peak": run["peak_mib"] / both["peak_mib"],
            "share_of_both_peaks": run["peak_mib"] / both["peaks_mib"],
        }
    return found


@pytest.mark.skipif(not Path("models/gemma3").is_dir(), reason="no models/gemma3: make models")
@pytest.mark.parametrize("which", [*MODELS, *OURS])
def test_round(benchmark: Any, which: str) -> None:
    if which in MODELS:
        pytest.importorskip("trl", reason="no TRL: pip install 'mutual-env[bench]'")
    found = benchmark.pedantic(in_a_process, (which, Path("models"), 1, True), rounds=1)
    assert found["tokens"] > 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        which, models, steps, processor_time = json.loads(args.measure)
        print(json.dumps(measure(which, Path(models), steps, processor_time)))
        return
    if not all((args.models / name).is_dir() for name in MODELS):
        raise SystemExit(f"{args.models} has no {' and '.join(MODELS)}: make models")
    sizes = {"prompts": PROMPTS, "group": GROUP, "new_tokens": NEW_TOKENS, "lora_rank": RANK, "steps": args.steps}
    about = {"sizes": sizes, "clock": "process_time, one thread" if args.processor_time else "perf_counter"}
    runs = begun(about)
    for which in (*MODELS, *OURS):
        if which not in runs:
            runs[which] = in_a_process(which, args.models, args.steps, args.processor_time)
            write("rounds", {**about, "runs": runs, "machine": machine()})
    found = compared({name: runs[name] for name in MODELS}, {arm: runs[arm] for arm in OURS})
    write("rounds", {**about, **found, "machine": machine()})


def begun(about: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The runs that an earlier call made before it was stopped."""
    path = DATA / "rounds.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    same = all(content.get(key) == value for key, value in about.items())
    return dict(content.get("runs", {})) if same else {}


if __name__ == "__main__":
    main()
