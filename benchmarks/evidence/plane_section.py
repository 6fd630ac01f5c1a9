"""The plane on `docs/evidence.md`: where each strategy's updates lie, over seeds, beside where the bandit puts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from benchmarks.evidence.markdown import line, read, wrapped
from learners.evaluation.measures import scipy_stats
from learners.run.results import Spread
from mutual_env.types import Floats

_INK, _PALE = "#2a6fb0", "#999"


def plane(found: Mapping[str, Any]) -> str:
    about, starved = found["about"], _starved(found)
    counts = ", ".join(f"{_ends(counts)} of {about['tasks']} for {name}" for name, counts in starved.items())
    intro = (
        f"What the updates of each strategy are made of, at the weights that training begins with (letters, "
        f"{len(_seeds(found))} seeds, {about['batches']} batches of a round each, mean ± standard deviation over "
        "seeds; `python -m benchmarks.evidence.plane`). The "
        "axes are those of the [bandit](bandit.md#the-plane): alignments of one update with GRPO's mean update over "
        "other batches (stability), and with the growth of log π of the right answers of starved tasks (support; those "
        f"that a policy solves with a probability below {about['starved']}: {counts}). Signal is the share of the mean "
        "update in the mean square of an update, from pairs of batches, so that it may come out below 0; what is "
        "left is the variance over batches. Gradients are those before clipping and Adam."
    )
    policies = list(starved)
    head = ["arm", *(f"{what}, {p}" for p in policies for what in _PLACED)]
    ordered = sorted(_arms(found), key=lambda arm: -sum(_at(found, arm, p, "support").mean() for p in policies))
    rows = [_plane_row(found, arm, policies) for arm in ordered]
    table = "\n".join([line([*head, "bandit: stability", "support"]), "|---|" + "---:|" * (len(head) + 1), *rows])
    figure = "![The plane, measured](figures/evidence-plane.svg)"
    said = [wrapped(_agreement(found)), wrapped(_nothing(found)), _chunks(found)]
    return "\n\n".join(part for part in ["## The plane, measured", wrapped(intro), figure, table, *said] if part) + "\n"


_PLACED = ("stability", "support", "signal")


def _seeds(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of which every arm is measured."""
    most = max(len(of["arms"]) for of in found["seeds"].values())
    return [of for of in found["seeds"].values() if len(of["arms"]) == most]


def _arms(found: Mapping[str, Any]) -> list[str]:
    return [*_seeds(found)[0]["arms"]]


def _at(found: Mapping[str, Any], arm: str, policy: str, what: str) -> Floats:
    """One figure, seed by seed."""
    return np.array([of["arms"][arm][policy][what] for of in _seeds(found)])


def _starved(found: Mapping[str, Any]) -> dict[str, list[int]]:
    """How many starved tasks each policy had, seed by seed."""
    by_seed = [of["starved_tasks"] for of in _seeds(found)]
    return {policy: [of[policy] for of in by_seed] for policy in by_seed[0]}


def _ends(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _plane_row(found: Mapping[str, Any], arm: str, policies: Sequence[str]) -> str:
    measured = [str(Spread.of(_at(found, arm, p, what).tolist())) for p in policies for what in _PLACED]
    bandit = found["bandit"].get(arm)
    said = [f"{bandit[what]:.2f}" for what in ("stability", "support")] if bandit else ["", ""]
    return line([f"`{arm}`", *measured, *said])


def _nothing(found: Mapping[str, Any]) -> str:
    """Arms whose updates are all zero."""
    still = [a for a in _arms(found) if not any(_at(found, a, p, "length").any() for p in _starved(found))]
    if not still:
        return ""
    said = f"No update at all: {', '.join(f'`{arm}`' for arm in still)}."
    if still == ["corl"]:
        said += (
            " Its reward is agreement with the majority of a peer's answers, and here a reader's samples of a prompt "
            "are all alike in that: no group has spread."
        )
    return said


def _agreement(found: Mapping[str, Any]) -> str:
    """Whether the bandit orders the strategies as the measurement does."""
    both, said = _both(found), []
    for policy in _starved(found):
        for what in ("stability", "support"):
            pairs = [(float(_at(found, arm, policy, what).mean()), bandit[what]) for arm, bandit in both]
            said.append(f"{policy} {what} {_rank_correlation(pairs):+.2f}")
    return (
        "The bandit's prediction beside it is for two policies of which each knows what the other does not (full "
        f"disagreement, no residual, one token). Rank correlation over the {len(both)} strategies that it covers: "
        f"{', '.join(said)}."
    )


def _both(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    arms = _arms(found)
    return [(arm, said) for arm, said in found["bandit"].items() if arm in arms]


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's."""
    return float(scipy_stats().spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)


def _chunks(found: Mapping[str, Any]) -> str:
    rows = []
    for arm in _arms(found):
        by_seed = [of["arms"][arm]["chunks"] for of in _seeds(found)]
        if all({"between", "within"} <= of.keys() for of in by_seed):
            means = [float(np.mean([of[what] for of in by_seed])) for what in ("between", "within")]
            rows.append(line([f"`{arm}`", *(f"{mean:.3g}" for mean in means)]))
    if not rows:
        return ""
    intro = (
        "Of the log-ratio of reader to author on borrowed samples: its variance between chunks, which is the distance "
        "of two policies, and what spreading each chunk's sum over its tokens would add within chunks, which is the "
        "distance of two tokenizers and enters no loss."
    )
    return "\n".join([wrapped(intro), "", line(["arm", "between chunks", "within chunks"]), "|---|---:|---:|", *rows])


def plane_figure() -> str | None:
    """Each strategy in both planes, policy by policy; hollow: where the bandit puts it."""
    found = read("evidence-plane")
    if not found:
        return None
    panels = [_panel(found, name, 10 + 440 * i) for i, name in enumerate(_starved(found))]
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
    places = {a: {what: float(_at(found, a, policy, what).mean()) for what in _PLACED} for a in _arms(found)}
    names = sorted(places, key=lambda arm: at(places[arm])[::-1])
    for row, arm in enumerate(names):  # names stand in a column, in the order of their dots: dots may lie together
        x, y = at(places[arm])
        place = 45 + _ROW * row
        out.append(f'<path class="lead" d="M{x} {y}L{left + 318} {place - 4}"/>')
        out.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{_INK}"/>')
        out.append(f'<text x="{left + 320}" y="{place}">{escape(arm)}</text>')
        if (said := found["bandit"].get(arm)) is not None:
            p, q = at(said)
            out.append(f'<path class="lead" d="M{x} {y}L{p} {q}" stroke-dasharray="2"/>')
            out.append(f'<circle cx="{p}" cy="{q}" r="2.5" fill="none" stroke="{_PALE}"/>')
    return "".join(out)
