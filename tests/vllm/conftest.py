"""The model directory that the real engine is started on, and the engines that all tests share: each takes long to
start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from learners.vllm import LocalEngine, Sample, Sampling, SamplingEngine, make_transport
from learners.vllm.engine import Ended, Streams, Weights
from learners.vllm.plugin import BACKEND
from learners.vllm.server import Server, ServerEngine
from mutual_env.types import Ids

ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 64,
    "kv_cache_memory_bytes": 1 << 28,
    "gpu_memory_utilization": 0.4,  # nothing on a CPU
    "seed": 3,
}


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 96k parameters with tied embeddings, and a byte-level tokenizer of 259 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "<pad>", "<bos>", "<eos>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    ).save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        bos_token_id=vocabulary["<bos>"],
        eos_token_id=vocabulary["<eos>"],
        initializer_range=0.1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    return path


class KeptOpen:
    """An engine that several learners use one after the other; the fixture that made it closes it."""

    def __init__(self, engine: SamplingEngine) -> None:
        self.engine = engine
        self.loaded: list[int] = []

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        return self.engine.sample(prompts, seeds, sampling)

    def load_weights(self, weights: Weights, version: int) -> None:
        self.engine.load_weights(weights, version)
        self.loaded.append(version)

    def close(self) -> None:
        """Not yet."""


class KeptStreaming(KeptOpen):
    """One that tells of samples as they end."""

    def sample_and_tell(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ended: Ended
    ) -> list[Sample]:
        assert isinstance(self.engine, Streams)
        return self.engine.sample_and_tell(prompts, seeds, sampling, ended)


@pytest.fixture(scope="session")
def local(model_path: Path) -> Iterator[KeptOpen]:
    engine = LocalEngine(model_path, make_transport("file"), **ENGINE)
    yield KeptStreaming(engine)
    engine.close()
    engine.close()


@pytest.fixture(scope="session")
def server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(model_path, BACKEND, log=tmp_path_factory.mktemp("server") / "log", **ENGINE)
    yield started
    started.close()
    started.close()


@pytest.fixture(scope="session")
def served(server: Server) -> Iterator[KeptOpen]:
    engine = ServerEngine(server.url, make_transport("file"), api_key=server.api_key)
    yield KeptOpen(engine)
    engine.close()
    engine.close()


@pytest.fixture(scope="session", params=["local", "served"])
def engine(request: pytest.FixtureRequest) -> KeptOpen:
    kept: KeptOpen = request.getfixturevalue(request.param)
    return kept
