"""A suite's comparison for a terminal: a table with the spread over seeds, and the curves."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from learners.run.results import SuiteResults
from mutual_env.metrics import ACCURACY

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
_MOST_COLUMNS = 5  # of figures: more do not fit into 80 columns


def comparison(results: SuiteResults) -> Table:
    """A row an arm, however many there are; a column a measure or, where those are many, a row for each of them."""
    title = f"{results.config.name}: held-out accuracy, mean ± standard deviation over {results.seeds}"
    table = Table(title=title)
    wide = len(results.measures()) + len(results.config.totals) <= _MOST_COLUMNS
    (_by_arm if wide else _by_measure)(table, results)
    return table


def _by_arm(table: Table, results: SuiteResults) -> None:
    for heading in ("policy", "arm"):
        table.add_column(heading, overflow="fold")
    for measure in results.measures():
        table.add_column(_label(measure), justify="right")
    for heading in (*(f"{metric} (total)" for metric in results.config.totals), "seconds a run"):
        table.add_column(heading, justify="right", style="dim", overflow="fold")
    for policy in results.policies:
        before = [str(results.before(policy, measure)) for measure in results.measures()]
        table.add_row(policy, "before", *before, *("" for _ in results.config.totals), "")
        for arm in results.runs:
            after = [str(results.after(arm, policy, measure)) for measure in results.measures()]
            counted = [f"{results.total(arm, policy, metric).mean:.0f}" for metric in results.config.totals]
            table.add_row("", arm, *after, *counted, f"{results.seconds(arm).mean:.1f}")
        table.add_section()


def _by_measure(table: Table, results: SuiteResults) -> None:
    for heading, justify in (("policy", "left"), ("measure", "left"), ("arm", "left"), ("value", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for policy in results.policies:
        for measure in results.measures():
            table.add_row(policy, _label(measure), "before", str(results.before(policy, measure)))
            for arm in results.runs:
                table.add_row("", "", arm, str(results.after(arm, policy, measure)))
        for metric in results.config.totals:
            for arm in results.runs:
                counted = f"{results.total(arm, policy, metric).mean:.0f}"
                table.add_row(policy, f"{metric} (total)", arm, counted, style="dim")
        table.add_section()
    for arm in results.runs:
        table.add_row("", "seconds a run", arm, f"{results.seconds(arm).mean:.1f}", style="dim")


def curves(results: SuiteResults) -> Text:
    """One line for each policy, measure and arm: accuracy over the rounds, from 0 (lowest block) to 1 (highest)."""
    lines = []
    longest = max(12, *(len(arm) for arm in results.runs))
    for policy in results.policies:
        for measure in results.measures():
            for arm in results.runs:
                values = [spread.mean for _, spread in results.mean_curve(arm, policy, measure)]
                if values:
                    lines.append(
                        f"{policy:>12} {_label(measure):<12} {arm:<{longest}} {sparkline(values)} {values[-1]:.2f}"
                    )
    return Text("\n".join(lines))


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """Values in 0..1 as blocks, one column each or, where there are more, thinned evenly to `width`."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(max(0.0, value) * len(_BLOCKS)))] for value in values)


def _label(measure: str) -> str:
    return "all" if measure == ACCURACY else measure.removeprefix(f"{ACCURACY}/")
