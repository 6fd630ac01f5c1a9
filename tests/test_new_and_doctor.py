"""`new` begins packages that pass their conformance suite at once; `doctor` looks, and says what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import mutual_env
from learners.cli import main
from learners.health.checks import Finding, looked, of_extra, place
from learners.health.extras import Extra, extras
from learners.health.imports import broken
from mutual_env.verifiers import isolation_report

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("kind", "installed"), [("task", True), ("strategy", False), ("learner", True), ("loss", False)]
)
def test_what_is_begun_passes_its_conformance_suite_at_once(kind: str, installed: bool, tmp_path: Path) -> None:
    assert main(["new", kind, "odd-one", "--directory", str(tmp_path)]) == 0
    folder = tmp_path / "odd-one"
    if installed:
        install(folder, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    lint = ["check", "--isolated", "--select", "E,F,W,B,UP", "--line-length", "120", "odd_one"]
    subprocess.run([sys.executable, "-m", "ruff", *lint], cwd=folder, check=True, timeout=60)


@pytest.mark.parametrize("kind", ["task", "strategy", "learner"])
def test_the_command_of_its_readme_trains_with_it(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"tried-{kind}"
    assert main(["new", kind, name, "--directory", str(tmp_path)]) == 0
    install(tmp_path / name, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / name)
    if kind == "task":  # its entry points are read where a program begins
        mutual_env.register(f"{name}/{name}-v0", f"tried_{kind}:Tried{kind.capitalize()}")
    readme = (tmp_path / name / "README.md").read_text()
    (line,) = re.findall(r"^mutual-env (train .*?)(?:  #.*)?$", readme, re.MULTILINE)
    assert main([*line.split(), "rounds=1", f"output={tmp_path}", "--quiet"]) == 0


def test_a_loss_says_what_its_tests_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "loss", "odd", "--directory", str(tmp_path)]) == 0
    assert "pip install -e '.[test]' && python -m pytest" in capsys.readouterr().out
    project = tomllib.loads((tmp_path / "odd" / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"] == {"test": ["mutual-env[torch]"]}
    assert "pip install -e '.[test]'" in (tmp_path / "odd" / "README.md").read_text()


def install(folder: Path, site: Path) -> None:
    """What pip leaves of its entry points, which is what is found of an installed package."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    about = site / f"{folder.name}-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("\n".join(lines))


def test_a_name_that_cannot_be_and_a_folder_that_is_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "task", "Odd One", "--directory", str(tmp_path)]) == 2
    assert "must be lower-case words with hyphens between" in capsys.readouterr().err
    assert main(["new", "loss", "odd", "--directory", str(tmp_path)]) == 0
    assert main(["new", "loss", "odd", "--directory", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    for kind, name, why in (
        ("strategy", "class", "is a word of Python"),  # `import class` is no sentence
        ("task", "json", "is a module that is there already"),
        ("strategy", "sgt", "is a strategy already"),  # ours would be found, and never the new one
    ):
        assert main(["new", kind, name, "--directory", str(tmp_path)]) == 2
        assert why in capsys.readouterr().err
        assert not (tmp_path / name).exists()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    """As `mutual-env doctor --json` says it."""
    command = [sys.executable, "-m", "learners.cli", "doctor", "--json"]
    output = tmp_path_factory.mktemp("runs") / "not" / "there" / "yet"
    done = subprocess.run(
        [*command, f"--output={output}"], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    told = {finding.check: finding for finding in (Finding(**one) for one in json.loads(done.stdout))}
    assert done.returncode == int(any(finding.state == "bad" for finding in told.values()))
    return told


@pytest.mark.long
def test_the_doctor_looks_at_everything_and_has_a_remedy_for_what_is_not_well(found: dict[str, Finding]) -> None:
    looked_at = {
        "versions",
        "processor",
        "memory",
        "GPU",
        "compile",
        "verifier pool",
        "isolation",
        "disk",
        "shared memory",
        "locks",
    }
    assert looked_at | {"extra torch", "extra gym"} <= found.keys()
    assert all(finding.remedy for finding in found.values() if finding.state == "bad")
    missing = [finding for name, finding in found.items() if name.startswith("extra") and finding.state == "note"]
    assert all(finding.remedy.startswith("pip install 'mutual-env[") for finding in missing)


@pytest.mark.long
def test_the_doctor_sees_a_hung_verifier_killed_and_its_workers_kept_in(found: dict[str, Finding]) -> None:
    assert found["verifier pool"].state == "good"
    assert "open a socket" in found["isolation"].says.split("could not:")[1]
    assert found["isolation"].says.startswith(f"level {isolation_report()['level']!r}: ")


def test_what_cannot_be_imported_is_told_whatever_it_does_to_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (
        ("well", "print('words of its own')"),
        ("raising", "raise OSError('libcudart.so.12: no such file')"),
        ("leaving", "import os; os._exit(3)"),
        ("killed", "import os; os.kill(os.getpid(), 11)"),
        ("last", ""),
    ):
        (tmp_path / f"{name}_probe.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert broken([f"{name}_probe" for name in ("well", "raising", "leaving", "killed", "last")]) == {
        "raising_probe": "OSError: libcudart.so.12: no such file",
        "leaving_probe": "the process ended with 3",
        "killed_probe": "the process was ended by SIGSEGV",
    }


@pytest.mark.parametrize(
    ("extra", "why", "state", "says", "remedy"),
    [
        (Extra("x", {"a": "1", "b": "2"}, {}), {}, "good", "a 1, b 2", ""),
        (Extra("x", {"a": "1", "b": ""}, {}), {}, "note", "not installed: b", "pip install 'mutual-env[x]'"),
        (Extra("x", {"a": "1"}, {"a": "a>=2"}), {}, "note", "asked for: a is 1", "pip install 'a>=2'"),
        (Extra("", {"a": "1"}, {"a": "a>=2"}), {}, "bad", "asked for: a is 1", "pip install 'a>=2'"),
        (Extra("x", {"a": "1"}, {}), {"a": "E: b"}, "bad", "a 1 cannot be imported: E: b", "--force-reinstall a"),
    ],
)
def test_what_is_missing_old_or_broken_has_a_remedy(
    extra: Extra, why: dict[str, str], state: str, says: str, remedy: str
) -> None:
    (finding,) = of_extra(extra, why)
    assert finding.state == state
    assert says in finding.says
    assert finding.remedy.endswith(remedy)


def test_versions_are_held_to_what_the_distribution_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "acme_old-1.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-old\nVersion: 1.9.0+cpu\n")
    asked = [
        "acme-old>=1.10",
        'acme-old[x]<2,>=1.9; extra == "fits"',
        'acme-old==1.8; python_version > "3" and extra == "b"',
    ]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    assert {extra.name: extra.unfit for extra in extras()} == {
        "": {"acme-old": "acme-old>=1.10"},
        "b": {"acme-old": "acme-old==1.8"},
        "fits": {},
    }


def test_what_cannot_even_be_looked_at_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (last,) = looked("place", lambda: place(tmp_path / "loop" / "runs"), "name another --output")
    assert (last.state, last.remedy) == ("bad", "name another --output")


def test_the_doctor_says_that_below_a_file_there_is_no_place_for_a_run(tmp_path: Path) -> None:
    """However good the folder is in which the file lies."""
    (tmp_path / "file").touch()
    locks = {finding.check: finding for finding in place(tmp_path / "file" / "x")}["locks"]
    assert locks.state == "bad"
    assert str(tmp_path / "file") in locks.says
