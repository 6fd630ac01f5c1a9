"""The configurations that come with the package, by name: `mutual-env suite quickstart`."""

from __future__ import annotations

import difflib
import os
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

_PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
"""In a wheel inside the package; in a checkout beside it."""


def shipped() -> dict[str, Path]:
    """Name, such as `quickstart` or `recipes/graft-pair1` -> file."""
    home = next((place for place in _PLACES if place.is_dir()), None)
    if home is None:
        return {}
    files = sorted(home.rglob("*.yaml"))
    return {file.relative_to(home).with_suffix("").as_posix(): file for file in files}


def config_file(text: str) -> Path:
    """A path that is there as it is; else one of ours by its name, with or without `configs/` and `.yaml`."""
    path = Path(text)
    return path if os.path.exists(path) else shipped().get(_plain(path), path)  # False for one that cannot be


def nearest(path: Path) -> str:
    """The file beside it, or the name of ours, that a path that is not there was probably meant to be; "" if none."""
    beside = {file.name: str(file) for file in path.parent.glob("*.y*ml") if file.is_file()}
    found = [beside[name] for name in difflib.get_close_matches(path.name, beside, n=1)]
    return next(iter([*found, *difflib.get_close_matches(_plain(path), shipped(), n=1)]), "")


def _plain(path: Path) -> str:
    """As one of ours is named."""
    name = path.with_suffix("") if path.suffix in (".yaml", ".yml") else path
    return name.as_posix().removeprefix("configs/")


def about(name: str) -> SimpleNamespace:
    """What the comment at the top of one of ours says, as the documentation of a thing."""
    lines = shipped()[name].read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return SimpleNamespace(__doc__=" ".join(line.lstrip("# ") for line in comment))
