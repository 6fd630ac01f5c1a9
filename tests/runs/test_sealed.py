"""A sealed folder opens as it was written, and nothing in it leads elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learners import sealed
from mutual_env.errors import StorageError

MANIFEST = "manifest.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    (path / "part").mkdir(parents=True)
    (path / "part" / "weights").write_text("1 2 3")
    sealed.seal(path, MANIFEST, {"round": 7})
    return path


def rewrite(folder: Path, **changes: object) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | changes))


def test_what_it_says_of_itself_comes_back_with_the_files(folder: Path) -> None:
    content = sealed.check(folder, MANIFEST)
    assert (content["round"], list(content["files"])) == (7, ["part/weights"])


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "part/../../secret", "a\0b"])
def test_a_name_that_leads_out_of_it_is_refused_and_not_opened(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    entry = {"bytes": 6, "sha256": sealed.sha256(folder.parent / "secret")}
    rewrite(folder, files={name: entry, **json.loads((folder / MANIFEST).read_text())["files"]})
    with pytest.raises(StorageError, match="which is not in it"):
        sealed.check(folder, MANIFEST)


@pytest.mark.parametrize("link", ["part", "part/weights"])
def test_a_link_is_refused_also_to_a_file_with_the_same_content(folder: Path, link: str) -> None:
    (folder / link).rename(folder.parent / "moved")
    (folder / link).symlink_to(folder.parent / "moved")
    with pytest.raises(StorageError, match="is a link"):
        sealed.check(folder, MANIFEST)


@pytest.mark.parametrize("entry", [{}, {"bytes": "5", "sha256": "x"}, {"bytes": 5}, None, 5])
def test_a_manifest_with_a_damaged_entry_is_refused(folder: Path, entry: object) -> None:
    rewrite(folder, files={"part/weights": entry})
    with pytest.raises(StorageError, match="neither size nor SHA-256"):
        sealed.check(folder, MANIFEST)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"files": []}'])
def test_a_manifest_that_is_none_is_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(StorageError, match=MANIFEST):
        sealed.check(folder, MANIFEST)


def test_a_dangling_link_that_nobody_listed_is_refused(folder: Path) -> None:
    (folder / "extra").symlink_to("nowhere")
    with pytest.raises(StorageError, match="extra is not in the manifest"):
        sealed.check(folder, MANIFEST)
