"""The one thread of a pool that owns its processes: it hands out items, watches clocks, and replaces what dies."""

from __future__ import annotations

import contextlib
import math
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from mutual_env.errors import MutualEnvError, VerificationError
from mutual_env.types import Verdict
from mutual_env.verifiers.pool.confinement import Limits
from mutual_env.verifiers.pool.fork_client import ForkClient
from mutual_env.verifiers.pool.jobs import Counters, Job, Worker
from mutual_env.verifiers.pool.stragglers import Pace, is_asleep, seconds_on_a_core
from mutual_env.verifiers.pool.wire import MEMORY, RETIRE, VERDICT
from mutual_env.verifiers.spec import VerifierSpec

_TICK = 1.0
_ANSWER_SECONDS = 120.0
_LOSSES = 3
_OVERTIME = 60.0
_GLANCE, _SOON, _AWAY = 0.1, 0.001, 64


class Supervisor:
    """Runs jobs on worker processes until it is stopped.

    Everything but `submit`, `withdraw` and `stop` happens on its own thread, so its state needs no lock.
    """

    def __init__(
        self, workers: int, deadline: float, batch: int, lifetime: int, limits: Limits, counters: Counters
    ) -> None:
        self._target, self._deadline, self._batch, self._lifetime = workers, deadline, batch, lifetime
        self._limits = limits
        self._counters = counters
        self._pace = Pace(deadline)
        self._inbox: deque[Job] = deque()
        self._stopping = threading.Event()
        closed = "the verifier pool was closed while items were being verified"
        self._end_of_service: BaseException = VerificationError(closed)
        self._wake, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._jobs: deque[Job] = deque()
        self._workers: list[Worker] = []
        self._unborn: deque[Worker] = deque()
        self._dying: dict[int, Worker] = {}
        self._loaded: dict[VerifierSpec, int] = {}
        self._loading: dict[str, VerifierSpec] = {}
        self._asked = math.inf
        self._losses = 0
        self._spares = 0
        self._server: ForkClient | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, self._answer_bell)
        self._thread = threading.Thread(target=self._run, name="verifier-pool", daemon=True)
        self._thread.start()

    # -- called from other threads -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return not self._stopping.is_set()

    def submit(self, job: Job) -> None:
        self._inbox.append(job)
        self._ring()
        if not self.running:  # it stopped meanwhile, and may have failed the jobs it knew before this one came in
            job.fail(self._end_of_service)

    def stop(self, seconds: float = 20.0) -> None:
        self._stopping.set()
        self._ring()
        self._thread.join(seconds)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is ringing already; closed: nobody hears it
            self._bell.send(b"!")

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                for key, events in self._selector.select(self._until_next_check()):
                    callback: Callable[[int], None] = key.data
                    callback(events)
                self._check_clocks(time.monotonic())
                self._assign()
        except BaseException as problem:  # the boundary of the thread: its callers must hear of it
            self._end_of_service = problem
        finally:
            self._stopping.set()
            self._shut_down(self._end_of_service)

    def _shut_down(self, cause: BaseException) -> None:
        for job in [*self._jobs, *self._inbox]:
            job.fail(cause)
        for worker in [*self._workers, *self._dying.values()]:
            worker.connection.close()
        if self._server is not None:
            self._server.close()
        self._selector.close()
        self._wake.close()
        self._bell.close()

    def _answer_bell(self, _: int) -> None:
        self._wake.recv(1 << 12)
        while self._inbox:
            self._jobs.append(self._inbox.popleft())

    def _until_next_check(self) -> float:
        now = time.monotonic()
        looks = (worker.look_due - now for worker in self._workers if worker.batch)
        return max(0.0, min([_TICK, *looks]))

    # -- handing out -------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        self._jobs = deque(job for job in self._jobs if not job.future.done())
        for job in list(self._jobs):
            if job.waiting and self._is_loaded(job.spec):
                while job.waiting and self._serve(job):
                    pass
        self._resume_paused()
        self._retire_surplus()
        self._keep_a_spare()

    def _is_loaded(self, spec: VerifierSpec) -> bool:
        if self._server is None:
            self._server = ForkClient()
            self._selector.register(self._server.control, selectors.EVENT_READ, self._hear_server)
        if spec not in self._loaded and spec.id not in self._loading:
            self._loading[spec.id] = spec
            self._asked = min(self._asked, time.monotonic())
            self._server.load(spec)
        return spec in self._loaded

    def _serve(self, job: Job) -> bool:
        """Give one batch of this job to a worker; False where none is free."""
        if self._free_cores() <= 0:
            return False
        able = [w for w in self._workers if w.idle and w.generation >= self._loaded[job.spec]]
        fresh = next((w for w in able if w.fresh), None)
        if job.alone and fresh is not None:
            self._give(fresh, job, [job.alone.popleft()], alone=True)
        elif job.pending and able:
            share = math.ceil(len(job.pending) / (2 * self._target))
            self._give(able[0], job, [job.pending.popleft() for _ in range(min(self._batch, share))])
        else:
            self._make_room(job)
            return False
        return True

    def _free_cores(self) -> int:
        """How many more workers than those that have something to do, and neither sleep over it nor are paused, may
        run."""
        return self._target - sum(w.job is not None and not w.away for w in self._workers)

    def _is_time_for_the_slow(self, job: Job) -> bool:
        """When nothing else waits; but the calls of other threads do not put it off for ever."""
        return not any(other.pending for other in self._jobs) or (
            not job.pending and time.monotonic() - job.begun > 2 * self._deadline
        )

    def _make_room(self, job: Job) -> None:
        """Start workers for what waits, ending idle ones that cannot do it. One that is away leaves its core to
        another."""
        wanted = min(job.waiting, self._free_cores()) - len(self._unborn)
        room = min(-self._surplus(), self._target + _AWAY - len(self._workers))
        for worker in [w for w in self._workers if w.idle][: max(0, wanted - room)]:
            self._end(worker)
            room += 1
        for _ in range(min(wanted, room)):
            self._start_worker()

    def _start_worker(self) -> None:
        assert self._server is not None
        worker = Worker(self._server.fork(self._limits, self._deadline), generation=len(self._loaded))
        self._workers.append(worker)
        self._unborn.append(worker)
        self._asked = min(self._asked, time.monotonic())
        self._counters.started += 1
        self._selector.register(
            worker.connection, selectors.EVENT_READ, lambda events: self._hear_worker(worker, events)
        )

    def _give(self, worker: Worker, job: Job, batch: list[int], *, alone: bool = False) -> None:
        worker.job, worker.batch, worker.alone = job, deque(batch), alone
        worker.begin(now := time.monotonic(), now + self._pace.first_look())
        worker.outbox = job.message(batch)
        self._send(worker)

    def _send(self, worker: Worker) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # that a worker is dead is found out by reading
            while worker.outbox:
                worker.outbox = worker.outbox[worker.connection.send(worker.outbox) :]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outbox else 0)
        key = self._selector.get_key(worker.connection)
        if key.events != events:
            self._selector.modify(worker.connection, events, key.data)

    def _retire_surplus(self) -> None:
        for worker in [w for w in self._workers if w.idle][: max(0, self._surplus())]:
            self._end(worker)

    def _surplus(self) -> int:
        return sum(not w.away for w in self._workers) - self._target - self._spares

    def _keep_a_spare(self) -> None:
        """Where items hang and many wait, the worker that takes over from the next one is born before it is needed."""
        ready = bool(self._unborn) or any(worker.idle for worker in self._workers)
        many = sum(len(job.pending) for job in self._jobs) > 4 * self._batch * self._target
        if self._spares and many and not ready and self._surplus() < 0:
            self._start_worker()

    # -- hearing -----------------------------------------------------------------------------------------------------

    def _hear_worker(self, worker: Worker, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(worker)
        if not events & selectors.EVENT_READ or worker not in self._workers:
            return
        try:
            data = worker.connection.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            for entry in worker.records.feed(data):
                self._note(worker, entry.kind, entry.verdict)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._end(worker, suspect=True)
        except VerificationError as cause:  # hostile text has taken the worker over
            worker.fault = str(cause)
            self._end(worker, suspect=True)

    def _note(self, worker: Worker, kind: int, verdict: Verdict | None) -> None:
        if worker.job is None or (kind in (VERDICT, MEMORY)) != bool(worker.batch):
            raise VerificationError("a worker answered what it was not asked")
        if kind == VERDICT:
            assert verdict is not None
            self._conclude(worker, verdict)
        elif kind == MEMORY:
            self._blame(worker, Verdict.unscored("error", detail=f"MemoryError: more than {self._limits.memory_mb} MB"))
            self._end(worker)
        else:
            worker.job = None
            if kind == RETIRE or worker.served >= self._lifetime:
                self._end(worker)

    def _conclude(self, worker: Worker, verdict: Verdict) -> None:
        assert worker.job is not None
        now = time.monotonic()
        self._pace.finished(now - worker.since)
        worker.job.conclude(worker.batch.popleft(), verdict)
        worker.served += 1
        worker.begin(now, now + self._pace.first_look())
        self._losses = 0
        if worker.trimmed:
            self._end(worker)

    def _hear_server(self, _: int) -> None:
        assert self._server is not None
        try:
            replies = self._server.replies()
        except (VerificationError, OSError) as cause:
            self._lose_server(cause)
            return
        for reply in replies:
            if "loaded" in reply:
                self._note_loaded(self._loading.pop(reply["loaded"]), reply)
            elif "forked" in reply:
                worker = self._unborn.popleft()
                worker.pid = reply["forked"]
                if worker not in self._workers:
                    self._bury(worker)
            elif reply["ended"] in self._dying:
                self._note_ended(self._dying.pop(reply["ended"]), reply["code"], reply["why"])
        if not self._unborn and not self._loading and not self._dying:
            self._asked = math.inf

    def _note_loaded(self, spec: VerifierSpec, reply: dict[str, str | None]) -> None:
        if reply["problem"] is None:
            self._loaded[spec] = len(self._loaded) + 1
            return
        problem = f"verifier {spec.id!r} cannot be built in a worker process: {reply['problem']}"
        for job in [job for job in self._jobs if job.spec == spec]:
            job.fail(VerificationError(problem))

    # -- ending ------------------------------------------------------------------------------------------------------

    def _check_clocks(self, now: float) -> None:
        if now - self._asked > _ANSWER_SECONDS:
            raise VerificationError(f"the fork server of the verifier pool did not answer for {_ANSWER_SECONDS:.0f} s")
        for worker in list(self._workers):
            if worker.batch and now >= worker.look_due and worker.pid is not None:
                self._look_at(worker, worker.pid, now)

    def _look_at(self, worker: Worker, pid: int, now: float) -> None:
        """Note what the item in flight has had since the last look, of a core or of sleep, and act on it."""
        slept = worker.asleep
        worker.asleep, ran = is_asleep(pid), seconds_on_a_core(pid)
        if worker.looked is not None:
            passed = now - worker.looked
            worker.age += passed if worker.asleep or ran is None else min(passed, ran - worker.ran)
        worker.looked, worker.ran = now, ran or 0.0
        wall, patience = now - worker.since, self._pace.patience(fresh=worker.fresh)
        waited_for = self._others_wait(worker)
        if worker.age >= self._deadline or wall >= self._deadline + _OVERTIME:
            self._time_out(worker, wall)
        elif waited_for and slept and worker.asleep:
            self._trim(worker)
        elif waited_for and wall >= patience and worker.age >= patience / 2 and self._may_pause():
            self._trim(worker)
            self._pause(worker, pid, now)
        soon = self._pace.next_look() if waited_for and not worker.trimmed else _GLANCE
        worker.look_due = now + min(soon, max(self._deadline - worker.age, _SOON)) if not worker.paused else math.inf

    def _time_out(self, worker: Worker, seconds: float) -> None:
        assert worker.job is not None
        detail = f"no verdict within the deadline of {self._deadline:g} s"
        worker.job.conclude(worker.batch.popleft(), Verdict.unscored("timeout", elapsed=seconds, detail=detail))
        self._counters.timeouts += 1
        self._end(worker)

    def _others_wait(self, worker: Worker) -> bool:
        if worker.trimmed:
            return False
        return len(worker.batch) > 1 or any(job.pending for job in self._jobs)

    def _trim(self, worker: Worker) -> None:
        """Others get what it has not begun, and one of them its core."""
        self._give_back(worker, suspect=True)
        worker.trimmed, self._spares = True, 1

    def _may_pause(self) -> bool:
        return self._pace.may_pause() and sum(worker.away for worker in self._workers) < _AWAY

    def _pause(self, worker: Worker, pid: int, now: float) -> None:
        assert self._server is not None
        self._server.pause(pid)
        worker.paused, worker.looked = True, now
        self._counters.paused += 1
        self._pace.paused()

    def _resume_paused(self) -> None:
        """Those that were paused go on when nobody else waits, the longest paused first."""
        if (free := self._free_cores()) <= 0:
            return
        paused = [w for w in self._workers if w.paused and w.job is not None and self._is_time_for_the_slow(w.job)]
        for worker in sorted(paused, key=lambda w: w.since)[:free]:
            assert self._server is not None
            assert worker.pid is not None
            assert worker.looked is not None
            self._server.resume(worker.pid)
            now = time.monotonic()
            worker.since += now - worker.looked
            worker.paused, worker.looked, worker.look_due = False, None, now + _SOON

    def _give_back(self, worker: Worker, *, suspect: bool) -> None:
        """What the worker owes waits again, but for the item in flight where that is a `suspect`."""
        while len(worker.batch) > suspect:
            assert worker.job is not None
            worker.job.pending.appendleft(worker.batch.pop())

    def _end(self, worker: Worker, *, suspect: bool = False) -> None:
        """End the process. A suspect is judged when the fork server says how the process ended."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
        self._give_back(worker, suspect=suspect)
        self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        if worker.pid is None:
            return  # not forked yet: `_hear_server` comes back to it
        assert self._server is not None
        self._dying[worker.pid] = worker
        self._asked = min(self._asked, time.monotonic())
        self._counters.restarts += 1
        self._server.end(worker.pid)

    def _note_ended(self, worker: Worker, code: int, why: str) -> None:
        if not worker.batch:
            return
        assert worker.job is not None
        if -code == signal.SIGXCPU:
            detail = "used more CPU time than its deadline allows"
            worker.job.conclude(worker.batch.popleft(), Verdict.unscored("timeout", detail=detail))
            self._counters.timeouts += 1
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        detail = why or worker.fault or f"the worker process ended with {how}"
        self._blame(worker, Verdict.unscored("crash", detail=detail))

    def _blame(self, worker: Worker, verdict: Verdict) -> None:
        """The item in flight brought its worker down; but if that had done others before, the fault may be theirs."""
        assert worker.job is not None
        index = worker.batch.popleft()
        if worker.fresh or worker.alone:
            worker.job.conclude(index, verdict)
            self._counters.crashes += verdict.status == "crash"
        else:
            worker.job.alone.append(index)
            self._counters.retries += 1

    def _lose_server(self, cause: Exception) -> None:
        """Without their server the workers end too. Everything is started again, unless that keeps happening."""
        assert self._server is not None
        self._losses += 1
        if self._losses > _LOSSES:
            raise cause if isinstance(cause, MutualEnvError) else VerificationError(str(cause))
        self._selector.unregister(self._server.control)
        for worker in self._workers:
            self._selector.unregister(worker.connection)
            worker.connection.close()
        lost = [*self._workers, *self._dying.values()]
        self._server.close()
        self._server, self._asked = None, math.inf
        self._workers, self._dying = [], {}
        self._unborn.clear()
        self._loaded.clear()
        self._loading.clear()
        for worker in lost:
            self._give_back(worker, suspect=True)
            if worker.batch:
                self._blame(worker, Verdict.unscored("crash", detail="the fork server ended while this was verified"))
