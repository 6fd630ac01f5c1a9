"""`docs/performance.md`, from the figures in `docs/figures/data`: every number on the page is a measured one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import DATA

PAGE = DATA.parent.parent / "performance.md"


@dataclass(frozen=True, slots=True)
class Area:
    """One file of figures. `bars` say what is asked of them, and whether they reach it is for the figures to say."""

    name: str
    title: str
    bars: str


AREAS = (
    Area(
        "env",
        "A round of the env, and importing",
        "Under 50 µs per agent and step with one wrapper, apart from verification; import under 1 s.",
    ),
    Area(
        "verifiers",
        "The verifier pool",
        "80% or more of inline math-verify per core on clean items; 90% or more of that with 1% of the items hanging.",
    ),
    Area(
        "bridge",
        "The tokenizer bridge",
        "Align and both sums at 0.3 µs a token or less, 20 times faster than TRL's grouping and sums; "
        "a full translation within 1.25 times the time of encoding; flat in agents.",
    ),
    Area(
        "exchange",
        "The exchange",
        "200,000 records a second in memory, 20,000 durable in SQLite by batches; reads flat in the history.",
    ),
    Area("agents", "A round as agents grow", "Linear in agents at fixed peers per reader, 2 to 1,000 agents."),
    Area(
        "torch_sampler",
        "The torch sampler",
        "2.5 times `model.generate` where samples end at different lengths, 1.5 times where all run to the limit.",
    ),
    Area(
        "torch_trainer",
        "The torch trainer",
        "1.3 times the tokens a second of TRL's GRPOTrainer; 0.6 times its peak memory or less on Gemma-3-270M.",
    ),
    Area("vllm", "vLLM as the sampler", "On a CPU: it proves the path, not speed."),
    Area(
        "resources",
        "Sharing machines",
        "Makespan within 1.15 times the lower bound at the median, 1.3 at the 99th percentile; a decision under 1 ms; "
        "1.4 times the rounds of the serial loop on two cores.",
    ),
    Area("gpu", "On a GPU", "One script, `make bench-gpu`."),
)


def write_page() -> Path:
    parts = [
        "# Performance\n",
        "Measured figures, from the files in `docs/figures/data`; `make bench` measures again and rewrites this page.\n"
        "The machine was shared while these were taken: ratios within one run say more than absolute numbers.\n",
    ]
    missing = []
    for area in AREAS:
        path = DATA / f"{area.name}.json"
        if not path.is_file():
            missing.append(f"{area.title} (`python -m benchmarks.{area.name}`)")
            continue
        parts.append(_section(area, json.loads(path.read_text())))
    if missing:
        parts.append("## Not measured yet\n\n" + "\n".join(f"- {what}" for what in missing) + "\n")
    PAGE.write_text("\n".join(parts))
    return PAGE


def _section(area: Area, figures: dict[str, Any]) -> str:
    machine = figures.pop("machine", {})
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    on = f"{machine.get('processor')}, {machine.get('cores')} cores; Python {machine.get('python')}, {versions}"
    rows = "\n".join(f"| {name} | {value} |" for name, value in _leaves(figures))
    return f"## {area.title}\n\nAsked for: {area.bars}\n\nOn {on}.\n\n| figure | value |\n|---|---:|\n{rows}\n"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path} / {key}" if path else str(key))
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value[:12])) + (", ..." if len(value) > 12 else "")
    else:
        yield path.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value)
