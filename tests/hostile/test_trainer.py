"""What a worker learns of the process that trains, through the command line's own `train`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.hostile.test_promises import NOBODY, REPOSITORY, USERS, interpreter_for

CONFIG = """
name: r
rounds: 1
env: {id: test/traced-v0, group_size: 1, prompts_per_round: 2}
sharing: {strategy: independent}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789="}, max_new_tokens: 1}}
resources: {executor: EXECUTOR}
verifiers: {isolation: LEVEL}
"""


def succeeded(user: str, level: str, executor: str = "serial") -> set[str]:
    """What a worker at that level could do to the trainer, as its verdicts tell it."""
    directory = Path(tempfile.mkdtemp(prefix="mutual-env-traced-", dir=os.path.realpath(tempfile.gettempdir())))
    ids = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "nobody" else {}
    try:
        directory.chmod(0o777)
        config = directory / "r.yaml"
        config.write_text(CONFIG.replace("LEVEL", level).replace("EXECUTOR", executor))
        done = subprocess.run(
            [interpreter_for(user), "-m", "tests.hostile.traced", str(config), f"output={directory}"],
            env={
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(os.path.isabs, sys.path)]),
                "TMPDIR": str(directory),
                "SECRET": "hunter2-canary",
            },
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            **ids,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr[-2000:]
        text = (directory / "r/samples.jsonl").read_text()
        details = [detail for line in text.splitlines() for detail in _details(json.loads(line))]
        assert details, text
        return {name for detail in details for name in detail.removeprefix("succeeded: ").split(", ") if name}
    finally:
        shutil.rmtree(directory)


def _details(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if value.startswith("succeeded: ") else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [detail for each in inner for detail in _details(each)]


@pytest.mark.parametrize("user", USERS)
def test_a_worker_cannot_look_into_the_trainer(user: str) -> None:
    assert succeeded(user, "confined") == set()


@pytest.mark.long
def test_even_an_unconfined_worker_cannot_unless_it_is_roots() -> None:
    """Nothing but the trainer and the hosts of its policies themselves keep it out here: they are not dumpable. Root
    may look all the same, which shows that the attempts can succeed."""
    assert succeeded(USERS[-1], "process", "processes") == set()
    if os.geteuid() == 0:
        assert succeeded("root", "process", "processes") >= {"environ", "memory", "host's environ"}
