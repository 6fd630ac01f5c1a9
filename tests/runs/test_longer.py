"""More rounds for a run that was begun with fewer: as if so many had been meant from the start, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from learners.cli import main
from learners.run.config import changed, load_run
from learners.run.directory import RunDirectory
from learners.run.training import Result, resume, train
from mutual_env.errors import ConfigError

CONFIG = """
name: whole
rounds: 12
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 4, options: {digits: 1, modulus: 4}}
sharing: {strategy: sgt}
policies:
  ada:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, alphabet: "0123", max_new_tokens: 1}
  bob:
    learner: tabular
    options: {tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["%1"]}, alphabet: "0123", max_new_tokens: 1}
evaluation: {every: 4, prompts: 4}
checkpoint: {every: 5}
"""
FILES = ("metrics.jsonl", "samples.jsonl", "lessons.jsonl", "evaluations.jsonl")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


def contents(directory: Path) -> dict[str, bytes]:
    last = max((directory / "checkpoints").glob("round_*"))
    learnt = {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.glob("[!.]*/*"))}
    return {name: (directory / name).read_bytes() for name in FILES} | learnt


def prolonged(config_file: Path, *overrides: str, to: tuple[str, ...] = ("rounds=12",)) -> Result:
    short = train(load_run(config_file, ["name=short", "rounds=7", *overrides])).directory
    return resume(short, changed(load_run(short / "config.yaml"), to))


@pytest.mark.parametrize("overrides", [[], ["evaluation.every=7"], ["sharing.exchange=memory", "evaluation.every=0"]])
def test_a_finished_run_goes_on_bit_for_bit_as_if_it_had_been_longer(config_file: Path, overrides: list[str]) -> None:
    # 7 rounds with evaluations at 0, 4 and 7, of which 7 would not have been made; 12 with 0, 4, 8, 12
    expected = train(load_run(config_file, overrides)).directory
    result = prolonged(config_file, *overrides)
    assert result.rounds == 12
    assert contents(result.directory) == contents(expected)
    info = RunDirectory(result.directory).read_info()
    assert (info["status"], info["config"]["rounds"]) == ("finished", 12)
    assert info["resumed"][-1]["changed"] == {"rounds": [7, 12]}


def test_where_policies_would_not_have_met_an_asynchronous_run_is_refused(config_file: Path) -> None:
    apart = ["resources.mode=asynchronous", "sharing.options={max_staleness: 2}"]
    with pytest.raises(ConfigError, match=r"from 7 to 12 rounds .* there would have been none"):
        prolonged(config_file, *apart)
    status = RunDirectory(config_file.parent / "short").read_info()
    assert (status["status"], status["config"]["rounds"]) == ("finished", 7)
    expected = train(load_run(config_file, [*apart, "evaluation.every=7"])).directory
    result = prolonged(config_file, *apart, "evaluation.every=7", "name=meets")
    assert contents(result.directory) == contents(expected)


def test_where_less_would_have_been_kept_for_reading_it_is_refused_unless_there_is_more_room(config_file: Path) -> None:
    # two policies, two files: .012 MB over 7 rounds are 428 bytes each, over 12 they are 250; .0206 are 429
    tight = "record.megabytes=0.012"
    with pytest.raises(ConfigError, match=r"Raise record\.megabytes with the rounds"):
        prolonged(config_file, tight)
    roomy = train(load_run(config_file, ["record.megabytes=0.4"])).directory
    result = prolonged(config_file, "record.megabytes=0.2", "name=other", to=("rounds=12", "record.megabytes=0.4"))
    assert contents(result.directory) == contents(roomy)


def test_rounds_are_raised_on_the_command_line_and_nothing_else_is(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config_file), "rounds=2", "--quiet"]) == 0
    run = str(config_file.parent / "whole")
    assert main(["train", "--resume", run, "rounds=4", "--quiet"]) == 0
    assert RunDirectory(Path(run)).read_info()["config"]["rounds"] == 4
    capsys.readouterr()
    assert main(["train", "--resume", run, "seed=4"]) == 2
    assert "leave out seed=4 (only rounds and record.megabytes may be raised)" in capsys.readouterr().err
    assert main(["train", "--resume", run, "rounds=3"]) == 2
    assert "rounds: 4, now 3" in capsys.readouterr().err
