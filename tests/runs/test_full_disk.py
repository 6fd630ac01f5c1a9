"""A run whose disk is full ends in a sentence, its status true, and goes on to the same bytes once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learners.cli import main
from learners.run.config import load_run
from learners.run.directory import RunDirectory
from learners.run.training import train
from tests.runs.test_resume import CONFIG, whole

MODE = ["sharing.exchange=sqlite", "sharing.options={max_staleness: 5}", "checkpoint.every=4", "rounds=12"]
SHARES = [i / 15 for i in range(1, 15)]  # of the room that the whole run takes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many bytes, or the same one made so large."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def sized(size: int) -> Path:
        nonlocal mounted
        how = ["-o", f"remount,size={size}"] if mounted else ["-t", "tmpfs", "-o", f"size={size}", "none"]
        if subprocess.run(["mount", *how, str(place)], capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk takes rights that this user has not")
        mounted = True
        return place

    yield sized
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def written(tmp_path: Path, output: Path, *more: str) -> list[str]:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return [str(path), *MODE, f"output={output}", *more]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What the run writes where there is room, and how much room it takes."""
    root = tmp_path_factory.mktemp("whole")
    path, *overrides = written(root, root)
    directory = train(load_run(Path(path), overrides)).directory
    pages = [-(-file.stat().st_size // 4096) + 1 for file in directory.rglob("*")]
    return whole(directory), 4096 * sum(pages)


def filled_and_resumed(
    tmp_path: Path, disk: Callable[[int], Path], size: int, capsys: pytest.CaptureFixture[str]
) -> Path:
    output = disk(size)
    arguments = written(tmp_path, output, "--quiet")
    code = main(["train", *arguments])
    said = capsys.readouterr().err
    if code:
        assert code in (1, 2)
        assert said.startswith("error: ")
        assert "Traceback" not in said
        assert len(said) < 600
    directory = RunDirectory(output / "whole")
    begun = directory.info.is_file()
    assert not begun or directory.status() != "running"
    disk(1 << 28)
    if code:
        again = ["--resume", str(directory.path), "--quiet"] if begun and directory.config.is_file() else arguments
        assert main(["train", *again]) == 0, capsys.readouterr().err
    return directory.path


@pytest.mark.parametrize(
    "share", [share if share == SHARES[6] else pytest.param(share, marks=pytest.mark.slow) for share in SHARES]
)
def test_a_full_disk_costs_a_run_nothing_but_time(
    tmp_path: Path,
    disk: Callable[[int], Path],
    undisturbed: tuple[dict[str, bytes], int],
    share: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected, size = undisturbed
    assert whole(filled_and_resumed(tmp_path, disk, int(share * size), capsys)) == expected
