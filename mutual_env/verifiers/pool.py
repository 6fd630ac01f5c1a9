"""Verification of many items at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from mutual_env.types import Task, Verdict
from mutual_env.verifiers.spec import Verifier, VerifierSpec, as_spec, build, target_of


class VerifierPool:
    """Interim: verifies in this process."""

    def __init__(
        self,
        workers: int | None = None,
        *,
        deadline: float = 5.0,
        memory_mb: int = 1024,
        batch: int = 16,
        remember: int = 65_536,
    ) -> None:
        self._verifiers: dict[VerifierSpec, Verifier] = {}

    def verify(self, spec: VerifierSpec | str, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        spec = as_spec(spec)
        if spec not in self._verifiers:
            self._verifiers[spec] = build(spec, target_of(spec.name))
        return [verify_one(self._verifiers[spec], task, text) for task, text in items]

    def close(self) -> None: ...

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def verify_one(verifier: Verifier, task: Task, text: str) -> Verdict:
    start = time.perf_counter()
    try:
        verdict = verifier.verify(task, text)
    except Exception as cause:
        verdict = Verdict.unscored("error", detail=f"{type(cause).__name__}: {cause}"[:500])
    return replace(verdict, elapsed=time.perf_counter() - start)
