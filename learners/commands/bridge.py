"""What is lost between two tokenizers.

`mutual-env bridge qwen llama3`
`mutual-env bridge models/smollm2 gemma3 samples.txt`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from mutual_env.display import encodable
from mutual_env.errors import InvalidInputError, WrongPathError
from tokenizers_bridge.kinds.published import PUBLISHED
from tokenizers_bridge.report import SAMPLE, print_report, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(PUBLISHED)
    parser.add_argument("author", help=f"a tokenizer: a directory, a file, or one of {known}")
    parser.add_argument("reader", help="the tokenizer that the author's text is translated into")
    parser.add_argument("file", nargs="?", type=Path, help="UTF-8 text to try them on, one sample a paragraph")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--worst", type=int, default=8, help="how many of the largest chunks to show (default 8)")
    parser.add_argument("--rows", type=int, default=4, help="how many samples to show side by side (default 4)")


def run(args: argparse.Namespace, console: Console | None = None) -> int:
    texts = SAMPLE if args.file is None else _paragraphs(args.file)
    if args.json:
        figures = report((args.author, args.reader), texts)
        print(encodable(json.dumps(figures, indent=1, ensure_ascii=False)))
        return int(any(of["verdicts"].get("failed") for of in figures["directions"]))
    return print_report((args.author, args.reader), texts, worst=args.worst, rows=args.rows, console=console)


def _paragraphs(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise WrongPathError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8 at byte {error.start}: convert it first") from error
    texts = [part for part in text.split("\n\n") if part.strip()]
    if not texts:
        raise InvalidInputError(f"{path} has no text: give a file with at least one paragraph")
    return texts
