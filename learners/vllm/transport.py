"""The sending side of weight transfer: a file in memory-backed storage, or vLLM's own CUDA IPC and NCCL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learners.aside import Aside
from learners.vllm.engine import Transport, Weights, WeightSyncClient
from learners.vllm.plugin import BACKEND
from mutual_env.errors import InvalidInputError, StorageError, WrongPathError
from mutual_env.options import check_options

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter"
"""The name in a configuration of what sends a LoRA adapter alone (learners/vllm/adapter.py)."""

MEMORY = Path("/dev/shm")
MARGIN = 1 << 24
"""Bytes that are left free there: Docker's own is 64 MB, shared with everything else in the container."""


TRANSPORTS = ("file", "ipc", "nccl")


def check_transport(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise where there is none of this name, or it does not take these options."""
    if name not in (*TRANSPORTS, ADAPTER):
        raise InvalidInputError(f"transport must be one of {', '.join(TRANSPORTS)} or {ADAPTER}, got {name!r}")
    if options and name not in _TAKING:
        raise InvalidInputError(
            f"transport {name!r} has no transport_options, got {', '.join(options)}: leave them out"
        )
    if options:
        check_options(f"transport {name!r}", _TAKING[name], options)
        _TAKING[name](**options)


def make_transport(name: str, **options: Any) -> Transport:
    """`file` works wherever both processes see one directory; `ipc` and `nccl` need CUDA devices."""
    check_transport(name, options)
    match name:
        case "ipc":
            return NativeTransport(name)
        case "nccl":
            return NativeTransport(name, rendezvous=Rendezvous(**options))
        case _:  # adapters travel by themselves, and the engine is started as for files
            return FileTransport(**options)


class FileTransport:
    """All weights in one safetensors file, in memory-backed storage where the system has it, removed once read."""

    backend = BACKEND

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory else None
        if self._directory is not None and not self._directory.is_dir():
            raise WrongPathError(f"transport_options.directory: {directory} is no directory: make it, or name another")
        self._ready = False

    def send(self, client: WeightSyncClient, weights: Weights, version: int) -> None:
        if not self._ready:
            client.init_weight_transfer_engine({})
            self._ready = True
        with self._file(weights, version) as (path, tensors):
            client.start_weight_update()
            client.update_weights({"path": str(path), "tensors": tensors})
            client.finish_weight_update(str(version))

    def close(self) -> None:
        """Nothing is held between transfers; another engine is introduced to the next."""
        self._ready = False

    @contextmanager
    def _file(self, weights: Weights, version: int) -> Iterator[tuple[Path, int]]:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {name: tensor.to("cpu").contiguous() for name, tensor in untied(weights)}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        directory = self._directory or roomy(size)
        with Aside("mutual-env-weights-", directory) as folder:
            path = folder / f"version-{version}.safetensors"
            try:
                save_file(tensors, path)
            except (OSError, SafetensorError) as error:
                raise StorageError(
                    f"{size / 2**20:.0f} MiB of weights could not be written to {directory} ({error}): make it larger "
                    "(docker run --shm-size), or name another place in transport_options.directory"
                ) from error
            yield path, len(tensors)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the NCCL group meets; `engine_workers` counts the engine's tensor-, pipeline- and data-parallel workers."""

    address: str = "127.0.0.1"
    port: int = 29600
    engine_workers: int = 1

    def __post_init__(self) -> None:
        for name, least, most in (("port", 1, 65535), ("engine_workers", 1, 1 << 16)):
            if not least <= getattr(self, name) <= most:
                raise InvalidInputError(
                    f"{name} of transport_options must lie between {least} and {most}, got {getattr(self, name)}"
                )


class NativeTransport:
    """vLLM's own trainer side, in packed form: CUDA IPC on one machine, NCCL between machines."""

    def __init__(self, backend: str, rendezvous: Rendezvous | None = None) -> None:
        self.backend = backend
        self._rendezvous = rendezvous
        self._weights = _Tensors()
        self._trainer: Any = None

    def send(self, client: WeightSyncClient, weights: Weights, version: int) -> None:
        self._weights.tensors = dict(untied(weights))
        if self._trainer is None:
            self._trainer = self._connect(client)
        self._trainer.send_weights()
        self._weights.tensors = {}

    def close(self) -> None:
        if self._trainer is not None:
            self._trainer.shutdown()
            self._trainer = None

    def _connect(self, client: WeightSyncClient) -> Any:
        from vllm.distributed.weight_transfer.base import ModuleSource
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        source = ModuleSource(self._weights)  # the library's own: what the next release adds to sources, it has
        return WeightTransferTrainerFactory.trainer_init(self._info(), client=client, source=source)

    def _info(self) -> Any:
        if self._rendezvous is None:
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=0, packed=True)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        meeting = self._rendezvous
        return NCCLTrainerInitInfo(meeting.address, meeting.port, meeting.engine_workers + 1, rank=0)


class _Tensors:
    """What vLLM's own source of weights reads, as it reads a module."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.tensors.items()


def roomy(size: int) -> Path:
    """Memory-backed storage, where the system has any with room for so many bytes; else the temporary folder."""
    there = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > size + MARGIN
    return MEMORY if there else Path(tempfile.gettempdir())


def untied(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Without the second name of a tied tensor, which the engine ties again itself."""
    seen: set[tuple[int, int]] = set()
    for name, tensor in weights:
        place = (tensor.data_ptr(), tensor.numel())
        if place not in seen:
            seen.add(place)
            yield name, tensor.detach()


_TAKING: Mapping[str, Callable[..., Any]] = {"file": FileTransport, "nccl": Rendezvous}
"""What a transport's options are of."""
