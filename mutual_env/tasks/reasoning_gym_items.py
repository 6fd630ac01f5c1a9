"""The process that makes the items of reasoning-gym.

Some of its data sets iterate over sets of strings, some draw from the global generators, one runs code that was
collected from the web. So items are made in a process of its own with a fixed hash seed, seeded global generators and
an empty working directory: same items everywhere, and nothing of it (nor the 2 s of its import) reaches the caller. It
is confined like a verifier's worker: the collected code reads no file of the user's, writes none outside its directory,
opens no socket and starts no process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutual_env.verifiers.pool.confinement import Cage, Limits, confine
from mutual_env.verifiers.pool.isolation import Confined


def plain(value: Any) -> Any:
    """A form that JSON has for what it lacks: sets (sorted, so that they are the same everywhere) and numpy values."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r:.80}")


def make_dataset(name: str, options: Mapping[str, Any], *, seed: int, size: int) -> Any:
    """The data set `name` of reasoning-gym; imports it. The parts of `composite` may be plain mappings."""
    import reasoning_gym
    from reasoning_gym.composite import DatasetSpec

    options = dict(options)
    if name == "composite":
        options["datasets"] = [
            DatasetSpec(part["name"], part.get("weight", 1.0), dict(part.get("config", {})))
            for part in options["datasets"]
        ]
    return reasoning_gym.create_dataset(name, seed=seed, size=size, **options)


def option_names(name: str) -> list[str]:
    """What the data set can be configured with, its seed and size left out: those belong to the round."""
    from reasoning_gym.factory import DATASETS

    return sorted({f.name for f in dataclasses.fields(DATASETS[name][1])} - {"seed", "size"})


def answer_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{"entries": [...]}`, an entry being None where its generator failed, or `{"refused": why}`."""
    import numpy as np
    import reasoning_gym  # noqa: F401  # fills its table of data sets

    name, options, seed, count = (request[k] for k in ("dataset", "options", "seed", "count"))
    known = option_names(name)
    unknown = [o for o in options if o not in known]
    if unknown:
        return {"unknown": unknown[0], "known": known}
    try:
        dataset = make_dataset(name, options, seed=seed, size=max(count, 1))
    except (AssertionError, ValueError, TypeError, KeyError) as e:
        return {"refused": f"{type(e).__name__}: {e}"}
    entries: list[Any] = []
    failure = ""
    for i in range(count):
        random.seed(f"{name} {seed} {i}")
        np.random.seed((seed + i) % 2**32)
        try:
            entries.append(json.loads(json.dumps(dataset[i], default=plain)))
        except Exception as e:  # a generator of somebody else's: its failure is data, and the item is left out
            entries.append(None)
            failure = f"{type(e).__name__}: {e}"
    return {"entries": entries, "failure": failure}


def confine_this_process() -> None:
    """For good. Collected code may be greedy too: 8 GiB of memory, no byte on the disk, no core dump."""
    import reasoning_gym  # noqa: F401  # what is loaded by now can be read later

    limits = Limits(memory_mb=8192, file_mb=0)
    confine(Cage.prepare(limits, confines=not Confined().missing()), Path.cwd())


def main() -> None:
    """Answer one JSON line with one JSON line until the input ends. Items that print or read do not touch the lines."""
    confine_this_process()
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    with contextlib.suppress(BrokenPipeError):
        for line in requests:
            replies.write(json.dumps(answer_request(json.loads(line))) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
    sys.exit(0)
