"""Toy tokenizers and toy models of three architectures, the same each time they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from learners.torch.tiny import make_model
from tokenizers_bridge import CharTokenizer, load

TOKENIZER = CharTokenizer("0123456789+= abcdefgh")


def llama(**config: Any) -> PreTrainedModel:
    """Grouped-query attention: two queries a key."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=TOKENIZER.vocab_size, **{**sizes, **settings, **config}))


def neox() -> PreTrainedModel:
    """Parallel residual, biases, partly rotary positions."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {"max_position_embeddings": 256, "initializer_range": 0.2}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=TOKENIZER.vocab_size, **sizes, **settings))


def gemma() -> PreTrainedModel:
    """Tied embeddings, a sliding window of 5 in every other layer, an output vocabulary larger than the tokenizer's."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=TOKENIZER.vocab_size + 3,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.2,
    )
    return Gemma3ForCausalLM(config)


def learner(model: PreTrainedModel, **options: Any) -> TorchLearner:
    settings = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, **options}
    return TorchLearner(model, TOKENIZER, name="toy", options=TorchOptions.of(settings))


def write_model(path: Path) -> None:
    """A model directory as people have one: safetensors and a tokenizer, here of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(["<s>", "</s>", *letters])}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(path)
    make_model("llama", load(path), width=32, layers=2, heads=4, seed=1).save_pretrained(path)
