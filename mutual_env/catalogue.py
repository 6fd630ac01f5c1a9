"""Things by name: ours, those a program registers, and those of installed packages (an entry-point group)."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from mutual_env.errors import InvalidInputError, UnknownNameError

T = TypeVar("T")


class Catalogue(Generic[T]):
    """Names of one kind of thing. A name stands for a thing, or for the "module:attribute" where it is found, which is
    imported when it is first asked for: a catalogue of heavy things is light.

    The same name can be registered again for the same thing (a notebook's cell that is run twice), never for another.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._targets: dict[str, str | T] = dict(own)

    def register(self, name: str, target: str | T) -> None:
        if isinstance(target, str) and target.count(":") != 1:
            raise InvalidInputError(f"the target of {self.kind} {name!r} must read 'module:attribute', got {target!r}")
        if place_of(self._targets.setdefault(name, target)) != place_of(target):
            held = place_of(self._targets[name])
            raise InvalidInputError(f"{self.kind} {name!r} is taken: it already names {held!r}; choose another name")
        self._targets[name] = target

    def names(self) -> list[str]:
        return sorted({*self._targets, *self._installed()})

    def target(self, name: str) -> str | T:
        """What the name stands for, not yet imported."""
        if name in self._targets:
            return self._targets[name]
        installed = self._installed()
        if name not in installed:
            raise UnknownNameError.of(self.kind, name, {*self._targets, *installed})
        return installed[name].value

    def load(self, name: str) -> T:
        target = self.target(name)
        if not isinstance(target, str):
            return target
        found: T = load(f"{self.kind} {name!r}", target)
        return found

    def _installed(self) -> dict[str, EntryPoint]:
        return _installed(self.group, _places())


@functools.cache
def _installed(group: str, places: tuple[tuple[str, int], ...]) -> dict[str, EntryPoint]:
    """Reading the metadata of all that is installed takes tens of milliseconds: once, until `places` has changed."""
    return {point.name: point for point in entry_points(group=group)}


def _places() -> tuple[tuple[str, int], ...]:
    """Where packages may be installed, and when something last was."""
    return tuple((place, _changed(place)) for place in sys.path)


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def load(what: str, target: str) -> Any:
    """The attribute of the module that "module:attribute" names, or the module that "module" does. `what` is said where
    there is none."""
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as cause:
        if cause.name is not None and (module == cause.name or module.startswith(cause.name + ".")):
            raise UnknownNameError(f"{what}: there is no module {cause.name!r} on sys.path") from cause
        raise  # it is there, and misses something itself
    for part in filter(None, attribute.split(".")):
        if not hasattr(found, part):
            raise UnknownNameError.of(f"attribute of {what}", attribute, dir(importlib.import_module(module)))
        found = getattr(found, part)
    return found


def summary(target: object) -> str:
    """The first sentence of the docstring of what a target names. Nothing heavy is imported to find it: a module that
    is not imported yet is read."""
    text = inspect.getdoc(target) if not isinstance(target, str) else _docstring(target)
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def _docstring(target: str) -> str | None:
    module, _, attribute = target.partition(":")
    root, *inner = module.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent.joinpath(*inner) if inner else Path(spec.origin).with_suffix("")
    file = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    if file is None:
        return None
    tree: ast.AST = ast.parse(file.read_text(encoding="utf-8"))
    first = attribute.split(".")[0]  # the class, of a constructor of its own
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == first:
            return ast.get_docstring(node)
    return None


def place_of(target: object) -> str:
    """Where it is defined: a thing defined again is the same thing."""
    return target if isinstance(target, str) else f"{target.__module__}:{getattr(target, '__qualname__', target)}"
