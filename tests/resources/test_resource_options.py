"""What a configuration says in `resources` reaches who is asked for it; what each number does there has tests beside
those who read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from learners.resources.plan import parse_devices
from learners.run.config import load_run
from learners.run.places import Places, read_places
from mutual_env.errors import MutualEnvError

CONFIG = """
policies:
  ada: {learner: tabular}
  qwen: {learner: torch, options: {path: models/Qwen2.5-1.5B-Instruct, max_new_tokens: 512}}
"""
PHASE, DEMAND = "resources.demands={ada: {phases: {act: {%s: %s}}}}", "resources.demands={ada: {phases: {act: {}}, %s}}"


def act(places: Places) -> Any:
    return ada(places).phases["act"]


def ada(places: Places) -> Any:
    [found] = [demand for demand in places.demands if demand.policy == "ada"]
    return found


READ: Mapping[str, tuple[str, Callable[[Places], object], object]] = {
    **{
        name: (PHASE % (name, value), lambda places, name=name: getattr(act(places), name), value)
        for name, value in (("seconds", 7.0), ("cpus", 0.5), ("gpus", 1.0), ("gang", 2), ("limit", 9.0))
    },
    "together": (PHASE % ("together", "true"), lambda places: act(places).together, True),
    "memory": (PHASE % ("memory", "2.0e9"), lambda places: act(places).memory, 2_000_000_000),
    "phases": (PHASE % ("cpus", "1"), lambda places: list(ada(places).phases), ["act"]),
    "weights": (DEMAND % "weights: 1.0e9", lambda places: ada(places).weights, 1_000_000_000),
    "offload_seconds": (DEMAND % "offload_seconds: null", lambda places: ada(places).movable, False),
    "kind": (DEMAND % "kind: H100", lambda places: ada(places).kind, "H100"),
    **{
        name: (f"resources.patience.{name}={value}", lambda places, name=name: getattr(places.patience, name), value)
        for name, value in (("reserve", 5.0), ("restarts", 1), ("restart_limit", 9.0))
    },
    "patience": ("resources.patience={limit: 60}", lambda places: places.patience.limit, 60),
    "devices": ("resources.devices=2x4:80", lambda places: places.supply.gpus, 8),
    "demands": (PHASE % ("cpus", "0.25"), lambda places: act(places).cpus, 0.25),
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resources") / "run.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("option", READ)
def test_what_is_written_is_what_leases_are_made_of(option: str, config_file: Path) -> None:
    override, read, expected = READ[option]
    assert read(read_places(load_run(config_file))) != expected
    assert read(read_places(load_run(config_file, [override]))) == expected


@pytest.mark.parametrize(("option", "slower"), [("prompt_tokens", "score"), ("response_tokens", "update")])
def test_longer_texts_are_expected_to_take_longer(option: str, slower: str, config_file: Path) -> None:
    supply = parse_devices("1x1:H100")
    short, long = (
        read_places(load_run(config_file, [f"resources.assumptions.{option}={tokens}"]), supply) for tokens in (50, 500)
    )
    assert short.estimates["qwen"].seconds[slower] < long.estimates["qwen"].seconds[slower]


def test_options_of_an_executor_reach_it(config_file: Path) -> None:
    """Nothing is started before a policy is hosted; those of a cluster are in the tests on one."""
    given = ["resources.executor=processes", "resources.options={threads: 3, keep: 4}"]
    with closing(read_places(load_run(config_file, given)).start()) as executor:
        assert vars(executor)["_threads"] == 3
        assert vars(executor)["_keep"] == 4


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resources.options={threads: -1}", "resources.options.threads must lie between 1 and 4096, got -1"),
        ("resources.options={keep: 0}", "resources.options.keep must lie between 1 and 4096, got 0"),
        (DEMAND % "spreads: true", "unknown option of resources.demands.ada 'spreads'"),
        (DEMAND % "policy: eve", "unknown option of resources.demands.ada 'policy'"),
    ],
)
def test_what_is_not_for_a_configuration_to_say_is_refused(override: str, sentence: str, config_file: Path) -> None:
    with pytest.raises(MutualEnvError, match=sentence):
        read_places(load_run(config_file, ["resources.executor=processes", override])).start()
