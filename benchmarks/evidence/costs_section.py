"""What sharing costs, on `docs/evidence.md`: a round of each arm over one of GRPO, by phase and policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.bars import COSTS, PUBLISHED_COSTS
from benchmarks.evidence.markdown import line, read, wrapped

ORDER = (
    "sampling",
    "verifying and publishing",
    "reading and teaching",
    "verifying and sharing",  # where the two were not told apart
    "translating and scoring",
    "updating",
)
"""Of the phases in a table."""
_MEASURED_AS = {"letters": "tiny"}
"""In the file of costs; other families by their own names."""
SETTINGS = {
    "tiny": "The letters pair, at the weights that training begins with",
    "letters-intel": "The same",
    "after": "The same pair at the weights that runs of seed 0 ended with",
    "real": "SmolLM2-135M and Gemma-3-270M with LoRA, answers of at most six tokens",
}


def times_alone(family: str, suite: str) -> dict[str, float]:
    """What a round of each arm costs over one of GRPO, where that was measured: for this result file, or its suite."""
    found = read("costs")
    measured: Mapping[str, Any] = found.get(family) or found.get(_MEASURED_AS.get(suite, suite), {})
    return {arm: float(of["times_alone"]) for arm, of in measured.items()}


def costs(found: Mapping[str, Any]) -> str:
    parts = ["## What it costs"]
    for key, setting in SETTINGS.items():
        if key in found:
            where = found["processors"][key]
            parts += [wrapped(f"{setting}, on {where}: {_intro(found[key])}"), _table(found[key])]
            parts += [wrapped(_WHY[key](found[key]))]
    return "\n\n".join(parts) + "\n"


def _intro(arms: Mapping[str, Any]) -> str:
    counts = [of["rounds"] for of in arms.values()]
    rounds = max(counts, key=counts.count)
    others = "".join(f", of `{arm}` {of['rounds']}" for arm, of in arms.items() if of["rounds"] != rounds)
    policies = _policies(arms)
    each = f" and policy ({' + '.join(policies)}; verifying and the exchange are one call for all)" if policies else ""
    read_ = "; *read* are those tokens and the prompts that they answer, once each" if policies else ""
    return (
        f"processor milliseconds of a round of both policies, by phase{each}, and the whole over a round of GRPO "
        f"(medians of {rounds} rounds{others}, all arms in turn within each, on the same tasks; "
        "`python -m benchmarks.costs`). Trained rows are those that teach something: GRPO leaves out every group "
        f"without spread{read_}."
    )


def _policies(arms: Mapping[str, Any]) -> list[str]:
    """Those whose own milliseconds are known, of every arm."""
    known = [list(of.get("policies", ())) for of in arms.values()]
    return known[0] if all(known) else []


def _table(arms: Mapping[str, Any]) -> str:
    policies = _policies(arms)
    phases = sorted(next(iter(arms.values()))["phases"], key=ORDER.index)
    trained = ["trained rows", "trained tokens", *(["read"] if policies else []), "updating, ms a token"]
    head = ["arm", "times GRPO", *policies, *phases, *trained]
    ordered = sorted(arms.items(), key=lambda item: float(item[1]["times_alone"]))
    rows = [line(_row(arm, of, policies, phases)) for arm, of in ordered]
    return "\n".join([line(head), "|---|" + "---:|" * (len(head) - 1), *rows])


def _row(arm: str, of: Mapping[str, Any], policies: list[str], phases: list[str]) -> list[str]:
    return [
        f"`{arm}`",
        f"{of['times_alone']:.2f}",
        *(f"{of['policies'][policy]['times_alone']:.2f}" for policy in policies),
        *(_milliseconds(of, phase, policies) for phase in phases),
        f"{of['rows']:.0f}",
        f"{of['tokens']:.0f}",
        *([f"{of['read']:.0f}"] if policies else []),
        f"{of['update_ms_per_token']:.2f}",
    ]


def _milliseconds(of: Mapping[str, Any], phase: str, policies: list[str]) -> str:
    """Of a phase: policy by policy, where each has it for itself."""
    if policies and phase in of["policies"][policies[0]]:
        return " + ".join(f"{1000 * of['policies'][policy][phase]:.0f}" for policy in policies)
    return f"{1000 * of['phases'][phase]:.0f}"


# -- why --------------------------------------------------------------------------------------------------------------


def _why(arms: Mapping[str, Any]) -> str:
    """Where SGT's seconds go."""
    alone, sgt = arms["grpo"], arms["sgt"]
    return (
        f"SGT against GRPO: {_more(sgt, alone)}. It trains {_times(sgt['rows'], alone['rows'])} times the rows, at "
        f"{_times(sgt['update_ms_per_token'], alone['update_ms_per_token'])} times the milliseconds a trained token: "
        "what it costs more is training the rescues, on prompts whose groups GRPO leaves out, and reading, translating "
        "and scoring what is borrowed."
    )


def _more(of: Mapping[str, Any], alone: Mapping[str, Any]) -> str:
    """Milliseconds of each phase beyond GRPO's."""
    phases = sorted(alone["phases"], key=ORDER.index)
    return ", ".join(f"{phase} {1000 * (of['phases'][phase] - alone['phases'][phase]):+.0f} ms" for phase in phases)


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
    published = ", ".join(f"{arm} {times}" for arm, times in PUBLISHED_COSTS.items())
    beside = ", ".join(f"{arm} {arms[arm]['times_alone']:.2f}" for arm in PUBLISHED_COSTS if arm in arms)
    return (
        f"Asked: {_names(1.05)} at most 1.05, {_names(1.6)} at most 1.6. Measured: {', '.join(told)}. Published (in "
        f"GRAFT's paper) of larger models and long answers, in GPU-hours over two runs: {published}; here {beside}. "
    ) + " ".join(_made_of(arm, arms) for arm, most in COSTS.items() if arms[arm]["times_alone"] > most)


def _names(most: float) -> str:
    return " and ".join(arm for arm, bar in COSTS.items() if bar == most)


def _made_of(arm: str, arms: Mapping[str, Any]) -> str:
    alone, of = arms["grpo"], arms[arm]
    return f"{arm} over GRPO: {_more(of, alone)}; it trains {_trained(of, alone)}."


def _trained(of: Mapping[str, Any], alone: Mapping[str, Any]) -> str:
    rows = f"{_times(of['rows'], alone['rows'])} times the rows of GRPO, whose groups without spread teach nothing"
    if not of.get("read") or not alone.get("read"):
        each = _times(of["update_ms_per_token"], alone["update_ms_per_token"])
        return f"{rows}, at {each} times the milliseconds a trained token"
    each_of, each_alone = (r["phases"]["updating"] / r["read"] for r in (of, alone))
    return (
        f"{rows}, of {_times(of['prompts'], alone['prompts'])} times the prompts: {_times(of['read'], alone['read'])} "
        "times the tokens are read for it (a prompt once for all of its answers, and here it is the longer part), at "
        f"{_times(each_of, each_alone)} times the milliseconds each"
    )


_WHY = {"tiny": _why, "letters-intel": _why, "after": _why_later, "real": _asked}


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "–"
