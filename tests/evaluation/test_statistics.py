"""The figures of an evaluation and of a comparison, worked out by hand on small cases."""

from __future__ import annotations

import io
import json
import math
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console

from learners.evaluation.agreement import agreement
from learners.evaluation.comparison import compare, hedges, holm
from learners.evaluation.measures import measure, pass_at, powers_of_two
from learners.evaluation.outcomes import Answered, Judged
from learners.evaluation.scores import Scores
from learners.evaluation.votes import majority_is_right, majority_of, vote
from learners.report.evaluation_sheets import differences
from learners.report.sheets import Sheet, as_csv, as_json, as_latex, show, shown
from mutual_env.errors import InvalidInputError, UnknownNameError


def right(text: str = "7") -> Judged:
    return Judged(text, 1.0, True, "ok")


def wrong(text: str) -> Judged:
    return Judged(text, 0.0, False, "ok")


def answered(task: str, *samples: Judged, policy: str = "ada", part: str = "") -> Answered:
    return Answered(policy, task, f"{task}=", "7", part, samples)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample() -> None:
    correct = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]])
    for k in (1, 2, 3, 4):
        by_hand = [np.mean([any(row[i] for i in subset) for subset in combinations(range(4), k)]) for row in correct]
        assert pass_at(correct, k) == pytest.approx(by_hand)


def test_a_majority_counts_what_is_said_and_shares_a_tie() -> None:
    assert majority_is_right([right(), right("x = 7"), wrong("8")]) == 1.0
    assert majority_is_right([right(), wrong("it is 8"), wrong("8.0")]) == 0.0  # 8 twice, 7 once
    assert majority_is_right([right(), wrong("8"), wrong("9")]) == pytest.approx(1 / 3)
    assert majority_is_right([Judged("?", 0.0, False, "wrong_format")]) == 0.0
    # blocks of two: (7, 8) a tie, (7, 7) right, and one left over
    assert majority_of([right(), wrong("8"), right(), right(), wrong("8")], 2) == pytest.approx(0.75)


def test_wrong_answers_vote_by_their_last_number_and_else_by_their_words() -> None:
    assert vote(wrong(r"so \boxed{1/2}")) == vote(wrong("0.5")) == "1/2"
    assert vote(wrong("No  Idea")) == vote(wrong("no idea")) == "no idea"
    assert vote(Judged("", 0.0, False, "wrong_format")) is None


def test_the_measures_of_two_tasks_are_what_counting_gives() -> None:
    items = [answered("a", right(), right(), part="add"), answered("b", wrong("8"), right(), part="sub")]
    found = {(m.part, m.name): m for m in measure(items)}
    assert found["", "mean@2"].value == 0.75
    assert found["", "pass@2"].value == 1.0
    assert found["", "maj@2"].value == 0.75  # the second task is a tie
    assert found["sub", "mean@2"].value == 0.5
    low, high = found["", "mean@2"].bootstrap
    assert (low, high) == (0.5, 1.0)  # the mean of two tasks drawn from {1, .5}
    credible = found["", "mean@2"].credible
    assert credible is not None
    assert credible[0] < 0.75 < credible[1]
    assert found["", "pass@2"].credible is None  # two samples of two: mostly the prior
    assert math.isnan(found["sub", "mean@2"].bootstrap[0])  # one task: nothing to resample


def test_a_task_with_a_sample_that_got_no_verdict_is_left_out_and_counted() -> None:
    items = [answered("a", right(), right()), answered("b", wrong("8"))]
    assert {(m.value, m.tasks, m.left_out) for m in measure(items, [1]) if m.name == "mean@2"} == {(1.0, 1, 1)}


def test_a_k_beyond_the_samples_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="k=4 is not from 1 to the 2 samples"):
        measure([answered("a", right(), right())], [4])
    assert powers_of_two(9) == [1, 2, 4, 8]


def test_holm_is_the_textbooks() -> None:
    # Sorted .01 .02 .04: times 3, 2, 1 -> .03 .04 .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    corrected = holm([0.5, math.nan, 0.9])
    assert corrected[0] == corrected[2] == 1.0
    assert math.isnan(corrected[1])


def test_a_comparison_pairs_seeds_and_ignores_those_of_one_side() -> None:
    scores = Scores(
        "seed",
        ("alone", "sgt"),
        {
            ("alone", "ada", "accuracy"): {"0": 0.1, "1": 0.2, "2": 0.3},
            ("sgt", "ada", "accuracy"): {"1": 0.5, "2": 0.7, "3": 1},
        },
    )
    (row,) = compare(scores)
    # differences .3 and .4: mean .35, sd .0707; t = .35 / (.0707 / sqrt 2) = 7, p = 2 P(T_1 > 7) = .0903
    assert (row.pairs, row.baseline, row.difference) == (2, pytest.approx(0.25), pytest.approx(0.35))
    assert row.p == pytest.approx(2 * (0.5 - math.atan(7) / math.pi), abs=1e-4)
    # g = 4.95 times 1 - 3 / (4 * 1 - 1) = 0: two pairs say nothing of a standardised effect
    assert row.effect == pytest.approx(0.0)
    assert hedges(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0 * (1 - 3 / 7))


def test_arms_that_do_not_differ_and_seeds_that_do_not_vary_are_not_called_certain() -> None:
    values = {
        ("a", "p", "m"): {"0": 0.5, "1": 0.5},
        ("b", "p", "m"): {"0": 0.5, "1": 0.5},
        ("c", "p", "m"): {"0": 1, "1": 1},
    }
    same, constant = compare(Scores("seed", ("a", "b", "c"), values))
    assert (same.p, same.p_holm, same.difference) == (1.0, 1.0, 0.0)
    assert math.isnan(constant.p)
    assert constant.difference == 0.5


def test_tasks_are_compared_by_the_signs_of_their_differences() -> None:
    # Four tasks, all better by another amount: 2 of the 16 sign patterns are as extreme, p = 2/16
    before = {f"t{i}": 0.0 for i in range(4)}
    after = {f"t{i}": 0.1 * (i + 1) for i in range(4)}
    (row,) = compare(Scores("task", ("a", "b"), {("a", "p", "accuracy"): before, ("b", "p", "accuracy"): after}))
    assert row.p == pytest.approx(2 / 16)
    assert row.low > 0


def test_an_unknown_baseline_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'alone'"):
        compare(Scores("seed", ("alone", "sgt"), {("alone", "p", "m"): {"0": 1.0}}), "alon")


def test_agreement_is_counted_pair_by_pair() -> None:
    pairs = [(right(), right()), (right(), wrong("8")), (wrong("8"), right()), (wrong("8"), wrong("8.0"))]
    found = agreement("ada", "bob", pairs)
    assert (found.both, found.only_first, found.only_second, found.neither) == (0.25, 0.25, 0.25, 0.25)
    assert found.complementarity == 0.5
    assert found.wrong_agreement == 0.25
    assert found.kappa == pytest.approx(0.0)  # observed .5, expected .5
    always = agreement("ada", "bob", [(right(), right())])
    assert math.isnan(always.kappa)


SHEET = Sheet("50% & more", ("arm", "value", "95 %"), (("a_b", 0.5, (0.25, 0.75)), ("c", math.nan, None)), ("a note",))


def test_a_sheet_is_the_same_numbers_in_every_form() -> None:
    assert json.loads(as_json([SHEET]))["50% & more"][0] == {"arm": "a_b", "value": 0.5, "95 %": [0.25, 0.75]}
    assert as_csv([SHEET]).splitlines() == ["arm,value,95 %_low,95 %_high", "a_b,0.5,0.25,0.75", "c,,,"]
    latex = as_latex([SHEET])
    assert r"a\_b & 0.500 & [0.250, 0.750] \\" in latex
    assert latex.count(r"\\") == 3
    assert shown((math.nan, math.nan)) == "–"


@pytest.mark.parametrize("form", ["rich", "json", "csv", "latex"])
def test_a_sheet_can_be_printed_whatever_a_name_in_a_file_was_changed_to(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "a\ud800\x1b[2Jb"
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr("sys.stdout", out)
    show([Sheet(odd, ("arm",), ((odd,),), (odd,))], form)
    out.seek(0)
    printed = out.read()
    assert "\\ud800" in printed.replace("\\textbackslash{}", "\\")
    if form == "json":
        assert json.loads(printed) == {odd: [{"arm": odd}]}
    if form == "rich":
        assert "\x1b[2J" not in printed


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_number_of_a_table_is_broken_however_narrow_the_terminal(width: int) -> None:
    rng = np.random.default_rng(0)
    arms = [f"arm-{i}-[x]" for i in range(10)]
    values = {
        (arm, policy, "accuracy/multiply"): {str(seed): float(rng.random()) for seed in range(3)}
        for arm in arms
        for policy in ("smollm2", "gemma3")
    }
    scores = Scores("seed", tuple(arms), values, 40)
    sheet = differences(compare(scores), scores, arms[0])
    out = io.StringIO()
    show([sheet], "rich", Console(file=out, width=width))
    printed = out.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    words = printed.split()
    for row in sheet.rows:
        for cell in row[3:]:
            assert all(number in words for number in shown(cell).split()), cell
    assert printed.count("┏") == (1 if width == 200 else printed.count("└"))
