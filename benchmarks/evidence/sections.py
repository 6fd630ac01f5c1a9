"""What stands on `docs/evidence.md` beside the families: the plane, what sharing costs, where real models differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evidence.costs_section import costs
from benchmarks.evidence.markdown import line, read, wrapped
from benchmarks.evidence.plane_section import plane
from benchmarks.evidence.survey import KNIGHTS


def sections() -> list[str]:
    """Those that have data."""
    makers = {"evidence-plane": plane, "costs": costs, "evidence-survey": survey, "evidence-survey-teacher": teachers}
    return [make(found) for name, make in makers.items() if (found := read(name))]


CHANCE = 0.25
"""Of being right about two people."""
# -- where real models differ -----------------------------------------------------------------------------------------


def survey(found: Mapping[str, Any]) -> str:
    intro = (
        f"{_asked_of(found['about'])} (`make evidence-real`). Complementarity is the share of pairs of samples of "
        "which exactly one is right: what there is to learn. A family is worth training on where somebody is between 5 "
        f"and 95 %. {_most_complementary(found)}{_of_knights(found)}"
    )
    return "\n\n".join(["## Where real models differ", wrapped(intro), _survey_table(found)]) + "\n"


def teachers(found: Mapping[str, Any]) -> str:
    """The same with a larger model among them."""
    intro = f"{_asked_of(found['about'])} (`make evidence-real QWEN=DIRECTORY`).{_of_knights(found)}"
    return "\n\n".join(["## Where a teacher knows more", wrapped(intro), _survey_table(found)]) + "\n"


TRAINED = ("gemma3", "smollm2")
TRAINED_ON = "arithmetic, 1 digit"
"""The pair of the suite of real models, and its family."""


def _most_complementary(found: Mapping[str, Any]) -> str:
    """Where the trained pair has most to learn, beside where it was trained."""
    by_family = {
        name: float(pair["complementarity"])
        for name, of in found["families"].items()
        for pair in of["pairs"]
        if {pair["first"], pair["second"]} == {*TRAINED} and of["worth_it"]
    }
    if TRAINED_ON not in by_family:
        return ""
    most = max(by_family, key=lambda name: by_family[name])
    asked = found["about"]["prompts"]
    return (
        f"Of {' and '.join(TRAINED)} the most complementary is {most} ({by_family[most]:.2f}; sums of the suite: "
        f"{by_family[TRAINED_ON]:.2f}); of {asked} tasks each that order is not certain. The suite is of sums all the "
        "same: it was written before the survey was whole."
    )


def _of_knights(found: Mapping[str, Any]) -> str:
    knights = found["families"].get(KNIGHTS)
    if knights is None or any(low > CHANCE for low, _ in knights["interval"].values()):
        return ""
    ends = ", ".join(f"{m} [{low:.2f}, {high:.2f}]" for m, (low, high) in knights["interval"].items())
    return (
        " Of two people who are knights or knaves an answer drawn blindly is right one time in four, and who answers "
        f"in one line, without a thought before it, is not seen to do better: {ends}. So the teacher's suite is of "
        "sums."
    )


def _asked_of(about: Mapping[str, Any]) -> str:
    return (
        f"{', '.join(about['models'])}: each asked {about['prompts']} tasks of each family with {about['samples']} "
        f"samples and {about['shots']} of its training tasks as examples; one line each"
    )


def _survey_table(found: Mapping[str, Any]) -> str:
    about = found["about"]
    head = ["family", *about["models"], "pair", "complementarity", "κ", "wrong, the same answer", "worth it"]
    rows = [
        line([name, *(f"{of['accuracy'][m]:.2f}" for m in about["models"]), *_pair(pair), _yes(of["worth_it"])])
        for name, of in found["families"].items()
        for pair in of["pairs"]
    ]
    return "\n".join([line(head), "|---|" + "---:|" * len(about["models"]) + "---|---:|---:|---:|---|", *rows])


def _pair(pair: Mapping[str, Any]) -> list[str]:
    who = f"{pair['first']}, {pair['second']}"
    return [who, *(_short(pair[what]) for what in ("complementarity", "kappa", "wrong_agreement"))]


def _yes(is_so: bool) -> str:
    return "yes" if is_so else ""


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
