"""List what can be named in a configuration.

`mutual-env list envs knights`
"""

from __future__ import annotations

import argparse

import mutual_env
import sharing
from learners import registry
from learners.run import trackers
from mutual_env import verifiers
from sharing.exchange import registry as exchanges
from tokenizers_bridge.kinds import loading

_KINDS = {
    "envs": mutual_env.ids,
    "strategies": sharing.names,
    "learners": registry.names,
    "verifiers": verifiers.names,
    "exchanges": exchanges.names,
    "tokenizers": loading.names,
    "trackers": trackers.names,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(_KINDS))
    parser.add_argument("filter", nargs="?", default="", help="only names that contain this")


def run(args: argparse.Namespace) -> int:
    for name in _KINDS[args.kind]():
        if args.filter in name:
            print(name)
    return 0
