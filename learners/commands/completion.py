"""Print a completion script for a shell.

`mutual-env completion bash > ~/.local/share/bash-completion/completions/mutual-env`
`mutual-env completion zsh > ~/.zfunc/_mutual-env`
"""

from __future__ import annotations

import argparse

from learners import cli
from mutual_env.errors import MissingExtraError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise MissingExtraError.of("shell completion", "completion") from error
    print(shtab.complete(cli.whole_parser(), shell=args.shell))
    return 0
