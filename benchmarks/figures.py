"""Where measured figures go, and what they were measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "docs" / "figures" / "data"
PACKAGES = ("torch", "transformers", "trl", "peft", "numpy")


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Processor, cores and versions."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def write(area: str, figures: Mapping[str, Any]) -> Path:
    """`docs/figures/data/<area>.json`."""
    DATA.mkdir(parents=True, exist_ok=True)
    path = DATA / f"{area}.json"
    path.write_text(json.dumps(_rounded(figures), indent=2, sort_keys=True) + "\n")
    print(path.read_text())
    return path


def leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every single figure, and the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, (*keys, str(key)))
    else:
        yield keys, value


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _rounded(value: Any) -> Any:
    """Four digits: more would be noise."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value
