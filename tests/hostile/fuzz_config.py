"""Wrong configurations: each is accepted, or refused in a sentence.

    python -m tests.hostile.fuzz_config --cases 10000

    override   a sound file with one to four random `key=value`, right keys and wrong ones, of any kind of value
    yaml       a file whose bytes are damaged, or whose values and keys are changed
    suite      likewise a suite: overrides of its base and of its arms, or damaged bytes
    plan       the same overrides, laid out on random machines

Every case is the command line with `--dry-run`: exit code 0, or 2 and one line "error: ...", and nothing left on the
disk. Of the accepted ones some are then run for one round, which may fail in a sentence and in no other way. A
case that takes two minutes is a failure too.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from learners.cli import main as command_line
from tests.hostile import fuzzing
from tests.hostile.fuzz_data import damaged

KINDS = ("override", "yaml", "suite", "plan")
LONGEST_SENTENCE = 2000
LONGEST_SECONDS = 120  # of a clock: others may be busy too
MEMORY_BYTES = 12 * 2**30
FIRST_SIGNAL = 128

RUN = """
name: r
rounds: 1
env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2, options: {digits: 1, modulus: 10}}
sharing: {strategy: sgt, options: {weight: 0.2}}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, max_new_tokens: 2}}
  bob:
    learner: tabular
    options: {tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["%1"]}, learning_rate: 60}
evaluation: {every: 1, prompts: 4, samples: 1}
resources: {executor: serial, demands: {ada: {weights: 2.0e9, phases: {act: {gpus: 0, seconds: 2}}}}}
"""
SUITE = "name: s\nseeds: [0, 1]\nbase:\n" + "".join(f"  {line}\n" for line in RUN.strip().splitlines()[1:])
SUITE += "arms: {plain: {sharing.options: {weight: 0}}, sgt: {sharing.options.weight: 0.1}}\n"

STRATEGIES = (
    "independent",
    "prp",
    "xgrpo",
    "sgt",
    "graft",
    "hacpo",
    "ftis",
    "luffy",
    "sapo",
    "trrd",
    "kdrl",
    "topd",
    "offline",
)
STRATEGIES += ("memory", "corl", "placebo", "frozen", "sggt", "")
KEYS = (
    "name", "seed", "rounds", "output", "env", "env.id", "env.group_size", "env.prompts_per_round", "env.on_unscored",
    "env.unscored_limit", "env.refills",
    "env.spare_prompts", "env.max_turns", "env.max_tokens", "env.options", "env.options.digits", "env.options.modulus",
    "env.options.operation", "env.options.template", "env.options.split", "env.options.prompt", "env.options.verifier",
    "env.options.agents", "env.options.seed", "env.options.path", "sharing", "sharing.strategy", "sharing.exchange",
    "sharing.exchange_options", "sharing.exchange_options.timeout", "sharing.options", "sharing.options.weight",
    "sharing.options.trust", "sharing.options.peers", "sharing.options.wait", "sharing.options.max_staleness",
    "sharing.options.limits", "sharing.options.publish", "sharing.options.reverify", "sharing.options.verify",
    "sharing.options.length_penalty", "sharing.options.truncated", "sharing.options.teacher", "sharing.options.std",
    "sharing.options.ratio_cap", "sharing.options.clip_low", "sharing.options.eta", "sharing.options.exchange",
    "policies", "policies.ada", "policies.ada.learner", "policies.ada.options", "policies.ada.options.learning_rate",
    "policies.ada.options.temperature", "policies.ada.options.max_new_tokens", "policies.ada.options.context",
    "policies.ada.options.tokenizer", "policies.ada.options.tokenizer.kind", "policies.ada.options.tokenizer.alphabet",
    "policies.ada.options.merges", "policies.ada.options.alphabet", "policies.ada.options.aversion",
    "policies.ada.options.stop", "policies.ada.options.prompt", "policies.ada.options.minibatches",
    "policies.ada.options.aggregation", "policies.ada.options.kl_coefficient", "policies.ada.options.name",
    "policies.ada.options.seed", "policies.ada.options.path", "policies.ada.options.device", "policies.eve",
    "policies.eve.learner", "teachers", "teachers.tom", "teachers.tom.learner", "seats", "seats.judge.learner",
    "evaluation", "evaluation.every", "evaluation.prompts", "evaluation.samples", "evaluation.part",
    "evaluation.options", "checkpoint", "checkpoint.every", "checkpoint.keep", "record.megabytes", "resources",
    "resources.executor", "resources.mode", "resources.devices", "resources.demands", "resources.demands.ada",
    "resources.demands.ada.phases", "resources.demands.ada.phases.act", "resources.demands.ada.phases.act.gpus",
    "resources.demands.ada.phases.act.memory", "resources.demands.ada.weights", "resources.patience",
    "resources.patience.limit", "resources.options", "resources.options.threads", "resources.options.keep",
    "resources.instructions", "resources.threads", "trackers",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, -1, 7, 0.5, 1.5, -0.25, 1e-9, 1e300, -1e300, 10**30, -(10**30), 2**63, 10**9,
    float("nan"), float("inf"), float("-inf"), "", "x", "fast", "a b", "../../x", "/proc/x", "\0", "é\u202e", "y" * 300,
    "null", "${seed}", "${nowhere}", "???", "!!python/object:os.system", "&a *a", "{", "[", "1e5", "0x10", "2024-01-01",
    [], [1], ["a"], [[]], ["ada"], ["ada", "bob"], [None], {}, {"a": 1}, {"ada": 0.1}, {"ada": {"bob": 1}}, {"*": 1},
    {"kind": "char", "alphabet": "ab"}, {"kind": "pair", "alphabet": "ab", "merges": "ab"}, {"kind": 3},
    {"name": "exact"}, {"name": "numeric", "kwargs": {"x": 1}}, {"strategy": "sgt"}, {"phases": {"act": {"gpus": 9}}},
    {"learner": "tabular"}, {"learner": "tiny"}, {"learner": "torch", "options": {"path": "nowhere"}}, {1: 2},
    {"limit": 10, "buffer": 5}, {"max_tokens": -1}, {"system": "s", "template": "{prompt}!"}, {"split": "eval"},
    "tabular", "tiny", "torch", "vllm", "openrlhf", "mutual/letters-v0", "mutual/guess-v0", "math/jsonl-v0",
    "dataset/jsonl-v0", "logic/knights-knaves-v0", "mutual/debate-v0", "mutual/judged-v0", "mutual/curriculum-v0",
    "serial", "threads", "processes", "ray", "memory", "sqlite", "asynchronous", "native", "avx2", "1x2:80",
    "9999999999x9999999999:1", "1x0@0", "4x8", "zero", "raise", "sub", "mul", "eval", "tensorboard", "qwen",
    *STRATEGIES,
    "half\udc80",  # a byte that is no UTF-8, as a shell hands it on
)  # fmt: skip


def value(rng: random.Random) -> Any:
    chosen = rng.choice(VALUES)
    match rng.randrange(12):
        case 0:
            return [chosen, rng.choice(VALUES)]
        case 1:
            return {rng.choice(("a", "ada", "bob", "*", "weight", "x.y", "")): chosen}
    return chosen


def override(rng: random.Random) -> str:
    key = rng.choice(KEYS)
    if rng.random() < 0.1:  # a slip of the finger
        at = rng.randrange(len(key))
        key = key[:at] + rng.choice(("", ".", "x", "[0]", "=", " ")) + key[at + rng.randrange(2) :]
    given = rng.choice(STRATEGIES) if key == "sharing.strategy" and rng.random() < 0.7 else value(rng)
    if rng.random() < 0.4:
        given = rng.choice((0, 1, 2, 3, 5, 0.1, 0.5, 1.5, 4, 8))
    text = given if isinstance(given, str) and rng.random() < 0.5 else _written(given)
    return f"{key}={text}"


def _written(given: Any) -> str:
    """As YAML has it, which JSON is but for the numbers that are none."""
    text = json.dumps(given, ensure_ascii=False)
    return text.replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")


def changed(text: str, rng: random.Random) -> bytes:
    """A file that is YAML still, with one to three values changed, keys renamed, or parts gone."""
    tree = yaml.safe_load(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at: Any = tree
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(at[key], (dict, list)) and rng.random() < 0.85:
                at = at[key]
                continue
            match rng.randrange(8):
                case 0:
                    del at[key]
                case 1 if isinstance(at, dict):
                    at[rng.choice((f"{key}s", "x", 3, None, str(key)[1:]))] = at.pop(key)
                case _:
                    at[key] = value(rng)
            break
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace")


def words(kind: str, rng: random.Random, folder: Path) -> list[str]:
    """A command line."""
    file = folder / "c.yaml"
    text = SUITE if kind == "suite" else RUN
    spoiled = kind == "yaml" or (kind == "suite" and rng.random() < 0.4)
    spoil = changed if rng.random() < 0.7 else lambda text, rng: damaged(text.encode(), rng)
    file.write_bytes(spoil(text, rng) if spoiled else text.encode())
    overrides = [] if spoiled else [override(rng) for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]
    if kind == "suite":
        overrides = [
            f"base.{o}" if rng.random() < 0.7 else o if rng.random() < 0.5 else f"arms.sgt.{o}" for o in overrides
        ]
    if kind == "plan":
        devices = rng.choice(("", "1x0@16", "2x8:80", "1x1:1", "0x0", "x", "99999x99999", "1x2:80,1x0@16"))
        return ["plan", str(file), *overrides, *([f"--devices={devices}"] if devices else [])]
    return [kind if kind == "suite" else "train", str(file), *overrides, "--dry-run"]


def case(kind: str, seed: int) -> tuple[str, str]:
    """What became of it: "accepted", "run", "refused" or a failure; and what there is to say about it."""
    rng = random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory(prefix="mutual-env-fuzz-") as scratch, contextlib.chdir(scratch):
        Path("c").mkdir()
        given = words(kind, rng, Path("c"))
        try:
            code, said = told(given)
            left = sorted(str(p) for p in Path(scratch).rglob("*") if p.name not in ("c", "c.yaml"))
            if left:
                return "left something", f"{left[:3]}; {given}"
            if code == 0 and kind in ("override", "yaml") and rng.random() < 0.25 and _small(said):
                code, said = told([*given[:-1], "rounds=1", "output=out", "--quiet"])
                if code == 1 and said.strip().splitlines()[-1].startswith("error: "):
                    return "run fails in a sentence", ""
                return ("run", "") if code == 0 else ("a strange end", f"{code}: {said[-300:]}; {given}")
        except (Exception, SystemExit) as error:
            return "raw exception", f"{type(error).__name__}: {error}"[:300] + f"; {given}"
    if code == 0 or (kind == "plan" and code == 1 and not said):
        return "accepted", ""
    lines = said.strip().splitlines()
    if code != 2 or "error: " not in said:
        return "a strange end", f"{code}: {said[-300:]}; {given}"
    if len(said) > LONGEST_SENTENCE or (len(lines) > 12):
        return "too long a sentence", f"{said[:200]}; {given}"
    return "refused", ""


def told(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command, and what it printed (where it did well, on stdout; else on stderr)."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")  # with encodings, as a terminal's have
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = command_line(list(arguments))
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
    if code > FIRST_SIGNAL:  # the command was interrupted; and so is who asked for it
        raise KeyboardInterrupt(f"exit code {code}")
    printed = out if code == 0 else err
    printed.seek(0)
    return code, printed.read()


def _small(resolved: str) -> bool:
    """Whether a round of this configuration takes no time."""
    sizes = ("group_size: ", "prompts_per_round: ", "prompts: ", "samples: ", "max_new_tokens: ", "wait: ", "limit: ")
    lines = [line.strip() for line in resolved.splitlines()]
    small = all(line.partition(": ")[2] in map(str, range(9)) for line in lines if line.startswith(sizes))
    return small and "executor: serial" in resolved and "learner: t" not in resolved.replace("learner: tabular", "")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"it took more than {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def prepared(kinds: Sequence[str]) -> Iterator[fuzzing.Case]:
    yield case


GOOD = ("accepted", "run", "run fails in a sentence", "refused")


def main() -> int:
    return fuzzing.main("python -m tests.hostile.fuzz_config", __doc__, prepared, KINDS, GOOD, MEMORY_BYTES)


if __name__ == "__main__":
    sys.exit(main())
