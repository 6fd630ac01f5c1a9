"""What is said to vLLM's servers: JSON over HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mutual_env.errors import DeadlineExceededError, InvalidInputError, TrainingError

MISSING = {
    "/v1/models": "is it vLLM's, and its URL given without /v1?",
    "/v1/load_lora_adapter": "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
}
"""What a server needs to have such a route."""


class ServerClient:
    """The weight-sync routes of all servers, one after the other: the weights are written once."""

    def __init__(self, servers: Sequence[Http]) -> None:
        self._servers = servers
        self.label: str | None = None  # how servers call the weights that are sent next

    def post(self, route: str, body: Mapping[str, object] | None = None) -> list[Any]:
        return [server.post(route, body) for server in self._servers]

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        self.post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self.post("/start_weight_update")

    def update_weights(self, update_info: dict[str, object]) -> None:
        self.post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.post("/finish_weight_update", {"weight_version": self.label or weight_version})


class Http:
    """JSON over HTTP to one server, on a connection for each thread that is kept open."""

    def __init__(self, url: str, api_key: str, timeout: float) -> None:
        parts = parts_of(url)
        self.url, self._base = url, parts.path.rstrip("/")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect = partial(kind, parts.hostname or "", parts.port, timeout=timeout)
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._own = threading.local()

    def get(self, route: str) -> Any:
        return self._send(route, None, "GET")

    def post(self, route: str, body: Mapping[str, object] | None = None) -> Any:
        return self._send(route, body or {}, "POST")

    def answers(self, route: str) -> bool:
        try:
            self._send(route, None, "GET")
        except (TrainingError, InvalidInputError, DeadlineExceededError):
            return False
        return True

    def _send(self, route: str, body: Mapping[str, object] | None, method: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            status, content = self._exchange(route, data, method)
        except TimeoutError as error:
            self._forget()
            raise DeadlineExceededError(f"{method} {route} took over {self._timeout:.0f} s: raise `timeout`") from error
        except (OSError, http.client.HTTPException) as error:
            self._forget()
            raise TrainingError(f"the vLLM server at {self.url} does not answer {route}: {error}") from error
        if status >= 400:
            raise InvalidInputError(
                f"the vLLM server refused {method} {route} ({status}): {_said(status, route, content)}"
            )
        try:
            return json.loads(content) if content else None
        except ValueError:  # some routes answer with a sentence
            return content.decode("utf-8", "replace")

    def _exchange(self, route: str, data: bytes | None, method: str) -> tuple[int, bytes]:
        """Once more on a new connection, where the server has closed the one that was kept open meanwhile."""
        kept = getattr(self._own, "connection", None)
        if kept is None:
            kept = self._own.connection = self._connect()
        used = kept.sock is not None
        try:
            kept.request(method, self._base + route, data, self._headers)
            answer = kept.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            kept.close()
            if not used:
                raise
            kept.request(method, self._base + route, data, self._headers)
            answer = kept.getresponse()
        return answer.status, answer.read()

    def _forget(self) -> None:
        connection = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()
            self._own.connection = None


def parts_of(url: str) -> urllib.parse.SplitResult:
    """The parts of a server's URL, which must be one."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # of the port, or of an IPv6 address
        pass
    raise InvalidInputError(f"server must be a URL such as http://127.0.0.1:8000, got {url!r}")


def _said(status: int, route: str, content: bytes) -> str:
    """The server's own words, or what it lacks."""
    if status == 404:
        route = route.partition("?")[0]
        return "it has no such route: " + MISSING.get(route, "start it with VLLM_SERVER_DEV_MODE=1")
    said = content[:2000].decode("utf-8", "replace")
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):  # not in vLLM's form
        return said
