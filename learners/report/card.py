"""The card of an exported policy: what it is, how it came about, how it did, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from learners.run.config import PolicyConfig, layers
from learners.run.results import RunResults
from learners.run.subject import Subject


def model_card(subject: Subject, policy: str, run: RunResults, *, adapter: bool) -> str:
    """Markdown with the header that model hubs read."""
    described = subject.config.policies[policy]
    base = str(described.options.get("path", ""))
    parts = [
        _header(base, adapter=adapter),
        f"# {policy}, of run {subject.config.name}\n",
        _origin(subject, policy, base),
        _load(adapter=adapter),
        _results(run, policy, subject.round),
        _training(subject, described),
        _versions(run.info.get("versions", {})),
    ]
    return "\n".join(part for part in parts if part)


def _header(base: str, *, adapter: bool) -> str:
    lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}", "pipeline_tag: text-generation"]
    lines += [f"base_model: {json.dumps(base)}"] if base else []
    return "\n".join([*lines, "tags: [mutual-env, reinforcement-learning]", "---", ""])


def _origin(subject: Subject, policy: str, base: str) -> str:
    config = subject.config
    others = ", ".join(name for name in config.policies if name != policy) or "nobody"
    strategy = " over ".join(layer.strategy for _, layer in layers(config.sharing))
    teachers = f", with {', '.join(config.teachers)} as teachers" if config.teachers else ""
    return (
        f"Trained from {base or 'a model built from scratch'} for {subject.round} rounds by mutual reinforcement "
        f"learning (strategy `{strategy}`) on `{config.env.id}`, together with {others}{teachers}. Seed "
        f"{config.seed}. The licence of the model that it was trained from applies.\n"
    )


def _load(*, adapter: bool) -> str:
    lines = ["## Load it", "", "```python"]
    if adapter:
        lines += [
            "from peft import AutoPeftModelForCausalLM",
            "",
            'model = AutoPeftModelForCausalLM.from_pretrained(".")',
        ]
    else:
        lines += [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained(".")',
            'tokenizer = AutoTokenizer.from_pretrained(".")',
        ]
    return "\n".join([*lines, "```", ""])


def _results(run: RunResults, policy: str, round_: int) -> str:
    curves = run.evaluations.get(policy, {})
    rows = [(name, dict(curve)) for name, curve in sorted(curves.items())]
    found = [(name, points[min(points)], points[round_]) for name, points in rows if round_ in points]
    if not found:
        return ""
    lines = ["## Held-out tasks", "", "| measure | before | after |", "|---|---:|---:|"]
    return "\n".join([*lines, *(f"| {name} | {before:.3f} | {after:.3f} |" for name, before, after in found), ""])


def _training(subject: Subject, described: PolicyConfig) -> str:
    settings = {k: v for k, v in described.options.items() if not isinstance(v, Mapping)}
    told = {
        "learner": described.learner,
        **settings,
        "group_size": subject.config.env.group_size,
        "prompts_per_round": subject.config.env.prompts_per_round,
    }
    lines = ["## Trained with", "", "| option | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | `{value}` |" for key, value in told.items()), ""])


def _versions(versions: Mapping[str, Any]) -> str:
    return "\n".join(["## Versions", "", ", ".join(f"{name} {value}" for name, value in versions.items()), ""])
