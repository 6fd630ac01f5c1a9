"""Every option of the learners of language models can be written in a configuration, whether or not the learner's
packages are installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from learners import registry
from learners.openrlhf.options import INSTEAD, INSTEAD_ON_RAY, ActorOptions, ClusterOptions, can_be_imported
from learners.torch.options import TorchOptions
from mutual_env.errors import ConfigError, InvalidInputError

pytestmark = pytest.mark.torch

OBJECTS = {"model", "tokenizer", "config"}  # what only code can give, beside what a configuration can
WRITTEN: Mapping[str, Any] = {
    **{f.name: f.default for cls in (TorchOptions, ActorOptions, ClusterOptions) for f in dataclasses.fields(cls)},
    "path": "models/one",
    "name": "one",
    "trainer": "torch",
    "server": "http://127.0.0.1:8000",
    "server_options": {"concurrency": 4, "timeout": 10.0, "can_sleep": True},
    "transport": "file",
    "transport_options": {"directory": "/tmp"},
    "engine": {"max_model_len": 64},
}
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "torch": {},
    "openrlhf": {},
    "openrlhf_ray": {},
    "vllm": {},
    "vllm around openrlhf_ray": {"trainer": "openrlhf_ray"},
}
EVERY = [
    (learner, option)
    for learner, given in LEARNERS.items()
    for option in registry.options(learner.partition(" ")[0], given)
    if option not in OBJECTS and option != "options"
]


def test_the_table_has_every_option() -> None:
    assert {option for _, option in EVERY} == WRITTEN.keys()
    assert {f.name for f in dataclasses.fields(ClusterOptions)} <= {o for name, o in EVERY if name == "openrlhf_ray"}


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_option_can_be_written(learner: str) -> None:
    """What is no such value is refused: tests/test_options_are_tested.py."""
    name, given = learner.partition(" ")[0], {"path": "models/one", **LEARNERS[learner]}
    for option in (option for owner, option in EVERY if owner == learner and option != "trainer"):
        registry.check_options(name, {**given, option: WRITTEN[option]})


def test_a_field_of_the_servers_options_is_named() -> None:
    for wrong, said in (({"concurrency": "x"}, "concurrency must be a whole number"), ({"a": 1}, "'a' is none of")):
        with pytest.raises(ConfigError, match=said):
            registry.check_options("vllm", {"path": "models/one", "server_options": wrong})


def test_kernels_that_are_not_there_are_said_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As flash-attn is where it was built without a CUDA toolkit: found, and broken when it is imported."""
    (tmp_path / "flash_attn.py").write_text("import flash_attn_2_cuda\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidInputError, match=r"'flash_attn', which is not installed, or without its kernels"):
        ActorOptions(attention="flash_attention_2").require("bfloat16")
    assert not can_be_imported("flash_attn")


REPLACED = {"openrlhf": INSTEAD, "openrlhf_ray": INSTEAD_ON_RAY}


@pytest.mark.parametrize("name", REPLACED)
def test_flags_of_openrlhf_are_answered_with_what_to_say_here(name: str) -> None:
    """Under its own name, and as the trainer behind vLLM; what the sentence names is an option that is taken."""
    for option, remedy in REPLACED[name].items():
        assert option not in registry.options(name)
        for learner, given in ((name, {}), ("vllm", {"trainer": name})):
            with pytest.raises(InvalidInputError, match=f"{option} is no option of learner '"):
                registry.check_options(learner, {"path": "models/one", **given, option: WRITTEN.get(option, 2)})
        if remedy.startswith("say "):
            said = remedy.removeprefix("say ").partition(":")[0].split(" and ")
            assert {*said} <= {*registry.options(name)}
