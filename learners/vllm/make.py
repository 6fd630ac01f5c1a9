"""A vLLM-sampled learner from a configuration's plain values."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, TypedDict

from learners import registry
from learners.registry import replaces, shares, takes, tried_by, wraps
from learners.torch.options import TorchOptions
from learners.vllm.adapter import check_rank, exporter_of, settings
from learners.vllm.arguments import check_arguments
from learners.vllm.client import parts_of
from learners.vllm.local import LocalEngine
from learners.vllm.sampled import VllmSampled
from learners.vllm.server import ServerEngine
from learners.vllm.transport import ADAPTER, check_transport, make_transport
from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.options import check_value
from tokenizers_bridge import Tokenizer
from tokenizers_bridge.kinds.loading import load as load_tokenizer


class ServerOptions(TypedDict, total=False):
    """Of a client of servers."""

    concurrency: int
    timeout: float
    can_sleep: bool


SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "stop")
REPLACED = {
    "refill": "vLLM samples, and always does that",
    "max_rows": "vLLM samples: say engine.max_num_seqs, or server_options.concurrency",
    "conversation_mb": "vLLM samples, and its prefix cache does that (engine.enable_prefix_caching)",
}
"""Options of the trainer's own sampler, in whose place vLLM stands."""

SETTLED = {
    "model": "the engine samples for the policy at `path`",
    "logprobs_mode": "recorded log-probabilities are those of what was sampled from",
    "weight_transfer_config": "say transport",
}
"""Arguments of vLLM's engine that are not for a configuration to say, each with why."""


def try_vllm(
    path: str,
    *,
    name: str = "",
    trainer: str = "torch",
    server: str = "",
    server_options: ServerOptions | None = None,
    transport: str = "file",
    transport_options: Mapping[str, Any] | None = None,
    engine: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> None:
    """What can be said of the arguments without an engine."""
    if not server and importlib.util.find_spec("vllm") is None:
        raise MissingExtraError.of("learner 'vllm' (without `server`)", "vllm")
    _check_use(server, server_options, engine)
    _check_transport(transport, transport_options, options, engine)
    registry.check(trainer, {"path": path, **options})


@tried_by(try_vllm)
@replaces(REPLACED)
@shares("server", beside=("transport", ADAPTER))
@wraps("trainer")
@takes(TorchOptions)
def make_vllm(
    path: str,
    *,
    name: str = "vllm",
    trainer: str = "torch",
    server: str = "",
    server_options: ServerOptions | None = None,
    transport: str = "file",
    transport_options: Mapping[str, Any] | None = None,
    engine: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> VllmSampled:
    """Learner `trainer` with its own options, sampled by vLLM on the model directory at `path`.

    `server` is the URL of a running one, or several between commas, whose key is read from the environment
    (VLLM_API_KEY), with `server_options` (`concurrency` at each, `timeout`, `can_sleep`); empty: an engine in this
    program, with vLLM's own arguments in `engine` (`dtype`, `max_model_len`, `gpu_memory_utilization`, ...).
    `transport` "adapter": the engine gets the LoRA adapter alone."""
    adapters = transport == ADAPTER
    _check_use(server, server_options, engine)
    _check_transport(transport, transport_options, options, engine)
    tokenizer = tokenizer or load_tokenizer(path)
    learner = registry.make(trainer, path=path, name=name, tokenizer=tokenizer, **options)
    sampling = TorchOptions(**{key: options[key] for key in SAMPLING if key in options}).sampling(tokenizer)
    if adapters:
        exporter_of(learner)
    carrier = make_transport(transport, **(transport_options or {}))
    chosen: ServerEngine | LocalEngine
    if server:
        key = os.environ.get("VLLM_API_KEY", "")
        chosen = ServerEngine(_urls(server), carrier, api_key=key, **(server_options or {}))
    else:
        room = settings(options["lora_rank"]) if adapters else {}
        chosen = LocalEngine(path, carrier, **{**room, **(engine or {})})
    try:
        return VllmSampled(learner, chosen, sampling, longest=chosen.longest, adapters=adapters)
    except BaseException:
        chosen.close()
        raise


def _check_use(server: str, server_options: Mapping[str, Any] | None, engine: Mapping[str, Any] | None) -> None:
    """Raise where something would be read and change nothing, or cannot be used."""
    for url in _urls(server):
        parts_of(url)
    if server and engine:
        raise InvalidInputError("engine holds vLLM's arguments of an engine in this program: a server is given its own")
    if server_options and not server:
        raise InvalidInputError("server_options are of a client of servers: give server, or leave them out")
    for name, why in SETTLED.items():
        if engine and name in engine:
            raise InvalidInputError(f"engine.{name} is settled here, got {engine[name]!r}: {why}. Leave it out")
    if engine and "timeout" in engine:  # our own; the rest is vLLM's
        check_value("option 'timeout' of engine", engine["timeout"], float)
    check_arguments({name: value for name, value in (engine or {}).items() if name != "timeout"})


def _check_transport(
    transport: str, given: Mapping[str, Any] | None, options: Mapping[str, Any], engine: Mapping[str, Any] | None
) -> None:
    check_transport(transport, given)
    if transport == ADAPTER:
        check_rank(options, engine or {})


def _urls(server: str) -> list[str]:
    return [url.strip() for url in server.split(",") if url.strip()]
