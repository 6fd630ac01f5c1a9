"""A LoRA policy's adapter swapped in a real engine of vLLM: the numbers of merged weights, and little is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners.torch.make import make_torch
from learners.vllm import LocalEngine, Sampling, VllmSampled, make_transport
from learners.vllm.adapter import Write, settings
from learners.vllm.plugin import BACKEND
from learners.vllm.server import Server, ServerEngine
from tests.vllm.conftest import ENGINE
from tests.vllm.test_vllm_sampler import AGREEMENT, PROMPTS, disagreement, flat, lesson

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


class Weighed(LocalEngine):
    """Counts what it is given."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.sizes: list[int] = []

    def load_adapter(self, write: Write, version: int) -> None:
        def weighed(directory: Path) -> None:
            write(directory)
            self.sizes.append(sum(path.stat().st_size for path in directory.glob("*.safetensors")))

        super().load_adapter(weighed, version)

    @property
    def adapters(self) -> set[int]:
        return set(self._llm.llm_engine.list_loras())


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[Weighed]:
    started = Weighed(model_path, make_transport("file"), **settings(4), **ENGINE)
    yield started
    started.close()


def swapped(path: Path, engine: LocalEngine | ServerEngine, **options: Any) -> VllmSampled:
    learner = make_torch(str(path), name="toy", device="cpu", learning_rate=1e-2, lora_rank=4, **options)
    return VllmSampled(learner, engine, Sampling(learner.tokenizer.stop_id, max_new_tokens=10), adapters=True)


def test_an_adapter_gives_the_log_probabilities_of_the_merged_weights(model_path: Path, engine: Weighed) -> None:
    learner = swapped(model_path, engine)
    groups = learner.act(PROMPTS, 8, seed=1)
    assert disagreement(learner, groups) <= AGREEMENT
    for _ in range(20):
        learner.update(lesson(learner, "ok"))
    after = learner.act(PROMPTS, 8, seed=1)
    assert disagreement(learner, after) <= AGREEMENT  # the trainer's own score, and what is exported is merged
    assert [c.token_ids.tolist() for c in flat(after)] != [c.token_ids.tolist() for c in flat(groups)]
    assert sum(c.text == "ok" for c in flat(after)) > sum(c.text == "ok" for c in flat(groups))
    assert {c.policy_version for c in flat(after)} == {20}


def test_one_adapter_is_there_at_a_time_and_nothing_is_sent_where_nothing_changed(
    model_path: Path, engine: Weighed, tmp_path: Path
) -> None:
    learner = swapped(model_path, engine)
    sent = len(engine.sizes)
    learner.update(lesson(learner, "ok"))
    assert len(engine.sizes) == sent + 1
    assert len(engine.adapters) == 1
    whole = sum(np.prod(weight.shape) * weight.element_size() for _, weight in learner.export_weights())
    assert engine.sizes[-1] < whole / 4
    learner.update([])
    learner.sync()
    assert len(engine.sizes) == sent + 1
    learner.save(tmp_path / "one")
    expected = learner.act(PROMPTS, 4, seed=3)
    learner.update(lesson(learner, "no"))
    learner.load(tmp_path / "one")
    again = learner.act(PROMPTS, 4, seed=3)
    assert [c.token_ids.tolist() for c in flat(again)] == [c.token_ids.tolist() for c in flat(expected)]
    assert len(engine.sizes) == sent + 3
    assert len(engine.adapters) == 1


def test_a_server_swaps_adapters_too(model_path: Path, tmp_path: Path) -> None:
    server = Server(model_path, BACKEND, log=tmp_path / "log", **settings(4), **ENGINE)
    engine = ServerEngine(server.url, make_transport("file"), api_key=server.api_key)
    try:
        learner = swapped(model_path, engine)
        for _ in range(3):
            learner.update(lesson(learner, "ok"))
        assert disagreement(learner, learner.act(PROMPTS, 4, seed=1)) <= AGREEMENT
        served = {model["id"] for model in engine._servers[0].get("/v1/models")["data"]}
        assert served == {str(model_path), engine._adapter}
    finally:
        engine.close()
        server.close()


def test_a_long_prompt_cached_under_an_older_adapter_is_computed_anew(model_path: Path, engine: Weighed) -> None:
    learner = swapped(model_path, engine)
    prompt = "0123456789" * 20
    ids = learner.tokenizer.render_prompt(prompt)
    for _ in range(3):
        completions = learner.act([prompt], 4, seed=1)[0]
        scores = learner.score([ids] * 4, [c.token_ids for c in completions])
        assert max(float(np.abs(s - c.logprobs).max()) for s, c in zip(scores, completions, strict=True)) <= AGREEMENT
        learner.update(lesson(learner, "ok"))
