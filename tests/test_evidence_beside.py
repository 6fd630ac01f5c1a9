"""What is measured beside the families: the plane, what a round costs, where models differ."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import costs, figures, rounds, sequential
from benchmarks.beside import arms_beside
from benchmarks.evidence import costs_section, plane, plane_section, survey
from learners.run.build import make_learner
from learners.run.config import PolicyConfig, SuiteConfig, load_suite
from mutual_env.verifiers import VerifierPool

PAIR = """
name: small
seeds: [0]
base:
  env: {id: mutual/letters-v0, group_size: 16, prompts_per_round: 4, options: {skill: reverse, length: 1}}
  policies:
    one:
      learner: tiny
      options: {width: 16, layers: 1, max_new_tokens: 1, tokenizer: &one {kind: char, alphabet: "abcdefgh:=r"}}
    two: {learner: tiny, options: {width: 16, layers: 1, max_new_tokens: 1, tokenizer: *one}}
arms:
  grpo: {sharing.strategy: independent}
  sgt: {sharing.strategy: sgt}
"""


@pytest.fixture
def suite(tmp_path: Path) -> SuiteConfig:
    (tmp_path / "small.yaml").write_text(PAIR)
    return load_suite(tmp_path / "small.yaml")


def test_arms_beside_each_other_sample_the_same_and_move_no_weight(suite: SuiteConfig) -> None:
    with arms_beside(suite, ["grpo", "sgt"], 0) as loops:
        texts = []
        for arm in ("grpo", "sgt", "grpo"):
            infos = loops[arm].round(0)
            texts.append([e.completion.text for info in infos.values() for group in info["groups"] for e in group])
    assert texts[0] == texts[1] == texts[2]
    assert any(texts[0])


def test_where_an_update_lies_is_worked_out_from_its_batches() -> None:
    along, starving = np.array([1.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    # (3, 0, 4) twice: nothing varies. cos to the first axis 3/5, to the second 0
    same = plane.placed(np.array([[3.0, 0.0, 4.0]] * 2), along, starving)
    assert same == pytest.approx({"stability": 0.6, "support": 0.0, "signal": 1.0, "noise": 0.0, "length": 5.0})
    # (0, 1, 0) and (0, 1, 2): squares 1 and 5, mean 3; their product 1 is ||E u||²; along the second axis 1 / sqrt 3
    apart = plane.placed(np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), along, starving)
    assert apart == pytest.approx(
        {"stability": 0.0, "support": 3**-0.5, "signal": 1 / 3, "noise": 2.0, "length": 3**0.5}
    )
    nothing = plane.placed(np.zeros((2, 3)), along, starving)
    assert set(nothing.values()) == {0.0}


def test_the_plane_of_a_small_pair_goes_on_from_what_was_found(suite: SuiteConfig) -> None:
    *_, wanted = plane.measure(suite, ["grpo", "sgt"], 2, seed=0, tasks=4)
    assert wanted["starved_tasks"] == {"one": 4, "two": 4}  # a letter and the end, of 13 tokens each: 1 in 169
    assert wanted["arms"]["grpo"]["one"]["length"] > 0.0
    begun = {**wanted, "arms": {"grpo": wanted["arms"]["grpo"]}}
    assert [*plane.measure(suite, ["grpo", "sgt"], 2, seed=0, known=begun, tasks=4)] == [wanted]  # the one missing arm
    assert [*plane.measure(suite, ["grpo", "sgt"], 2, seed=0, known=wanted, tasks=4)] == []


def test_the_plane_is_told_over_its_seeds() -> None:
    def placed(stability: float, length: float = 1.0) -> dict[str, float]:
        return {"stability": stability, "support": stability, "signal": 0.5, "noise": 0.5, "length": length}

    def of(stability: float) -> dict[str, Any]:
        arms = {"grpo": {"one": placed(stability), "chunks": {}}, "corl": {"one": placed(0.0, 0.0), "chunks": {}}}
        return {"starved_tasks": {"one": 3}, "arms": arms}

    about = {"batches": 2, "starved": 0.02, "tasks": 4}
    bandit = {arm: {"stability": at, "support": at} for arm, at in (("grpo", 1.0), ("corl", 0.0))}
    said = plane_section.plane({"about": about, "bandit": bandit, "seeds": {"0": of(0.4), "1": of(0.6)}})
    assert "| `grpo` | 0.50 ± 0.14 |" in said
    assert "No update at all: `corl`." in said


def a_round(updating: float, rows: int, tokens: int) -> costs.Spent:
    own = dict.fromkeys(costs.LEASES.values(), 0.0)
    policies = {"one": own | {"sampling": 1.0, "updating": updating - 0.5}, "two": own | {"updating": 0.5}}
    return costs.Spent({"sampling": 1.0, "updating": updating}, rows, rows // 2, tokens, 3 * tokens, policies)


def test_what_an_arm_costs_is_a_ratio_within_each_round() -> None:
    alone, sgt = [a_round(1.0, 4, 10), a_round(3.0, 4, 10)], [a_round(2.0, 8, 20), a_round(5.0, 8, 20)]
    found = costs.figures({"grpo": alone, "sgt": sgt})
    # 3 over 2 and 6 over 4: 1.5 in each. GRPO updates 20 tokens in 4 s, SGT 40 in 7 s
    assert found["sgt"]["times_alone"] == pytest.approx(1.5)
    assert found["grpo"]["update_ms_per_token"] == pytest.approx(200.0)
    assert found["sgt"]["update_ms_per_token"] == pytest.approx(175.0)
    assert (found["sgt"]["rows"], found["sgt"]["prompts"], found["sgt"]["read"]) == (8, 4, 60)
    # the one: 2.5 over 1.5 and 5.5 over 3.5; the other as before
    assert found["sgt"]["policies"]["one"]["times_alone"] == pytest.approx((2.5 / 1.5 + 5.5 / 3.5) / 2)
    assert found["sgt"]["policies"]["one"]["updating"] == pytest.approx(3.0)
    assert found["sgt"]["policies"]["two"]["times_alone"] == pytest.approx(1.0)


def test_a_round_of_a_real_loop_has_every_phase_and_counts_what_teaches(suite: SuiteConfig) -> None:
    found = costs.compared(suite, ["grpo", "sgt"], 1)
    assert {*found["grpo"]["phases"]} == {*costs.PHASES.values()}
    assert {*costs.PHASES.values()} <= {*costs_section.ORDER}
    assert all(seconds > 0.0 for seconds in found["sgt"]["phases"].values())
    assert [*found["sgt"]["policies"]] == ["one", "two"]
    for phase in costs.LEASES.values():  # each policy's share of what both have for themselves
        shares = sum(of[phase] for of in found["sgt"]["policies"].values())
        assert 0.0 < shares <= found["sgt"]["phases"][phase]
    assert 0 < found["grpo"]["rows"] <= 2 * 4 * 16  # at most all samples of both
    assert 0 < found["grpo"]["prompts"] <= 2 * 4


def test_what_an_arm_costs_is_told_by_phase_and_policy() -> None:
    alone, sgt = [a_round(1.0, 4, 10)], [a_round(2.0, 8, 20)]
    arms = costs.figures({"grpo": alone, "sgt": sgt, **dict.fromkeys(("xgrpo", "prp", "graft", "hacpo"), alone)})
    said = " ".join(costs_section.costs({"real": arms, "processors": {"real": "an Intel"}}).split())
    # 3 s over 2; the one 2.5 over 1.5; both sample 1000 and 0 ms, and update 1500 and 500
    assert "| `sgt` | 1.50 | 1.67 | 1.00 | 1000 + 0 |" in said
    assert "| 1500 + 500 | 8 | 20 | 60 | 100.00 |" in said
    assert "sgt over GRPO: sampling +0 ms" in said
    assert "updating +1000 ms; it trains 2.00 times the rows" in said
    assert "2.00 times the tokens are read for it" in said


def test_figures_of_two_processors_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DATA", tmp_path)
    monkeypatch.setattr(costs, "DATA", tmp_path)
    elsewhere = {"sums": {"prp": {"rounds": 1}}, "processors": {"sums": "another"}, "tiny": {"prp": {"rounds": 1}}}
    (tmp_path / "costs.json").write_text(json.dumps(elsewhere))
    costs.keep("sums", {"grpo": {"rounds": 1}})
    costs.keep("sums", {"sgt": {"rounds": 1}})
    assert {*costs.kept()["sums"]} == {"grpo", "sgt"}
    assert costs.kept()["tiny"] == elsewhere["tiny"]


@pytest.mark.long
def test_one_policy_at_a_time_has_the_numbers_of_both_at_once_and_pays_for_moving(suite: SuiteConfig) -> None:
    suite = replace(suite, arms={arm: {"sharing.strategy": "hacpo"} for arm in ("ours", "theirs")})
    with arms_beside(suite, ["ours", "theirs"], 0) as loops:
        found = sequential.compared(loops["ours"], loops["theirs"], 1)  # which compares the numbers
    assert found["sequential"][sequential.MOVING] > 0.0
    assert found["sequential"][sequential.AGAIN] > 0.0
    assert found["each_on_a_device"]["seconds"] < found["ours"]["seconds"]


def test_where_each_has_a_device_the_longer_of_two_counts_between_barriers() -> None:
    # 3.5 s in all; both sample, 1 and 0 s, and learn, 1.5 and 0.5 s: half a second less
    spent = a_round(2.0, 8, 20)
    spent.seconds["verifying"] = 0.5
    assert sequential.on_devices(spent) == pytest.approx(3.0)


def test_two_runs_of_trl_are_added_and_their_peaks_told_apart() -> None:
    theirs = {
        "smollm2": {"seconds": 4.0, "tokens": 8.0, "peak_mib": 100.0},
        "gemma3": {"seconds": 6.0, "tokens": 8.0, "peak_mib": 300.0},
    }
    found = rounds.compared(theirs, {"grpo": {"seconds": 5.0, "tokens": 16.0, "peak_mib": 200.0}})
    assert found["trl"]["both"]["rounds_an_hour"] == pytest.approx(360.0)
    assert found["grpo"]["times_the_rounds_of_trl"] == pytest.approx(2.0)
    assert found["grpo"]["share_of_the_larger_peak"] == pytest.approx(2 / 3)
    assert found["grpo"]["share_of_both_peaks"] == pytest.approx(0.5)


def test_a_survey_of_small_policies_has_every_figure_of_every_pair() -> None:
    letters = string.digits + string.ascii_letters + "+-*=:?.() \n"
    options: dict[str, Any] = {"width": 16, "layers": 1, "max_new_tokens": 3, "stop": ["\n"]}
    options["tokenizer"] = {"kind": "char", "alphabet": letters}
    learners = [make_learner(name, PolicyConfig("tiny", options), 0) for name in ("one", "two", "three")]
    with VerifierPool() as pool:
        found = survey.family("arithmetic, 1 digit", learners, pool, prompts=4, samples=2)
    assert [*found["accuracy"]] == ["one", "two", "three"]
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("one", "two"),
        ("one", "three"),
        ("two", "three"),
    ]
    for pair in found["pairs"]:
        assert pair["both"] + pair["only_first"] + pair["only_second"] + pair["neither"] == pytest.approx(1.0)
        assert pair["complementarity"] == pytest.approx(pair["only_first"] + pair["only_second"])
