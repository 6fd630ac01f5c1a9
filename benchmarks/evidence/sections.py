"""What stands on `docs/evidence.md` beside the families: the plane, what sharing costs, where real models differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.bars import COSTS
from benchmarks.evidence.markdown import line, read, wrapped
from benchmarks.evidence.plane_section import plane
from benchmarks.evidence.survey import KNIGHTS


def sections() -> list[str]:
    """Those that have data."""
    makers = {"evidence-plane": plane, "costs": costs, "evidence-survey": survey, "evidence-survey-teacher": teachers}
    return [make(found) for name, make in makers.items() if (found := read(name))]


CHANCE = 0.25
"""Of being right about two people."""
_MEASURED_AS = {"letters": "tiny"}
"""In the file of costs; other families by their own names."""


def times_alone(family: str) -> dict[str, float]:
    """What a round of each arm costs over one of GRPO, where that was measured."""
    measured: Mapping[str, Any] = read("costs").get(_MEASURED_AS.get(family, family), {})
    return {arm: float(found["times_alone"]) for arm, found in measured.items()}


# -- costs ------------------------------------------------------------------------------------------------------------


def costs(found: Mapping[str, Any]) -> str:
    parts = ["## What it costs"]
    settings = {
        "tiny": "The letters pair, at the weights that training begins with",
        "after": "The same pair at the weights that runs of seed 0 ended with",
        "real": "SmolLM2-135M and Gemma-3-270M with LoRA, answers of at most six tokens",
    }
    for key, setting in settings.items():
        if key in found:
            where = found["processors"][key]
            parts += [wrapped(f"{setting}, on {where}: {_costs_intro(found[key])}"), _costs_table(found[key])]
            parts += [wrapped(_WHY[key](found[key]))]
    return "\n\n".join(parts) + "\n"


def _costs_intro(arms: Mapping[str, Any]) -> str:
    counts = [of["rounds"] for of in arms.values()]
    rounds = max(counts, key=counts.count)
    others = "".join(f", of `{arm}` {of['rounds']}" for arm, of in arms.items() if of["rounds"] != rounds)
    return (
        "processor milliseconds of a round of both policies, by phase, and the whole over a round of GRPO (medians of "
        f"{rounds} rounds{others}, all arms in turn within each, on the same tasks; `python -m benchmarks.costs`). "
        "Trained rows are those that teach something: GRPO leaves out every group without spread."
    )


def _costs_table(arms: Mapping[str, Any]) -> str:
    phases = list(next(iter(arms.values()))["phases"])
    head = ["arm", "times GRPO", *phases, "trained rows", "trained tokens", "updating, ms a token"]
    rows = [
        line(
            [
                f"`{arm}`",
                f"{of['times_alone']:.2f}",
                *(f"{1000 * of['phases'][phase]:.0f}" for phase in phases),
                f"{of['rows']:.0f}",
                f"{of['tokens']:.0f}",
                f"{of['update_ms_per_token']:.2f}",
            ]
        )
        for arm, of in sorted(arms.items(), key=lambda item: float(item[1]["times_alone"]))
    ]
    return "\n".join([line(head), "|---|" + "---:|" * (len(head) - 1), *rows])


def _why(arms: Mapping[str, Any]) -> str:
    """Where SGT's seconds go."""
    alone, sgt = arms["grpo"], arms["sgt"]
    more = {phase: sgt["phases"][phase] - alone["phases"][phase] for phase in alone["phases"]}
    told = ", ".join(f"{phase} {1000 * ms:+.0f} ms" for phase, ms in more.items())
    return (
        f"SGT against GRPO: {told}. It trains {_times(sgt['rows'], alone['rows'])} times the rows, at "
        f"{_times(sgt['update_ms_per_token'], alone['update_ms_per_token'])} times the milliseconds a trained token: "
        "what it costs more is training the rescues, on prompts whose groups GRPO leaves out, and reading, translating "
        "and scoring what is borrowed."
    )


def _why_later(arms: Mapping[str, Any]) -> str:
    """What training makes of that."""
    alone, there, sgt = arms["grpo"], arms["grpo at the weights of sgt"], arms["sgt"]
    return (
        f"Later the difference is larger, {sgt['times_alone']:.2f}, and most of it is not SGT's: a policy that has "
        "begun to learn the other skill has groups with spread, so that GRPO itself, at SGT's weights, trains "
        f"{there['rows']:.0f} rows a round instead of {alone['rows']:.0f} and costs {there['times_alone']:.2f}. At the "
        f"same weights SGT trains {_times(sgt['rows'], there['rows'])} times the rows and costs "
        f"{_times(sgt['times_alone'], there['times_alone'])} times as much. GRPO is cheap here where it learns nothing."
    )


def _asked(arms: Mapping[str, Any]) -> str:
    """Each bar, and where it is missed, of what the cost is made."""
    told = [
        f"{arm} {arms[arm]['times_alone']:.2f} ({'held' if arms[arm]['times_alone'] <= most else 'missed'})"
        for arm, most in COSTS.items()
    ]
    return f"Asked: {_names(1.05)} at most 1.05, {_names(1.6)} at most 1.6. Measured: {', '.join(told)}. " + " ".join(
        _made_of(arm, arms) for arm, most in COSTS.items() if arms[arm]["times_alone"] > most
    )


def _names(most: float) -> str:
    return " and ".join(arm for arm, bar in COSTS.items() if bar == most)


def _made_of(arm: str, arms: Mapping[str, Any]) -> str:
    alone, of = arms["grpo"], arms[arm]
    scored = sum(of["phases"].values()) and of["phases"]["translating and scoring"] / sum(of["phases"].values())
    prompts = ""
    if "prompts" in of and "prompts" in alone:
        prompts = (
            f", of {_times(of['prompts'], alone['prompts'])} times the prompts: rows of one prompt share its reading, "
            "and a prompt is here longer than its answers"
        )
    return (
        f"{arm} trains {_times(of['rows'], alone['rows'])} times the rows of GRPO, whose groups without spread teach "
        f"nothing, at {_times(of['update_ms_per_token'], alone['update_ms_per_token'])} times the milliseconds a "
        f"trained token{prompts}; {scored:.0%} of its round is translating and scoring."
    )


_WHY = {"tiny": _why, "after": _why_later, "real": _asked}


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "–"


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
