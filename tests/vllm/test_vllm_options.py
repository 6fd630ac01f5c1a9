"""Every option of learner vllm reaches the real engine, its server, or what goes between: read back from them, or seen
in the samples. What only a GPU has use for is read back from the engine's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import learners
from learners import registry
from learners.torch.options import TorchOptions
from learners.vllm import LocalEngine, VllmSampled, make_transport
from learners.vllm.make import REPLACED, SAMPLING
from learners.vllm.server import Server
from tests.learners.test_torch_options import TOGETHER
from tests.vllm.conftest import ENGINE, KeptOpen
from tests.vllm.test_vllm_sampler import PROMPTS, flat, lesson

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

MOVES: Mapping[str, Any] = {
    "max_new_tokens": 3,
    "temperature": 0.3,
    "top_p": 0.3,
    "top_k": 2,
    "stop": tuple("abcdefghij0123456789"),
}


def made(path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, **options: Any) -> VllmSampled:
    monkeypatch.setenv("VLLM_API_KEY", server.api_key)
    settings = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, **options}
    learner = learners.make("vllm", name="p", path=str(path), server=server.url, **settings)
    assert isinstance(learner, VllmSampled)
    return learner


@cache
def usual(path: Path, server: Server) -> list[list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        learner = made(path, server, patch)
        found = [c.token_ids.tolist() for c in flat(learner.act(PROMPTS, 8, seed=5))]
        learner.close()
    return found


def test_every_option_of_the_learner_is_accounted_for() -> None:
    own = {"path", "name", "trainer", "tokenizer", "model", "engine"}
    own |= {"server", "server_options", "transport", "transport_options"}
    assert set(MOVES) == set(SAMPLING)
    of_the_trainer = set(TorchOptions.__dataclass_fields__)
    assert set(REPLACED) <= of_the_trainer
    assert set(registry.options("vllm", {})) - own - {"options"} == of_the_trainer - set(REPLACED)


@pytest.mark.parametrize("name", sorted(MOVES))
def test_an_option_of_sampling_moves_what_vllm_samples(
    model_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    learner = made(model_path, server, monkeypatch, **{name: MOVES[name]})
    samples = [c.token_ids.tolist() for c in flat(learner.act(PROMPTS, 8, seed=5))]
    learner.close()
    assert samples != usual(model_path, server)


def test_the_options_of_the_trainer_reach_it(model_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them moves what is tested beside the trainers; here it is the trainer's own object that has them."""
    options = {name: value for name, value in TOGETHER.items() if name not in REPLACED}
    learner = made(model_path, server, monkeypatch, **options)
    held = learner._learner._options  # type: ignore[attr-defined]
    assert {name: getattr(held, name) for name in options} == options
    assert learner.tokenizer.decode(learner.tokenizer.render_prompt("x")).endswith("a x")
    learner.update(lesson(learner, "ok"))
    learner.close()


def test_options_of_the_client_and_of_the_transport_reach_them(
    model_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    beside = {"transport": "file", "transport_options": {"directory": str(tmp_path)}}
    options = {"server_options": {"concurrency": 3, "timeout": 99.0, "can_sleep": False}, **beside}
    learner = made(model_path, server, monkeypatch, **options)
    engine: Any = learner._engine
    assert (engine._threads[0]._max_workers, engine._servers[0]._timeout, engine.can_sleep) == (3, 99.0, False)
    assert engine._transport._directory == tmp_path
    learner.close()
    meeting = make_transport("nccl", address="10.0.0.7", port=1234, engine_workers=8)._info()  # type: ignore[attr-defined]
    assert (meeting.master_address, meeting.master_port, meeting.world_size) == ("10.0.0.7", 1234, 9)


def test_arguments_of_the_engine_are_read_back_from_it(local: KeptOpen) -> None:
    engine = local.engine
    assert isinstance(engine, LocalEngine)
    read = engine._llm.llm_engine.vllm_config
    assert str(read.model_config.dtype) == "torch.float32"
    assert read.model_config.enforce_eager
    assert read.model_config.max_model_len == ENGINE["max_model_len"]
    assert read.scheduler_config.max_num_seqs == ENGINE["max_num_seqs"]
    assert read.cache_config.kv_cache_memory_bytes == ENGINE["kv_cache_memory_bytes"]
    assert read.cache_config.gpu_memory_utilization == ENGINE["gpu_memory_utilization"]
    assert read.model_config.seed == ENGINE["seed"]
    assert read.cache_config.enable_prefix_caching
    assert read.model_config.logprobs_mode == "processed_logprobs"
    assert read.weight_transfer_config.backend == make_transport("file").backend


def test_arguments_of_a_server_are_what_it_says_of_itself(server: Server) -> None:
    from learners.vllm.client import Http

    [model] = Http(server.url, server.api_key, 60.0).get("/v1/models")["data"]
    assert model["max_model_len"] == ENGINE["max_model_len"]
