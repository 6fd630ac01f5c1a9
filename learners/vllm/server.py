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
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from learners.sampling import Sample, Sampling
from learners.vllm.engine import Transport, Weights, request
from mutual_env.errors import ConfigError, DeadlineExceededError, InvalidInputError, TrainingError
from mutual_env.types import Ids


class ServerEngine:
    """A client of a running server. `concurrency` requests are under way at a time; each call has `timeout` seconds.

    The server must run with VLLM_SERVER_DEV_MODE=1, which its weight-update routes need, with processed
    log-probabilities and with the transport's backend: `Server` starts one so. `can_sleep`: it was started with
    `--enable-sleep-mode`. Those routes have no authentication in
    vLLM: keep the server on a private network. Prompts go as token ids, one request a sample, because each has its own
    seed.
    """

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        api_key: str = "",
        concurrency: int = 64,
        timeout: float = 600.0,
        can_sleep: bool = False,
    ) -> None:
        if transport.backend == "ipc":
            raise ConfigError("transport 'ipc' cannot reach a server: it would unpickle it; use 'file' or 'nccl'")
        if concurrency < 1:
            raise InvalidInputError(f"concurrency must be at least 1, got {concurrency}")
        self._http = _Http(url.rstrip("/"), api_key, timeout)
        self._transport = transport
        self.can_sleep = can_sleep
        self._client = _ServerClient(self._http)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="vllm-request")
        self._model = str(self._http.get("/v1/models")["data"][0]["id"])

    def sample(self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling) -> list[Sample]:
        """One sample for each prompt and its seed."""
        futures = [
            self._threads.submit(self._complete, prompt, request(sampling, seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def load_weights(self, weights: Weights, version: int) -> None:
        """Wait for what the server is writing, replace every weight, and forget what was cached under the old ones."""
        self._http.post("/pause?mode=wait")
        try:
            self._transport.send(self._client, weights, version)
            if not self._http.post("/reset_prefix_cache")["success"]:
                raise TrainingError("the vLLM server could not empty its prefix cache after a weight update")
        finally:
            self._http.post("/resume")

    def sleep(self, level: int) -> None:
        """1: weights go to the machine's memory, 2: they are forgotten; the cache is forgotten in both."""
        self._http.post(f"/sleep?level={level}")

    def wake_up(self, tags: Sequence[str]) -> None:
        """Memory for "weights", for the "kv_cache", or for both."""
        self._http.post("/wake_up?" + "&".join(f"tags={tag}" for tag in tags))

    def close(self) -> None:
        """Let go of the server, which runs on. Safe to call twice."""
        self._threads.shutdown(cancel_futures=True)
        self._transport.close()

    def _complete(self, prompt: Ids, parameters: Mapping[str, object]) -> Sample:
        body = {"model": self._model, "prompt": prompt.tolist(), "return_token_ids": True, **parameters}
        choice = self._http.post("/v1/completions", body)["choices"][0]
        return Sample(
            np.array(choice["token_ids"], dtype=np.int32),
            np.array(choice["logprobs"]["token_logprobs"], dtype=np.float64),
        )


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
        self._log: BinaryIO = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_flags(settings)],
            env={"VLLM_NO_USAGE_STATS": "1", **os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": self.api_key},
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
        health = _Http(self.url, "", 5.0)
        while not health.answers("/health"):
            if self._process.poll() is not None:
                raise ConfigError(f"the vLLM server ended with status {self._process.returncode}: see {log}")
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"the vLLM server did not start in time: raise start_timeout, or see {log}")
            time.sleep(0.25)


class _ServerClient:
    """The weight-sync routes of the server."""

    def __init__(self, http: _Http) -> None:
        self._http = http

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        self._http.post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self._http.post("/start_weight_update")

    def update_weights(self, update_info: dict[str, object]) -> None:
        self._http.post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._http.post("/finish_weight_update", {"weight_version": weight_version})


class _Http:
    """JSON over HTTP to one server."""

    def __init__(self, url: str, api_key: str, timeout: float) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = timeout

    def get(self, route: str) -> Any:
        return self._send(route, None, "GET")

    def post(self, route: str, body: Mapping[str, object] | None = None) -> Any:
        return self._send(route, body or {}, "POST")

    def answers(self, route: str) -> bool:
        try:
            with urllib.request.urlopen(self._url + route, timeout=self._timeout) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _send(self, route: str, body: Mapping[str, object] | None, method: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + route, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            said = error.read()[:2000].decode("utf-8", "replace")
            raise InvalidInputError(f"the vLLM server refused {method} {route} ({error.code}): {said}") from error
        except TimeoutError as error:
            raise DeadlineExceededError(f"{method} {route} took over {self._timeout:.0f} s: raise `timeout`") from error
        except OSError as error:
            raise TrainingError(f"the vLLM server at {self._url} does not answer {route}: {error}") from error
        return json.loads(content) if content else None


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
