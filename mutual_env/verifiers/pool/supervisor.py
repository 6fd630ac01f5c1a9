"""The one thread of a pool that owns its processes: it hands out items, watches clocks, and replaces what dies."""

from __future__ import annotations

import contextlib
import math
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import assert_never

from mutual_env.errors import MutualEnvError, VerificationError
from mutual_env.verifiers.pool.jobs import Counters, Failure, Job
from mutual_env.verifiers.pool.server_session import Ended, Loaded, ServerSession, Settings, Started
from mutual_env.verifiers.pool.stragglers import Clock, Pace
from mutual_env.verifiers.pool.wakeup import Wakeup
from mutual_env.verifiers.pool.wire import ANSWERS, LAST, MEMORY, RETIRE, Record
from mutual_env.verifiers.pool.workers import Assignment, Busy, Ending, Idle, Paused, Starting, Worker

_TICK_SECONDS, _LOOK_SECONDS, _LEAST_LOOK_SECONDS = 1.0, 0.1, 0.001
_OVERTIME_SECONDS = 60.0
_MOST_LOSSES, _MOST_AWAY = 3, 64


class Supervisor:
    """Runs jobs on worker processes until it is stopped.

    Everything but `submit` and `stop` happens on its own thread, so its state needs no lock.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings, self._counters = settings, counters
        self._target, self._deadline = settings.workers, settings.deadline
        self._pace = Pace(settings.deadline)
        self._inbox: deque[Job] = deque()
        self._stopping = threading.Event()
        closed = "the verifier pool was closed while items were being verified"
        self._end_of_service: BaseException = VerificationError(closed)
        self._wakeup = Wakeup()
        self._jobs: deque[Job] = deque()
        self._workers: list[Worker] = []  # but for those that are ending
        self._losses = 0
        self._spares = 0
        self._server: ServerSession | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakeup.socket, selectors.EVENT_READ, self._take_in_jobs)
        self._thread = threading.Thread(target=self._run, name="verifier-pool", daemon=True)
        self._thread.start()

    # -- called from other threads -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return not self._stopping.is_set()

    def submit(self, job: Job) -> None:
        self._inbox.append(job)
        self._wakeup.ring()
        if not self.running:  # it stopped meanwhile, and may have failed the jobs it knew before this one came in
            job.fail(self._end_of_service)

    def stop(self, seconds: float = 20.0) -> None:
        self._stopping.set()
        self._wakeup.ring()
        self._thread.join(seconds)

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
        for worker in self._workers:
            worker.connection.close()
        if self._server is not None:
            self._server.close()
        self._selector.close()
        self._wakeup.close()

    def _take_in_jobs(self, _: int) -> None:
        self._wakeup.answer()
        while self._inbox:
            self._jobs.append(self._inbox.popleft())

    def _until_next_check(self) -> float:
        now = time.monotonic()
        looks = (state.clock.look_due - now for _, state in self._busy() if state.assignment.batch)
        return max(0.0, min([_TICK_SECONDS, *looks]))

    def _busy(self) -> list[tuple[Worker, Busy]]:
        return [(worker, worker.state) for worker in self._workers if isinstance(worker.state, Busy)]

    # -- handing out -------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        self._jobs = deque(job for job in self._jobs if not job.future.done())
        for job in [job for job in self._jobs if job.waiting]:
            generation = self._server_at_work().generation_of(job.spec)
            if generation is None:
                self._server_at_work().load(job)
            else:
                while job.waiting and self._serve(job, generation):
                    pass
        self._resume_paused()
        for worker in [w for w in self._workers if w.idle][: max(0, self._surplus())]:
            self._end(worker)
        self._keep_a_spare()

    def _server_at_work(self) -> ServerSession:
        """Started when it is first needed, and again after it was lost."""
        if self._server is None:
            self._server = ServerSession(self._settings)
            self._selector.register(self._server.control, selectors.EVENT_READ, self._hear_server)
        return self._server

    def _serve(self, job: Job, generation: int) -> bool:
        """Give one batch of this job to a worker; False where none is free."""
        if self._free_cores() <= 0:
            return False
        able = [w for w in self._workers if w.idle and w.generation >= generation]
        fresh = next((w for w in able if w.fresh), None)
        if (job.alone or job.exclusive) and fresh is not None:
            waiting = job.alone or job.pending
            self._give(fresh, Assignment(job, deque([waiting.popleft()]), single=True))
        elif job.pending and able and not job.exclusive:
            share = math.ceil(len(job.pending) / (2 * self._target))
            self._give(
                able[0], Assignment(job, deque(job.pending.popleft() for _ in range(min(self._settings.batch, share))))
            )
        else:
            self._make_room(job)
            return False
        return True

    def _free_cores(self) -> int:
        """How many more workers than those that have something to do, and neither sleep over it nor are paused, may
        run."""
        return self._target - sum(worker.on_a_core for worker in self._workers)

    def _is_time_for_the_slow(self, job: Job) -> bool:
        """When nothing else waits; but the calls of other threads do not put it off for ever."""
        others_wait = any(other.pending for other in self._jobs)
        return not others_wait or (not job.pending and time.monotonic() - job.begun > 2 * self._deadline)

    def _make_room(self, job: Job) -> None:
        """Start workers for what waits, ending idle ones that cannot do it. One that is away leaves its core to
        another."""
        wanted = min(job.waiting, self._free_cores()) - self._server_at_work().starting
        room = min(-self._surplus(), self._target + _MOST_AWAY - len(self._workers))
        for worker in [w for w in self._workers if w.idle][: max(0, wanted - room)]:
            self._end(worker)
            room += 1
        for _ in range(min(wanted, room)):
            self._start_worker()

    def _start_worker(self) -> None:
        worker = self._server_at_work().fork()
        self._workers.append(worker)
        self._counters.started += 1
        self._selector.register(worker.connection, selectors.EVENT_READ, partial(self._hear_worker, worker))

    def _give(self, worker: Worker, assignment: Assignment) -> None:
        now = time.monotonic()
        worker.state = Busy(assignment, Clock(now, now + self._pace.first_look()))
        worker.outbox.put(assignment.job.message(assignment.batch))
        self._send(worker)

    def _send(self, worker: Worker) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # that a worker is dead is found out by reading
            while worker.outbox:
                worker.outbox.sent(worker.connection.send(worker.outbox.rest))
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outbox else 0)
        key = self._selector.get_key(worker.connection)
        if key.events != events:
            self._selector.modify(worker.connection, events, key.data)

    def _surplus(self) -> int:
        return sum(not w.away for w in self._workers) - self._target - self._spares

    def _keep_a_spare(self) -> None:
        """Where items hang and many wait, the worker that takes over from the next one is born before it is needed."""
        ready = any(isinstance(worker.state, (Starting, Idle)) for worker in self._workers)
        many = sum(len(job.pending) for job in self._jobs) > 4 * self._settings.batch * self._target
        if self._spares and many and not ready and self._surplus() < 0:
            self._start_worker()

    # -- hearing -----------------------------------------------------------------------------------------------------

    def _hear_worker(self, worker: Worker, events: int) -> None:
        if isinstance(worker.state, Ending):
            return
        if events & selectors.EVENT_WRITE:
            self._send(worker)
        if not events & selectors.EVENT_READ:
            return
        try:
            data = worker.connection.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            for entry in worker.records.feed(data):
                self._note(worker, entry)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._end(worker, suspect=True)
        except VerificationError as cause:  # hostile text has taken the worker over
            self._end(worker, suspect=True, fault=str(cause))

    def _note(self, worker: Worker, entry: Record) -> None:
        state = worker.state
        if isinstance(state, Ending):
            return  # what it says after its last answer counts for nothing
        # One that is to be paused may have answered before it was.
        if not isinstance(state, (Busy, Paused)) or (entry.kind in (*ANSWERS, LAST)) != bool(state.assignment.batch):
            raise VerificationError("a worker answered what it was not asked")
        assignment, job = state.assignment, state.assignment.job
        if entry.kind == LAST:
            job.suspect.add(assignment.batch[0])
            assignment.single = True
            assignment.give_back(keep=1)
        elif entry.kind == MEMORY:
            self._blame(worker, assignment, "error", f"MemoryError: more than {self._settings.limits.memory_mb} MB")
            self._end(worker)
        elif entry.kind == job.answered_by:
            self._conclude(worker, state, job.read(entry))
        elif entry.kind in ANSWERS:
            raise VerificationError("a worker answered in another way than it was asked")
        elif entry.kind == RETIRE or worker.served >= self._settings.lifetime:
            self._end(worker)
        else:
            worker.state = Idle()

    def _conclude(self, worker: Worker, state: Busy | Paused, answer: object) -> None:
        now = time.monotonic()
        self._pace.finished(now - state.clock.since)
        state.assignment.job.conclude(state.assignment.batch.popleft(), answer)
        worker.served += 1
        worker.state = Busy(state.assignment, Clock(now, now + self._pace.first_look()))
        self._losses = 0
        if state.assignment.trimmed or state.assignment.single:
            self._end(worker)

    def _hear_server(self, _: int) -> None:
        try:
            news = self._server_at_work().hear()
        except (VerificationError, OSError) as cause:
            self._lose_server(cause)
            return
        for entry in news:
            match entry:
                case Loaded():
                    self._note_loaded(entry)
                case Started() if isinstance(entry.worker.state, Starting):
                    entry.worker.state = Idle()
                case Started():
                    self._stop_process(entry.worker)
                case Ended():
                    self._note_ended(entry)
                case _:
                    assert_never(entry)

    def _note_loaded(self, entry: Loaded) -> None:
        for job in [job for job in self._jobs if job.spec == entry.spec and entry.problem is not None]:
            problem = f"verifier {entry.spec.id!r} cannot be built in a worker process: {entry.problem}"
            job.fail(VerificationError(problem))

    # -- ending ------------------------------------------------------------------------------------------------------

    def _check_clocks(self, now: float) -> None:
        if self._server is not None and self._server.is_overdue(now):
            raise VerificationError("the fork server of the verifier pool did not answer for two minutes")
        for worker, state in self._busy():
            if state.assignment.batch and now >= state.clock.look_due and worker.pid is not None:
                self._look_at(worker, worker.pid, state, now)

    def _look_at(self, worker: Worker, pid: int, state: Busy, now: float) -> None:
        """Note what the item in flight has had since the last look, of a core or of sleep, and act on it."""
        clock, assignment = state.clock, state.assignment
        sleeps = clock.look(worker.seen_as, now)
        wall, patience = now - clock.since, self._pace.patience(fresh=worker.fresh)
        waited_for = not assignment.trimmed and (len(assignment.batch) > 1 or any(job.pending for job in self._jobs))
        if clock.age >= self._deadline or wall >= self._deadline + _OVERTIME_SECONDS:
            self._time_out(worker, assignment, wall)
        elif waited_for and sleeps:
            self._trim(assignment)
        elif waited_for and wall >= patience and clock.age >= patience / 2 and self._may_pause():
            self._trim(assignment)
            self._pause(worker, pid, state, now)
        soon = self._pace.next_look() if waited_for and not assignment.trimmed else _LOOK_SECONDS
        clock.look_due = now + min(soon, max(self._deadline - clock.age, _LEAST_LOOK_SECONDS))

    def _time_out(self, worker: Worker, assignment: Assignment, seconds: float) -> None:
        detail = f"no verdict within the deadline of {self._deadline:g} s"
        assignment.fail("timeout", detail, seconds)
        self._counters.timeouts += 1
        self._end(worker)

    def _trim(self, assignment: Assignment) -> None:
        """Others get what it has not begun, and one of them its core."""
        assignment.give_back(keep=1)
        assignment.trimmed, self._spares = True, 1

    def _may_pause(self) -> bool:
        return self._pace.may_pause() and sum(worker.away for worker in self._workers) < _MOST_AWAY

    def _pause(self, worker: Worker, pid: int, state: Busy, now: float) -> None:
        self._server_at_work().pause(pid)
        worker.state = Paused(state.assignment, state.clock, now)
        self._counters.paused += 1
        self._pace.paused()

    def _resume_paused(self) -> None:
        """Those that were paused go on when nobody else waits, the longest paused first."""
        if (free := self._free_cores()) <= 0:
            return
        paused = [(w, w.pid, w.state) for w in self._workers if isinstance(w.state, Paused)]
        ready = [(w, pid, state) for w, pid, state in paused if self._is_time_for_the_slow(state.assignment.job)]
        for worker, pid, state in sorted(ready, key=lambda entry: entry[2].clock.since)[:free]:
            assert pid is not None
            self._server_at_work().resume(pid)
            now = time.monotonic()
            clock = Clock(state.clock.since + now - state.at, now + _LEAST_LOOK_SECONDS, age=state.clock.age)
            worker.state = Busy(state.assignment, clock)

    def _end(self, worker: Worker, *, suspect: bool = False, fault: str = "") -> None:
        """End the process. A suspect is judged when the fork server says how the process ended."""
        if isinstance(worker.state, Ending):
            return
        assignment = worker.assignment
        if assignment is not None:
            assignment.give_back(keep=int(suspect))
        worker.state = Ending(assignment, fault)
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
        self._stop_process(worker)

    def _stop_process(self, worker: Worker) -> None:
        if worker.pid is None:
            return  # not named yet: `_hear_server` comes back to it
        self._counters.restarts += 1
        self._server_at_work().end(worker, worker.pid)

    def _note_ended(self, entry: Ended) -> None:
        worker, assignment = entry.worker, entry.worker.assignment
        if assignment is None or not assignment.batch:
            return
        if entry.overused_its_cpu:
            assignment.fail("timeout", "used more CPU time than its deadline allows")
            self._counters.timeouts += 1
        else:
            fault = worker.state.fault if isinstance(worker.state, Ending) else ""
            self._blame(worker, assignment, "crash", entry.cause(fault))

    def _blame(self, worker: Worker, assignment: Assignment, status: Failure, detail: str) -> None:
        """The item in flight brought its worker down; but if that had done others before, the fault may be theirs."""
        if worker.fresh:
            assignment.fail(status, detail)
            self._counters.crashes += status == "crash"
        else:
            assignment.job.alone.append(assignment.batch.popleft())
            self._counters.retries += 1

    def _lose_server(self, cause: Exception) -> None:
        """Without the fork server the workers end too. Everything is started again, unless that keeps happening."""
        lost, self._server = self._server_at_work(), None
        self._losses += 1
        self._selector.unregister(lost.control)
        workers, self._workers = [*self._workers, *lost.ending], []
        for worker in workers:
            if not isinstance(worker.state, Ending):
                self._selector.unregister(worker.connection)
                worker.connection.close()
                worker.state = Ending(worker.assignment)
        lost.close()
        if self._losses > _MOST_LOSSES:
            raise cause if isinstance(cause, MutualEnvError) else VerificationError(str(cause))
        for worker in workers:
            if (assignment := worker.assignment) is not None:
                assignment.give_back(keep=1)
                if assignment.batch:
                    self._blame(worker, assignment, "crash", "the fork server ended while this was verified")
