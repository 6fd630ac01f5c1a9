"""List what can be named in a configuration, with what it is, its options, and the extra that it needs.

`mutual-env list strategies`
`mutual-env list envs knights --json`
`mutual-env list learners torch --options`
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

import mutual_env
import sharing
from learners import losses, registry
from learners.health.extras import extras
from learners.losses import registry as loss_registry
from learners.run import trackers
from learners.run.shipped import about, shipped
from mutual_env import registry as envs
from mutual_env import verifiers
from mutual_env.catalogue import load, summary
from mutual_env.errors import UnknownNameError
from mutual_env.verifiers import spec as verifier_specs
from sharing import registry as strategies
from sharing.exchange import registry as exchanges
from tokenizers_bridge.kinds import loading
from tokenizers_bridge.kinds.published import PUBLISHED

Names: TypeAlias = Callable[[], list[str]]
Target: TypeAlias = Callable[[str], Any]

_KINDS: dict[str, tuple[Names, Target]] = {
    "envs": (mutual_env.ids, envs.target),
    "strategies": (sharing.names, strategies.target),
    "learners": (registry.names, registry.target),
    "losses": (losses.names, loss_registry.target),
    "verifiers": (verifiers.names, verifier_specs.target_of),
    "exchanges": (exchanges.names, exchanges.target),
    "tokenizers": (loading.names, loading.target),
    "trackers": (trackers.names, trackers.target),
    "configs": (lambda: list(shipped()), about),
}
_EXTRAS = {
    "learners": registry.EXTRAS,
    "verifiers": {"math_verify": "math", "reasoning_gym": "gym"},
    "exchanges": {"ray": "ray"},
    "trackers": {name: name for name in ("tensorboard", "wandb", "mlflow", "trackio")},
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One name. `alias_of` is "" where it is nobody's other name; `extra` is "" where nothing optional is needed."""

    name: str
    says: str
    alias_of: str = ""
    extra: str = ""
    installed: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(_KINDS))
    parser.add_argument("filter", nargs="?", default="", help="only names that contain this")
    parser.add_argument("--long", action="store_true", help="with descriptions also where no terminal is")
    parser.add_argument("--options", action="store_true", help="of each: all of its description, and its options")
    parser.add_argument("--json", action="store_true", help="print JSON, options included")


def run(args: argparse.Namespace) -> int:
    names, target = _KINDS[args.kind]
    chosen = [name for name in names() if args.filter in name]
    if not chosen and args.filter:
        raise UnknownNameError.of(f"name among {args.kind}", args.filter, names())
    console = Console()
    if not (args.json or args.options or args.long or console.is_terminal):
        print("\n".join(chosen))
        return 0
    here = {extra.name for extra in extras() if extra.installed}  # the metadata of sixty packages, read once
    listed = [_listed(args.kind, name, target, here) for name in chosen]
    if args.json:
        print(json.dumps([_with_options(args.kind, row, target) for row in listed], indent=1))
    elif args.options:
        for row in listed:
            _print_options(console, _with_options(args.kind, row, target), target(row.name))
    else:
        console.print(_table(listed))
    return 0


def _listed(kind: str, name: str, target: Target, here: Collection[str]) -> Listed:
    alias = strategies.canonical(name) if kind == "strategies" else name
    extra = _extra(kind, name)
    says = f"reasoning-gym's {name.split('/')[1]}" if name.startswith("reasoning_gym/") else summary(target(name))
    return Listed(name, says, alias if alias != name else "", extra, not extra or extra in here)


def _extra(kind: str, name: str) -> str:
    if kind == "envs":
        return "gym" if name.startswith("reasoning_gym/") else "math" if name.startswith("math/") else ""
    if kind == "tokenizers":
        return "published-tokenizers" if name in PUBLISHED else ""
    return _EXTRAS.get(kind, {}).get(name, "")


def _table(rows: list[Listed]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("is")
    table.add_column("extra")
    for row in rows:
        says = f"another name of {row.alias_of}" if row.alias_of else row.says
        extra = Text(row.extra, style="" if row.installed else "yellow")
        table.add_row(row.name, Text(says), extra if row.installed else extra.append(" (not installed)"))
    return table


def _with_options(kind: str, row: Listed, target: Target) -> dict[str, Any]:
    return {**asdict(row), "options": _options(f"{kind} {row.name}", target(row.name))}


def _options(what: str, target: Any) -> dict[str, str] | None:
    """name -> type and default, as they are written; None where what it needs is not installed."""
    try:
        made = load(what, target) if isinstance(target, str) else target
        parameters = inspect.signature(made).parameters.values()
    except (ImportError, ValueError, TypeError):
        return None
    return {p.name: _written(p) for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and _own(p)}


def _own(parameter: inspect.Parameter) -> bool:
    return parameter.name not in ("self", "env", "name", "path" if parameter.annotation == "Path" else "")


def _written(parameter: inspect.Parameter) -> str:
    kind = "" if parameter.annotation is parameter.empty else str(parameter.annotation).replace("typing.", "")
    default = "(required)" if parameter.default is parameter.empty else f"= {parameter.default!r}"
    return f"{kind} {default}".strip()


def _print_options(console: Console, entry: dict[str, Any], target: Any) -> None:
    console.print(Text(entry["name"], style="bold"))
    if entry["extra"] and not entry["installed"]:
        console.print(Text(f"  needs pip install 'mutual-env[{entry['extra']}]'", style="yellow"))
    made = target
    if isinstance(target, str) and entry["options"] is not None:
        made = load(entry["name"], target)
    says = inspect.getdoc(made) if not isinstance(made, str) else entry["says"]
    for line in (says or "").splitlines():
        console.print(Text(f"  {line}"))
    for option, written in (entry["options"] or {}).items():
        console.print(Text(f"  {option}: ", style="cyan").append(written, style="default"))
    console.print()
