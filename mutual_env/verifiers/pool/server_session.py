"""The fork server as the supervisor sees it: what was asked of it, and what it has answered."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from mutual_env.verifiers.pool.confinement import Limits
from mutual_env.verifiers.pool.fork_client import ForkClient
from mutual_env.verifiers.pool.isolation import Level
from mutual_env.verifiers.pool.jobs import Job
from mutual_env.verifiers.pool.workers import Worker
from mutual_env.verifiers.spec import VerifierSpec

_ANSWER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A verifier can be used in workers from now on, or (a `problem`) cannot."""

    spec: VerifierSpec
    problem: str | None


@dataclass(frozen=True, slots=True)
class Started:
    worker: Worker


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of a worker is gone, with that exit code; `why` is what the fork server held against it."""

    worker: Worker
    code: int
    why: str

    @property
    def overused_its_cpu(self) -> bool:
        return -self.code == signal.SIGXCPU

    def cause(self, fault: str) -> str:
        """What brought it down, where the pool itself may have ended it for a `fault`."""
        how = f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit status {self.code}"
        return self.why or fault or f"the worker process ended with {how}"


News: TypeAlias = Loaded | Started | Ended


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pool was made with: see `VerifierPool`; `lifetime` is its items_per_worker."""

    workers: int
    deadline: float
    batch: int
    lifetime: int
    limits: Limits
    level: Level


class ServerSession:
    """One fork server, from its start to its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = ForkClient(settings.limits, settings.level)
        self._loaded: dict[VerifierSpec, int] = {}
        self._loading: dict[str, VerifierSpec] = {}
        self._starting: deque[Worker] = deque()  # in the order in which they will be named
        self._ending: dict[int, Worker] = {}
        self._asked = math.inf
        self.control = self._client.control

    def generation_of(self, spec: VerifierSpec) -> int | None:
        """The generation of workers that know the verifier first; None where it is not loaded yet."""
        return self._loaded.get(spec)

    def load(self, job: Job) -> None:
        if job.spec.id not in self._loading:
            self._loading[job.spec.id] = job.spec
            self._client.load(job.loading, job.file)
            self._note_request()

    def fork(self) -> Worker:
        worker = Worker(self._client.fork(self._settings.limits, self._settings.deadline), generation=len(self._loaded))
        self._starting.append(worker)
        self._note_request()
        return worker

    def end(self, worker: Worker, pid: int) -> None:
        self._ending[pid] = worker
        self._client.end(pid)
        self._note_request()

    def pause(self, pid: int) -> None:
        self._client.pause(pid)

    def resume(self, pid: int) -> None:
        self._client.resume(pid)

    def hear(self) -> list[News]:
        """What it has answered; a VerificationError where it has ended. Call when `control` is readable."""
        news: list[News] = []
        for reply in self._client.replies():
            if "loaded" in reply:
                spec = self._loading.pop(reply["loaded"])
                if reply["problem"] is None:
                    self._loaded[spec] = len(self._loaded) + 1
                news.append(Loaded(spec, reply["problem"]))
            elif "forked" in reply:
                worker = self._starting.popleft()
                worker.pid = reply["forked"]
                worker.seen_as = self._client.outer_pid(reply["forked"])
                news.append(Started(worker))
            elif reply["ended"] in self._ending:
                news.append(Ended(self._ending.pop(reply["ended"]), reply["code"], reply["why"]))
        if not self._starting and not self._loading and not self._ending:
            self._asked = math.inf
        return news

    @property
    def starting(self) -> int:
        return len(self._starting)

    @property
    def ending(self) -> list[Worker]:
        return list(self._ending.values())

    def is_overdue(self, now: float) -> bool:
        """Has it left a request unanswered for two minutes?"""
        return now - self._asked > _ANSWER_SECONDS

    def close(self) -> None:
        self._client.close()

    def _note_request(self) -> None:
        self._asked = min(self._asked, time.monotonic())
