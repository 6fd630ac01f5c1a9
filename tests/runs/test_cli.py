"""The command line: what a person types, and what they read when it was wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from learners.cli import main
from learners.commands import listing, train
from learners.commands import suite as suite_command

SUITE = """
name: pair
seeds: [0, 1]
totals: [share/rescued]
base:
  rounds: 4
  env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1}}
  policies:
    ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}
    bob: {learner: tabular, options: {tokenizer: {kind: pair, alphabet: "0123456789+=", merges: ["01"]}}}
  evaluation: {every: 2, prompts: 8, part: operation}
  checkpoint: {every: 2}
arms:
  alone: {sharing.strategy: independent}
  sgt: {sharing.strategy: sgt}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE + f"output: {tmp_path}\n")
    return path


def test_a_suite_runs_every_arm_over_every_seed_and_compares_them(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suite", str(suite)]) == 0
    printed = capsys.readouterr().out
    for word in ("before", "alone", "sgt", "ada", "bob", "add", "share/rescued", "report"):
        assert word in printed
    results = json.loads((tmp_path / "pair" / "results.json").read_text())
    assert [len(v) for v in results["rows"][0]["after"].values()] == [2, 2]
    assert (tmp_path / "pair" / "report.html").is_file()
    # again: every run is finished, so nothing is run, and the comparison is the same
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")}
    assert len(before) == 4
    assert main(["suite", str(suite)]) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")} == before


@pytest.mark.long
def test_a_suite_is_run_in_parts(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", str(suite), "--arm", "sgt", "--seed", "1"]) == 0
    runs = [path.parent for path in sorted((tmp_path / "pair").glob("*/*/run.json"))]
    assert runs == [tmp_path / "pair" / "sgt" / "seed_1"]
    first = (runs[0] / "metrics.jsonl").read_bytes()
    assert main(["suite", str(suite)]) == 0
    assert len(list((tmp_path / "pair").glob("*/*/run.json"))) == 4
    assert (runs[0] / "metrics.jsonl").read_bytes() == first
    capsys.readouterr()
    assert main(["suite", str(suite), "--arm", "stg"]) == 2
    assert "did you mean 'sgt'" in capsys.readouterr().err
    assert main(["suite", str(suite), "--seed", "7"]) == 2
    assert "unknown seed '7'" in capsys.readouterr().err


@pytest.mark.long
def test_a_suite_of_another_configuration_is_not_written_over(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", str(suite), "base.rounds=2", "seeds=[0]"]) == 0
    assert main(["suite", str(suite), "base.rounds=1", "seeds=[0]"]) == 2
    assert "holds a suite of another configuration: give --replace" in capsys.readouterr().err
    assert main(["suite", str(suite), "base.rounds=1", "seeds=[0]", "--replace"]) == 0


def test_a_run_that_fails_ends_the_suite_with_its_last_words(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["base.policies.ada.options.tokenizer.alphabet=xy", "seeds=[0]"]
    assert main(["suite", str(suite), *overrides]) == 1
    error = capsys.readouterr().err
    assert "ended with exit code 1" in error
    assert "characters outside the alphabet" in error


@pytest.mark.long
def test_one_run_of_a_suite_is_the_same_by_hand(suite: Path, tmp_path: Path) -> None:
    assert main(["suite", str(suite), "seeds=[1]", "--quiet"]) == 0
    by_suite = (tmp_path / "pair" / "sgt" / "seed_1" / "metrics.jsonl").read_bytes()
    assert main(["train", str(suite), "--arm", "sgt", "--seed", "1", f"output={tmp_path / 'by_hand'}", "--quiet"]) == 0
    assert (tmp_path / "by_hand" / "pair" / "sgt" / "seed_1" / "metrics.jsonl").read_bytes() == by_suite


def test_a_dry_run_prints_what_it_would_run_and_writes_nothing(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(suite), "--arm", "sgt", "--dry-run", "base.rounds=9"]) == 0
    assert "rounds: 9" in capsys.readouterr().out
    assert not (tmp_path / "pair").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "name a configuration file"),
        (["train", "nowhere.yaml"], "no configuration file nowhere.yaml"),
        (["train", "arithmetik"], "no configuration file arithmetik: did you mean arithmetic?"),
        (["suite", "quikstart"], "did you mean quickstart?"),
        (["suite", "quickstart", "rounds=3"], "below that it is written base.rounds"),
        (["eval", "{folder}/runs/begun", "--like", "nowhere.yaml"], "--like is for a directory with a model"),
        (["eval", "{folder}/runs/begum"], "did you mean {folder}/runs/begun?"),
        (["train", "arithmetic", "env.id=dataset/jsonl-v0", "env.options={path: {folder}/suit.yaml}"], "suite.yaml'?"),
        (["plan", "arithmetic", "--picture", "{folder}/none/x.svg"], "none/x.svg: No such file or directory"),
        (["new", "task", "x", "--directory", "{suite}"], "x"),
        (["train", "{suite}"], "is a suite: run all of it with `mutual-env suite`, or --arm alone|sgt"),
        (["train", "--resume", "nowhere"], "is not a run directory"),
        (["train", "{suite}", "--arm", "sgt", "base.rounds={"], "is not YAML"),
        (["suite", "y" * 300], "File name too long"),
        (["train", "arithmetic", "trackers=[[tensorboard]]", "--dry-run"], "trackers"),
        (["report", "nowhere"], "is not a run directory"),
        (["view", "nowhere"], "is not a run directory"),
        (["eval", "nowhere"], "nowhere does not exist"),
        (["compare", "nowhere"], "nowhere holds no suite, no run"),
        (["export", "nowhere", "ada", "out"], "nowhere does not exist"),
        (["models", "convert", "no.gguf", "out"], "no.gguf does not exist"),
        (["models", "fetch", "smolm2"], "did you mean 'smollm2'"),
        (["bridge", "gpt2", "gemma3", "nowhere.txt"], "cannot read nowhere.txt"),
        (["report", "{folder}/runs"], "is not a run directory: it has no run.json; it holds begun: name one"),
        (["train", "arithmetic", "env.id=dataset/jsonl-v0", "env.options={path: nowhere.jsonl}"], "does not exist"),
        (["new", "task", "here", "--directory", "{folder}"], "is there already"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence_and_exit_code_2(
    suite: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (suite.parent / "here").mkdir()
    (suite.parent / "runs" / "begun").mkdir(parents=True)
    (suite.parent / "runs" / "begun" / "run.json").write_text("{}")
    given = [word.replace("{suite}", str(suite)).replace("{folder}", str(suite.parent)) for word in arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence.replace("{folder}", str(suite.parent)) in error


def test_words_that_are_no_override_are_refused(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(suite), "--arm", "sgt", "--sead", "1"])
    assert "unrecognized arguments: --sead 1: did you mean --seed?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["bridge", "gpt2", "gemma3", "--file", "x"])
    assert "did you mean" not in capsys.readouterr().err  # the file has no dashes


def test_what_can_be_named_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "envs", "knights"]) == 0
    assert capsys.readouterr().out == "logic/knights-knaves-v0\nreasoning_gym/knights_knaves-v0\n"
    for kind, name in (("strategies", "sgt"), ("learners", "tabular"), ("verifiers", "math_verify")):
        assert main(["list", kind]) == 0
        assert name in capsys.readouterr().out.splitlines()


GREETER = """
class Greet:
    '''Say hello: it is 100% polite.'''
    def add_arguments(self, parser):
        parser.add_argument("whom")
    def run(self, args):
        print(f"hello {args.whom}")
        return 7
"""


def test_a_command_of_another_package_is_one_class_and_stands_in_the_help(
    install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme_greeter", "[mutual_env.commands]\ngreet = acme_greeter:Greet\n", GREETER)
    assert main(["greet", "ada"]) == 7
    assert capsys.readouterr().out == "hello ada\n"
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "Say hello: it is 100% polite" in capsys.readouterr().out


def test_a_command_that_cannot_be_loaded_says_so_and_leaves_ours_alone(
    install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme_broken", "[mutual_env.commands]\nbroken = acme_broken\n", "raise RuntimeError('no licence')\n")
    assert main(["list", "learners"]) == 0
    capsys.readouterr()
    assert main(["broken", "--any", "thing"]) == 1
    assert "'broken' cannot be loaded: RuntimeError: no licence" in capsys.readouterr().err


def test_names_come_with_what_they_are_their_options_and_the_extra_they_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "strategies", "sgt", "--json"]) == 0
    (sgt,) = json.loads(capsys.readouterr().out)
    assert sgt["options"]["weight"].endswith("= 0.1")
    assert "peer" in sgt["says"]
    assert main(["list", "strategies", "grpo", "--long"]) == 0
    assert "another name of independent" in capsys.readouterr().out
    assert main(["list", "learners", "torch", "--options"]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate: float = 1e-05" in printed
    assert main(["list", "envs", "knights_knaves", "--long"]) == 0
    assert "gym" in capsys.readouterr().out
    for kind in ("envs", "strategies", "learners", "losses", "verifiers", "exchanges", "tokenizers"):
        assert main(["list", kind, "--long"]) == 0
        described = capsys.readouterr().out
        assert described.count("\n") > 2, kind


def test_a_filter_that_finds_nothing_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "strategies", "sggt"]) == 2
    assert "did you mean 'sgt'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train", "x.yaml", "--rounds", "5"], "settings are written without dashes, rounds=VALUE"),
        (["train", "x.yaml", "--dry-rn"], "did you mean --dry-run?"),
        (["list", "strategy"], "did you mean 'strategies'?"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert sentence in capsys.readouterr().err


def test_a_shell_can_complete_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="the extra completion")
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        printed = capsys.readouterr().out
        assert "compare" in printed
        assert "--dry-run" in printed


def test_only_what_has_runs_is_told_how_a_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    for words, command, says in (
        (["list", "envs"], listing, "interrupted\n"),
        (["train", "arithmetic"], train, "interrupted: a run goes on from its last checkpoint"),
        (["suite", "quickstart"], suite_command, "interrupted: the same command goes on where it stopped"),
    ):
        monkeypatch.setattr(command, "run", interrupted)
        assert main(words) == 130
        assert capsys.readouterr().err.startswith(says)


def test_a_run_that_was_begun_is_named_where_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write_run_report", interrupted)
    assert main(["train", "arithmetic", "rounds=1", "evaluation.every=0", f"output={tmp_path}", "--quiet"]) == 130
    assert f"`mutual-env train --resume {tmp_path / 'arithmetic'}`" in capsys.readouterr().err
