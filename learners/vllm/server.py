"""vLLM behind its OpenAI-compatible server, on this machine or another: plain HTTP, no vLLM needed on this side."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from learners.sampling import Sample, Sampling
from learners.vllm.adapter import Write, written
from learners.vllm.client import Http, ServerClient
from learners.vllm.engine import Ended, EngineDiedError, Transport, Weights, request
from mutual_env.errors import ConfigError, DeadlineExceededError, InvalidInputError, TrainingError
from mutual_env.types import Ids

LOGPROB_ERROR = 1e-3
"""What a log-probability of 0 may be in a server's half precision."""


class ServerEngine:
    """A client of a running server, or of several of the same model (`url`: one, or a list), among which samples are
    dealt. `concurrency` requests are under way at each at a time; each call has `timeout` seconds.

    The server must run with VLLM_SERVER_DEV_MODE=1, which its weight-update routes need, with processed
    log-probabilities and with the transport's backend: `Server` starts one so. `can_sleep`: it was started with
    `--enable-sleep-mode`. For adapters it needs `--enable-lora`, VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and this machine's
    files. Those routes have no authentication in vLLM: keep the server on a private network. Prompts go as token ids,
    one request a sample, because each has its own seed. A server that was started again meanwhile is seen by the
    version of its weights, and is given those of now.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        transport: Transport,
        *,
        api_key: str = "",
        concurrency: int = 64,
        timeout: float = 600.0,
        can_sleep: bool = False,
    ) -> None:
        if transport.backend == "ipc":
            raise ConfigError("transport 'ipc' cannot reach a server: it would unpickle it; use 'file' or 'nccl'")
        if transport.backend == "nccl" and not isinstance(url, str) and len(url) > 1:
            raise ConfigError("transport 'nccl' reaches one server: use 'file' for several")
        if concurrency < 1:
            raise InvalidInputError(f"concurrency must be at least 1, got {concurrency}")
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise InvalidInputError("server is empty: give the URL of at least one")
        self._servers = [Http(one.rstrip("/"), api_key, timeout) for one in urls]
        self._concurrency, self._timeout = concurrency, timeout
        self._transport = transport
        self.can_sleep = can_sleep
        self._client = ServerClient(self._servers)
        self._threads = [ThreadPoolExecutor(concurrency, thread_name_prefix=f"vllm-request-{one}") for one in urls]
        found = [_model(one) for one in self._servers]
        self._models = [name for name, _ in found]
        self.longest = min((longest for _, longest in found if longest), default=None)
        self._check_logprobs()
        self._sender = secrets.token_hex(4)  # another client's weights of this version have another name
        self._adapter = ""  # by which name the servers know it
        self._version: str | None = None  # of the weights that the servers were given

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        """One sample for each prompt and its seed."""
        return self.sample_and_tell(prompts, seeds, sampling, None)

    def sample_and_tell(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ended: Ended | None
    ) -> list[Sample]:
        """The same; `ended` is told of each when it ends."""
        self._check_versions()
        samples = self._dealt(prompts, seeds, sampling, ended)
        try:
            self._check_versions()
        except EngineDiedError as error:  # samples of other weights may have been told of
            raise TrainingError(f"{error}, while samples were written: give each policy a server of its own") from error
        return samples

    def _dealt(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ended: Ended | None
    ) -> list[Sample]:
        places: dict[Future[Sample], int] = {}
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            server = index % len(self._servers)
            asked = self._threads[server].submit(self._complete, server, prompt, request(sampling, seed))
            places[asked] = index
        try:
            for future in as_completed(places, timeout=self._longest(len(places))):
                sample = future.result()
                if ended is not None:
                    ended(places[future], sample)
            return [future.result() for future in places]
        finally:
            for future in places:
                future.cancel()

    def _longest(self, requests: int) -> float:
        """How long so many may take at most: each has a limit of its own, and is tried once more where its connection
        was an old one."""
        return 2 * self._timeout * (1 + requests // self._concurrency)

    def load_weights(self, weights: Weights, version: int) -> None:
        """Wait for what the server is writing, replace every weight, and forget what was cached under the old ones."""
        self._version = None
        self._client.label = f"{self._sender}-{version}"
        self._client.post("/pause?mode=wait")
        try:
            self._transport.send(self._client, weights, version)
            if not all(answer["success"] for answer in self._client.post("/reset_prefix_cache")):
                raise TrainingError("the vLLM server could not empty its prefix cache after a weight update")
        finally:
            self._client.post("/resume")
        self._version = self._client.label

    def _check_logprobs(self) -> None:
        """Of one token out of one it is 0 after top-k, and lower before."""
        one = {**request(Sampling(0, 1, top_k=1), 0), "temperature": 1.0}
        for index, server in enumerate(self._servers):
            sample = self._complete(index, np.zeros(1, np.int32), one, self._models[index])
            if abs(float(sample.logprobs[0])) > LOGPROB_ERROR:
                raise ConfigError(
                    f"the vLLM server at {server.url} gives log-probabilities before temperature, top-p and top-k: "
                    "start it with --logprobs-mode processed_logprobs"
                )

    def _check_versions(self) -> None:
        for server in self._servers if self._version is not None else ():
            found = str(server.get("/weight_info")["weight_version"])
            if found != self._version:
                raise EngineDiedError(
                    f"the vLLM server at {server.url} has weights of version {found!r} instead of {self._version!r}: "
                    "it was started again, or another program sends weights to it"
                )

    def revive(self) -> None:
        """All are introduced to the next weights again: those that were started again do not know where they come
        from."""
        self._transport.close()
        self._version = None

    def load_adapter(self, write: Write, version: int) -> None:
        """Another adapter under a name of its own, in the place of the one before."""
        name = f"{secrets.token_hex(4)}-of-version-{version}"
        with written(write) as folder:
            if self._adapter:
                self._client.post("/v1/unload_lora_adapter", {"lora_name": self._adapter})
                self._adapter = ""
            self._client.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        self._adapter = name

    def sleep(self, level: int) -> None:
        """1: weights go to the machine's memory, 2: they are forgotten; the cache is forgotten in both."""
        self._client.post(f"/sleep?level={level}")

    def wake_up(self, tags: Sequence[str]) -> None:
        """Memory for "weights", for the "kv_cache", or for both."""
        self._client.post("/wake_up?" + "&".join(f"tags={tag}" for tag in tags))

    def close(self) -> None:
        """Let go of the server, which runs on. Safe to call twice."""
        for threads in self._threads:
            threads.shutdown(cancel_futures=True)
        self._transport.close()

    def _complete(self, server: int, prompt: Ids, parameters: Mapping[str, object], model: str = "") -> Sample:
        body = {
            "model": model or self._adapter or self._models[server],
            "prompt": prompt.tolist(),
            "return_token_ids": True,
            **parameters,
        }
        answer = self._servers[server].post("/v1/completions", body)
        try:
            choice = answer["choices"][0]
            ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        except (TypeError, KeyError, IndexError) as error:
            raise _not_vllm(self._servers[server]) from error
        return Sample(np.array(ids, dtype=np.int32), np.array(logprobs, dtype=np.float64))


class Server:
    """A vLLM server started by this program, for as long as it is open; its log goes to `log`.

    `arguments` are `vllm serve`'s, with underscores; the directory at `path` must hold a tokenizer, which the OpenAI
    routes load. It listens on this machine alone, behind a random API key for those routes.
    """

    def __init__(
        self, path: str | Path, backend: str, *, log: Path, start_timeout: float = 600.0, **arguments: Any
    ) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.api_key = secrets.token_urlsafe(24)
        settings = {
            "model": str(path),
            "host": "127.0.0.1",
            "port": port,
            "logprobs_mode": "processed_logprobs",
            "weight_transfer_config": json.dumps({"backend": backend}),
            **arguments,
        }
        opened = {"VLLM_SERVER_DEV_MODE": "1"}
        if arguments.get("enable_lora"):
            opened["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        self._log: BinaryIO = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_flags(settings)],
            env={"VLLM_NO_USAGE_STATS": "1", **os.environ, **opened, "VLLM_API_KEY": self.api_key},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # one signal then reaches the engine core too
        )
        try:
            self._wait(time.monotonic() + start_timeout, log)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server and everything it started. Safe to call twice."""
        for stop in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, stop)
                try:
                    self._process.wait(20.0)
                except subprocess.TimeoutExpired:
                    continue
        self._log.close()

    def _wait(self, deadline: float, log: Path) -> None:
        health = Http(self.url, "", 5.0)
        while not health.answers("/health"):
            if self._process.poll() is not None:
                raise ConfigError(f"the vLLM server ended with status {self._process.returncode}: see {log}")
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"the vLLM server did not start in time: raise start_timeout, or see {log}")
            time.sleep(0.25)


def _model(server: Http) -> tuple[str, int | None]:
    """What the server calls its model, and how many tokens it takes at most, if it says so."""
    answer = server.get("/v1/models")
    try:
        model = answer["data"][0]
        longest = model.get("max_model_len")
        return str(model["id"]), None if longest is None else int(longest)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise _not_vllm(server) from error


def _not_vllm(server: Http) -> InvalidInputError:
    return InvalidInputError(f"what answers at {server.url} is no vLLM server: correct `server`")


def _flags(settings: Mapping[str, object]) -> list[str]:
    """`max_model_len=256` as `--max-model-len 256`, True as the bare flag, False as `--no-...`."""
    flags: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    return flags


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
