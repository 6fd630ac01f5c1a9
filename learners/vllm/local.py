"""vLLM inside this program: `LLM`, whose engine core runs in a process of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from learners.placement import gpus_here, shown
from learners.sampling import Sample, Sampling
from learners.vllm.adapter import Write, written
from learners.vllm.arguments import check_arguments, import_vllm, refused
from learners.vllm.engine import Ended, EngineDiedError, Transport, Weights, request
from mutual_env.errors import DeadlineExceededError, TrainingError
from mutual_env.types import Ids

T = TypeVar("T")

LIVENESS_SECONDS = 1.0
"""How often it is looked whether the engine process lives while a call is under way."""


class LocalEngine:
    """`path` is a model directory; `arguments` are vLLM's own (`max_model_len`, `gpu_memory_utilization`, ...).

    The prefix cache is on, so that a group shares its prompt and a conversation's turn goes on from what the turn
    before computed; it is emptied when weights change, and `enable_prefix_caching: False` turns it off. `cached_tokens`
    counts the prompt tokens that it has spared. Text is never needed, so vLLM loads no tokenizer. Each call has
    `timeout` seconds. Where a policy is told which GPUs of this process are its own, its engine's processes see those
    alone.
    """

    def __init__(self, path: str | Path, transport: Transport, *, timeout: float = 3600.0, **arguments: Any) -> None:
        vllm = import_vllm()
        check_arguments(arguments)
        if transport.backend == "ipc":  # handles of CUDA memory are classes, which vLLM's messages refuse by themselves
            os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
        from vllm.config import WeightTransferConfig

        self._make, self._parameters = vllm.LLM, vllm.SamplingParams
        self._transport = transport
        self._timeout = timeout
        self._gpus = gpus_here()
        self._settings = {
            "model": str(path),
            "skip_tokenizer_init": True,
            "trust_remote_code": False,
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
            "weight_transfer_config": WeightTransferConfig(backend=transport.backend),
            **arguments,
        }
        self.cached_tokens = 0
        self.can_sleep = bool(arguments.get("enable_sleep_mode", False))
        self._start()

    def _start(self) -> None:
        with shown(self._gpus), refused():
            self._llm = self._make(**self._settings)
        self._client = _LocalClient(self._llm)
        self.longest: int | None = self._llm.llm_engine.vllm_config.model_config.max_model_len
        self._adapter: Any = None  # of the samples to come
        self._calls = Caller("vllm-engine")

    def revive(self) -> None:
        """Another engine process in the place of one that died. It knows the weights of the model directory only."""
        self._calls.close()
        self._transport.close()
        with contextlib.suppress(Exception):  # a boundary: what is left of the dead one
            self._llm.llm_engine.engine_core.shutdown()
        self._start()

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        """One sample for each prompt and its seed."""
        return self.sample_and_tell(prompts, seeds, sampling, None)

    def sample_and_tell(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ended: Ended | None
    ) -> list[Sample]:
        """The same; `ended` is told of each when it ends."""
        requests = [{"prompt_token_ids": prompt.tolist()} for prompt in prompts]
        parameters = [self._parameters(**request(sampling, seed), detokenize=False) for seed in seeds]

        def generate(say: Callable[[Any], None]) -> Any:
            with _telling(self._llm, say if ended else None):
                return self._llm.generate(requests, parameters, use_tqdm=False, lora_request=self._adapter)

        def hear(said: tuple[int, Any]) -> None:
            if ended:
                ended(said[0], _sample(said[1]))

        results = self._listen("sampling", generate, hear)
        self.cached_tokens += sum(result.num_cached_tokens or 0 for result in results)
        return [_sample(result) for result in results]

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace every weight; what was cached under the old ones is forgotten."""
        self._call("a weight update", lambda: self._transport.send(self._client, weights, version))
        self._forget_cached()

    def load_adapter(self, write: Write, version: int) -> None:
        """Another adapter under a number of its own, in the place of the one before."""
        with written(write) as folder:
            self._call("an adapter's change", lambda: self._swap(folder, version))
        self._forget_cached()

    def _swap(self, folder: Path, version: int) -> None:
        from vllm.lora.request import LoRARequest

        number, engine = 1, self._llm.llm_engine
        if self._adapter is not None:
            number = self._adapter.lora_int_id + 1
            engine.remove_lora(self._adapter.lora_int_id)
        adapter = LoRARequest(f"{number}-of-version-{version}", number, str(folder))
        if not engine.add_lora(adapter):
            raise TrainingError("vLLM did not take the adapter: its own log says why")
        self._adapter = adapter

    def _forget_cached(self) -> None:
        if not self._call("emptying the prefix cache", self._llm.reset_prefix_cache):
            raise TrainingError("vLLM could not empty its prefix cache after a weight update: a request still runs")

    def sleep(self, level: int) -> None:
        """1: weights go to the machine's memory, 2: they are forgotten; the cache is forgotten in both."""
        self._call("falling asleep", lambda: self._llm.sleep(level=level))

    def wake_up(self, tags: Sequence[str]) -> None:
        """Memory for "weights", for the "kv_cache", or for both."""
        self._call("waking up", lambda: self._llm.wake_up(tags=list(tags)))

    def close(self) -> None:
        """Stop the engine core. Safe to call twice."""
        self._llm.llm_engine.engine_core.shutdown()
        self._calls.close()
        self._transport.close()

    def _call(self, what: str, call: Callable[[], T]) -> T:
        return self._listen(what, lambda _: call(), lambda _: None)

    def _listen(self, what: str, call: Callable[[Callable[[Any], None]], T], hear: Callable[[Any], None]) -> T:
        """vLLM waits for its engine process without end, even if it has died: so another thread does the waiting. What
        the call says meanwhile is heard by this one."""
        deadline = time.monotonic() + self._timeout
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        future = self._calls.submit(lambda: call(said.put_nowait))
        future.add_done_callback(lambda _: said.put_nowait(_OVER))
        while (words := _next(said)) is not _OVER:
            if words is not None:
                hear(words)
            elif self._dead:
                raise _died()
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"vLLM: {what} took over {self._timeout:.0f} s: raise `timeout`")
        try:
            return future.result()
        except Exception as error:
            if self._dead:
                raise _died() from error
            if type(error) is Exception or type(error).__module__.startswith("vllm."):  # its own, of any base
                raise TrainingError(f"vLLM: {what} failed: {error}") from error
            raise

    @property
    def _dead(self) -> bool:
        core = self._llm.llm_engine.engine_core
        return bool(getattr(getattr(core, "resources", None), "engine_dead", False))


_OVER = object()  # in the place of what a call says: it says nothing more


def _next(said: queue.SimpleQueue[Any]) -> Any:
    """What was said, or None after a while of silence."""
    try:
        return said.get(timeout=LIVENESS_SECONDS)
    except queue.Empty:
        return None


@contextlib.contextmanager
def _telling(llm: Any, say: Callable[[tuple[int, Any]], None] | None) -> Iterator[None]:
    """Inside, each request's place in `generate` and its result are said when it ends; None: nobody listens.

    `generate` steps its engine until all requests have ended, and numbers them one after the other.
    """
    if say is None:
        yield
        return
    engine, step, first = llm.llm_engine, llm.llm_engine.step, llm.request_counter.counter

    def stepped() -> Any:
        results = step()
        for result in results:
            if result.finished:
                say((int(result.request_id) - first, result))
        return results

    engine.step = stepped
    try:
        yield
    finally:
        del engine.step


def _died() -> EngineDiedError:
    return EngineDiedError(
        "vLLM's engine process died; the trainer's weights are intact. Was it out of memory? Lower "
        "gpu_memory_utilization, kv_cache_memory_bytes or max_num_seqs, and resume the run"
    )


class Caller:
    """Makes calls one after the other in a thread that nobody waits for when the program ends."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:  # it belongs to whoever waits for the future
                future.set_exception(error)


class _LocalClient:
    """The weight-sync calls of an `LLM`, as vLLM's trainer side expects them."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        self._llm.init_weight_transfer_engine({"init_info": init_info})

    def start_weight_update(self) -> None:
        self._llm.start_weight_update()

    def update_weights(self, update_info: dict[str, object]) -> None:
        self._llm.update_weights({"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._llm.finish_weight_update(weight_version)


def _sample(result: Any) -> Sample:
    output = result.outputs[0]
    ids = np.array(output.token_ids, dtype=np.int32)
    logprobs = [choices[token].logprob for token, choices in zip(output.token_ids, output.logprobs, strict=True)]
    return Sample(ids, np.array(logprobs, dtype=np.float64))
