"""What a wheel holds, what its configurations are called, and which version it says it is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import mutual_env
from learners.run.shipped import config_file, shipped

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    work = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (work / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w"]
    subprocess.run([*build, str(work), str(work / "source")], check=True, timeout=240, capture_output=True)
    (found,) = work.glob("*.whl")
    return found


def test_the_wheel_holds_packages_page_templates_and_configurations_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "learners",
        "mutual_env",
        "sharing",
        "tokenizers_bridge",
    }
    for file in (
        "learners/configs/quickstart.yaml",
        "learners/configs/recipes/graft-pair1.yaml",
        "learners/report/page.js",
        "learners/report/page.css",
        "learners/templates/task.py.txt",
        "learners/py.typed",
    ):
        assert file in names


def test_an_installed_package_finds_its_configurations_by_name(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    arguments = ["-m", "learners.cli", "suite", "quickstart", "--dry-run", "base.rounds=7"]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rounds: 7" in done.stdout


def test_a_shipped_configuration_is_found_by_any_of_its_names_and_a_file_that_is_there_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"arithmetic", "quickstart", "recipes/graft-pair1"} <= shipped().keys()
    for name in ("quickstart", "quickstart.yaml", "configs/quickstart.yaml", "configs/quickstart"):
        assert config_file(name) == ROOT / "configs" / "quickstart.yaml"
    Path("quickstart.yaml").write_text("rounds: 1")
    assert config_file("quickstart.yaml") == Path("quickstart.yaml")
    assert config_file("nowhere.yaml") == Path("nowhere.yaml")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_to_fetch_what_was_published_and_what_it_costs(recipe: Path) -> None:
    text = recipe.read_text()
    for word in ("hf download", "As published", "Compare", "Cost there"):
        assert word in text or (word == "Compare" and "controls" in text)


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutual_env.__version__ == metadata.version("mutual-env")
    assert f"version: {mutual_env.__version__}" in (ROOT / "CITATION.cff").read_text()
    with pytest.raises(AttributeError, match="no attribute '__wersion__'"):
        _ = mutual_env.__wersion__
