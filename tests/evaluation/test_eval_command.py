"""`mutual-env eval` and `mutual-env compare`, from the files of real runs to the printed table."""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

import pytest

from learners.cli import main
from learners.evaluation import outcomes
from learners.run.config import load_run
from learners.run.results import read_run
from learners.run.subject import find
from learners.run.training import train
from mutual_env.errors import ConfigError, StorageError, UnknownNameError

CONFIG = """
name: r
rounds: 6
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1, modulus: 10}}
sharing: {strategy: sgt}
policies:
  ada:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, max_new_tokens: 2, learning_rate: 60}
  bob:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, max_new_tokens: 2, learning_rate: 60}
evaluation: {every: 3, prompts: 12, samples: 2, part: operation}
checkpoint: {every: 3, keep: 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    path = root / "run.yaml"
    path.write_text(CONFIG + f"output: {root}\n")
    return train(load_run(path)).directory


def evaluated(run: Path, *words: str) -> dict[str, tuple[outcomes.Answered, ...]]:
    out = run.parent / "out"
    assert main(["eval", str(run), "--out", str(out), *words]) == 0
    return outcomes.read(out)


def test_the_evaluation_of_a_checkpoint_is_the_one_that_the_run_made_then(run: Path) -> None:
    curves = read_run(run).evaluations
    for words, round_ in (((), 6), (("--round", "3"), 3)):
        found = evaluated(run, *words)
        for policy, items in found.items():
            mean = sum(s.correct for item in items for s in item.samples) / 24
            assert dict(curves[policy]["accuracy"])[round_] == pytest.approx(mean)
    by_checkpoint = run / "checkpoints" / "round_00000003"
    assert main(["eval", str(by_checkpoint), "--out", str(run.parent / "third")]) == 0
    assert outcomes.read(run.parent / "third") == evaluated(run, "--round", "3")


def test_samples_and_what_they_are_of_are_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--policy", "ada", "--samples", "4", "--temperature", "0.5", "--json"]) == 0
    (sheet,) = json.loads(capsys.readouterr().out).values()
    assert {row["measure"] for row in sheet} == {"mean@4", "pass@2", "pass@4", "maj@2", "maj@4"}
    kept = run / "evaluations" / "round_00000006-12x4-temperature_0.5-ada"
    (items,) = outcomes.read(kept).values()
    assert {len(item.samples) for item in items} == {4}
    assert items[0].samples[0].tokens > 0
    assert outcomes.read_about(kept)["settings"] == {"temperature": 0.5}


def test_an_evaluation_replaces_what_the_same_one_gave_and_nothing_else(run: Path) -> None:
    own = ["--samples", "1", "--prompts", "2"]
    before = set((run / "evaluations").glob("*"))
    for words in (["--policy", "ada"], ["--policy", "bob"], ["env.options.digits=2"], [], ["--policy", "ada"]):
        assert main(["eval", str(run), *own, *words]) == 0
    kept = set((run / "evaluations").glob("*")) - before
    assert sorted(tuple(outcomes.read(path)) for path in kept) == [("ada",), ("ada", "bob"), ("ada", "bob"), ("bob",)]


@pytest.mark.parametrize(
    "env",
    [
        "{id: mutual/guess-v0, options: {limit: 8}}",
        "{id: mutual/debate-v0, options: {family: mutual/arithmetic-v0, digits: 1}}",
        "{id: mutual/undercut-v0}",
        "{id: mutual/judged-v0, options: {family: mutual/arithmetic-v0, digits: 1}}",
    ],
)
def test_conversations_are_evaluated_to_their_end_with_everybody_who_takes_part(env: str, tmp_path: Path) -> None:
    toy = {"kind": "char", "alphabet": string.printable}
    table = json.dumps({"learner": "tabular", "options": {"tokenizer": toy, "alphabet": "0123y", "max_new_tokens": 2}})
    seats = f"seats: {{judge: {table}}}\n" if "judged" in env else ""
    (tmp_path / "run.yaml").write_text(
        f"name: r\nrounds: 1\noutput: {tmp_path}\nenv: {env}\npolicies: {{ada: {table}, bob: {table}}}\n{seats}"
        "evaluation: {every: 1, prompts: 4, samples: 6}\n"
    )
    run = train(load_run(tmp_path / "run.yaml")).directory
    for policy, items in evaluated(run).items():
        right = sum(s.correct for item in items for s in item.samples)
        assert read_run(run).evaluations[policy]["accuracy"][-1] == (1, pytest.approx(right / 24)), policy


def test_greedy_is_the_same_sample_whatever_the_seed(tmp_path: Path) -> None:
    tiny = "{learner: tiny, options: {tokenizer: {kind: char, alphabet: '0123456789+=()%'}, max_new_tokens: 4}}"
    path = tmp_path / "run.yaml"
    path.write_text(f"rounds: 1\noutput: {tmp_path}\nenv: {{prompts_per_round: 2}}\npolicies: {{ada: {tiny}}}\n")
    greedy = find(train(load_run(path)).directory).sampled_with({}, greedy=True).learner("ada")
    texts = [[[c.text for c in group] for group in greedy.act(["1+2=", "3+4="], 3, seed=seed)] for seed in (1, 2)]
    assert texts[0] == texts[1]
    assert all(len({*group}) == 1 for group in texts[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--greedy"], "--greedy gives the same sample every time"),
        (["--greedy", "--samples", "1", "--top-p", "0.9"], "--greedy already says"),
        (["--policy", "adda"], "unknown policy 'adda': did you mean 'ada'"),
        (["--round", "2"], "keeps no checkpoint after 2 rounds: it has those after [3, 6]"),
        (["--top-p", "0.9"], "unknown option of learner 'tabular' 'top_p'"),
        (["evaluation.prompts=999"], "999"),
    ],
)
def test_what_cannot_be_evaluated_is_said(run: Path, words: list[str], sentence: str, capsys) -> None:
    assert main(["eval", str(run), *words]) != 0
    assert sentence in capsys.readouterr().err


def test_what_is_no_subject_is_refused_with_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist: give a run's directory"):
        find(tmp_path / "none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a model, which says nothing of tasks"):
        find(tmp_path)
    with pytest.raises(UnknownNameError):
        find(tmp_path, ["env.id=mutual/arithmetic-v0"]).only(["ada"])


@pytest.mark.long
def test_arms_and_evaluations_are_compared_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.yaml"
    base = "\n".join("  " + line for line in CONFIG.splitlines() if not line.startswith("name"))
    arms = "arms: {alone: {sharing.strategy: independent}, sgt: {sharing.strategy: sgt}}"
    suite.write_text(f"name: pair\noutput: {tmp_path}\nseeds: [0, 1, 2]\nbase:{base}\n{arms}\n")
    assert main(["suite", str(suite), "--quiet"]) == 0
    capsys.readouterr()
    pair = str(tmp_path / "pair")
    assert main(["compare", pair, "--measure", "accuracy", "--json"]) == 0
    rows, *agreed = json.loads(capsys.readouterr().out).values()
    assert [pair["pair"] for (pair,) in agreed] == ["ada, bob"] * 6
    shares = [sum(pair[k] for k in ("both", "only first", "only second", "neither")) for (pair,) in agreed]
    assert shares == pytest.approx([1.0] * 6)
    assert [(row["arm"], row["policy"], row["pairs"]) for row in rows] == [("sgt", "ada", 3), ("sgt", "bob", 3)]
    assert main(["compare", f"{pair}/alone", f"{pair}/sgt", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("arm,policy,measure,alone,value,difference,95 %_low,95 %_high,effect,p,")
    for arm in ("alone", "sgt"):
        assert main(["eval", f"{pair}/{arm}/seed_0", "--out", str(tmp_path / arm)]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "alone"), str(tmp_path / "sgt"), "--format", "latex"]) == 0
    printed = capsys.readouterr().out
    assert "sgt & ada & accuracy" in printed
    assert r"$\kappa$" in printed


def kept_run(path: Path, seed: int, evaluated: dict[int, float]) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(CONFIG)
    (path / "run.json").write_text(json.dumps({"name": "r", "seed": seed, "status": "finished", "versions": {}}))
    lines = [{"round": at, "policy": "ada", "evaluation": {"accuracy": value}} for at, value in evaluated.items()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def compared(capsys: pytest.CaptureFixture[str], *paths: Path) -> list[dict]:
    assert main(["compare", *map(str, paths), "--json"]) == 0
    return next(iter(json.loads(capsys.readouterr().out).values()))


def test_runs_are_compared_where_all_were_evaluated_and_only_where_they_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1, 2):
        kept_run(tmp_path / "a" / f"s{seed}", seed, {0: 0.1, 5: 0.2 + seed / 100, 7: 0.9})
        kept_run(tmp_path / "b" / f"s{seed}", seed, {0: 0.1, 5: 0.5, 10: 0.6})
        kept_run(tmp_path / "c" / f"s{seed}", seed + 3, {5: 0.5})
    (row,) = compared(capsys, tmp_path / "a", tmp_path / "b")
    assert (row["a"], row["value"], row["pairs"]) == (pytest.approx(0.21), 0.5, 3)  # after 5: the last that all have
    kept_run(tmp_path / "e" / "x", 0, {5: 0.1})
    kept_run(tmp_path / "e" / "y", 0, {5: 1.0})
    late = kept_run(tmp_path / "d", 0, {3: 0.5})
    for wrong, sentence in (
        ([tmp_path / "a", tmp_path / "c"], "no two arms have a policy and a seed in common: a has ada and seeds 0, 1"),
        ([tmp_path / "a" / "s0", late], "no number of rounds after which all were"),
        ([tmp_path / "a", tmp_path / "e"], "both runs of seed 0"),
    ):
        assert main(["compare", *map(str, wrong)]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["compare", *(str(tmp_path / arm) for arm in "abc")]) == 0
    assert "Left out: c has ada and seeds 3, 4, 5" in " ".join(capsys.readouterr().out.split())


def test_models_under_their_own_names_are_compared_as_models(tmp_path: Path, capsys) -> None:
    for name, right in (("base", [True, False]), ("tuned", [True, True])):
        judged = [outcomes.Judged("1", float(r), r, "ok") for r in right]
        items = [outcomes.Answered(name, f"t{i}", "?", "1", "", (one,)) for i, one in enumerate(judged)]
        outcomes.write(tmp_path / name, items, {})
    (row,) = compared(capsys, tmp_path / "base", tmp_path / "tuned")
    assert (row["policy"], row["difference"], row["pairs"]) == ("model", 0.5, 2)


def test_one_run_alone_shows_how_its_policies_agree(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run), "--json"]) == 0
    (agreed,) = json.loads(capsys.readouterr().out).values()
    assert agreed[0]["pair"] == "ada, bob"


@pytest.mark.parametrize("missing", ["scipy.stats", "scorio"])
def test_a_missing_extra_is_said_before_anything_is_sampled(
    missing: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed: the import fails
    out = run.parent / f"without-{missing}"
    assert main(["eval", str(run), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "pip install 'mutual-env[stats]'" in said
    assert "answered" not in said
    assert not out.exists()
