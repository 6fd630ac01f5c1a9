"""A verifier that gives no verdict."""

from __future__ import annotations

from mutual_env import Task, Verdict


class Broken:
    id, inline = "broken", False

    def verify(self, task: Task, text: str) -> Verdict:
        raise RuntimeError("no verdict")
