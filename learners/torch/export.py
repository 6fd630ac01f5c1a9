"""A torch policy as files that `from_pretrained` reads: the whole model, LoRA merged in, or the adapter alone."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from transformers import PreTrainedModel

from learners.torch.model import LanguageModel, load_pretrained
from mutual_env.errors import InvalidInputError, StorageError

SHARD = "5GB"


def write_model(model: LanguageModel, directory: Path) -> None:
    """Configuration and weights in the dtype that the policy is trained in; large models in several files."""
    from huggingface_hub import save_torch_state_dict

    config = copy.deepcopy(model.base.config)
    config.architectures = [type(model.base).__name__]
    config.dtype = model.dtype
    try:
        directory.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(directory)
        if model.base.generation_config is not None:
            model.base.generation_config.save_pretrained(directory)
        save_torch_state_dict(_state(model), directory, max_shard_size=SHARD, metadata={"format": "pt"})
    except OSError as error:
        raise StorageError(
            f"{directory} could not be written ({error}): free some space or export elsewhere"
        ) from error


def write_adapter(model: LanguageModel, directory: Path, base: str) -> None:
    """The adapter in peft's own form; `base` is the model directory that it belongs to."""
    if not model.lora:
        raise InvalidInputError("all weights were trained (lora_rank is 0), so there is no adapter: export the model")
    model.adapted.peft_config["default"].base_model_name_or_path = base
    try:
        model.adapted.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)
    except OSError as error:
        raise StorageError(
            f"{directory} could not be written ({error}): free some space or export elsewhere"
        ) from error


def load_adapted(base: str, adapter: Path) -> PreTrainedModel:
    """The model at `base` with the adapter merged in, as peft reads it."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for something by its old name
        adapted = peft.PeftModel.from_pretrained(load_pretrained(Path(base)), adapter)
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _state(model: LanguageModel) -> dict[str, torch.Tensor]:
    """Parameters under the names that they were loaded with, and what else the model keeps on disk."""
    state = {name: weight.detach().cpu().contiguous() for name, weight in model.merged_weights()}
    kept = {name for name in model.base.state_dict() if ".lora_" not in name}
    buffers = {name: b.detach().cpu().contiguous() for name, b in model.base.named_buffers() if name in kept}
    return {**state, **buffers}
