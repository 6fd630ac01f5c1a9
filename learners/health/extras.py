"""The optional parts of this distribution, as its own metadata names them: what each needs, and whether it is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

DISTRIBUTION = "mutual-env"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")


@dataclass(frozen=True, slots=True)
class Extra:
    """`packages` -> installed version, "" where it is missing."""

    name: str
    packages: dict[str, str]

    @property
    def installed(self) -> bool:
        return all(self.packages.values())

    @property
    def pip(self) -> str:
        return f"pip install '{DISTRIBUTION}[{self.name}]'"


def extras() -> list[Extra]:
    """Every extra, in the order of its name."""
    found: dict[str, dict[str, str]] = {}
    for requirement in metadata.requires(DISTRIBUTION) or ():
        match = _REQUIREMENT.match(requirement)
        if match is not None:
            found.setdefault(match[2], {})[match[1]] = _version(match[1])
    return [Extra(name, packages) for name, packages in sorted(found.items())]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
