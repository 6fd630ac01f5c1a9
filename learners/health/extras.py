"""What this distribution needs, and may have besides, by its own metadata: whether it is there, and new enough."""

from __future__ import annotations

import importlib.util
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

DISTRIBUTION = "mutual-env"
_REQUIREMENT = re.compile(r"^(?P<package>[A-Za-z0-9._-]+)(\[.*?\])?\s*(?P<wanted>[^;]*)(;(?P<where>.*))?$")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")
_COMPARED: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Extra:
    """`packages` -> installed version, "" where it is missing; `unfit` -> of one that is there in a version that will
    not do, what pip is to install. `name` is "" for what is needed in any case."""

    name: str
    packages: dict[str, str]
    unfit: dict[str, str]

    @property
    def installed(self) -> bool:
        return all(self.packages.values())

    @property
    def pip(self) -> str:
        return f"pip install '{DISTRIBUTION}{f'[{self.name}]' if self.name else ''}'"


def extras() -> list[Extra]:
    """Every extra, in the order of its name; first what is needed in any case."""
    found: dict[str, Extra] = {}
    for requirement in metadata.requires(DISTRIBUTION) or ():
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        named = _EXTRA.search(match["where"] or "")
        extra = found.setdefault(named[1] if named else "", Extra(named[1] if named else "", {}, {}))
        package, wanted = match["package"], match["wanted"].strip()
        version = extra.packages[package] = _version(package)
        if version and not _fits(version, wanted):
            extra.unfit[package] = f"{package}{wanted}"
    return [found[name] for name in sorted(found)]


def module(package: str) -> str:
    """What is imported of an installed package, by its own word or by its name; "" where that is not to be found."""
    name = package.replace("-", "_")
    told = (metadata.distribution(package).read_text("top_level.txt") or "").split()
    names = [name, *(word for word in told if word.isidentifier() and not word.startswith("_"))]
    return next((word for word in names if importlib.util.find_spec(word) is not None), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _fits(version: str, wanted: str) -> bool:
    """Of the numbers of releases, which is all that this distribution's own requirements ask about."""
    clauses = re.findall(r"(>=|==|<)\s*([0-9.]+)", wanted)
    return all(_COMPARED[how](_release(version), _release(least)) for how, least in clauses)


def _release(version: str) -> tuple[int, ...]:
    """2.8, 2.8.0 and 2.8.0+cpu are one."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    found = [int(number) for number in numbers[0].split(".")] if numbers else []
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)
