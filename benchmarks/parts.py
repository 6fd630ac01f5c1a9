"""The parts of a round, by the suite that others' parts are measured by, and the comparison with the baselines kept.

    pytest benchmarks/parts.py                                         measures
    python -m benchmarks.parts check RUN.json                          against docs/figures/data/parts.json
    python -m benchmarks.parts keep RUN.json                           makes this run the baseline of its processor

What is compared is the least time of a part over the least time of the yardstick in the same run: a ratio, which
another machine can be held to. Ratios are kept by the kind of processor, since those of two kinds differ by up to a
half; a kind of which none are kept is held to the largest that are. `make bench-check` takes processor time
(`--benchmark-timer=time.process_time`): where others use the machine, milliseconds by the wall are now and then
undisturbed and a third of a second never is.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.figures import DATA, machine
from learners.suites.test_parts import (  # noqa: F401
    test_act,
    test_batch,
    test_round,
    test_share,
    test_translate,
    test_update,
    test_yardstick,
)

BASELINES = DATA / "parts.json"
YARDSTICK = "test_yardstick"
PARTS = {"test_act", "test_batch", "test_round", "test_share", "test_translate", "test_update"}
TOLERATED = 1.5
"""Times its baseline that a part may take: two runs on one busy machine differ by a fifth."""


def ratios(run: Path) -> dict[str, float]:
    """Each benchmark's least time over the yardstick's."""
    try:
        least = {str(b["name"]): float(b["stats"]["min"]) for b in json.loads(run.read_text())["benchmarks"]}
    except OSError as error:
        raise SystemExit(f"{run}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{run} is not what pytest --benchmark-json writes: {error!r}") from None
    if YARDSTICK not in least:
        raise SystemExit(f"{run} has no {YARDSTICK}: run all of benchmarks/parts.py")
    if not all(0.0 < seconds < math.inf for seconds in least.values()):
        raise SystemExit(f"{run} has a time that is no positive number: measure again")
    return {name: seconds / least[YARDSTICK] for name, seconds in least.items() if name != YARDSTICK}


def slower(found: Mapping[str, float], kept: Mapping[str, float]) -> list[str]:
    """A sentence for each part that takes too long, or was not measured."""
    missing = [f"{name} was not measured" for name in kept if name not in found]
    over = [
        f"{name} takes {found[name]:.2f} yardsticks, {found[name] / kept[name]:.2f} times the {kept[name]:.2f} kept"
        for name in kept
        if name in found and found[name] > TOLERATED * kept[name]
    ]
    return [*missing, *over]


def kept_for(processor: str, kept: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The ratios that a run on this processor is held to."""
    if processor in kept:
        return dict(kept[processor])
    return {part: max(of[part] for of in kept.values()) for part in sorted(PARTS)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("what", choices=("check", "keep"))
    parser.add_argument("run", type=Path, help="what pytest --benchmark-json wrote")
    args = parser.parse_args()
    found, here = ratios(args.run), machine(("numpy",))
    kept = json.loads(BASELINES.read_text())["yardsticks"]
    if args.what == "keep":
        if missing := sorted(PARTS - found.keys()):
            raise SystemExit(f"{args.run} has no {', '.join(missing)}: run all of benchmarks/parts.py")
        kept[here["processor"]] = {name: round(r, 3) for name, r in found.items()}
        BASELINES.write_text(json.dumps({"machine": here, "yardsticks": kept}, indent=1) + "\n")
        return 0
    wrong = slower(found, kept_for(here["processor"], kept))
    for line in [*(f"{name}: {ratio:.2f} yardsticks" for name, ratio in found.items()), *wrong]:
        print(line, file=sys.stderr if line in wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
