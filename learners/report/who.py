"""Who solves what, who taught whom, and how much of it each policy could bear."""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from learners.report.chart import COLOURS, Line, line_chart
from learners.report.page import charts, note, table
from learners.run import lines
from learners.run.directory import RunDirectory
from learners.run.lines import read_lines
from learners.run.recorded import Shares
from learners.run.results import Curve, RunResults

MOST_TASKS = 256  # in the map: beyond, cells are too small to be seen
CELL, ROW = 14, 18


def who_solves_what(path: Path, shares: Sequence[Shares]) -> str:
    """Over the rounds, how training prompts fall to two policies; and the last held-out tasks, one by one."""
    parts = [charts(_solved(shares)), _map(path)]
    return "".join(part for part in parts if part)


def _solved(shares: Sequence[Shares]) -> Iterator[str]:
    policies = list(dict.fromkeys(name for share in shares for name in share.right))
    for first, second in combinations(policies, 2):
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for share in shares:
            pairs = list(zip(share.right.get(first, ()), share.right.get(second, ()), strict=False))
            if pairs:
                for name, count in _cases(pairs, first, second).items():
                    points[name].append((share.number, count / len(pairs)))
        if points:
            title = f"prompts solved by {first}, {second}"
            yield line_chart(title, [Line(name, line) for name, line in points.items()], says="share of the prompts")


def _cases(pairs: Sequence[tuple[int, int]], first: str, second: str) -> dict[str, int]:
    return {
        f"{first} alone": sum(a > 0 and b == 0 for a, b in pairs),
        f"{second} alone": sum(b > 0 and a == 0 for a, b in pairs),
        "both": sum(a > 0 and b > 0 for a, b in pairs),
        "neither": sum(a == 0 and b == 0 for a, b in pairs),
    }


def _map(path: Path) -> str:
    """The last evaluation: a column a task, a row a policy, as full as its samples were right."""
    last: dict[str, Mapping[str, Sequence[object]]] = {}
    for line in read_lines(RunDirectory(path).evaluations, lines.evaluations):
        last[line["policy"]] = line["tasks"]
    if not last:
        return ""
    rights = {policy: {task: str(of[1]) for task, of in tasks.items()} for policy, tasks in last.items()}
    tasks = sorted({task for of in rights.values() for task in of}, key=lambda task: _by_solvers(task, rights))
    shown = tasks[:MOST_TASKS]
    width = 130 + CELL * len(shown)
    rows = [_row(policy, of, shown, index) for index, (policy, of) in enumerate(rights.items())]
    height = ROW * len(rows) + 4
    rest = f" The first {MOST_TASKS} of {len(tasks)}." if len(tasks) > len(shown) else ""
    size = f"min-width:{min(width, 900)}px;max-width:{width}px"
    return (
        f"<h3>held-out tasks, last evaluation</h3>"
        f'<div class="scroll"><svg viewBox="0 0 {width} {height}" style="{size}" role="img" '
        f'aria-label="which policy solves which held-out task">{"".join(rows)}</svg></div>'
        + note(f"A column is a task, sorted by who solves it; a cell is as full as the samples were right.{rest}")
    )


def _by_solvers(task: str, rights: Mapping[str, Mapping[str, str]]) -> tuple[tuple[bool, ...], str]:
    return tuple("1" not in of.get(task, "") for of in rights.values()), task


def _row(policy: str, rights: Mapping[str, str], tasks: Sequence[str], index: int) -> str:
    top = ROW * index
    cells = [f'<text x="0" y="{top + 12}" font-size="12">{html.escape(policy)}</text>']
    for column, task in enumerate(tasks):
        right = rights.get(task, "")
        share = right.count("1") / len(right) if right else 0.0
        box = f'x="{130 + CELL * column}" y="{top + 1}" width="{CELL - 2}" height="{ROW - 3}"'
        tip = f"<title>{html.escape(f'{policy}: {task}, {share:.0%} right')}</title>"
        cells.append(f'<rect class="none" {box}>{tip}</rect>')
        if share:
            cells.append(f'<rect class="fill c{index % COLOURS}" {box} opacity="{share:.2f}">{tip}</rect>')
    return "".join(cells)


def who_taught_whom(shares: Sequence[Shares]) -> str:
    """Accepted lessons over the rounds, and in all; why others were not taken."""
    totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    reasons: Counter[tuple[str, str]] = Counter()
    for share in shares:
        for reader, flow in share.flow.items():
            reasons.update({(reader, reason): count for reason, count in share.dropped[reader].items()})
            for author, counts in flow.items():
                for at, count in enumerate(counts):
                    totals[author, reader][at] += count
    borrowed = sorted(pair for pair in totals if pair[0] != pair[1])
    for share in shares:
        for author, reader in borrowed:
            accepted = share.flow.get(reader, {}).get(author, (0.0, 0.0, 0.0))[1]
            points[author, reader].append((share.number, accepted))
    if not totals:
        return ""
    lines = [Line(f"{author} → {reader}", points[author, reader]) for author, reader in borrowed]
    pulls: dict[str, float] = defaultdict(float)
    for (_, reader), (_, _, pull) in totals.items():
        pulls[reader] += pull
    rows = [
        (
            f"{author} → {reader}",
            f"{n:.0f}",
            f"{accepted:.0f}",
            f"{pull / pulls[reader]:.1%}" if pulls[reader] else "–",
            _told(reasons, reader) if author != reader else "",
        )
        for (author, reader), (n, accepted, pull) in sorted(totals.items())
    ]
    head = ("lessons", "in all", "accepted", "of the reader's |advantage · weight|", "not taken, all authors")
    return charts([line_chart("borrowed lessons that were accepted, a round", lines)]) + table(head, rows)


def _told(reasons: Mapping[tuple[str, str], int], reader: str) -> str:
    found = [f"{reason.replace('_', ' ')} {count}" for (who, reason), count in sorted(reasons.items()) if who == reader]
    return ", ".join(found)


def stability_and_support(run: RunResults) -> str:
    """What the run's own numbers say of the two axes on which strategies are compared (docs/bandit.md)."""
    measures = {"support": _support, "stability": _stability}
    found = {name: [Line(p, measure(of)) for p, of in run.metrics.items()] for name, measure in measures.items()}
    drawn = [line_chart(name, lines, bounds=(0.0, 1.0)) for name, lines in found.items()]
    if not any(drawn):
        return ""
    return charts(drawn) + note(
        "Support: of the prompts on which all own samples were wrong, the share that a peer's lesson reached. "
        "Stability: one minus the borrowed share of the gradient that the effective sample size leaves unheard; "
        "where no ratio is known, the own share alone. Estimates of this run, not the exact values of the bandit."
    )


def _support(of: Mapping[str, Curve]) -> list[tuple[float, float]]:
    rescued = of.get("share/rescued") or of.get("share/grafted") or ()
    failed = dict(of.get("share/failed") or of.get("share/candidates") or ())
    return _pooled([(round_, count, failed.get(round_, 0.0)) for round_, count in rescued])


def _stability(of: Mapping[str, Curve]) -> list[tuple[float, float]]:
    borrowed = of.get("batch/borrowed_gradient_share", ())
    effective = dict(of.get("batch/effective_sample_size", ()))
    return [(round_, 1.0 - share * (1.0 - effective.get(round_, 0.0))) for round_, share in borrowed]


def _pooled(counts: Sequence[tuple[int, float, float]], windows: int = 40) -> list[tuple[float, float]]:
    """Shares over windows of rounds: single rounds have too few failures for a share to mean something."""
    size = max(1, len(counts) // windows)
    parts = [counts[i : i + size] for i in range(0, len(counts), size)]
    sums = [(part[len(part) // 2][0], sum(n for _, n, _ in part), sum(of for _, _, of in part)) for part in parts]
    return [(round_, n / of) for round_, n, of in sums if of]
