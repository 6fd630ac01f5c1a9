"""What comes of a plan where a figure that it takes for granted is half or twice as large.

    python -m benchmarks.sensitivity    writes docs/figures/data/sensitivity.json and the table in docs/resources.md

Nothing is timed: a plan is reckoned from sizes and data sheets, so that every machine comes to the same table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import DATA
from benchmarks.tables import put, table
from learners.report.plan_report import bound_share
from learners.resources import estimate, hardware
from learners.resources.demand import Rounds
from learners.resources.plan import make_plan, parse_devices
from learners.run import estimates
from learners.run.check import check
from learners.run.config import PolicyConfig, load_run

CONFIGS = Path(__file__).parent.parent / "configs"
PAGE, NAME = "resources.md", "half and twice"
FACTORS = {"half": 0.5, "as taken": 1.0, "twice": 2.0}
DIGITS = 4
"""Kept of a share. With three, 95.47 % is written as 95.5 and shown as 96."""


def _of_both(*options: str) -> tuple[str, ...]:
    return tuple(f"policies.{policy}.options.{option}" for policy in ("qwen", "llama") for option in options)


LONG = (
    "resources.assumptions.response_tokens=2048",
    *_of_both("path=models/Qwen2.5-1.5B-Instruct", "max_new_tokens=8192", "micro_batch_tokens=16384"),
    *_of_both("engine.max_model_len=9216"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Of the table of plans: a shipped file on machines. `ours`: sampled by the torch learner itself."""

    config: str
    devices: str
    overrides: tuple[str, ...] = ()
    ours: bool = False

    def bound(self) -> float:
        """The share of the GPUs' time in which products or memory are the bottleneck."""
        config = load_run(CONFIGS / f"{self.config}.yaml", self.overrides)
        if self.ours:
            config = replace(config, policies={name: _of_torch(policy) for name, policy in config.policies.items()})
        places = check(config, here=False, supply=parse_devices(self.devices))
        plan = make_plan(places.demands, places.supply, Rounds(2, places.staleness))
        assert plan.simulation is not None
        return bound_share(plan.simulation, plan.supply, places.estimates)

    def by_ipc(self) -> Row:
        return replace(self, overrides=(*self.overrides, *_of_both("transport=ipc")))


def _of_torch(policy: PolicyConfig) -> PolicyConfig:
    return replace(policy, learner="torch", options={k: v for k, v in policy.options.items() if k != "engine"})


FIRST = Row("qwen-llama-1b", "1x1:H100", LONG)
SECOND = replace(FIRST, ours=True)
THIRD = Row("qwen-llama-8b-eight", "1x8:H100")
ROWS = {
    "2 ms a step: first row": ("step", FIRST),
    "2 ms a step: third row": ("step", THIRD),
    "7 µs a kernel: second row": ("kernel", SECOND),
    "8 GB/s: first row, by IPC": ("transfer", FIRST.by_ipc()),
    "8 GB/s: third row, by IPC": ("transfer", THIRD.by_ipc()),
    "half of the bus: first row": ("bus", FIRST),
    "half of the bus: second row": ("bus", SECOND),
    "half of the bus: third row": ("bus", THIRD),
}


@contextmanager
def taken(figure: str, factor: float) -> Iterator[None]:
    """Inside, one of the figures is so many times what is taken."""
    before = estimate.ENGINE_STEP_SECONDS, estimate.LAUNCH_SECONDS, dict(estimates.TRANSFERS), dict(hardware.GPUS)
    try:
        if figure == "step":
            estimate.ENGINE_STEP_SECONDS *= factor
        elif figure == "kernel":
            estimate.LAUNCH_SECONDS *= factor
        elif figure == "transfer":
            estimates.TRANSFERS.update({kind: factor * before[2][kind] for kind in ("ipc", "nccl")})
        else:
            hardware.GPUS.update({name: replace(gpu, host=factor * gpu.host) for name, gpu in before[3].items()})
        yield
    finally:
        estimate.ENGINE_STEP_SECONDS, estimate.LAUNCH_SECONDS = before[:2]
        estimates.TRANSFERS.update(before[2])
        hardware.GPUS.update(before[3])


def measure() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for label, (figure, row) in ROWS.items():
        found[label] = {}
        for name, factor in FACTORS.items():
            with taken(figure, factor):
                found[label][name] = round(row.bound(), DIGITS)
    return found


def text(found: Mapping[str, Mapping[str, float]]) -> str:
    """What is below the bar of 55 % (one GPU) or 60 % (eight) is bold, where vLLM samples."""
    rows = []
    for label, values in found.items():
        row = ROWS[label][1]
        bar = 0.0 if row.ours else 0.55 if row.devices == FIRST.devices else 0.6
        shown = {name: f"{100 * value:.0f} %" for name, value in values.items()}
        rows.append([label, *(f"**{shown[name]}**" if values[name] < bar else shown[name] for name in FACTORS)])
    return table(["", *FACTORS], rows)


def main() -> None:
    found = measure()
    (DATA / "sensitivity.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    put(PAGE, NAME, text(found))


if __name__ == "__main__":
    main()
