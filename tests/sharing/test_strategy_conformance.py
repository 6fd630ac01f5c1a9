"""The shipped check of strategies finds what is wrong, also where Python leaves `assert` out."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from dataclasses import replace
from mutual_env.errors import ConformanceError
from sharing import Independent
from sharing.testing import check_strategy

class Broken(Independent):
    def share(self, situation):
        shared = super().share(situation)
        {body}

try:
    check_strategy(lambda env, **common: Broken(env, **common))
except ConformanceError as error:
    print(isinstance(error, AssertionError), error)
"""
FAULTS = {
    "shared.metrics['seen'] = 1; return shared": "metric share/seen of policy_0 is a int, not a float",
    "return replace(shared, lessons=list(shared.lessons))": "lessons of policy_0 must be a tuple",
    "self.calls = getattr(self, 'calls', 0) + 1;"
    " return replace(shared, lessons=shared.lessons[self.calls:])": "the order of agents changed the lessons",
}


@pytest.mark.parametrize("optimised", [[], ["-O"]], ids=["as usual", "under -O"])
@pytest.mark.parametrize(("body", "sentence"), FAULTS.items())
def test_a_broken_strategy_is_found(body: str, sentence: str, optimised: list[str]) -> None:
    program = PROGRAM.format(body=body)
    done = subprocess.run([sys.executable, *optimised, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"True {sentence}", done.stderr
