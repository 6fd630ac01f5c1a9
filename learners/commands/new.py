"""Begin a package that adds a task, a strategy, a learner or a loss; its tests, our conformance suite, pass at once.

`mutual-env new task riddles`
`mutual-env new strategy best-peer --directory ~/code`
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

import sharing
from learners import losses, registry
from mutual_env.errors import InvalidInputError, WrongPathError

_GROUPS = {"task": "tasks", "strategy": "strategies", "learner": "learners", "loss": "losses"}
_LISTED = {"task": "envs", "strategy": "strategies", "learner": "learners", "loss": "losses"}
_NAMES = {"strategy": sharing.names, "learner": registry.names, "loss": losses.names}  # a task's has its version
_INSTALLED = {"loss": "'.[test]'"}  # its tests hold it to autograd, which needs torch
_MORE = {
    "task": '\n[project.entry-points."mutual_env.verifiers"]\n$name_plain-verifier = "$module:${cls}Verifier"\n',
    "loss": '\n[project.optional-dependencies]\ntest = ["mutual-env[torch]"]\n',
}
_TRY = {
    "task": "mutual-env train arithmetic env.id=$name env.options={}  # options are the family's own",
    "strategy": "mutual-env train arithmetic sharing.strategy=$name",
    "learner": "mutual-env train arithmetic policies.ada.learner=$name policies.ada.options={}",
    "loss": "# in a strategy: Lesson(experience, 1.0, NamedLoss.of('$name'))",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(_GROUPS))
    parser.add_argument("name", help="letters, digits and hyphens, e.g. best-peer")
    parser.add_argument("--directory", type=Path, default=Path(), help="where its folder goes (default: here)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", args.name):
        raise InvalidInputError(f"name {args.name!r} must be lower-case words with hyphens between, e.g. best-peer")
    root = args.directory / args.name
    if root.exists():
        raise WrongPathError(f"{root} is there already: choose another name or --directory")
    if taken := _taken(args.kind, args.name):
        raise InvalidInputError(f"name {args.name!r} {taken}: choose another, e.g. my-{args.name}")
    written = []
    for path, text in _files(args.kind, args.name).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(str(target))
    if args.json:
        print(json.dumps({"directory": str(root), "files": written}, indent=1))
        return 0
    print("\n".join(written))
    print(f"next: cd {root} && pip install -e {_INSTALLED.get(args.kind, '.')} && python -m pytest")
    return 0


def _taken(kind: str, name: str) -> str:
    """Why something of this name could not be imported, or would never be the one that is found; "" where it could."""
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        return "is a word of Python"
    if importlib.util.find_spec(module) is not None:
        return "is a module that is there already"
    return f"is a {kind} already" if kind in _NAMES and name in _NAMES[kind]() else ""


def _files(kind: str, name: str) -> dict[str, str]:
    module = name.replace("-", "_")
    cls = "".join(word.capitalize() for word in name.split("-"))
    registered = f"{name}/{name}-v0" if kind == "task" else name
    names = {
        "kind": kind,
        "group": _GROUPS[kind],
        "listed": _LISTED[kind],
        "distribution": name,
        "module": module,
        "cls": cls,
        "name": registered,
        "name_plain": name,
        "where": _INSTALLED.get(kind, "."),
    }
    names |= {"try": Template(_TRY[kind]).substitute(names), "more": Template(_MORE.get(kind, "")).substitute(names)}
    templates = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"{module}/__init__.py": f"{kind}.py.txt",
        f"tests/test_{module}.py": f"{kind}_test.py.txt",
    }
    return {path: Template(_template(file)).substitute(names) for path, file in templates.items()}


def _template(file: str) -> str:
    return resources.files("learners.templates").joinpath(file).read_text(encoding="utf-8")
