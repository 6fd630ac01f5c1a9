"""A small distribution of somebody else adds one class of each kind, by entry points alone.

It is built and installed for real, without a network, into a folder of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUN = """
name: outside
rounds: 3
env: {id: acme/doubling-v0, group_size: 4, prompts_per_round: 4, options: {limit: 6, verifier: acme-parity}}
sharing:
  strategy: acme-best-peer
  exchange: acme-ledger
  exchange_options: {header: "what acme saw\\n"}
policies:
  ada:
    learner: acme
    options: &options
      {born: 40, tokenizer: {kind: acme-bytes, greeting: ">"}, alphabet: "0123456789", max_new_tokens: 2}
  bob: {learner: acme, options: *options}
trackers: [acme-lines]
"""
CHECKS = """
import learners, mutual_env, sharing
from learners.losses import loss_of
from learners.testing import check_learner, check_loss
from mutual_env import Task
from mutual_env.testing import check_env, check_verifier
from mutual_env.types import NamedLoss
from pathlib import Path
from sharing.exchange import registry as exchanges
from sharing.exchange.testing import check_exchange
from sharing.testing import check_strategy
from tokenizers_bridge import check_tokenizer, load

tokenizer = load({"kind": "acme-bytes"})
assert type(tokenizer).__module__ == "acme_rl.tokenizer"
check_tokenizer(tokenizer)
check_env(lambda: mutual_env.make("acme/doubling-v0", agents=2, group_size=2, prompts_per_round=2))
six = Task("t", "d3=", "6")
check_verifier("acme-parity", right=[(six, "8")], wrong=[(six, "7"), (six, "seven")])
check_strategy(lambda env, **common: sharing.make("acme-best-peer", env, **common))
check_learner(lambda: learners.make("acme", name="a", max_new_tokens=4, learning_rate=5.0), prompts=("1", "2", "3"))
check_loss(loss_of(NamedLoss.of("acme-surprise", focus=1.5)))
check_exchange(lambda: exchanges.make("acme-ledger", Path("ledger")))
print("all checks pass")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a program where the distribution is installed."""
    folder = tmp_path_factory.mktemp("outside")
    source, site = folder / "source", folder / "site"
    shutil.copytree(HERE / "outside", source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-compile"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(site), str(source)]
    subprocess.run(install, check=True, timeout=120, capture_output=True)

    def run(*arguments: str) -> str:
        path = os.pathsep.join([str(site), str(HERE.parent)])
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_what_another_package_adds_passes_the_shipped_checks(python: Callable[..., str]) -> None:
    assert python("-c", CHECKS).strip() == "all checks pass"


def test_a_run_is_made_of_another_packages_parts_alone(python: Callable[..., str], tmp_path: Path) -> None:
    config = tmp_path / "outside.yaml"
    config.write_text(RUN)
    python("-m", "learners.cli", "train", str(config), f"output={tmp_path}", "--quiet")
    directory = tmp_path / "outside"
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["metrics"]["acme/age"] for line in lines if line["policy"] == "ada"] == [41.0, 42.0, 43.0]
    assert sum(line["metrics"]["share/imitated"] for line in lines) > 0
    ledger = (directory / "exchange.ledger").read_text().splitlines()
    assert ledger[0] == "what acme saw"
    assert {line.split()[1] for line in ledger[1:]} == {"success"}
    assert json.loads((directory / "acme.json").read_text()) == ["finished", [[n, ["ada", "bob"]] for n in (1, 2, 3)]]


def test_a_command_of_another_package_stands_beside_ours(python: Callable[..., str]) -> None:
    assert python("-m", "learners.cli", "acme-greet", "ada").strip() == "acme greets ada"
    assert "Say hello from another package" in python("-m", "learners.cli", "--help")


def test_what_is_installed_is_listed(python: Callable[..., str]) -> None:
    named = {
        "envs": "acme/doubling-v0",
        "strategies": "acme-best-peer",
        "learners": "acme",
        "verifiers": "acme-parity",
        "exchanges": "acme-ledger",
        "tokenizers": "acme-bytes",
        "trackers": "acme-lines",
    }
    program = f"from learners.cli import main\nfor kind in {[*named]}: assert main(['list', kind, 'acme']) == 0"
    assert python("-c", program).split() == [*named.values()]
