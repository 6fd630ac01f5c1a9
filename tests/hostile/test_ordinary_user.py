"""The promises of docs/verifiers.md whose tests run as whoever runs them, kept to an ordinary user too.

`make test` in a container runs as root; what the kernel forgives root it does not forgive others, and the other way
round. The rows that `test_promises` and `test_trainer` try as both are left out.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mutual_env import wasm_python
from tests.hostile.test_promises import NOBODY, REPOSITORY, ROOT, ROW, interpreter_for

BOTH = ("tests/hostile/test_promises.py", "tests/hostile/test_trainer.py")
TESTS = sorted(
    {f"{path}::{test}" for _, path, test, _ in ROW.findall((REPOSITORY / "docs/verifiers.md").read_text())}
    - {f"{path}::{test}" for path in BOTH for test in re.findall(r"def (\w+)", (REPOSITORY / path).read_text())}
)

ENDED = ("failure", "error", "skipped")


@functools.cache
def outcomes() -> dict[str, list[str]]:
    """What failed of each test as nobody, one run for all: empty where it held, no entry where it did not run."""
    directory = Path(tempfile.mkdtemp(prefix="mutual-env-nobody-", dir=os.path.realpath(tempfile.gettempdir())))
    try:
        _lend_cache(directory)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        command = [interpreter_for("nobody"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
        command += ["--import-mode=importlib", f"--basetemp={directory / 't'}", f"--junit-xml={directory / 'x'}"]
        done = subprocess.run(
            [*command, *TESTS],
            env={
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(os.path.isabs, sys.path)]),
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(directory),
                "TMPDIR": str(directory),
            },
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=280,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )
        assert (directory / "x").is_file(), (done.stdout + done.stderr)[-2000:]
        return _read(directory / "x")
    finally:
        shutil.rmtree(directory)


def _lend_cache(home: Path) -> None:
    """What takes forty seconds to compile, and is only used by whom it belongs to."""
    cache = home / ".cache" / "mutual-env"
    cache.mkdir(parents=True, mode=0o700)
    shutil.copy(wasm_python.compiled(), cache)


def _read(report: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        wrong = [f"{case.get('name')}: {part.tag}: {part.get('message')}" for part in case if part.tag in ENDED]
        found.setdefault(test, []).extend(wrong)
    return found


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != ROOT, reason="the tests themselves run as an ordinary user here")
@pytest.mark.parametrize("test", TESTS)
def test_it_holds_as_nobody(test: str) -> None:
    assert outcomes()[test] == []


def test_every_row_is_tried_as_both_users() -> None:
    rows = ROW.findall((REPOSITORY / "docs/verifiers.md").read_text())
    assert len(TESTS) + len({row for row in rows if row[1] in BOTH}) >= len(rows)
    assert all((REPOSITORY / test.partition("::")[0]).is_file() for test in TESTS)
