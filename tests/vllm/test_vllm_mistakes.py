"""What a user gets wrong is a sentence, from the real engine and its real server, and before anything is loaded where
that can be: no traceback, no hang, no number that is silently another's."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import learners
from learners.vllm import LocalEngine, VllmSampled, make_transport
from learners.vllm.adapter import settings
from learners.vllm.arguments import check_arguments
from learners.vllm.plugin import BACKEND
from learners.vllm.server import Server, ServerEngine
from mutual_env.errors import InvalidInputError, MutualEnvError, StorageError, TrainingError, UnknownNameError
from tests.vllm.conftest import ENGINE, KeptOpen
from tests.vllm.test_vllm_sampler import AGREEMENT, PROMPTS, disagreement, lesson, sampled

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

DOCUMENTED = {
    "dtype": "bfloat16",
    "max_model_len": 2048,
    "gpu_memory_utilization": 0.4,
    "enable_sleep_mode": True,
    "enable_prefix_caching": False,
    "kv_cache_memory_bytes": 1 << 28,
    "max_num_seqs": 64,
    "tensor_parallel_size": 4,
    "max_lora_rank": 16,
    "enable_lora": True,
    "enforce_eager": True,
    "seed": 3,
}
"""What docs, configs and error messages name, each with a value that is right."""


def made(path: Path, **options: Any) -> VllmSampled:
    settings = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, **options}
    learner = learners.make("vllm", name="p", path=str(path), **settings)
    assert isinstance(learner, VllmSampled)
    return learner


@pytest.fixture
def at(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("VLLM_API_KEY", server.api_key)
    return server


def test_every_argument_that_the_docs_name_is_one_of_the_installed_version() -> None:
    check_arguments(DOCUMENTED)
    for file in (*Path("docs").rglob("*.md"), *Path("configs").rglob("*.yaml")):
        for mapping in re.findall(r"\bengine: \{([^}]*)\}", file.read_text()):
            assert {pair.partition(":")[0].strip() for pair in mapping.split(",")} - {"timeout"} <= set(DOCUMENTED)


@pytest.mark.parametrize("name", ["max_modl_len", "gpu_memory_utilisation", "kwargs"])
def test_an_argument_that_vllm_does_not_know_is_refused_by_name_before_anything_is_loaded(name: str) -> None:
    near = {"max_modl_len": "'max_model_len'", "gpu_memory_utilisation": "'gpu_memory_utilization'"}
    with pytest.raises(UnknownNameError, match=f"vLLM's engine {name!r}: .*{near.get(name, '')}"):
        LocalEngine("no/such/model", make_transport("file"), **{name: 1})
    with pytest.raises(UnknownNameError, match=f"{name!r}"):
        made(Path("no/such/model"), engine={name: 1})


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("max_model_len", "256", "a whole number"),
        ("max_num_seqs", "many", "a whole number"),
        ("enforce_eager", "yes", "true or false"),
        ("gpu_memory_utilization", "0.4", "a finite number"),
        ("dtype", "bfloat17", "one of 'auto'"),
        ("max_lora_rank", 7, "one of 1, 8, 16"),
    ],
)
def test_an_argument_of_another_type_is_refused_before_anything_is_loaded(name: str, value: object, what: str) -> None:
    with pytest.raises(InvalidInputError, match=f"engine.{name} must be {what}.*, got {value!r}"):
        made(Path("no/such/model"), engine={name: value})


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("gpu_memory_utilization", 1.5, "gpu_memory_utilization: Input should be less than or equal to 1, got 1.5"),
        ("max_model_len", 1000, "max_model_len .1000. is greater than the derived"),
        ("kv_cache_memory_bytes", 1000, "did not start .*what it has logged above says why.*kv_cache_memory_bytes"),
    ],
)
def test_a_value_that_vllm_does_not_take_is_said_in_its_words(
    model_path: Path, name: str, value: object, what: str
) -> None:
    with pytest.raises(InvalidInputError, match=what) as said:
        LocalEngine(model_path, make_transport("file"), **{**ENGINE, name: value})
    assert "\n" not in str(said.value)


def test_an_adapter_that_the_engine_has_no_room_for_is_refused_before_anything_is_loaded() -> None:
    adapter = {"transport": "adapter", "lora_rank": 16}
    with pytest.raises(InvalidInputError, match=r"engine.max_lora_rank 8 is below lora_rank 16"):
        made(Path("no/such/model"), engine={"max_lora_rank": 8}, **adapter)
    with pytest.raises(InvalidInputError, match=r"engine.enable_lora is false"):
        made(Path("no/such/model"), engine={"enable_lora": False}, **adapter)


def test_no_prompt_is_written_on_from_where_the_whole_answer_has_no_room(model_path: Path, local: KeptOpen) -> None:
    engine = local.engine
    assert isinstance(engine, LocalEngine)
    assert engine.longest == ENGINE["max_model_len"]
    learner = sampled(model_path, local)
    learner._longest = 64
    learner.act(["0" * 50], 2, seed=1)  # of 54 that are left
    with pytest.raises(InvalidInputError, match=r"a prompt of 80 tokens and max_new_tokens 10 .* the 64 tokens"):
        learner.act(["0" * 80], 2, seed=1)
    with pytest.raises(TrainingError, match="maximum context length is 256"):
        sampled(model_path, local).act(["0" * 300], 2, seed=1)
    learner.act(PROMPTS, 2, seed=1)


def test_a_server_that_has_no_room_for_an_answer_is_refused_at_once(model_path: Path, at: Server) -> None:
    with pytest.raises(InvalidInputError, match=r"max_new_tokens 256 leaves no room .* takes 256 tokens"):
        made(model_path, server=at.url, max_new_tokens=256)
    with pytest.raises(InvalidInputError, match="a prompt of 100 tokens and max_new_tokens 200"):
        made(model_path, server=at.url, max_new_tokens=200).act(["0123456789" * 10], 2, seed=1)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "http://127.0.0.1:8x", "http://", "127.0.0.1:8000", "http://[::1"]
)
def test_a_url_that_is_none_is_refused_by_itself(url: str) -> None:
    with pytest.raises(InvalidInputError, match=f"server must be a URL such as .*, got {re.escape(repr(url))}"):
        made(Path("no/such/model"), server=url)


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture
def page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_answers_and_is_not_vllm_is_named(model_path: Path, at: Server, page: str) -> None:
    with pytest.raises(InvalidInputError, match=r"what answers at .* is no vLLM server"):
        made(model_path, server=page)
    with pytest.raises(InvalidInputError, match="without /v1"):
        made(model_path, server=f"{at.url}/v1")
    with pytest.raises(TrainingError, match="does not answer"):
        made(model_path, server=at.url.replace("http:", "https:"))


def test_a_server_that_takes_no_adapters_is_told_what_it_lacks(model_path: Path, at: Server) -> None:
    with pytest.raises(InvalidInputError, match="start it with --enable-lora"):
        made(model_path, server=at.url, transport="adapter", lora_rank=4)


def changed(path: Path, to: Path, **fields: int) -> Path:
    """The directory of a model of another size."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(path, to)
    config = LlamaConfig.from_pretrained(path)
    for name, value in fields.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(to)
    return to


@pytest.mark.parametrize("fields", [{"hidden_size": 32}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_weights_of_another_model_are_refused_and_the_server_stays_of_use(
    model_path: Path, at: Server, tmp_path: Path, fields: dict[str, int]
) -> None:
    with pytest.raises(InvalidInputError, match="the policy's model is not the engine's"):
        made(changed(model_path, tmp_path / "other", **fields), server=at.url)
    learner = made(model_path, server=at.url)
    assert disagreement(learner, learner.act(PROMPTS, 4, seed=1)) <= AGREEMENT
    learner.close()


def test_two_policies_of_one_server_never_sample_with_each_other_s_weights(model_path: Path, at: Server) -> None:
    """Both are of version 1: a configuration of theirs is refused, two programs find it out."""
    one, two = made(model_path, server=at.url), made(model_path, server=at.url)
    one.update(lesson(one, "ok"))
    two.update(lesson(two, "no"))
    for learner in (one, two, one):
        assert disagreement(learner, learner.act(PROMPTS, 4, seed=1)) <= AGREEMENT
    engine: Any = one._engine
    dealt = engine._dealt

    def late(*arguments: Any) -> Any:
        samples = dealt(*arguments)
        two._sent = None
        two.update(lesson(two, "no"))
        return samples

    engine._dealt = late
    with pytest.raises(TrainingError, match="while samples were written: give each policy a server of its own"):
        one.act(PROMPTS, 4, seed=1)
    one.close()
    two.close()


def test_a_disk_that_is_full_is_said_and_the_weights_are_sent_when_it_is_not(model_path: Path, at: Server) -> None:
    learner = made(model_path, server=at.url)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"weights could not be written to .*transport_options.directory"):
            learner.update(lesson(learner, "ok"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert disagreement(learner, learner.act(PROMPTS, 4, seed=1)) <= AGREEMENT
    learner.close()


@pytest.mark.parametrize("directory", ["no/such/directory", __file__])
def test_a_directory_for_weights_that_is_none_is_refused_by_itself(directory: str) -> None:
    with pytest.raises(MutualEnvError, match=f"transport_options.directory: {re.escape(directory)} is no directory"):
        made(Path("no/such/model"), transport_options={"directory": directory})


def writes_on(learner: VllmSampled) -> None:
    while True:
        learner.act(PROMPTS * 20, 8, seed=1)


def test_a_server_with_other_log_probabilities_is_refused_and_so_is_an_adapter_above_its_rank(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {**ENGINE, **settings(4), "logprobs_mode": "raw_logprobs"}
    server = Server(model_path, BACKEND, log=tmp_path / "log", **raw)
    monkeypatch.setenv("VLLM_API_KEY", server.api_key)
    try:
        with pytest.raises(InvalidInputError, match="--logprobs-mode processed_logprobs"):
            made(model_path, server=server.url)
        monkeypatch.setattr(ServerEngine, "_check_logprobs", lambda self: None)
        with pytest.raises(InvalidInputError, match="LoRA rank 16 is greater than max_lora_rank 8"):
            made(model_path, server=server.url, transport="adapter", lora_rank=16)
        learner = made(model_path, server=server.url, max_new_tokens=200, server_options={"timeout": 60.0})
        threading.Timer(1.0, os.killpg, (server._process.pid, signal.SIGKILL)).start()
        with pytest.raises(TrainingError, match="does not answer"):
            writes_on(learner)
        learner.close()
    finally:
        server.close()
