"""The figures, drawn from the data file alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bandit.data import records
from benchmarks.bandit.labels import place_labels
from mutual_env.errors import MissingExtraError
from mutual_env.types import Floats

Data = Mapping[str, Any]
INK, PALE, GRID = "#1f2430", "#8a8f98", "#e7e9ed"


@dataclass(frozen=True, slots=True)
class Look:
    """How a strategy is drawn everywhere: the probes as thick circles, rivals as squares, teachers as triangles."""

    label: str
    colour: str
    marker: str
    width: float


LOOKS: dict[str, Look] = {
    "independent": Look("GRPO", INK, "*", 1.0),
    "independent 2n": Look("GRPO, 2n rollouts", PALE, "*", 1.0),
    "prp": Look("PRP", "#d1495b", "o", 2.4),
    "prp unclipped": Look("PRP, no clip", "#e9a3ad", "o", 1.4),
    "xgrpo": Look("XGRPO", "#1d6fb8", "o", 2.4),
    "sgt": Look("SGT", "#2a9d6f", "o", 2.4),
    "auto": Look("auto", "#00897b", "D", 1.6),
    "graft": Look("GRAFT", "#7b4fb5", "s", 1.3),
    "hacpo": Look("HACPO", "#8d6a4a", "s", 1.3),
    "ftis": Look("F-TIS", "#e07b39", "s", 1.3),
    "luffy": Look("LUFFY", "#c94f9d", "s", 1.3),
    "sapo": Look("SAPO", "#c19a1b", "s", 1.3),
    "trrd": Look("TRRD", "#3f9fa8", "^", 1.3),
    "kd-rl": Look("KD-RL", "#5c6f8f", "^", 1.3),
    "topd": Look("TOP-D", "#a23b2a", "^", 1.3),
    "offline distillation": Look("offline distillation", "#6b8e23", "^", 1.3),
}


def plotting() -> Any:
    """Matplotlib, set up for a page: text as text, the same file for the same data."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError.of("drawing the figures", "report") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    style = {
        "svg.hashsalt": "bandit",
        "svg.fonttype": "none",
        "font.size": 9.5,
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
        "axes.edgecolor": PALE,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
    }
    mpl.rcParams.update(style)
    return pyplot


def draw_all(data: Data, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every figure in every format."""
    drawn = {"bandit-plane": plane, "bandit-contexts": heat, "bandit-claims": claims, "bandit-lengths": lengths}
    written = []
    for name, figure_of in drawn.items():
        figure = figure_of(data)
        for suffix in formats:
            written.append(folder / f"{name}.{suffix}")
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(written[-1], dpi=150, bbox_inches="tight", facecolor="white", metadata=metadata)
            if suffix == "svg":
                written[-1].write_text(compact(written[-1].read_text()))
        plotting().close(figure)
    return written


def compact(svg: str) -> str:
    """The same drawing in a fraction of the text: tenths of a point, no comments, no names that nothing refers to."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE[^>]*>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (d|x|y|width|height|viewBox|transform)="[^"]*"', lambda places: _tenths(places[0]), svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", svg)
    svg = re.sub(r' id="([^"]*)"', lambda name: name[0] if f"#{name[1]}" in svg else "", svg)
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><")
    return svg.replace("</g><g", "</g>\n<g") + "\n"


def _tenths(places: str) -> str:
    return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), places)


# -- the plane --------------------------------------------------------------------------------------------------------


def plane(data: Data) -> Any:
    """Each strategy as a trail over a sweep: hollow where it starts, full where it ends."""
    figure, axes = plotting().subplots(1, 3, figsize=(18.0, 8.4), sharey=True, sharex=True, layout="constrained")
    trails = [
        ("a: Disagreement 0 → 1, responses of one token", rows_of(data, tokens=1, residual=0.0)),
        ("b: Disagreement 0 → 1, responses of 64 tokens", rows_of(data, tokens=64, residual=0.0)),
        ("c: Residual 0 → 1 at full disagreement, 64 tokens", rows_of(data, tokens=64, disagreement=1.0)),
    ]
    for axis, (title, _) in zip(axes, trails, strict=True):
        _plane_axes(axis, title)
    axes[0].set_ylabel("stability: alignment of one update with the true gradient")
    axes[0].text(-0.13, 0.275, "hollow: start of the sweep; full: its end", color=PALE, fontsize=8.5, va="bottom")
    figure.supxlabel(
        "support: alignment of one update with growth on the prompts where GRPO learns nothing", fontsize=9.5
    )
    drawn = [_plane_trails(axis, rows) for axis, (_, rows) in zip(axes, trails, strict=True)]
    figure.canvas.draw()  # lays the panels out: labels are placed in what is then free
    for axis, lines in zip(axes, drawn, strict=True):
        _plane_labels(axis, lines)
    return figure


def rows_of(data: Data, **where: float) -> list[Mapping[str, Any]]:
    """The rows of the sweep at these coordinates, in the order of what is left to vary."""
    rows = [row for row in data["sweep"] if all(row[key] == value for key, value in where.items())]
    return sorted(rows, key=lambda row: (row["disagreement"], row["residual"]))


def _plane_axes(axis: Any, title: str) -> None:
    axis.set_title(title, pad=10)
    axis.set_xlim(-0.14, 0.66)
    axis.set_ylim(0.27, 0.97)
    axis.grid(color=GRID, linewidth=0.8)
    axis.axvline(0.0, color=PALE, linewidth=0.8)
    axis.set_axisbelow(True)
    turn = np.linspace(0.0, np.pi, 200)
    axis.plot(np.cos(turn), np.sin(turn), color=PALE, linewidth=0.8, linestyle=(0, (4, 3)))
    axis.text(
        0.43, 0.918, "no noise, no other direction", color=PALE, fontsize=8, rotation=-33, ha="center", va="center"
    )


def _plane_trails(axis: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    trails = {}
    for name, look in LOOKS.items():
        placed = [row["strategies"][name] for row in rows]
        x, y = [p["support"] for p in placed], [p["stability"] for p in placed]
        axis.plot(x, y, color=look.colour, linewidth=look.width, alpha=0.5, zorder=2)
        size = 30 * look.width if look.marker != "*" else 130
        axis.scatter(x[1:-1], y[1:-1], s=size / 7, color=look.colour, marker=look.marker, zorder=3)
        axis.scatter(x[:1], y[:1], s=size, facecolor="white", edgecolor=look.colour, marker=look.marker, zorder=3)
        axis.scatter(x[-1:], y[-1:], s=size, color=look.colour, marker=look.marker, zorder=4)
        trails[name] = np.column_stack([x, y])
    return trails


def _plane_labels(axis: Any, trails: Mapping[str, Floats]) -> None:
    names = {name: LOOKS[name].label for name in trails}
    ends = {name: (float(trail[-1, 0]), float(trail[-1, 1])) for name, trail in trails.items()}
    for name, offset in place_labels(axis, names, ends, list(trails.values())).items():
        look = LOOKS[name]
        axis.annotate(
            names[name],
            ends[name],
            xytext=offset,
            textcoords="offset points",
            color=look.colour,
            fontsize=9,
            fontweight="bold" if look.width > 2 else "normal",
            ha="left" if offset[0] >= 0 else "right",
            va="center",
            arrowprops={"arrowstyle": "-", "color": look.colour, "linewidth": 0.7, "alpha": 0.7, "shrinkB": 3},
        ).set_in_layout(False)


# -- by context -------------------------------------------------------------------------------------------------------


def heat(data: Data) -> Any:
    """Growth of each strategy on each context, with a ring where a starved context is moved."""
    figure, axes = plotting().subplots(1, 2, figsize=(15.5, 6.0), sharey=True, layout="constrained")
    for axis, tokens in zip(axes, (1, 64), strict=True):
        row = next(r for r in rows_of(data, tokens=tokens, disagreement=1.0) if r["residual"] == 0.0)
        image = _heat_panel(axis, row)
        axis.set_title(f"{'ab'[tokens > 1]}: Responses of {tokens} token{'s' * (tokens > 1)}", pad=34)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.01, ticks=[-0.3, -0.1, -0.01, 0, 0.01, 0.1, 0.3, 1.0])
    bar.ax.set_yticklabels(["−0.3", "−0.1", "−0.01", "0", "0.01", "0.1", "0.3", "1"])
    bar.set_label("growth of log success probability")
    figure.supxlabel("under each prompt's name: per cent of its samples that reader | peer solve", fontsize=9.5)
    bar.outline.set_visible(False)
    return figure


def _heat_panel(axis: Any, row: Mapping[str, Any]) -> Any:
    from matplotlib.colors import SymLogNorm

    names, where = list(LOOKS), list(row["contexts"])
    growth = np.array([row["strategies"][name]["growth"] for name in names])
    image = axis.imshow(
        growth, cmap="RdYlGn", norm=SymLogNorm(0.01, linscale=0.4, vmin=-1, vmax=1), aspect="auto", alpha=0.85
    )
    solved = zip(where, row["success"], row["peer_success"], strict=True)
    labels = [f"{name}\n{100 * own:.3g} | {100 * peer:.3g}" for name, own, peer in solved]
    axis.set_xticks(range(len(where)), labels, fontsize=8)
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(names)), [LOOKS[name].label for name in names])
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    for i, name in enumerate(names):
        for j, context in enumerate(where):
            text = f"{growth[i, j]:.3f}".replace("-0.000", "0.000").replace("-", "−")
            moved = context in row["starved"] and row["strategies"][name]["length"][j] > row["starved_below"]
            weight = "bold" if moved else "normal"
            box = (
                {"boxstyle": "round,pad=0.28", "facecolor": "none", "edgecolor": INK, "linewidth": 1.1}
                if moved
                else None
            )
            axis.text(j, i, text, ha="center", va="center", fontsize=8, fontweight=weight, bbox=box)
    axis.axvline(len(where) - len(row["starved"]) - 0.5, color="white", linewidth=6)
    return image


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


# -- the claims -------------------------------------------------------------------------------------------------------


def claims(data: Data) -> Any:
    """One panel for each claim."""
    figure, axes = plotting().subplots(1, 3, figsize=(15.5, 4.9), layout="constrained")
    _prp_panel(axes[0], data)
    _xgrpo_panel(axes[1], records(data["claims"]["baselines"]))
    _sgt_panel(axes[2], records(data["claims"]["rescues"]), data["sweep"][0]["starved_below"])
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.legend(frameon=False, fontsize=8.5)
    return figure


def _prp_panel(axis: Any, data: Data) -> None:
    authors = data["claims"]["authors"]
    x = 1.0 + np.array(authors["chi_square"])
    axis.scatter(x, authors["variance"], s=16, color=LOOKS["prp"].colour, label="no clip", alpha=0.8)
    axis.scatter(x, authors["predicted"], s=42, facecolor="none", edgecolor=INK, linewidth=0.6, label="affine law")
    axis.scatter(x, authors["clipped_variance"], s=16, marker="x", color=PALE, label="clip 0.2", linewidth=1)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale, ticks in ((axis.xaxis, (1, 2, 4, 8, 16)), (axis.yaxis, (0.03, 0.05, 0.1, 0.2))):
        scale.set_ticks(ticks, [f"{t:g}" for t in ticks])
        scale.set_ticks([], minor=True)
    axis.set_title("a: PRP: variance against χ²")
    axis.set_xlabel("1 + χ²(reader || author), success probability held fixed")
    axis.set_ylabel("variance of one update (trace)")


def _xgrpo_panel(axis: Any, rows: Sequence[Mapping[str, float]]) -> None:
    peers = sorted({row["peer"] for row in rows})
    readers = sorted({row["reader"] for row in rows})
    plain = {row["reader"]: row for row in rows}
    axis.plot(readers, [plain[p]["grpo_gain"] for p in readers], color=INK, label="GRPO")
    axis.plot(readers, [plain[p]["grpo_deviation"] for p in readers], color=INK, linestyle=":")
    for shade, peer in zip((0.4, 0.7, 1.0), peers, strict=True):
        mine = {row["reader"]: row for row in rows if row["peer"] == peer}
        colour = LOOKS["xgrpo"].colour
        axis.plot(
            readers,
            [mine[p]["gain"] for p in readers],
            color=colour,
            alpha=shade,
            label=f"XGRPO, peer solves {_percent(peer)}",
        )
        axis.plot(readers, [mine[p]["deviation"] for p in readers], color=colour, alpha=shade, linestyle=":")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title("b: XGRPO: the step (solid) and its noise (dotted)")
    axis.set_xlabel("reader's success probability")
    axis.set_ylabel("gain g in E u = g ∇ log p; standard deviation of u")


def _sgt_panel(axis: Any, rows: Sequence[Mapping[str, float]], starved_below: float) -> None:
    peers = sorted({row["peer"] for row in rows})
    readers = sorted({row["reader"] for row in rows})
    axis.plot(
        readers, [{r["reader"]: r for r in rows}[p]["grpo"] for p in readers], color=INK, label="length of GRPO's E u"
    )
    for shade, peer in zip((0.35, 0.65, 1.0), peers, strict=True):
        added = [next(r for r in rows if r["reader"] == p and r["peer"] == peer)["added"] for p in readers]
        axis.plot(
            readers, added, color=LOOKS["sgt"].colour, alpha=shade, label=f"added by SGT, peer solves {_percent(peer)}"
        )
    plain = {row["reader"]: row["grpo"] for row in rows}
    rising = [p for p in readers if p <= 0.3]
    border = np.exp(np.interp(np.log(starved_below), np.log([plain[p] for p in rising]), np.log(rising)))
    axis.axvspan(min(readers), border, color=GRID, alpha=0.7, zorder=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(1e-6, 2)
    axis.set_title("c: SGT: what is added, and where")
    axis.set_xlabel("reader's success probability (shaded: GRPO is starved)")
    axis.set_ylabel("length of the expected update")


# -- what a response is made of ---------------------------------------------------------------------------------------

_PANELS = (
    ("divergent", "divergent", "tokens that carry the disagreement, of 64"),
    ("chunks", "chunk", "of these 64, how many are compared as one chunk"),
    ("lengths", "tokens", "tokens in a response, 4 of which carry the disagreement"),
)


def lengths(data: Data) -> Any:
    """Support at full disagreement against what a response is made of."""
    figure, axes = plotting().subplots(1, 3, figsize=(17.5, 4.9), sharey=True, layout="constrained")
    for letter, axis, (sweep, key, label) in zip("abc", axes, _PANELS, strict=True):
        rows = sorted(data[sweep], key=lambda row: row[key])
        places = [row[key] for row in rows]
        for name, look in LOOKS.items():
            values = [row["strategies"][name]["support"] for row in rows]
            how = {"color": look.colour, "linewidth": look.width, "marker": look.marker, "label": look.label}
            axis.plot(places, values, markersize=5, **how)
        axis.set_xscale("log", base=2)
        axis.set_xticks(places, [str(place) for place in places])
        axis.set_xlabel(label)
        axis.set_title(f"{letter}: Support at full disagreement")
        axis.grid(color=GRID, linewidth=0.8)
    axes[0].set_yscale("symlog", linthresh=0.02)
    axes[0].set_yticks(
        [-0.3, -0.1, -0.02, 0, 0.02, 0.1, 0.3, 1], ["−0.3", "−0.1", "−0.02", "0", "0.02", "0.1", "0.3", "1"]
    )
    axes[2].legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
