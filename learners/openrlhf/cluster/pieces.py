"""Models whose weights are cut over the ranks as they are read (ZeRO 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from learners.openrlhf.cluster.deepspeed import ClusterStrategy
from learners.torch.model import LanguageModel, load_pretrained
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError


def load_model(
    path: Path, vocab_size: int, options: TorchOptions, strategy: ClusterStrategy, probe: tuple[int, ...] = ()
) -> LanguageModel:
    """Under stage 3 in pieces, else whole on every rank."""
    if strategy.stage < 3:
        return LanguageModel(load_pretrained(path), vocab_size, options, probe)
    with _cut(strategy):
        model = load_pretrained(path, getattr(torch, options.dtype))
    _make_exact(model)
    cut = LanguageModel(model, vocab_size, options, whole=False)
    for parameter in cut.parameters():
        if not hasattr(parameter, "ds_id"):  # adapters, which peft makes whole and in float32
            parameter.data = parameter.data.to(device=cut.device, dtype=cut.dtype)
    return cut


def dealt(sizes: Mapping[str, int], ranks: int) -> list[frozenset[str]]:
    """Which tensors each rank keeps, so that all keep about as much: the largest first, to who has least."""
    kept: list[set[str]] = [set() for _ in range(ranks)]
    loads = [0] * ranks
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = loads.index(min(loads))
        kept[rank].add(name)
        loads[rank] += sizes[name]
    return [frozenset(names) for names in kept]


def _make_exact(model: nn.Module) -> None:
    """What is computed and not learnt, such as the frequencies of rotary positions, once more: what is made under
    `zero.Init` is rounded to the type of the weights. A module with weights of its own is never made twice."""
    for module in model.modules():
        computed = [name for name in module._non_persistent_buffers_set if getattr(module, name).is_floating_point()]
        if computed and hasattr(module, "config"):
            if next(module.parameters(), None) is not None:
                raise InvalidInputError(
                    f"zero_stage 3 would round {', '.join(sorted(computed))} of {type(module).__name__}, which is "
                    "computed and lies beside weights: use zero_stage 2"
                )
            fresh = type(module)(module.config)
            for name in computed:
                setattr(module, name, getattr(fresh, name).to(getattr(module, name).device))


@contextmanager
def _cut(strategy: ClusterStrategy) -> Iterator[None]:
    """Inside, transformers makes and reads models under DeepSpeed's `zero.Init`."""
    config = HfDeepSpeedConfig(strategy.get_ds_train_config())  # transformers knows it as long as it is here
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del config
