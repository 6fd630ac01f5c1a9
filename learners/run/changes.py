"""What is not as it was when a run began: its configuration, and the versions of what runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from learners.run.config import RunConfig, as_mapping
from learners.run.directory import versions
from mutual_env.types import JSON

SHOWN = 12
_ABSENT = "(nothing)"


def changes(info: Mapping[str, Any], config: RunConfig) -> dict[str, list[JSON]]:
    """Key -> what it was and what it is. `info` is what run.json says."""
    now = {"config": as_mapping(config), "versions": versions()}
    if not all(isinstance(info.get(part), dict) for part in now):
        return {"run.json": ["(does not say what the run began with)", _ABSENT]}
    found: dict[str, list[JSON]] = {}
    for part, values in now.items():
        found |= differences(info[part], values, "" if part == "config" else f"{part}.")
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, list[JSON]]:
    """Dotted key -> what it was and what it is, where that is not the same."""
    was, is_ = dict(_flat(before, prefix)), dict(_flat(after, prefix))
    return {
        key: [was.get(key, _ABSENT), is_.get(key, _ABSENT)]
        for key in sorted(was.keys() | is_.keys())
        if _shown(was.get(key, _ABSENT)) != _shown(is_.get(key, _ABSENT))
    }


def sentence(found: Mapping[str, list[JSON]]) -> str:
    """The changes, a line each."""
    lines = [f"  {key}: {_shown(before)}, now {_shown(after)}" for key, (before, after) in found.items()]
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([*lines[:SHOWN], *more])


def _flat(values: Any, prefix: str) -> Iterator[tuple[str, JSON]]:
    """Leaves by dotted path; what is empty is a leaf too."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix and not prefix.endswith(".") else f"{prefix}{key}")
    else:
        yield prefix, values


def _shown(value: Any) -> str:
    """Of numbers, NaN too, the text is what can be compared."""
    return repr(value)
