"""Every option that a configuration can give a learner or write into `resources`: a test names it, and a value of
another type is refused in a sentence that says which option, what it must be, and what it was.

The tests are read, not run: those of OpenRLHF, vLLM and Ray have environments of their own.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from learners import registry
from learners.resources.demand import Demand, Needs, Patience
from learners.resources.on_ray import RayExecutor
from learners.resources.processes import ProcessExecutor
from learners.run.check import check
from learners.run.config import PolicyConfig, ResourcesConfig, RunConfig, load_run
from learners.run.places import _GIVEN, _SETTLED
from learners.tiny import WarmStart
from learners.torch.options import TorchOptions
from learners.vllm.make import ServerOptions
from learners.vllm.transport import FileTransport, Rendezvous
from mutual_env.errors import MutualEnvError

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[1]
SMALL, TORCH = "tests/learners/test_small_options.py", "tests/learners/test_torch_options.py"
RESOURCES, RUNS = "tests/resources/test_resource_options.py", "tests/runs"
ACTOR = "tests/openrlhf/test_openrlhf_options.py"
ENGINE = "tests/vllm/test_vllm_options.py"


def fields(of: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(of)}


def parameters(of: Any) -> set[str]:
    return set(signature(of).parameters)


OPTIONS: Mapping[str, set[str]] = {
    "learner tabular": {*registry.options("tabular")},
    "learner tiny": {*registry.options("tiny")},
    "learner torch": {*registry.options("torch")} - {"model"},
    "learner openrlhf": {*registry.options("openrlhf")} - {"model", "path"},
    "learner openrlhf_ray": {*registry.options("openrlhf_ray")} - fields(TorchOptions),  # as the actor is told them
    "learner vllm": {*registry.options("vllm")} - {"model"},
    "warm_start": fields(WarmStart),
    "server_options": {*ServerOptions.__annotations__},
    "transport file": parameters(FileTransport),
    "transport nccl": fields(Rendezvous),
    "resources": fields(ResourcesConfig),
    "resources.demands.ada": fields(Demand) - _SETTLED,
    "resources.demands.ada.phases.act": fields(Needs),
    "resources.patience": fields(Patience),
    "resources.assumptions": {"prompt_tokens", "response_tokens"},
    "executor processes": parameters(ProcessExecutor) - {*_GIVEN},
    "executor ray": parameters(RayExecutor) - {*_GIVEN},
}
TESTS: Mapping[str, list[str]] = {
    "learner tabular": [f"{SMALL}::test_an_option_of_a_table_moves_what_it_writes_or_learns"],
    "learner tiny": [
        f"{SMALL}::test_an_option_of_a_tiny_model_makes_another_model",
        f"{SMALL}::test_a_tiny_model_takes_every_option_of_the_torch_learner",
    ],
    "learner torch": [
        f"{TORCH}::test_an_option_moves_what_is_sampled_or_what_is_learnt",
        f"{TORCH}::test_an_option_of_memory_or_place_moves_no_number",
        "tests/models/test_real_models.py::test_the_published_models_are_taken_in_bfloat16",
    ],
    "learner openrlhf": [
        f"{ACTOR}::test_an_option_moves_what_is_sampled_or_what_is_learnt",
        f"{ACTOR}::test_an_option_of_memory_or_place_moves_no_number",
    ],
    "learner openrlhf_ray": [
        f"{ACTOR}::test_an_option_of_memory_or_place_moves_no_number",  # of the same actor
        f"{ACTOR}::test_options_of_the_cluster_reach_what_deepspeed_is_configured_with",
        "tests/openrlhf/test_openrlhf_cluster.py::test_any_number_of_actors_learns_what_the_torch_learner_learns",
        "tests/openrlhf/test_openrlhf_ring.py::test_a_ring_learns_what_one_rank_learns",
    ],
    "learner vllm": [
        f"{ENGINE}::test_an_option_of_sampling_moves_what_vllm_samples",
        f"{ENGINE}::test_the_options_of_the_trainer_reach_it",
        f"{ENGINE}::test_options_of_the_client_and_of_the_transport_reach_them",
        f"{ENGINE}::test_arguments_of_the_engine_are_read_back_from_it",
    ],
    "warm_start": [f"{SMALL}::test_an_option_of_a_warm_start_teaches_something_else"],
    "server_options": [f"{ENGINE}::test_options_of_the_client_and_of_the_transport_reach_them"],
    "transport file": [f"{ENGINE}::test_options_of_the_client_and_of_the_transport_reach_them"],
    "transport nccl": [f"{ENGINE}::test_options_of_the_client_and_of_the_transport_reach_them"],
    "resources": [
        f"{RESOURCES}::test_what_is_written_is_what_leases_are_made_of",
        f"{RESOURCES}::test_longer_texts_are_expected_to_take_longer",
        f"{RESOURCES}::test_options_of_an_executor_reach_it",
        f"{RUNS}/test_overlap.py::test_runs_that_overlap_leave_the_bytes_of_those_that_do_not",
        f"{RUNS}/test_beside.py::test_models_sample_beside_their_training_with_the_same_bytes",
        f"{RUNS}/test_numerics.py::test_a_native_run_is_left_as_the_environment_has_it",
        f"{RUNS}/test_resources.py::test_a_policy_lost_just_before_a_checkpoint_is_not_in_it",
    ],
    "resources.demands.ada": [f"{RESOURCES}::test_what_is_written_is_what_leases_are_made_of"],
    "resources.demands.ada.phases.act": [f"{RESOURCES}::test_what_is_written_is_what_leases_are_made_of"],
    "resources.patience": [f"{RESOURCES}::test_what_is_written_is_what_leases_are_made_of"],
    "resources.assumptions": [f"{RESOURCES}::test_longer_texts_are_expected_to_take_longer"],
    "executor processes": [f"{RESOURCES}::test_options_of_an_executor_reach_it"],
    "executor ray": ["tests/resources/test_ray.py::test_an_actor_that_dies_or_hangs_is_restarted_with_its_state"],
}


@cache
def top_level(path: str) -> dict[str, tuple[str, ast.AST]]:
    """What a module defines or takes from another test: each name, and where it stands."""
    found: dict[str, tuple[str, ast.AST]] = {}
    tree = ast.parse((ROOT / path).read_text())
    for node in (*tree.body, *(inner for inner in ast.walk(tree) if isinstance(inner, ast.ImportFrom))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = (path, node)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = (path, node)
            case ast.ImportFrom(module=str(module)) if module.startswith("tests."):
                others = top_level(f"{module.replace('.', '/')}.py")
                found |= {alias.name: others[alias.name] for alias in node.names if alias.name in others}
    return found


def words(test: str) -> set[str]:
    """All that a test is written with, and what it uses of its own module or of other tests'."""
    path, _, name = test.partition("::")
    seen: set[tuple[str, str]] = set()
    said: set[str] = set()
    ahead = [(path, name)]
    while ahead:
        place = ahead.pop()
        if place in seen or place[1] not in top_level(place[0]):
            continue
        seen.add(place)
        where, node = top_level(place[0])[place[1]]
        for word in named(node):
            said.add(word)
            ahead.append((where, word))
    return said


def named(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.Attribute(attr=name):
                yield name
            case ast.Constant(value=str(text)):
                yield from re.findall(r"\w+", text)


@pytest.mark.parametrize("owner", OPTIONS)
def test_every_option_is_named_by_a_test(owner: str) -> None:
    for test in TESTS[owner]:
        path, _, name = test.partition("::")
        assert name in top_level(path), f"{test} is not there"
    assert OPTIONS[owner] - set().union(*map(words, TESTS[owner])) == set()


CONFIG = """
rounds: 1
env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2}
policies: {ada: {learner: tabular}}
"""
TOY = {"kind": "char", "alphabet": "ab"}
WRONG: Mapping[str, object] = {"merges": [7], "tokenizer": 7}


def refused_learner(config: RunConfig, name: str, options: Mapping[str, object]) -> str:
    """What is said of a policy with these options."""
    config.policies["ada"] = PolicyConfig(name, dict(options))
    with pytest.raises(MutualEnvError) as raised:
        check(config)
    return str(raised.value)


def refused(owner: str, option: str, wrong: object, path: Path, config: RunConfig) -> str:
    """What is said of a configuration in which the option is this: the file's, or what was read from it."""
    kind, _, name = owner.partition(" ")
    given = {option: wrong}
    behind_a_server = {"path": "m", "server": "http://a"}
    match kind:
        case "learner":
            return refused_learner(config, name, {**({} if name in ("tabular", "tiny") else {"path": "m"}), **given})
        case "transport":
            return refused_learner(config, "vllm", {**behind_a_server, "transport": name, "transport_options": given})
        case "server_options":
            return refused_learner(config, "vllm", {**behind_a_server, "server_options": given})
        case "warm_start":
            return refused_learner(config, "tiny", {"seed": 0, "tokenizer": TOY, "warm_start": given})
    inside: object = given
    for key in reversed(kind.split(".")[1:] if kind != "executor" else ["options"]):
        inside = {key: inside}
    overrides = [f"resources={json.dumps(inside)}", *([f"resources.executor={name}"] if name else [])]
    with pytest.raises(MutualEnvError) as raised:
        check(load_run(path, overrides))
    return str(raised.value)


@pytest.mark.parametrize("owner", OPTIONS)
def test_a_value_of_another_type_is_refused_with_option_value_and_remedy(owner: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    config = load_run(path)
    for option in sorted(OPTIONS[owner] - {"name"}):  # the run says it
        wrong = WRONG.get(option, [["x"]])
        said, value = refused(owner, option, wrong, path, config), re.escape(repr(wrong))
        sentences = (
            rf"\b{option}\b.* must be .*, got {value}",
            rf"got {{'{option}': {value}}}: {option} must be ",  # of a mapping with fields
            rf"tokenizer from int {value}: give ",
        )
        assert any(re.search(sentence, said) for sentence in sentences), said
