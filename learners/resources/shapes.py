"""The size of a language model: from the `config.json` of its directory, or known by the directory's name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    mlp: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        attention = 2 * self.hidden * self.head_width * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.mlp
        return self.layers * layer + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def kv_bytes(self, width: int = 2) -> int:
        """Of one token in the cache, in numbers of `width` bytes."""
        return 2 * self.layers * self.kv_heads * self.head_width * width


KNOWN = {
    # by the models' published config.json
    "Qwen2.5-0.5B": ModelShape(24, 896, 14, 2, 64, 4864, 151_936, True),
    "Qwen2.5-1.5B": ModelShape(28, 1536, 12, 2, 128, 8960, 151_936, True),
    "Qwen2.5-3B": ModelShape(36, 2048, 16, 2, 128, 11_008, 151_936, True),
    "Qwen2.5-7B": ModelShape(28, 3584, 28, 4, 128, 18_944, 152_064, False),
    "Qwen2.5-14B": ModelShape(48, 5120, 40, 8, 128, 13_824, 152_064, False),
    "Qwen2.5-32B": ModelShape(64, 5120, 40, 8, 128, 27_648, 152_064, False),
    "Qwen2.5-72B": ModelShape(80, 8192, 64, 8, 128, 29_568, 152_064, False),
    "Qwen3-0.6B": ModelShape(28, 1024, 16, 8, 128, 3072, 151_936, True),
    "Qwen3-1.7B": ModelShape(28, 2048, 16, 8, 128, 6144, 151_936, True),
    "Qwen3-4B": ModelShape(36, 2560, 32, 8, 128, 9728, 151_936, True),
    "Qwen3-8B": ModelShape(36, 4096, 32, 8, 128, 12_288, 151_936, False),
    "Qwen3-14B": ModelShape(40, 5120, 40, 8, 128, 17_408, 151_936, False),
    "Qwen3-32B": ModelShape(64, 5120, 64, 8, 128, 25_600, 151_936, False),
    "Llama-3.2-1B": ModelShape(16, 2048, 32, 8, 64, 8192, 128_256, True),
    "Llama-3.2-3B": ModelShape(28, 3072, 24, 8, 128, 8192, 128_256, True),
    "Llama-3.1-8B": ModelShape(32, 4096, 32, 8, 128, 14_336, 128_256, False),
    "Llama-3.1-70B": ModelShape(80, 8192, 64, 8, 128, 28_672, 128_256, False),
    "gemma-3-1b": ModelShape(26, 1152, 4, 1, 256, 6912, 262_144, True),
}


def shape_of(path: str | Path) -> ModelShape | None:
    """None where neither the directory nor its name says."""
    config = Path(path) / "config.json"
    if config.is_file():
        try:
            return _read(json.loads(config.read_text()))
        except (OSError, ValueError, KeyError, TypeError):  # no plain decoder: its size is not known here
            return None
    name = Path(path).name.lower()
    matching = [known for known in KNOWN if known.lower() in name]
    return KNOWN[max(matching, key=len)] if matching else None


def _read(config: dict[str, Any]) -> ModelShape:
    config = {**config, **config.get("text_config", {})}
    heads = int(config["num_attention_heads"])
    return ModelShape(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_width=int(config.get("head_dim") or config["hidden_size"] // heads),
        mlp=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
