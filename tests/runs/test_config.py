"""A configuration is complete, typed, and refuses what it does not know with the remedy in the sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from learners.run.check import check
from learners.run.config import RunConfig, arm_config, is_suite, load_run, load_suite, to_yaml
from learners.run.envs import Envs
from mutual_env.errors import ConfigError, InvalidInputError, MissingExtraError, MutualEnvError
from sharing.exchange import InMemoryExchange
from tests.tiers import long

PACKAGES = {"vllm": "vllm", "openrlhf_ray": "openrlhf"}  # of learners with an environment of their own
CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))

RUN = """
rounds: 3
policies:
  ada: {learner: tabular, options: {learning_rate: 0.5, tokenizer: {kind: char, alphabet: "0123456789+="}}}
"""
SUITE = """
name: pair
seeds: [4, 5]
base:
  rounds: 3
  policies: {ada: {learner: tabular}}
arms:
  alone: {sharing.strategy: independent}
  sgt: {sharing.strategy: sgt, sharing.options: {weight: 0.2}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def test_a_file_overrides_defaults_and_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, RUN)
    config = load_run(path, ["rounds=5", "policies.ada.options.learning_rate=0.25", "env.options.digits=[1,2]"])
    assert (config.rounds, config.env.group_size) == (5, 8)
    assert config.policies["ada"].options["learning_rate"] == 0.25
    assert config.env.options == {"digits": [1, 2]}


def test_the_resolved_configuration_loads_as_itself(tmp_path: Path) -> None:
    config = load_run(written(tmp_path, RUN), ["seed=7"])
    again = tmp_path / "resolved.yaml"
    again.write_text(to_yaml(config))
    assert load_run(again) == config


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("round=5", "unknown key 'round': did you mean 'rounds'?"),
        ("env.group_sise=3", "unknown key 'env.group_sise': did you mean 'group_size'?"),
        ("policies.ada.lerner=a", "unknown key 'policies.ada.lerner': did you mean 'learner'?"),
        ("rounds=many", "rounds must be a whole number, got 'many'"),
        ("rounds", "override 'rounds' must have the form key.path=value"),
        ("env.group_size=0", "env.group_size must be at least 1, got 0"),
        ("env.max_turns=0", "env.max_turns must be at least 1, got 0"),
        (f"env.prompts_per_round={2**63}", "env.prompts_per_round must be at most 1,000,000, got 9,223,372"),
        (f"evaluation.samples={2**40}", "evaluation.samples must be at most 1,000,000, got 1,099,511,627,776"),
        ("env.max_tokens=-3", "env.max_tokens must be at least 1, got -3"),
        ("env.max_turns=two", "env.max_turns must be a whole number or null, got 'two'"),
        ("sharing.exchange=disk", "sharing.exchange must be one of sqlite, memory, ray, got 'disk'"),
        ("teachers.ada.learner=tabular", "teachers.ada is also a policy"),
        ("sharing=sgt", "sharing: it is a section: write sharing.KEY=VALUE"),
        ("env.verifier=numeric", "below that it is written env.options.verifier"),
        ("policies.adda.options.learning_rate=1", "unknown policies 'adda': did you mean 'ada'? (a new one begins"),
    ],
)
def test_a_wrong_override_is_refused_with_the_remedy(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(written(tmp_path, RUN), [override])
    assert sentence in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, RUN)
    with pytest.raises(ConfigError, match=r"no configuration file .*y\.yaml: did you mean .*x\.yaml"):
        load_run(tmp_path / "y.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "is not valid YAML"), ("- a", "must hold a mapping"), ("rounds: 1", "policies is empty")],
)
def test_a_file_that_is_no_run_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_run(written(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env.id=mutual/aritmetic-v0", "mutual/arithmetic-v0"),
        ("env.options.digit=3", "did you mean 'digits'"),
        ("env.max_turns=2", "ends after one turn"),
        ("verifiers.isolation=containr", "did you mean 'container'"),
        ("sharing.strategy=sgtt", "did you mean 'sgt'"),
        ("sharing.options.wait_=1", "'wait'"),
        ("sharing.exchange_options.time_out=1", "did you mean 'timeout'"),
        ("sharing.exchange_options.path=x", "leave the option 'path' out"),
        ("policies.ada.learner=tabula", "did you mean 'tabular'"),
        ("policies.ada.options.learning_rat=1", "did you mean 'learning_rate'"),
        (
            "policies.ada.options.learning_rate=fast",
            "policies.ada: option 'learning_rate' of learner 'tabular' must be a finite number, got 'fast'",
        ),
        ("policies.ada.options.learning_rate=.nan", "'learning_rate' of learner 'tabular' must be a finite number"),
        ("policies.ada.options.path=1.5", "unknown option of learner 'tabular' 'path'"),
        ("policies.ada.options.temperature=0", "temperature of learner 'ada' must be above 0"),
        ("policies.ada.options.name=eve", "leave the option 'name' out"),
        ("policies.ada.options.tokenizer=5", "policies.ada: "),
        ("policies.bob.learner=tiny", "policies.bob: learner 'tiny' needs the option 'tokenizer'"),
        (
            "policies.bob={learner: tiny, options: {architecture: qwen, tokenizer: {kind: char, alphabet: a}}}",
            "known: ",
        ),
        ("policies.bob={learner: torch, options: {path: m/none}}", "policies.bob: path='m/none' does not exist"),
        ("policies.bob={learner: torch, options: {path: m, top_k: many}}", "must be a whole number, got 'many'"),
        ("policies.bob={learner: torch}", "policies.bob: give either path"),
        (
            "sharing={strategy: sgt, options: {weight: .nan}}",
            "'weight' of strategy 'sgt' must be a finite number",
        ),
        ("sharing={strategy: sgt, options: {wait: .inf, peers: [ada]}}", "'wait' of strategy 'sgt' must be a finite"),
        ("sharing={strategy: sgt, options: {limits: {max_tokens: x}}}", "option 'max_tokens' of limits"),
        ("sharing={strategy: trrd}", "strategy 'trrd' needs the option 'teacher' (a text)"),
        ("sharing={strategy: trrd, options: {teacher: eve}}", "unknown sharing.options.teacher 'eve'"),
        ("sharing.exchange_options.timeout=long", "option 'timeout' of exchange 'sqlite' must be a finite number"),
        ("env.options.digits=many", "option 'digits' of mutual/arithmetic-v0 must be a whole number, got 'many'"),
        ("env.options.group_size=4", "env.options.group_size is not for the task family to say: set env.group_size"),
        ("evaluation={every: 1, prompts: 500, options: {digits: 1, split: eval}}", "evaluation.prompts=500: "),
        ("resources.devices=9999999999x9999999999:1", "nodes must be 1 to 4096"),
        (
            "resources={executor: processes, options: {threads: many}}",
            "'threads' of executor 'processes' must be",
        ),
        ("resources.demands={ada: 5}", "resources.demands.ada must be a mapping"),
        ("resources.patience={limit: .inf}", "option 'limit' of resources.patience must be a finite number"),
        ("output=/proc/nowhere", "output: /proc/nowhere/run cannot be written to"),
    ],
)
def test_a_dry_run_finds_what_only_the_parts_know(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(MutualEnvError) as caught:
        check(load_run(written(tmp_path, RUN), [override]))
    assert sentence in str(caught.value)


def test_two_policies_that_put_their_weights_into_one_server_are_refused(tmp_path: Path) -> None:
    """Adapters lie beside one another there; and a server in another's list is the same server."""
    options = {"ada": "server: http://a:8000/", "bob": "server: 'http://b:8000, http://a:8000'"}
    policies = "".join(
        f"  {name}: {{learner: vllm, options: {{path: m, {server}}}}}\n" for name, server in options.items()
    )
    run = load_run(written(tmp_path, f"rounds: 3\npolicies:\n{policies}"))
    with pytest.raises(
        InvalidInputError, match=r"policies.ada and policies.bob both put their weights into http://a:8000,"
    ):
        check(run, here=False)
    adapter = [f"policies.{name}.options.{o}" for name in options for o in ("transport=adapter", "lora_rank=8")]
    check(load_run(tmp_path / "x.yaml", adapter), here=False)


def test_the_bounds_of_a_conversation_reach_the_envs_of_training_and_of_evaluation(tmp_path: Path) -> None:
    bounds = ["env.id=mutual/guess-v0", "env.max_turns=2", "env.max_tokens=9", "evaluation.every=1"]
    config = load_run(written(tmp_path, RUN), bounds)
    envs = Envs.of(config, apart=False)
    held_out = envs.held_out(["ada"])
    for env in (envs.shared(["ada"], InMemoryExchange()), held_out):
        assert (env.unwrapped.max_turns, env.unwrapped.spec.max_tokens) == (2, 9)  # type: ignore[union-attr]


def test_an_arm_is_the_base_with_its_overrides_and_a_seed(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, SUITE))
    config = arm_config(suite, "sgt", 5)
    assert (config.name, config.seed, config.rounds) == ("pair/sgt/seed_5", 5, 3)
    assert (config.sharing.strategy, config.sharing.options) == ("sgt", {"weight": 0.2})
    assert arm_config(suite, "alone", 5).sharing.options == {}


def test_an_arm_with_an_unknown_key_is_refused_when_the_suite_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"arms\.sgt: unknown key 'sharing\.strateggy': did you mean 'strategy'"):
        load_suite(written(tmp_path, SUITE.replace("sgt: {sharing.strategy", "sgt: {sharing.strateggy")))


def put_in_place(config: RunConfig) -> None:
    """What a configuration names and does not bring: a directory for each model, rows of the published form."""
    for policy in (*config.policies.values(), *config.teachers.values()):
        if "path" in policy.options:
            model = Path(policy.options["path"])
            model.mkdir(parents=True, exist_ok=True)
            (model / "config.json").write_text("{}")
            (model / "model.safetensors").touch()
    for key in ("path", "eval_path"):
        if key in config.env.options:
            rows = Path(config.env.options[key])
            rows.parent.mkdir(parents=True, exist_ok=True)
            table = [{"problem": f"{key}: what is {i}+{i}?", "answer": str(2 * i)} for i in range(600)]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), rows)


@pytest.mark.parametrize(
    "path",
    [long(path) if path.name.startswith("qwen-llama") else path for path in CONFIGS],  # laid out on every device
    ids=lambda path: path.name,
)
def test_every_shipped_configuration_is_accepted_by_its_parts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = load_suite(path) if is_suite(path) else None
    configs = [arm_config(suite, arm, suite.seeds[0]) for arm in suite.arms] if suite else [load_run(path)]
    for config in configs:
        put_in_place(config)
        before = sorted(tmp_path.rglob("*"))
        lacking = [p.learner for p in config.policies.values() if find_spec(PACKAGES.get(p.learner, "torch")) is None]
        check(config, here=not lacking)
        if lacking:
            with pytest.raises(MissingExtraError, match="pip install"):
                check(config)
        assert sorted(tmp_path.rglob("*")) == before
        if config.env.id == "math/jsonl-v0":
            with pytest.raises(InvalidInputError, match=r"evaluation\.prompts=700: "):
                check(replace(config, evaluation=replace(config.evaluation, prompts=700)))


def test_there_are_shipped_configurations() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


def test_options_given_as_a_whole_on_the_command_line_replace_those_of_the_file(tmp_path: Path) -> None:
    # They may be another strategy's; a single one is set beside the others.
    path = written(tmp_path, RUN + "sharing: {strategy: trrd, options: {teacher: ada, alpha: 0.3}}\n")
    whole = load_run(path, ["sharing.strategy=sgt", "sharing.options={weight: 0.2}"])
    assert whole.sharing.options == {"weight": 0.2}
    assert load_run(path, ["sharing.options={}"]).sharing.options == {}
    single = load_run(path, ["sharing.options.alpha=0.4", "policies.ada.options.learning_rate=0.1"])
    assert single.sharing.options == {"teacher": "ada", "alpha": 0.4}
    assert single.policies["ada"].options["tokenizer"]["kind"] == "char"
    assert load_run(path, ["policies.ada.options={learning_rate: 2}"]).policies["ada"].options == {"learning_rate": 2}
    with pytest.raises(ConfigError, match="sharring"):
        load_run(path, ["sharring.options={weight: 0.2}"])


def test_the_comparisons_that_the_recipe_of_rlad_names_are_configurations() -> None:
    path = Path(__file__).parents[2] / "configs" / "recipes" / "rlad-kk-qwen3-0.6b.yaml"
    lines = re.findall(r"sharing\.strategy=(\w+) '(sharing\.options=[^']*)'", path.read_text())
    assert [strategy for strategy, _ in lines] == ["independent", "kdrl", "topd"]
    for strategy, options in lines:
        check(load_run(path, [f"sharing.strategy={strategy}", options]), here=False)
    assert load_run(path).sharing.options["log_ratio_limit"] == 1.0
    assert load_run(path).policies["student"].options["aggregation"] == "sequence_mean"
