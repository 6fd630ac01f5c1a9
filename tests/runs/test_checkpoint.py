"""A checkpoint is whole or it is not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from learners.run.checkpoint import MANIFEST, STATE, Checkpoints, load
from mutual_env.errors import StorageError


def writes(text: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "weights.safetensors").write_text(text)

    return write


def saved(directory: Path, rounds: list[int], keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(directory, keep)
    for done in rounds:
        parts = {"policy_0": writes(f"zero at {done}"), "policy_1": writes(f"one  at {done}")}
        checkpoints.save(done, {"note": done}, parts)
    return checkpoints


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    found, refused = saved(tmp_path, [3, 7]).latest()
    assert found is not None
    assert (found.round, found.state, refused) == (7, {"note": 7}, [])
    assert (found.part("policy_1") / "weights.safetensors").read_text() == "one  at 7"


def test_an_empty_directory_has_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest() == (None, [])


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2, 3, 4], keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round_00000003", "round_00000004"]


@pytest.mark.parametrize("name", ["policy_0/weights.safetensors", STATE, MANIFEST])
@pytest.mark.parametrize("damage", ["torn", "flipped", "missing"])
def test_a_damaged_file_is_refused_by_name_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str) -> None:
    checkpoints = saved(tmp_path, [1, 2])
    victim = tmp_path / "round_00000002" / name
    content = victim.read_bytes()
    if damage == "torn":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        victim.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        victim.unlink()
    found, refused = checkpoints.latest()
    assert found is not None
    assert found.round == 1
    assert len(refused) == 1
    assert str(victim) in refused[0]


def test_two_policies_with_swapped_files_are_refused(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, [1, 2])
    zero, one = (tmp_path / "round_00000002" / p / "weights.safetensors" for p in ("policy_0", "policy_1"))
    a, b = zero.read_bytes(), one.read_bytes()
    zero.write_bytes(b)
    one.write_bytes(a)
    found, refused = checkpoints.latest()
    assert found is not None
    assert found.round == 1
    assert "SHA-256" in refused[0]


def test_a_file_nobody_wrote_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    (tmp_path / "round_00000001" / "extra.pkl").write_bytes(b"")
    with pytest.raises(StorageError, match=r"extra\.pkl is not in the manifest"):
        load(tmp_path / "round_00000001")


def test_nothing_whole_left_is_an_error_that_lists_all(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, [1, 2])
    for path in tmp_path.rglob(STATE):
        path.unlink()
    with pytest.raises(StorageError, match=r"no whole checkpoint is left.*00000002.*00000001"):
        checkpoints.latest()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    directory = tmp_path / "round_00000001"
    state = json.loads((directory / STATE).read_text())
    (directory / STATE).write_text(json.dumps(state | {"schema": 2}))
    manifest = json.loads((directory / MANIFEST).read_text())
    content = (directory / STATE).read_bytes()
    manifest["files"][STATE] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="schema 2, this version reads 1"):
        load(directory)


def test_a_failed_write_leaves_the_earlier_checkpoint_and_no_debris(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, [1])

    def full_disk(directory: Path) -> None:
        (directory / "weights.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"No space left on device.*earlier checkpoints are intact"):
        checkpoints.save(2, {}, {"policy_0": full_disk})
    assert [p.name for p in tmp_path.iterdir()] == ["round_00000001"]
    found, _ = checkpoints.latest()
    assert found is not None
    assert found.round == 1


def test_a_half_written_checkpoint_of_a_killed_run_is_never_loaded_and_is_cleared_by_the_next_save(
    tmp_path: Path,
) -> None:
    checkpoints = saved(tmp_path, [1])
    aside = tmp_path / ".writing-round_00000002"
    aside.mkdir()
    (aside / "weights.safetensors").write_text("half")
    found, refused = checkpoints.latest()
    assert found is not None
    assert (found.round, refused) == (1, [])
    checkpoints.save(2, {}, {})
    assert not aside.exists()
