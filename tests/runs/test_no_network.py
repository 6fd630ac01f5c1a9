"""Nothing here needs the network, or asks for it: with the network cut, every command does what it does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
RUN = """
name: r
rounds: 2
output: {output}
env: {{id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2, options: {{digits: 1}}}}
sharing: {{strategy: sgt}}
policies:
  own: {{learner: torch, options: {{path: {model}, max_new_tokens: 2, lora_rank: 2}}}}
  table: {{learner: tabular, options: {{tokenizer: {{kind: char, alphabet: "0123456789+="}}, max_new_tokens: 2}}}}
evaluation: {{every: 2, prompts: 2}}
"""


def cut_off(tmp_path: Path, commands: list[list[str]]) -> dict[str, Any]:
    file = tmp_path / "commands.json"
    file.write_text(json.dumps(commands))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.runs.cut_off", str(file)],
        cwd=ROOT,
        env={**kept, "HOME": str(tmp_path)},  # no cache of anybody's
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "errors": done.stderr}


@pytest.mark.long
def test_every_command_does_its_work_with_the_network_cut_and_looks_nothing_up(model: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(output=tmp_path, model=model))
    (tmp_path / "hub.yaml").write_text(RUN.format(output=tmp_path / "hub", model="Qwen/Qwen2.5-0.5B-Instruct"))
    run, exported = str(tmp_path / "r"), str(tmp_path / "exported")
    commands = [
        ["train", str(tmp_path / "run.yaml"), "--quiet"],
        ["train", "--resume", run, "rounds=3", "--quiet"],
        ["eval", run, "--samples", "2", "--json"],
        ["export", run, "own", exported],
        ["eval", exported, "--like", str(tmp_path / "run.yaml"), "--prompts", "2", "--out", str(tmp_path / "kept")],
        ["compare", run, "--json"],
        ["view", run, "--plain"],
        ["report", run],
        ["doctor", "--json", "--output", run],
        ["list", "--json", "learners"],
        ["models", "list"],
        ["train", str(tmp_path / "hub.yaml")],
    ]
    found = cut_off(tmp_path, commands)
    assert found["asked"] == []
    assert found["codes"] == [*[0] * (len(commands) - 1), 2], found["errors"]
    assert "Qwen/Qwen2.5-0.5B-Instruct" in found["errors"]  # what only a hub has is refused, and no hub is asked


LOOKS_UP = """
import json, socket
from tests.runs.cut_off import cut, watch

asked, errors = [], []
was_cut = cut()
def ask(call):
    try: call()
    except OSError as error: errors.append(error.errno)
def call(): socket.create_connection(("192.0.2.1", 443), timeout=5)
if was_cut: ask(call)
watch(asked)
ask(call)
ask(lambda: socket.getaddrinfo("huggingface.co", 443))
print(json.dumps([was_cut, len(asked), errors]))
"""


def test_what_does_ask_is_caught() -> None:
    command = [sys.executable, "-c", LOOKS_UP]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    was_cut, asked, errors = json.loads(done.stdout)
    assert asked == 2
    assert errors == [errno.ENETUNREACH] * (3 if was_cut else 2)
