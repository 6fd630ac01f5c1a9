"""Every option of the learners of language models can be written in a configuration, and a value of another type is
refused by the option's name, whether or not the learner's packages are installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from learners import registry
from learners.openrlhf.options import ClusterOptions
from learners.torch.options import TorchOptions
from mutual_env.errors import ConfigError

pytestmark = pytest.mark.torch

OBJECTS = {"model", "tokenizer", "config"}  # what only code can give, beside what a configuration can
WRITTEN: Mapping[str, Any] = {
    **{field.name: field.default for cls in (TorchOptions, ClusterOptions) for field in dataclasses.fields(cls)},
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


@pytest.mark.parametrize(("learner", "option"), EVERY)
def test_an_option_can_be_written_and_is_typed(learner: str, option: str) -> None:
    name, given = learner.partition(" ")[0], {"path": "models/one", **LEARNERS[learner]}
    if option != "trainer":
        registry.check_options(name, {**given, option: WRITTEN[option]})
    with pytest.raises(ConfigError, match=f"'{option}'"):
        registry.check_options(name, {**given, option: [["x"]]})


def test_a_field_of_the_servers_options_is_named() -> None:
    for wrong, said in (({"concurrency": "x"}, "concurrency must be a whole number"), ({"a": 1}, "'a' is none of")):
        with pytest.raises(ConfigError, match=said):
            registry.check_options("vllm", {"path": "models/one", "server_options": wrong})
