"""Who has no token is refused by the cluster that an executor starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

OWNER = """
import subprocess, sys
from learners.resources.on_ray import RayExecutor
executor = RayExecutor()
import ray
address = ray.get_runtime_context().gcs_address
for stranger in (True, False):
    visitor = subprocess.run([sys.executable, "-c", sys.argv[1], address, str(stranger)], timeout=60)
    print("\\nleft with", visitor.returncode, flush=True)
executor.close()
"""
VISITOR = """
import os, sys
if sys.argv[2] == "True":
    os.environ.update(RAY_AUTH_MODE="disabled", HOME="/nonexistent")
import ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
"""


def test_a_process_without_the_token_is_refused_and_one_with_it_is_let_in() -> None:
    unset = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-c", OWNER, VISITOR], env=unset, capture_output=True, text=True, timeout=170
    )
    left = [line for line in done.stdout.splitlines() if line.startswith("left with")]
    assert left == ["left with 1", "left with 0"], done.stderr[-2000:]
