from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import Task
from mutual_env.verifiers import Verifier, VerifierPool, VerifierSpec, make, register


def test_a_spec_is_known_by_name_and_options_in_any_order() -> None:
    one = VerifierSpec("numeric", {"rel_tol": 0.1, "abs_tol": 0})
    other = VerifierSpec("numeric", {"abs_tol": 0, "rel_tol": 0.1})
    assert one == other
    assert hash(one) == hash(other)
    assert one.id == 'numeric{"abs_tol":0,"rel_tol":0.1}'
    assert VerifierSpec("numeric").id == "numeric"
    assert one != VerifierSpec("numeric")


def test_a_spec_survives_pickling() -> None:
    spec = VerifierSpec("numeric", {"rel_tol": 0.1})
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_options_that_are_no_json_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="kwargs of 'numeric' must be JSON"):
        VerifierSpec("numeric", {"abs_tol": {1, 2}})  # type: ignore[dict-item]
    with pytest.raises(InvalidInputError):
        VerifierSpec("numeric", {"abs_tol": float("nan")})


def test_make_builds_from_name_options_and_spec() -> None:
    task = Task("t", "", "100")
    assert make("numeric", abs_tol=1).verify(task, "101").correct
    assert make(VerifierSpec("numeric", {"abs_tol": 1})).verify(task, "101").correct
    assert not make(VerifierSpec("numeric", {"abs_tol": 1}), abs_tol=0).verify(task, "101").correct


@pytest.mark.parametrize("name", ["exact", "numeric", "math_verify", "reasoning_gym"])
def test_every_built_in_verifier_keeps_the_protocol_and_names_its_options(name: str) -> None:
    verifier = make(name)
    assert isinstance(verifier, Verifier)
    assert verifier.id.startswith(name)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown verifier 'mathverify': did you mean 'math_verify'"):
        make("mathverify")


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown option of verifier 'numeric' 'abs_tolerance': .*'abs_tol'"):
        make("numeric", abs_tolerance=1)


@pytest.mark.parametrize(
    ("name", "message"), [("no_such_module:X", "no module 'no_such_module'"), ("hostile:Hostil", "Hostile")]
)
def test_a_wrong_path_names_what_is_missing(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        make(name)


def test_what_is_no_verifier_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"returned a dict, which is no verifier: that has `id`, `inline` and `verify`"
    ):
        make("builtins:dict")
    with pytest.raises(InvalidInputError, match="must be a class or function"):
        make("hostile:DEEDS")


def test_a_registered_name_works_and_cannot_be_taken_twice() -> None:
    register("test-hostile", "hostile:Hostile")
    register("test-hostile", "hostile:Hostile")
    assert make("test-hostile").id == "hostile"
    with pytest.raises(InvalidInputError, match="already names 'hostile:Hostile'"):
        register("test-hostile", "hostile:Unloadable")
    with pytest.raises(InvalidInputError, match="module:attribute"):
        register("test-wrong", "hostile.Hostile")


def test_an_installed_package_adds_a_verifier_by_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "outsider-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mutual_env.verifiers]\noutside = outsider:Outside\n")
    (tmp_path / "outsider.py").write_text(
        "from mutual_env.types import Verdict\n"
        "class Outside:\n"
        "    id = 'outside'\n"
        "    inline = False\n"
        "    def verify(self, task, text):\n"
        "        return Verdict.scored(1.0, correct=True, detail='from outside')\n"
    )
    program = (
        "from mutual_env.types import Task; from mutual_env.verifiers import VerifierPool\n"
        "with VerifierPool(1) as pool: print(pool.verify('outside', [(Task('t', '', ''), 'x')])[0].detail)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "from outside", done.stderr


def test_importing_the_verifiers_loads_no_heavy_library() -> None:
    program = (
        "import sys, mutual_env.verifiers; from mutual_env.verifiers import make\n"
        "make('math_verify'); make('reasoning_gym')\n"
        "print([m for m in ('sympy', 'math_verify', 'reasoning_gym', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


ASKS = """
import sys
from mutual_env.types import Verdict

def loaded(_):
    return sorted({"gymnasium", "pettingzoo"} & set(sys.modules))
"""


def test_what_only_envs_need_is_loaded_in_workers_for_a_verifier_that_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "asks_nothing.py").write_text(ASKS)
    (tmp_path / "asks_for_envs.py").write_text("from mutual_env import ids, make\n" + ASKS)
    with VerifierPool(1, deadline=30.0) as pool:
        assert pool.call("asks_nothing:loaded", [0])[0].value == []
        assert pool.call("asks_for_envs:loaded", [0])[0].value == ["gymnasium", "pettingzoo"]
