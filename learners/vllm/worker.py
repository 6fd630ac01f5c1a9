"""The receiving side of the file weight transfer: runs inside vLLM's worker processes, against vLLM's own interface."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from mutual_env.errors import IdentityMismatchError, StorageError

Shapes: TypeAlias = Mapping[str, list[int]]

TIED = "lm_head.weight"
"""Which a directory leaves out where it is the embedding."""


@dataclass
class FileInitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """There is nothing to agree on beforehand."""


@dataclass
class FileUpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """A safetensors file with all weights under the names of the model directory, and how many there are."""

    path: str
    tensors: int


class FileWeightTransferEngine(WeightTransferEngine[FileInitInfo, FileUpdateInfo]):  # type: ignore[misc]
    """Reads a safetensors file, tensor by tensor from the page cache, through vLLM's layer-wise reload.

    The layer-wise reload matters: on some processors vLLM repacks a layer's weights after loading, and writing into the
    repacked ones would be wrong.
    """

    init_info_cls = FileInitInfo
    update_info_cls = FileUpdateInfo

    def init_transfer_engine(self, init_info: FileInitInfo) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Layers are taken apart when it is known that what comes fits them."""
        self._loading = False

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # not the inherited one: it synchronises an accelerator, and there need not be one
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: FileUpdateInfo) -> None:
        with safe_open(update_info.path, framework="pt", device=str(self.device)) as file:
            names = list(file.keys())
            if len(names) != update_info.tensors:
                raise StorageError(f"{update_info.path} holds {len(names)} tensors, {update_info.tensors} were sent")
            check_fits(shapes_in(file), shapes_of(Path(self.model_config.model)), str(self.model_config.model))
            initialize_layerwise_reload(self.model)
            self._loading = True
            self.model.load_weights((name, file.get_tensor(name)) for name in names)

    def finish_weight_update(self) -> None:
        if not self._loading:
            return
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            self._repack_output_layers()

    def shutdown(self) -> None:
        """Nothing is held."""

    def _repack_output_layers(self) -> None:
        """On a CPU vLLM multiplies by a packed copy of the output matrix. Where that matrix is the embedding's, nothing
        is loaded under the output layer's own name, and the reload leaves it with the copy of the old weights."""
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)


def shapes_in(file: Any) -> Shapes:
    return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)


def shapes_of(model: Path) -> Shapes:
    """Of all tensors in a model's directory; empty where there are none of this format."""
    found: dict[str, list[int]] = {}
    for path in model.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= shapes_in(file)
    return found


def check_fits(sent: Shapes, there: Shapes, model: str) -> None:
    """Raise where weights are of another model than the engine's: one that has begun to load them is of no more use."""
    for name, shape in sent.items() if there else ():
        if name in there and there[name] != shape:
            raise IdentityMismatchError(_other(model, f"{name} is {shape}, and {there[name]} in the engine's"))
        if name not in there and name != TIED:
            raise IdentityMismatchError(_other(model, f"the engine's has no {name}"))
    if there and _layers(sent) != _layers(there):
        raise IdentityMismatchError(_other(model, f"{_layers(sent)} layers were sent, the engine has {_layers(there)}"))


def _other(model: str, why: str) -> str:
    return f"the policy's model is not the engine's, {model}: {why}. Start the engine on the policy's own model"


def _layers(names: Iterable[str]) -> int:
    return len({match[0] for name in names if (match := re.search(r"\.(layers|h)\.\d+\.", name))})
