"""The page of evidence says what its result files say, and they say what the runs of a suite came to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.evidence import results
from benchmarks.evidence.analysis import (
    at_equal,
    at_equal_rollouts,
    at_equal_seconds,
    at_the_end,
    differences,
    verdicts,
)
from benchmarks.evidence.hypotheses import HYPOTHESES
from benchmarks.evidence.page import write_page
from benchmarks.evidence.results import CONFIGS, Family, collect, family_file, runs_of
from learners.run.config import load_suite
from learners.run.results import RunResults
from learners.run.suite import run_suite
from mutual_env.errors import StorageError
from tests.runs.test_cli import SUITE

ROOT = Path(__file__).parent.parent


def test_the_page_and_its_figures_are_those_of_the_result_files(tmp_path: Path) -> None:
    for path in write_page(tmp_path):
        kept = ROOT / "docs" / path.relative_to(tmp_path)
        assert kept.read_text() == path.read_text(), (
            f"{kept} is not what its data say: python -m benchmarks.evidence page"
        )


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_family_has_a_baseline_and_its_seeds(file: Path) -> None:
    suite = load_suite(file)
    assert "grpo" in suite.arms
    pretrained = file.stem in ("real", "teacher", "knights")  # as many as there is time for
    assert suite.seeds == list(range(5 if pretrained else 10))
    assert suite.base.resources.instructions == "avx2"
    assert suite.base.resources.threads == 1
    assert runs_of(file.stem) == f"mutual-env suite configs/evidence/{file.stem}.yaml"


def test_every_hypothesis_is_about_arms_that_are_run() -> None:
    suites = {name: load_suite(family_file(name)) for name in {hypothesis.family for hypothesis in HYPOTHESES}}
    for hypothesis in HYPOTHESES:
        suite = suites[hypothesis.family]
        assert {hypothesis.arm, hypothesis.baseline} <= {*suite.arms}
        assert {*hypothesis.policies} <= {*suite.base.policies}


def family(**curves: list[list[float]]) -> Family:
    """One policy; each arm has a curve over rounds 0, 50, 100 for each seed, a token a round, two for `costly`."""
    arms = {
        arm: {
            "llama": {
                "accuracy": {str(seed): curve for seed, curve in enumerate(of)},
                "tokens": {str(s): [0, 50, 100] if arm != "costly" else [0, 100, 200] for s in range(len(of))},
            }
        }
        for arm, of in curves.items()
    }
    return Family("letters", {"seeds": [0, 1, 2]}, (0, 50, 100), ("llama",), arms)


def test_budgets_are_read_between_evaluations() -> None:
    grpo = [[0.0, 0.2, 0.4], [0.0, 0.2, 0.4], [0.0, 0.2, 0.4]]
    two = [[0.0, 0.3, 0.5], [0.0, 0.4, 0.6], [0.0, 0.5, 0.8]]
    found = family(**{"grpo": grpo, "grpo-2n": two, "costly": two})
    # at the end: .5 .6 .8 against .4: +.1 +.2 +.4
    end = {row.arm: row.difference for row in differences(found, at_the_end(found))}
    assert end["grpo-2n"] == pytest.approx(0.7 / 3)
    # twice the rollouts a round: read after 50 of 100 rounds, .3 .4 .5: -.1 0 +.1
    assert next(r.difference for r in differences(found, at_equal_rollouts(found)) if r.arm == "grpo-2n") == (
        pytest.approx(0.0)
    )
    # `costly` has spent GRPO's 100 tokens after 50 rounds, `grpo-2n` as many as GRPO in the end
    equal = {row.arm: row.difference for row in differences(found, at_equal(found, "tokens"))}
    assert equal == {"costly": pytest.approx(0.0), "grpo-2n": pytest.approx(0.7 / 3)}


def test_seconds_are_those_of_rounds_measured_side_by_side() -> None:
    found = family(grpo=[[0.0, 0.2, 0.4]] * 3, sgt=[[0.0, 0.3, 0.5], [0.0, 0.4, 0.6], [0.0, 0.5, 0.8]])
    # a round of SGT costs two of GRPO: it is read after 50 of 100 rounds, .3 .4 .5 against .4
    value = at_equal_seconds(found, {"grpo": 1.0, "sgt": 2.0})
    assert [row.difference for row in differences(found, value)] == [pytest.approx(0.0)]


def test_a_comparison_of_which_seeds_are_missing_has_no_verdict() -> None:
    up = [[0.0, 0.5, 0.8 + 0.01 * seed] for seed in range(3)]
    flat = [[0.0, 0.1, 0.1]] * 3
    said = {v.hypothesis.name: v.says for v in verdicts({"letters": family(grpo=flat, sgt=up)})}
    assert said["H1"] == "holds"  # +.70 +.71 +.72: t = 123, p of 7e-5; H1 and H7 ask the same, so twice that by Holm
    assert said["H4"] == "not run"
    unfinished = Family("letters", {"seeds": list(range(10))}, (0, 50, 100), ("llama",), family(grpo=flat, sgt=up).arms)
    assert {v.hypothesis.name: v.says for v in verdicts({"letters": unfinished})}["H1"] == "unfinished"
    begun = family(grpo=flat[:1], sgt=up[:1])  # of fewer than three seeds there is no figure either
    assert {v.hypothesis.name: (v.says, v.found) for v in verdicts({"letters": begun})}["H1"] == ("unfinished", None)


@pytest.mark.long
def test_a_result_file_has_what_the_runs_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = tmp_path / "pair.yaml", tmp_path / "runs" / "pair"
    file.write_text(SUITE.replace("alone", "grpo"))
    assert run_suite(load_suite(file, [f"output={tmp_path / 'runs'}"])).failures == ()
    monkeypatch.setattr(results, "DATA", tmp_path)
    found = Family.read(collect(folder, "pair"))
    assert found.at == (0, 2, 4)
    assert found.seeds("sgt") == ["0", "1"]
    assert found.parts == ["add"]
    # a result file keeps the runs that were made elsewhere
    shutil.rmtree(folder / "sgt" / "seed_1")
    assert Family.read(collect(folder, "pair")).arms == found.arms
    _check_runs_made_again(folder, tmp_path / "evidence-pair.json")
    shorter = (folder / "suite.yaml").read_text().replace("rounds: 4", "rounds: 2")
    (folder / "suite.yaml").write_text(shorter)
    with pytest.raises(StorageError, match="another setting"):
        collect(folder, "pair")


def _check_runs_made_again(folder: Path, kept: Path) -> None:
    """A second run is told by its other seconds, and must have the numbers of the first."""
    content = json.loads(kept.read_text())
    assert content["about"]["again"] == []
    of = content["arms"]["grpo"]["ada"]
    of["processor"]["0"][-1] += 1.0
    kept.write_text(json.dumps(content))
    assert Family.read(collect(folder, "pair")).about["again"] == ["grpo 0"]
    assert Family.read(collect(folder, "pair")).about["again"] == ["grpo 0"]
    of["accuracy"]["1"][-1] += 0.25
    kept.write_text(json.dumps(content))
    with pytest.raises(StorageError, match="grpo seed 1, ada, came to another accuracy than in"):
        collect(folder, "pair")
    content["about"]["processor"] = ["Zilog Z80"]
    kept.write_text(json.dumps(content))
    with pytest.raises(StorageError, match=r"is of processors by Zilog, .* --as NAME"):
        collect(folder, "pair")
    assert collect(folder, "pair", "pair-elsewhere") == kept.with_name("evidence-pair-elsewhere.json")
    assert Family.read(kept.with_name("evidence-pair-elsewhere.json")).suite == "pair"
    kept.unlink()
    collect(folder, "pair")


def test_what_was_spent_is_added_up_to_each_evaluation() -> None:
    metrics = {"share/rescued": ((0, 1.0), (1, 2.0)), "trained_tokens": ((0, 10.0), (1, 5.0))}
    processor = ((0, 1.5), (1, 0.5))
    run = RunResults(Path("r"), {}, {"ada": metrics}, {"ada": {"accuracy": ((0, 0.1), (2, 0.3))}}, 0.0, processor)
    found = results.measured({7: run}, "ada", [0, 2])
    assert found == {
        "accuracy": {"7": [0.1, 0.3]},
        "rescued": {"7": [0.0, 3.0]},
        "tokens": {"7": [0.0, 15.0]},
        "processor": {"7": [0.0, 2.0]},
    }


def test_a_hypothesis_is_looked_up_where_most_seeds_have_both_arms() -> None:
    rising, flat = [[0.0, 0.5, 1.0]] * 3, [[0.0, 0.0, 0.1], [0.0, 0.0, 0.2], [0.0, 0.0, 0.3]]
    first = family(grpo=flat, sgt=rising)
    arms = {**first.arms, "trrd": first.arms["sgt"], "kdrl": first.arms["grpo"]}
    second = Family("letters-intel", {"seeds": [0, 1, 2], "suite": "evidence-letters"}, (0, 50, 100), ("llama",), arms)
    found = {v.hypothesis.name: v for v in verdicts({"letters": first, "letters-intel": second})}
    assert (found["H1"].where, found["H6"].where) == ("letters", "letters-intel")


def test_where_the_baseline_is_hardly_begun_there_is_nothing_to_subtract_it_from() -> None:
    rising = [[0.0, 0.5, 1.0]] * 3
    begun = family(sgt=rising, grpo=[[0.0, 0.0, 0.1]])
    assert differences(begun, at_the_end(begun)) == []
    assert differences(family(sgt=rising), at_the_end(begun)) == []
