"""An exported policy in vLLM is the policy that was trained: LoRA merged, tied embeddings, its own tokenizer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from learners.example import Example
from learners.torch.learner import TorchLearner
from learners.torch.make import make_torch
from learners.vllm import LocalEngine, Sampling, make_transport
from mutual_env.types import CrossEntropy

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def written(path: Path) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate([*letters, "<bos>", "<eos>"])}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>").save_pretrained(path)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 256, "eos_token_id": 257, "tie_word_embeddings": True, "max_position_embeddings": 256}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=258, num_key_value_heads=1, head_dim=32, initializer_range=0.1, **sizes, **ends)
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_vllm_samples_an_exported_policy_with_its_log_probabilities(tmp_path: Path) -> None:
    base = written(tmp_path / "base")
    policy = make_torch(str(base), name="p", device="cpu", learning_rate=0.05, lora_rank=4, max_new_tokens=8)
    assert isinstance(policy, TorchLearner)
    prompt = policy.tokenizer.render_prompt("1+2=")
    answer = policy.tokenizer.encode_batch(["3, of course"])[0]
    lesson = Example(prompt, answer, np.ones(answer.size, np.bool_), np.zeros(answer.size), CrossEntropy())
    for _ in range(3):
        policy.update([lesson])
    policy.save_pretrained(tmp_path / "out")
    for file in base.glob("tokenizer*"):
        (tmp_path / "out" / file.name).write_bytes(file.read_bytes())
    settings = {"dtype": "float32", "enforce_eager": True, "max_model_len": 128, "kv_cache_memory_bytes": 1 << 27}
    with closing(LocalEngine(tmp_path / "out", make_transport("file"), **settings)) as engine:
        samples = engine.sample([prompt] * 4, [0, 1, 2, 3], Sampling(policy.tokenizer.stop_id, max_new_tokens=8))
    scored = policy.score([prompt] * 4, [sample.token_ids for sample in samples])
    for sample, expected in zip(samples, scored, strict=True):
        assert sample.logprobs == pytest.approx(expected, abs=1e-4)
