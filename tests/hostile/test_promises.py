"""Each promise of docs/verifiers.md, tried as this user and, where that is root, as an ordinary one too."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mutual_env.errors import ConfigError
from mutual_env.verifiers import VerifierPool
from mutual_env.verifiers.pool.isolation import isolation_report
from tests.hostile.escapes import ATTEMPTS, promised

ROOT, NOBODY = 0, 65534
USERS = ["root", "nobody"] if os.geteuid() == ROOT else ["this user"]
REPOSITORY = Path(__file__).parent.parent.parent


@functools.cache
def found(user: str, level: str) -> dict[str, str]:
    """What succeeded, by promise."""
    ids = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "nobody" else {}
    python = interpreter_for(user)
    directory = tempfile.mkdtemp(prefix="mutual-env-canaries-", dir=os.path.realpath(tempfile.gettempdir()))
    try:
        os.chmod(directory, 0o777)
        done = subprocess.run(
            [python, "-m", "tests.hostile.promises", directory, level],
            env={
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(os.path.isabs, sys.path)]),
                "TMPDIR": directory,
            },
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=240,
            **ids,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answer: dict[str, str] = json.loads(done.stdout)
        return answer
    finally:
        shutil.rmtree(directory)


def interpreter_for(user: str) -> str:
    """This one, or where it lies in a directory that the user may not enter, the system's of the same version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if user != "nobody" or (os.path.exists(path) and _others_may_run(os.path.realpath(path))):
            return path
    pytest.skip(f"user {user!r} can run no {version} on this machine")


def _others_may_run(path: str) -> bool:
    return shutil.which("true") is not None and all(
        os.stat(part).st_mode & 0o001 for part in [path, *map(str, Path(path).parents)]
    )


@pytest.mark.parametrize("promise", [*ATTEMPTS, "process", "files", "names"])
@pytest.mark.parametrize("user", USERS)
def test_the_promise_holds(user: str, promise: str) -> None:
    assert found(user, "confined")[promise] == ""


@pytest.mark.parametrize("level", ["namespaces", "container"])
@pytest.mark.parametrize("user", USERS)
def test_a_stronger_level_holds_all_of_it_and_its_own(user: str, level: str) -> None:
    """Where this machine cannot do it, asking for it is refused by name."""
    if isolation_report()["missing"][level]:
        with pytest.raises(ConfigError, match=f"isolation '{level}' cannot be had on this machine: .*; or ask for"):
            VerifierPool(isolation=level)
        return
    assert {promise: what for promise, what in found(user, level).items() if what} == {}
    assert set(promised(level)) > set(ATTEMPTS)


def test_what_the_promises_are_about_can_be_done_without_confinement(tmp_path: Path) -> None:
    """Else the tests above would hold anywhere. Only attempts that touch nothing but the canaries are made here."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tests.hostile.canaries import Canaries, succeeding\n"
        "from tests.hostile.escapes import ATTEMPTS, OF_CONTAINERS, OF_NAMESPACES\n"
        "Path('readable').write_text('x'); Path('secret').write_text('x'); here = os.getcwd()\n"
        "every = {**ATTEMPTS, **OF_NAMESPACES, **OF_CONTAINERS}\n"
        "at = Canaries(os.getpid(), here + '/secret', here + '/readable', here)\n"
        "named = 'metadata of files', 'locks', 'files of the user', 'outliving'\n"
        "for promise in (*named, *OF_NAMESPACES, *OF_CONTAINERS, 'limits of others'):\n"
        "    print(promise, len(succeeding(every[promise](at))), sep=': ')\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(os.path.isabs, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    counts = {promise: int(count) for promise, count in (line.split(": ") for line in done.stdout.splitlines())}
    assert counts["metadata of files"] >= 7, done.stderr
    assert counts["locks"] >= 4
    assert counts["files of the user"] >= 4
    assert counts["outliving"] >= 3
    assert counts["sight of others"] >= 3
    assert counts["changes of the file system"] >= 1
    assert counts["sight of files"] >= 3
    assert (
        counts["limits of others"] >= 2
    )  # the first lowers the CPU time of the process that tries, which ends it soon


# -- the table of docs/verifiers.md ------------------------------------------------------------------------------------

ROW = re.compile(r"^\| [^|]+ \| `(\w+)` \| `(tests/[\w/]+\.py)::(\w+)(?:\[([\w ]+)\])?` \|$", re.MULTILINE)


def test_every_promise_of_the_documentation_names_a_test_that_there_is() -> None:
    rows = ROW.findall((REPOSITORY / "docs/verifiers.md").read_text())
    assert len(rows) > 20
    for level, path, function, promise in rows:
        tree = ast.parse((REPOSITORY / path).read_text())
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], (path, function)
        assert not promise or promise in promised(level), promise


def test_every_escape_stands_in_the_documentation_at_the_level_that_first_holds_it() -> None:
    rows = ROW.findall((REPOSITORY / "docs/verifiers.md").read_text())
    first = {promise: level for level in ("container", "namespaces", "confined") for promise in promised(level)}
    assert {promise: level for level, _, _, promise in rows if promise} == first
