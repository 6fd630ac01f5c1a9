"""Several servers of one model, over real HTTP; what answers is not vLLM."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from learners.sampling import Sample
from learners.vllm import Sampling, VllmSampled, make_transport
from learners.vllm.server import ServerEngine
from tests.vllm.test_sampled_composition import TOKENIZER, Policy, lesson


class Counted(ThreadingHTTPServer):
    """Counts how many requests are under way, each of which takes `seconds`, and knows which weights it was given."""

    daemon_threads = True

    def __init__(self, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.seconds, self.now, self.most, self.served = seconds, 0, 0, 0
        self.counting = threading.Lock()
        self.restart()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def restart(self) -> None:
        self.version, self.introduced = "default", False

    def post(self, route: str, body: dict[str, Any]) -> dict[str, object]:
        match route:
            case "/v1/completions":
                return self.complete() if body["top_k"] != 1 else answered(0.0)
            case "/init_weight_transfer_engine":
                self.introduced = True
            case "/finish_weight_update":
                assert self.introduced
                self.version = body["weight_version"]
        return {"success": True}

    def complete(self) -> dict[str, object]:
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.counting:
            self.now -= 1
            self.served += 1
        return answered(-0.5)


def answered(logprob: float) -> dict[str, object]:
    return {"choices": [{"token_ids": [2], "logprobs": {"token_logprobs": [logprob]}}]}


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    server: Counted

    def do_GET(self) -> None:
        answers = {"/v1/models": {"data": [{"id": "model"}]}, "/weight_info": {"weight_version": self.server.version}}
        self._say(answers[self.path])

    def do_POST(self) -> None:
        self._say(self.server.post(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def _say(self, answer: dict[str, object]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture
def fleet() -> Iterator[list[Counted]]:
    """One that is slow and one that is not."""
    servers = [Counted(0.02), Counted(0.0)]
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def test_no_more_requests_are_under_way_at_a_server_than_are_allowed_there(fleet: list[Counted]) -> None:
    """Also at a slow one, while another has nothing to do."""
    engine = ServerEngine([server.url for server in fleet], make_transport("file"), concurrency=3)
    try:
        samples = engine.sample([np.array([1], np.int32)] * 24, list(range(24)), Sampling(1, max_new_tokens=4))
    finally:
        engine.close()
    assert len(samples) == 24
    assert [server.served for server in fleet] == [12, 12]
    assert 2 <= fleet[0].most <= 3


def test_samples_are_told_of_while_a_slow_server_writes_others(fleet: list[Counted]) -> None:
    """All of the quick one's before the last of the slow one's; and what is returned is what was told."""
    engine = ServerEngine([server.url for server in fleet], make_transport("file"), concurrency=2)
    told: dict[int, Sample] = {}
    served: list[int] = []

    def ended(place: int, sample: Sample) -> None:
        assert place not in told
        told[place] = sample
        served.append(fleet[0].served)

    try:
        prompts = [np.array([1], np.int32)] * 16
        samples = engine.sample_and_tell(prompts, list(range(16)), Sampling(1, max_new_tokens=4), ended)
    finally:
        engine.close()
    assert [told[place] for place in range(16)] == samples
    assert served[0] < 8
    assert list(told)[-1] % 2 == 0


def test_a_server_that_was_started_again_is_given_the_weights_of_now(fleet: list[Counted]) -> None:
    engine = ServerEngine([server.url for server in fleet], make_transport("file"))
    try:
        learner = VllmSampled(Policy(TOKENIZER, name="p"), engine, Sampling(TOKENIZER.stop_id, max_new_tokens=4))
        learner.update([lesson()])
        fleet[1].restart()
        learner.act(["a="], 4, seed=0)
        assert {server.version for server in fleet} == {engine._client.label}
        assert sum(server.served for server in fleet) == 4
    finally:
        engine.close()
