"""Policies in processes of this machine: nothing to install, nothing shared, and a worker that hangs can be ended."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import TypeVar

from learners.placement import VISIBLE, environment, showing, visible
from learners.protocol import Learner
from learners.resources.demand import Demand, Patience, Supply
from learners.resources.leased import LeasedCalls
from learners.resources.limits import START
from learners.resources.record import UsageRecord
from learners.resources.remote import Hear, RemoteLearner, WorkerDiedError, WorkerHungError
from learners.resources.worker import Call, Hello, LearnerWorker, Reply, Told, portable
from mutual_env.errors import WorkerLostError
from mutual_env.verifiers.pool import kernel

T = TypeVar("T")

READY = b"ready"
EXIT_SECONDS = 2.0  # between asking a worker to end and ending it


class ProcessExecutor:
    """One worker process per policy, which holds its learner; leases decide who computes when.

    `threads`: how many threads the numerical libraries of a worker use (0: their own default). Results are the same bit
    for bit as in one process where that uses as many.
    """

    def __init__(
        self,
        demands: Iterable[Demand] = (),
        supply: Supply | None = None,
        patience: Patience | None = None,
        *,
        threads: int = 1,
        keep: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = LeasedCalls(demands, supply or Supply.local(), patience, clock)
        self._threads = threads
        self._keep = keep
        self._hosts: dict[str, ProcessHost] = {}
        self._hosted: dict[str, RemoteLearner] = {}

    @property
    def record(self) -> UsageRecord:
        return self._calls.record

    @property
    def parked(self) -> Mapping[str, str]:
        return self._calls.parked

    @property
    def hosts(self) -> Mapping[str, ProcessHost]:
        """The worker process of each policy."""
        return self._hosts

    def host(self, makers: Mapping[str, Callable[[], Learner]]) -> dict[str, Learner]:
        homes = self._calls.settle(makers)
        hosts = {name: ProcessHost(name, make, self._threads, homes[name]) for name, make in makers.items()}
        self._hosts.update(hosts)
        for name, host in hosts.items():  # all are starting by now
            self._start_again_until_ready(host)
            self._hosted[name] = RemoteLearner(name, host, self._calls.note, self._calls.limits, keep=self._keep)
            self._check_place(host, self._hosted[name].hello)
        built: dict[str, Learner] = {name: self._hosted[name] for name in makers}
        self._calls.hosted(built)
        return built

    def _start_again_until_ready(self, host: ProcessHost) -> None:
        limits = self._calls.limits
        for attempt in range(limits.patience.restarts + 1):
            began = time.monotonic()
            try:
                if attempt:
                    host.restart(limits.start(host.name))
                else:
                    host.wait_until_ready(limits.start(host.name))
                limits.observe(host.name, START, time.monotonic() - began)
                return
            except (WorkerDiedError, WorkerHungError) as error:
                self._calls.note("died", host.name, str(error))
                last = error
        raise WorkerLostError(f"{last}; it was tried {limits.patience.restarts + 1} times") from last

    def _check_place(self, host: ProcessHost, hello: Hello) -> None:
        """What leases say of a policy's devices is what its process sees."""
        if host.gpus is None:
            return
        meant = visible(host.environment)
        if hello.visible != meant:
            raise WorkerLostError(
                f"the worker of policy {host.name!r} sees GPUs {hello.visible}, and was to see {meant}: does something "
                f"in its start-up set {VISIBLE}?"
            )
        if host.gpus:
            says = f", computes on {hello.device}" if hello.device else ""
            gpus = ", ".join(map(str, host.gpus))
            self._calls.note("placed", host.name, f"GPU {gpus}: {VISIBLE}={host.environment[VISIBLE]}{says}")

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        return self._calls.map(phase, calls)

    def close(self) -> None:
        self._calls.close()
        while self._hosted:
            self._hosted.popitem()[1].close()
        while self._hosts:
            self._hosts.popitem()[1].close()


class ProcessHost:
    """A worker in a process, over a pipe. A timer ends the process where a limit runs out, which frees either side."""

    shares_files = True

    def __init__(
        self, name: str, make: Callable[[], Learner], threads: int, gpus: tuple[int, ...] | None = None
    ) -> None:
        self.name, self._make, self._threads, self.gpus = name, make, threads, gpus
        self.environment = {**_thread_counts(threads), **showing(gpus)}
        self._starting = threading.Lock()
        self._closed = False
        self._start()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def call(self, call: Call, limit: float, hear: Hear | None = None) -> Reply:
        hung = threading.Event()
        timer = threading.Timer(limit, self._end, args=(hung,))
        timer.daemon = True
        timer.start()
        try:
            self._pipe.send(call)
            reply = self._answer(time.monotonic() + limit + EXIT_SECONDS, limit, hear)
        except (EOFError, OSError) as error:
            if hung.is_set():
                raise WorkerHungError(f"no answer within {limit:.0f} s") from error
            self._process.join(timeout=EXIT_SECONDS)
            self._sweep()
            raise WorkerDiedError(f"process {self._process.pid} ended with code {self._process.exitcode}") from error
        finally:
            timer.cancel()
        return reply

    def _answer(self, ends: float, limit: float, hear: Hear | None) -> Reply:
        while self._pipe.poll(max(0.0, ends - time.monotonic())):
            said: Reply | Told = self._pipe.recv()
            if not isinstance(said, Told):
                return said
            if hear is not None:
                hear(said)
        raise WorkerHungError(f"no answer within {limit:.0f} s, and the process does not end")

    @property
    def alive(self) -> bool:
        return not connection.wait([self._process.sentinel], timeout=0)  # which reaps nobody, so any thread may ask

    def kill(self) -> None:
        """End the process here and now, as the kernel does where memory runs out."""
        self._process.kill()

    def _sweep(self) -> None:
        """End all that the worker has started: an engine's processes do not notice that it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def restart(self, limit: float) -> None:
        self._stop()
        self._start()
        self.wait_until_ready(limit)

    def wait_until_ready(self, limit: float) -> None:
        try:
            if not self._pipe.poll(limit):
                raise WorkerHungError(f"policy {self.name!r} was not built within {limit:.0f} s")
            built = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(timeout=EXIT_SECONDS)
            code = self._process.exitcode
            raise WorkerDiedError(f"process of policy {self.name!r} ended with code {code} while starting") from error
        if built != READY:
            raise built

    def close(self) -> None:
        """For good: a thread that was about to start the worker again finds that it is too late."""
        with self._starting:
            self._closed = True
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._process.join(timeout=EXIT_SECONDS)
        self._sweep()
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=EXIT_SECONDS)
        atexit.unregister(self._stop)

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        with self._starting, environment(self.environment):
            if self._closed:
                raise WorkerDiedError(f"the worker of policy {self.name!r} was closed")
            self._pipe, theirs = spawn.Pipe()
            # Not a daemon, which may start no processes: an engine has some. So it is ended at the exit by us.
            self._process = spawn.Process(
                target=_serve, args=(theirs, self._make, self._threads), name=f"mutual-env {self.name}", daemon=False
            )
            self._process.start()
            atexit.register(self._stop)
        theirs.close()

    def _end(self, hung: threading.Event) -> None:
        hung.set()
        self._sweep()
        self._process.kill()


def _thread_counts(threads: int) -> dict[str, str]:
    """The numerical libraries read it when they are loaded: it has to be in the environment a worker is born with."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if threads else ()
    return dict.fromkeys(names, str(threads))


def _end_with_parent() -> None:
    """Also in the middle of a call: nobody waits for its result any more. All that the worker has started ends too."""
    parent = multiprocessing.parent_process()
    while parent is not None and not connection.wait([parent.sentinel], timeout=60.0):
        pass
    os.killpg(0, signal.SIGKILL)


def _serve(pipe: Connection, make: Callable[[], Learner], threads: int) -> None:
    """The worker's main loop. It ends with the process that started it, and with it alone: what a terminal says to all
    of its processes is for that one to hear."""
    os.setpgid(0, 0)  # so that whatever the learner starts can be ended with it
    for heard in (signal.SIGINT, signal.SIGHUP):
        signal.signal(heard, signal.SIG_IGN)
    kernel.hide_from_tracers()  # as the process that started it does, whose environment it has
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = LearnerWorker(make)
    except Exception as error:  # a boundary: it is raised again on the other side
        pipe.send(portable(error))
        return
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # whoever started this process is gone
        pipe.send(READY)
        while True:
            if pipe.poll(60.0):
                call: Call = pipe.recv()
                pipe.send(worker.serve(call, pipe.send if call.tells else None))
    worker.close()
