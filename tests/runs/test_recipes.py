"""The recipes of published experiments: what docs/recipes.md prints runs once its models are there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from learners.cli import main

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))


@pytest.fixture
def fetched(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what every recipe asks for: stand-ins for models of billions of parameters, verl's rows."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    for recipe in RECIPES:
        for path in re.findall(r"--local-dir (models/\S+)", recipe.read_text()):
            Path(path).parent.mkdir(exist_ok=True)
            if not Path(path).exists():
                Path(path).symlink_to(model)
    Path("data/math").mkdir(parents=True)
    for name in ("train", "test"):
        prompts = [[{"role": "user", "content": f"{name}: what is {i} + 1?"}] for i in range(600)]
        rewards = [{"style": "rule", "ground_truth": str(i + 1)} for i in range(600)]
        parquet.write_table(pa.table({"prompt": prompts, "reward_model": rewards}), f"data/math/{name}.parquet")
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_passes_its_dry_run_once_its_models_and_rows_are_there(
    recipe: Path, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"recipes/{recipe.stem}", "--dry-run", "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["name"] == recipe.stem


def test_a_recipe_without_its_models_says_which_one_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipes/graft-pair1", "--dry-run"]) == 2
    assert "models/SmolLM3-3B-Base" in capsys.readouterr().err


def test_the_commands_of_the_page_are_those_of_the_recipe_and_run(
    fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    asked = (ROOT / "configs" / "recipes" / "graft-pair1.yaml").read_text()
    for command in commands:
        if command[0] == "hf" and "--repo-type" not in command:
            assert " ".join(command[:3]) in asked
            assert command[4] in asked
        elif "--dry-run" in command:
            assert main(command[1:]) == 0, capsys.readouterr().err
