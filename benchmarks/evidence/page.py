"""`docs/evidence.md`, made of the hypotheses and the result files: nothing on it is typed by hand."""

from __future__ import annotations

import textwrap

from benchmarks.evidence.hypotheses import HYPOTHESES, Hypothesis
from benchmarks.figures import DATA

PAGE = DATA.parent.parent / "evidence.md"
WIDTH = 120

INTRODUCTION = """# Evidence

What sharing does to small policies, with the controls that say why. `make evidence-tiny` runs it (hours; it goes on
where it was stopped, `python -m benchmarks.evidence run letters --arm sgt --seed 0` runs a part), and
`python -m benchmarks.evidence page` writes this page from the result files in `docs/figures/data`.
"""
PROTOCOL = """## How it is measured

- Ten seeds. Under one seed every arm starts from the same weights, sees the same prompts in the same order and is
  evaluated on the same held-out tasks, so arms are compared in pairs.
- The checkpoint is the last one, fixed beforehand. No hyperparameter was chosen on these seeds: learning rate, length
  and number of rounds were tried on seed 100.
- Intervals: percentile bootstrap of the mean paired difference over seeds, 95 %. p: paired t over seeds, corrected by
  Holm over all arms and policies of a family. Effect: Hedges' g of the paired differences.
- *Equal rollouts*: the arms as they are, and GRPO with 2n and 4n rollouts after a half and a quarter of the rounds.
  *Equal compute*: each arm where it has trained on as many tokens as GRPO has in all its rounds, its own and borrowed.
  *Equal seconds*: each arm where its process has worked as long as GRPO's. Between two evaluations the accuracy is
  taken to move in a straight line; an arm that stops short of the budget counts with its last value.
"""


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def hypotheses() -> str:
    """What was expected."""
    head = "## What was expected\n\nWritten before any of these runs; the history of this file shows it.\n\n"
    return head + "\n".join(map(_expected, HYPOTHESES)) + "\n"


def _expected(hypothesis: Hypothesis) -> str:
    who = " and ".join(hypothesis.policies) or "each policy"
    text = f"- **{hypothesis.name}** ({hypothesis.family}, {who}). {hypothesis.question}: `{hypothesis.arm}` "
    return wrapped(f"{text}{hypothesis.direction} `{hypothesis.baseline}`. {hypothesis.why}", "  ")


def text() -> str:
    return "\n".join([INTRODUCTION, hypotheses(), PROTOCOL])


def write_page() -> None:
    PAGE.write_text(text())
