"""The receiving side of the file weight transfer: runs inside vLLM's worker processes, against vLLM's own interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from mutual_env.errors import StorageError


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
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # not the inherited one: it synchronises an accelerator, and there need not be one
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: FileUpdateInfo) -> None:
        with safe_open(update_info.path, framework="pt", device=str(self.device)) as file:
            names = list(file.keys())
            if len(names) != update_info.tensors:
                raise StorageError(f"{update_info.path} holds {len(names)} tensors, {update_info.tensors} were sent")
            self.model.load_weights((name, file.get_tensor(name)) for name in names)

    def finish_weight_update(self) -> None:
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
