"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`): it makes our weight transfer known."""

from __future__ import annotations

from contextlib import suppress

BACKEND = "mutual_env_file"
"""The name under which vLLM knows our weight transfer; the engine module is imported when it is first asked for."""


def register() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with suppress(ValueError):  # vLLM may call a plugin again, and refuses the second registration
        WeightTransferEngineFactory.register_engine(BACKEND, "learners.vllm.worker", "FileWeightTransferEngine")
