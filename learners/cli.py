"""`mutual-env`: the command line."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from signal import SIGINT, SIGPIPE
from typing import NoReturn, Protocol

from learners.run.config import RunConfig, SuiteConfig
from learners.run.ending import EndedBySignal, ended_by_signals
from mutual_env.catalogue import Catalogue
from mutual_env.display import said_shortly
from mutual_env.errors import InvalidInputError, MissingExtraError, MutualEnvError, UnknownNameError


class Command(Protocol):
    """A subcommand: a module, or a class made without arguments. The first line of its docstring is its help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """A default `goes_on` is what is said when the command was interrupted: how its work is taken up again."""

    def run(self, args: argparse.Namespace) -> int:
        """The exit code."""


_OWN = {
    "train": "learners.commands.train",
    "suite": "learners.commands.suite",
    "plan": "learners.commands.plan",
    "report": "learners.commands.report",
    "eval": "learners.commands.eval",
    "compare": "learners.commands.compare",
    "view": "learners.commands.view",
    "export": "learners.commands.export",
    "doctor": "learners.commands.doctor",
    "new": "learners.commands.new",
    "completion": "learners.commands.completion",
    "list": "learners.commands.listing",
    "bridge": "learners.commands.bridge",
    "models": "learners.commands.models",
}
_COMMANDS: Catalogue[Command | type[Command]] = Catalogue("command", "mutual_env.commands", _OWN)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done; 1 what was begun has failed; 2 the arguments, the configuration, a path or what is
    installed must be corrected, and nothing was begun; 128 and the number of the signal that ended it."""
    try:
        args = _read([*(sys.argv[1:] if arguments is None else arguments)])
        args.is_program = arguments is None
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, `head` say, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes when it ends
        return 128 + SIGPIPE
    return code


def _read(words: Sequence[str]) -> argparse.Namespace:
    try:
        # Of our own, the one that is named: half of the time that a command took to start was loading the others.
        return _parse(_parser(words[:1]) if {*words[:1]} & {*_OWN} else whole_parser(), words)
    except _WrongWordsError as wrong:
        _say(str(wrong), f"{wrong.usage}{wrong.program}: error: {wrong}", as_json="--json" in words)
        raise SystemExit(2) from None  # as argparse has it


def _run(args: argparse.Namespace) -> int:
    as_json = getattr(args, "json", False) or getattr(args, "format", "") == "json"
    try:
        with ended_by_signals():
            return int(args.run(args))
    except MutualEnvError as error:
        said = said_shortly(str(error))  # it may quote what a model or a peer wrote
        asked_wrongly = isinstance(error, (InvalidInputError, UnknownNameError, MissingExtraError))
    except EndedBySignal as signal:
        return _interrupted(args, f"ended by {signal}", signal.number, as_json=as_json)
    except KeyboardInterrupt:
        return _interrupted(args, "interrupted", SIGINT, as_json=as_json)
    except OSError as error:  # a boundary: a path that was named, and cannot be read or written
        if error.filename is None:
            raise
        said = said_shortly(f"{error.filename}: {error.strerror}: name another path")
        asked_wrongly = True
    _say(said, f"error: {said}", as_json=as_json)
    return 2 if asked_wrongly and not getattr(args, "running", False) else 1


def _say(message: str, line: str, *, as_json: bool) -> None:
    """Why nothing came of it: a line for a person and, for a program, what it can read where it expects the result."""
    print(line, file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message}, indent=1), flush=True)


def _interrupted(args: argparse.Namespace, how: str, number: int, *, as_json: bool) -> int:
    goes_on = getattr(args, "goes_on", "")
    said = f"{how}: {goes_on}" if goes_on else how
    _say(said, said, as_json=as_json)
    return 128 + number


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Overrides may stand after options too, where argparse alone would not take them."""
    args, rest = parser.parse_known_args(arguments)
    strange = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(args, "overrides")]
    if strange and not hasattr(args, "takes_anything"):
        parser.error(f"unrecognized arguments: {' '.join(strange)}{_hint(args, strange[0])}")
    if rest and hasattr(args, "overrides"):
        args.overrides = [*args.overrides, *rest]
    return args


def _hint(args: argparse.Namespace, word: str) -> str:
    """What a word that no command takes was probably meant to be."""
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    settings = [field.name for config in (RunConfig, SuiteConfig) for field in dataclasses.fields(config)]
    if hasattr(args, "overrides") and name.split(".")[0] in settings:
        return f": settings are written without dashes, {name}=VALUE"
    options = {option.lstrip("-"): option for option in _options(args.command)}
    near = difflib.get_close_matches(word.partition("=")[0].lstrip("-"), options, n=1)  # dashes are alike in all
    return f": did you mean {options[near[0]]}?" if near else ""


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """What can be written with dashes, after the command or a word below it."""
    below = [p for action in parser._actions if isinstance(action.choices, dict) for p in action.choices.values()]
    own = [option for action in parser._actions for option in action.option_strings]
    return [*own, *(option for p in below for option in _options(p))]


class _WrongWordsError(Exception):
    """Words that no command takes, and how it is called."""

    def __init__(self, message: str, program: str, usage: str) -> None:
        super().__init__(message)
        self.program, self.usage = program, usage


class Parser(argparse.ArgumentParser):
    """Says the nearest right choice where one is wrong."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if wrong is not None:
            choices = [choice.strip(" '") for choice in wrong[2].split(",")]
            near = difflib.get_close_matches(wrong[1], choices, n=1)
            message += f": did you mean {near[0]!r}?" if near else ""
        raise _WrongWordsError(said_shortly(message), self.prog, self.format_usage())


def whole_parser() -> argparse.ArgumentParser:
    """With every command."""
    return _parser([*_OWN, *(name for name in _COMMANDS.names() if name not in _OWN)])


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(prog="mutual-env", description=__doc__)
    parser.add_argument("--version", action="version", version=metadata.version("mutual-env"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in names:
        command = _load(name)
        summary, *_ = (command.__doc__ or name).strip().splitlines()
        subparser = commands.add_parser(name, help=summary.rstrip(".").replace("%", "%%"), description=command.__doc__)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=parser, command=subparser)
    return parser


def _load(name: str) -> Command:
    try:
        found = _COMMANDS.load(name)
        return found() if isinstance(found, type) else found
    except Exception as error:
        if name in _OWN:
            raise
        return _Broken(name, error)  # a boundary: another package's mistake must not take away ours


class _Broken:
    """A command of another package that cannot be loaded."""

    def __init__(self, name: str, error: Exception) -> None:
        self._reason = f"command {name!r} cannot be loaded: {type(error).__name__}: {error}"
        self.__doc__ = f"({self._reason})"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(takes_anything=True)

    def run(self, args: argparse.Namespace) -> int:
        print(f"error: {self._reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
