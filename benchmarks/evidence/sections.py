"""What stands on `docs/evidence.md` beside the families: the plane, what sharing costs, where real models differ."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.bars import COSTS
from benchmarks.evidence.survey import KNIGHTS
from benchmarks.figures import DATA
from learners.evaluation.measures import scipy_stats

WIDTH = 120
_INK, _PALE = "#2a6fb0", "#999"


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def sections() -> list[str]:
    """Those that have data."""
    makers = {"evidence-plane": plane, "costs": costs, "evidence-survey": survey, "evidence-survey-teacher": teachers}
    return [make(found) for name, make in makers.items() if (found := _read(name))]


def _read(name: str) -> dict[str, Any]:
    path = DATA / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


CHANCE = 0.25
"""Of being right about two people."""
_MEASURED_AS = {"letters": "tiny", "real": "real"}


def times_alone(family: str) -> dict[str, float]:
    """What a round of each arm costs over one of GRPO, where that was measured."""
    measured: Mapping[str, Any] = _read("costs").get(_MEASURED_AS.get(family, ""), {})
    return {arm: float(found["times_alone"]) for arm, found in measured.items()}


# -- the plane --------------------------------------------------------------------------------------------------------


def plane(found: Mapping[str, Any]) -> str:
    about, starved = found["about"], found["starved_tasks"]
    intro = (
        "What the updates of each strategy are made of, at the weights that training begins with (letters, seed "
        f"{about['seed']}, {about['batches']} batches of a round each; `python -m benchmarks.evidence.plane`). The "
        "axes are those of the [bandit](bandit.md#the-plane): alignments of one update with GRPO's mean update over "
        "other batches (stability), and with the growth of log π of the right answers of starved tasks (support; those "
        f"that a policy solves with a probability below {about['starved']}: "
        f"{', '.join(f'{count} of 256 for {name}' for name, count in starved.items())}). Signal is the share of the "
        "mean update in the mean square of an update, from pairs of batches, so that it may come out below 0; what is "
        "left is the variance over batches. Gradients are those before clipping and Adam."
    )
    policies = list(starved)
    head = ["arm", *(f"{what}, {p}" for p in policies for what in ("stability", "support", "signal"))]
    ordered = sorted(found["arms"].items(), key=lambda item: -sum(item[1][p]["support"] for p in policies))
    rows = [_plane_row(arm, of, policies, found["bandit"].get(arm)) for arm, of in ordered]
    table = "\n".join([_line([*head, "bandit: stability", "support"]), "|---|" + "---:|" * (len(head) + 1), *rows])
    figure = "![The plane, measured](figures/evidence-plane.svg)"
    parts = ["## The plane, measured", wrapped(intro), figure, table, wrapped(_agreement(found)), _chunks(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plane_row(arm: str, of: Mapping[str, Any], policies: Sequence[str], bandit: Mapping[str, float] | None) -> str:
    measured = [f"{of[p][what]:.2f}" for p in policies for what in ("stability", "support", "signal")]
    said = [f"{bandit[what]:.2f}" for what in ("stability", "support")] if bandit else ["", ""]
    return _line([f"`{arm}`", *measured, *said])


def _agreement(found: Mapping[str, Any]) -> str:
    """Whether the bandit orders the strategies as the measurement does."""
    both, said = _both(found), []
    for policy in found["starved_tasks"]:
        for what in ("stability", "support"):
            pairs = [(found["arms"][arm][policy][what], bandit[what]) for arm, bandit in both]
            said.append(f"{policy} {what} {_rank_correlation(pairs):+.2f}")
    return (
        "The bandit's prediction beside it is for two policies of which each knows what the other does not (full "
        f"disagreement, no residual, one token). Rank correlation over the {len(both)} strategies that it covers: "
        f"{', '.join(said)}."
    )


def _both(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    return [(arm, said) for arm, said in found["bandit"].items() if arm in found["arms"]]


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's."""
    return float(scipy_stats().spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)


def _chunks(found: Mapping[str, Any]) -> str:
    rows = [
        _line([f"`{arm}`", f"{of['chunks']['between']:.3g}", f"{of['chunks']['within']:.3g}"])
        for arm, of in found["arms"].items()
        if "between" in of["chunks"]
    ]
    if not rows:
        return ""
    intro = (
        "Of the log-ratio of reader to author on borrowed samples: its variance between chunks, which is the distance "
        "of two policies, and what spreading each chunk's sum over its tokens would add within chunks, which is the "
        "distance of two tokenizers and enters no loss."
    )
    return "\n".join([wrapped(intro), "", _line(["arm", "between chunks", "within chunks"]), "|---|---:|---:|", *rows])


def plane_figure() -> str | None:
    """Each strategy in both planes, policy by policy; hollow: where the bandit puts it."""
    found = _read("evidence-plane")
    if not found:
        return None
    panels = [_panel(found, name, 10 + 440 * i) for i, name in enumerate(found["starved_tasks"])]
    style = (
        "text{font:11px system-ui,sans-serif;fill:#333}.axis{stroke:#bbb}.lead{stroke:#999;stroke-width:.4}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    )
    size = f'viewBox="0 0 {440 * len(panels) + 20} 350"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>' + "".join(panels) + "</svg>\n"


_LEFT, _RIGHT, _BOTTOM, _TOP = -0.2, 0.5, -0.05, 0.85
"""How much of the plane is drawn: support and stability."""
_ROW = 15


def _panel(found: Mapping[str, Any], policy: str, left: float) -> str:
    def at(place: Mapping[str, float]) -> tuple[float, float]:
        x = left + (place["support"] - _LEFT) / (_RIGHT - _LEFT) * 300
        return round(x, 1), round(340 - (place["stability"] - _BOTTOM) / (_TOP - _BOTTOM) * 310, 1)

    zero_x, zero_y = at({"support": 0.0, "stability": 0.0})
    out = [
        f'<text x="{left}" y="14">{escape(policy)}: stability up, support to the right; hollow: the bandit</text>',
        f'<path class="axis" d="M{left} {zero_y}H{left + 300}M{zero_x} 340V30"/>',
    ]
    names = sorted(found["arms"], key=lambda arm: at(found["arms"][arm][policy])[::-1])
    for row, arm in enumerate(names):  # names stand in a column, in the order of their dots: dots may lie together
        x, y = at(found["arms"][arm][policy])
        place = 45 + _ROW * row
        out.append(f'<path class="lead" d="M{x} {y}L{left + 318} {place - 4}"/>')
        out.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{_INK}"/>')
        out.append(f'<text x="{left + 320}" y="{place}">{escape(arm)}</text>')
        if (said := found["bandit"].get(arm)) is not None:
            p, q = at(said)
            out.append(f'<path class="lead" d="M{x} {y}L{p} {q}" stroke-dasharray="2"/>')
            out.append(f'<circle cx="{p}" cy="{q}" r="2.5" fill="none" stroke="{_PALE}"/>')
    return "".join(out)


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
        _line(
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
    return "\n".join([_line(head), "|---|" + "---:|" * (len(head) - 1), *rows])


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
    return (
        f"{arm} trains {_times(of['rows'], alone['rows'])} times the rows of GRPO, whose groups without spread teach "
        f"nothing, at {_times(of['update_ms_per_token'], alone['update_ms_per_token'])} times the milliseconds a "
        f"trained token; {scored:.0%} of its round is translating and scoring."
    )


_WHY = {"tiny": _why, "after": _why_later, "real": _asked}


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "–"


# -- where real models differ -----------------------------------------------------------------------------------------


def survey(found: Mapping[str, Any]) -> str:
    intro = (
        f"{_asked_of(found['about'])} (`make evidence-real`). Complementarity is the share of pairs of samples of "
        "which exactly one is right: what there is to learn. A family is worth training on where somebody is between 5 "
        "and 95 %."
    )
    return "\n\n".join(["## Where real models differ", wrapped(intro), _survey_table(found)]) + "\n"


def teachers(found: Mapping[str, Any]) -> str:
    """The same of a student and its teacher."""
    intro = f"{_asked_of(found['about'])} (`python -m benchmarks.evidence.survey ... --as teacher`)."
    knights = found["families"].get(KNIGHTS)
    if knights is not None and all(low <= CHANCE for low, _ in knights["interval"].values()):
        ends = ", ".join(f"{m} [{low:.2f}, {high:.2f}]" for m, (low, high) in knights["interval"].items())
        intro += (
            f" Of two people who are knights or knaves an answer drawn blindly is right one time in four, and who "
            f"answers in one line, without a thought before it, is not seen to do better: {ends}. So the teacher's "
            "suite is of sums."
        )
    return "\n\n".join(["## Where a teacher knows more", wrapped(intro), _survey_table(found)]) + "\n"


def _asked_of(about: Mapping[str, Any]) -> str:
    return (
        f"{', '.join(about['models'])}: each asked {about['prompts']} tasks of each family with {about['samples']} "
        f"samples and {about['shots']} of its training tasks as examples; one line each"
    )


def _survey_table(found: Mapping[str, Any]) -> str:
    about = found["about"]
    head = ["family", *about["models"], "pair", "complementarity", "κ", "wrong, the same answer", "worth it"]
    rows = [
        _line([name, *(f"{of['accuracy'][m]:.2f}" for m in about["models"]), *_pair(pair), _yes(of["worth_it"])])
        for name, of in found["families"].items()
        for pair in of["pairs"]
    ]
    return "\n".join([_line(head), "|---|" + "---:|" * len(about["models"]) + "---|---:|---:|---:|---|", *rows])


def _pair(pair: Mapping[str, Any]) -> list[str]:
    who = f"{pair['first']}, {pair['second']}"
    return [who, *(_short(pair[what]) for what in ("complementarity", "kappa", "wrong_agreement"))]


def _yes(is_so: bool) -> str:
    return "yes" if is_so else ""


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
