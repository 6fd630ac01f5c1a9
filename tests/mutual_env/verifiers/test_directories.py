"""Directories of workers: measured, and removed whatever was left in them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool
from mutual_env.verifiers.pool.directories import (
    MAX_DEPTH,
    MAX_ENTRIES,
    PREFIX,
    Footprint,
    hold,
    remove_stale,
    remove_tree,
)

MakePool = Callable[..., VerifierPool]


def nest(directory: Path, depth: int) -> None:
    """So many directories in each other: by a process of its own, which goes down step by step."""
    program = f"import os\nfor _ in range({depth}):\n    os.mkdir('d')\n    os.chdir('d')\nopen('file', 'w').close()"
    subprocess.run([sys.executable, "-c", program], cwd=directory, check=True)


def test_a_tree_is_removed_however_deep_it_is(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nest(tree, 3000)
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_directories_that_are_closed_to_their_owner_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch(mode=0)
    for closed, mode in ((tree / "a" / "b", 0), (tree / "a", 0o500), (tree, 0o100)):
        closed.chmod(mode)
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    victim.chmod(0o500)
    tree = tmp_path / "tree"
    (tree / "read-only").mkdir(parents=True)
    (tree / "link").symlink_to(victim)
    (tree / "read-only" / "link").symlink_to(victim)
    (tree / "read-only" / "loop").symlink_to(tree)
    (tree / "read-only").chmod(0o500)
    remove_tree(tree)
    assert [p.name for p in tmp_path.iterdir()] == ["victim"]
    assert stat.S_IMODE(victim.stat().st_mode) == 0o500
    assert (victim / "kept").read_text() == "kept"


def test_a_link_in_the_place_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    (tmp_path / "tree").symlink_to(victim)
    remove_tree(tmp_path / "tree")
    assert (victim / "kept").exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_footprint_says_what_there_is_too_much_of(tmp_path: Path) -> None:
    def check() -> str | None:
        return Footprint(tmp_path, 1 << 20, 1 << 20).check(time.monotonic(), os.getpid())

    assert check() is None
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "big").write_bytes(bytes(1_100_000))
    assert check() == "it wrote more than the 1 MB that its directory may hold"
    (inner / "big").unlink()
    nest(inner, MAX_DEPTH + 10)
    assert check() == f"it nested directories more than {MAX_DEPTH} deep"
    remove_tree(inner)
    for i in range(MAX_ENTRIES + 1):
        os.mknod(tmp_path / str(i))
    assert check() == f"it made more than {MAX_ENTRIES} files"


def test_what_a_pool_left_is_removed_by_the_next_unless_it_is_held_or_young(tmp_path: Path) -> None:
    left, held, young, foreign = (tmp_path / name for name in (PREFIX + "l", PREFIX + "h", PREFIX + "y", "other"))
    for path in (left, held, young, foreign):
        (path / "worker-1").mkdir(parents=True)
        if path is not young:
            os.utime(path, (1, 1))
    handle = hold(held)
    remove_stale(tmp_path)
    os.close(handle)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([held.name, young.name, foreign.name])


# -- of real workers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "detail"),
    [
        ("write_many:100", "it wrote more than the 8 MB that its directory may hold"),
        ("write_removed:30", "it wrote more than the 8 MB that its directory may hold"),
        ("write_mapped:30", "it wrote more than the 8 MB that its directory may hold"),
        ("write_glimpsed:30", "it wrote more than the 8 MB that its directory may hold"),
        ("nest:3000", f"it nested directories more than {MAX_DEPTH} deep"),
    ],
)
def test_a_worker_that_fills_the_disk_is_ended(pool: MakePool, task: Task, deed: str, detail: str) -> None:
    verifiers = pool(1, deadline=20.0, disk_mb=8)
    items = [(task, f"number:{i}") for i in range(10)]
    verdicts = verifiers.verify("hostile:Hostile", [*items[:5], (task, deed), *items[5:]])
    assert (verdicts[5].status, verdicts[5].detail) == ("crash", detail)
    assert [v.reward for v in [*verdicts[:5], *verdicts[6:]]] == list(range(10))


def test_a_worker_that_stops_itself_meets_its_deadline(pool: MakePool, task: Task) -> None:
    verifiers = pool(2, deadline=0.5)
    start = time.monotonic()
    verdicts = verifiers.verify(
        "hostile:Hostile", [(task, "stop"), (task, "number:7"), (task, "stop:"), (task, "stop:a")]
    )
    assert [v.status for v in verdicts] == ["timeout", "ok", "timeout", "timeout"]
    assert time.monotonic() - start < 30  # three deadlines on two workers, not three times the overtime of a minute
