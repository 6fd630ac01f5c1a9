"""A suite's comparison for a terminal: a table with the spread over seeds, and the curves."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from learners.run.results import SuiteResults
from mutual_env.metrics import ACCURACY

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def comparison(results: SuiteResults) -> Table:
    """Rows: policy and measure. Columns: before, then each arm. Below: what was counted, and seconds."""
    seeds = len(results.config.seeds)
    table = Table(title=f"{results.config.name}: held-out accuracy, mean ± standard deviation over {seeds} seeds")
    for heading in ("policy", "measure", "before", *results.runs):
        table.add_column(heading, justify="left" if heading in ("policy", "measure") else "right")
    for policy in results.policies:
        for measure in results.measures():
            after = [str(results.after(arm, policy, measure)) for arm in results.runs]
            table.add_row(policy, _label(measure), str(results.before(policy, measure)), *after)
        for metric in results.config.totals:
            counted = [f"{results.total(arm, policy, metric).mean:.0f}" for arm in results.runs]
            table.add_row(policy, f"{metric} (total)", "", *counted, style="dim")
        table.add_section()
    table.add_row("", "seconds a run", "", *(f"{results.seconds(arm).mean:.1f}" for arm in results.runs), style="dim")
    return table


def curves(results: SuiteResults) -> Text:
    """One line for each policy, measure and arm: accuracy over the rounds, from 0 (lowest block) to 1 (highest)."""
    lines = []
    for policy in results.policies:
        for measure in results.measures():
            for arm in results.runs:
                values = [spread.mean for _, spread in results.mean_curve(arm, policy, measure)]
                if values:
                    lines.append(f"{policy:>12} {_label(measure):<12} {arm:<12} {sparkline(values)} {values[-1]:.2f}")
    return Text("\n".join(lines))


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """Values in 0..1 as blocks, one column each or, where there are more, thinned evenly to `width`."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(max(0.0, value) * len(_BLOCKS)))] for value in values)


def _label(measure: str) -> str:
    return "all" if measure == ACCURACY else measure.removeprefix(f"{ACCURACY}/")
