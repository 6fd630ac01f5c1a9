"""A whole run: from a configuration to a directory of results, and on from where a killed one stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from learners.numerics import in_force
from learners.resources import Rounds
from learners.resources.record import as_json
from learners.run import trackers
from learners.run.asynchronous import RoundResult, rounds_at_own_pace
from learners.run.build import Parts, build
from learners.run.changes import changes, sentence
from learners.run.checkpoint import EXCHANGE, Checkpoint
from learners.run.config import RunConfig, as_mapping, load_run, to_yaml
from learners.run.directory import RunDirectory
from learners.run.evaluating import InOrder
from learners.run.files import Files
from learners.run.lock import Lock
from learners.run.longer import before_the_last_evaluation, check_longer, is_longer
from learners.run.loop import accuracies, evaluate
from learners.run.places import Places, read_places
from learners.run.recording import Allowance, Recorder, evaluation_line
from learners.run.room import check_room
from learners.run.saving import Saver, Took
from learners.run.trackers import TrackedRun, Tracker, Trackers
from mutual_env.errors import ConfigError, StorageError, WorkerLostError
from mutual_env.metrics import HELD_OUT
from mutual_env.types import JSON, AgentInfo
from mutual_env.verifiers import isolation_report
from mutual_env.verifiers.pool.isolation import choose
from sharing.exchange.protocol import Resumable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """Where a run's results are, and which checkpoints were refused on the way."""

    directory: Path
    rounds: int
    refused: tuple[str, ...] = ()


def train(config: RunConfig, *, replace: bool = False, listeners: Sequence[Tracker] = ()) -> Result:
    """Run from the start. `replace` removes an earlier run of the same name first. `listeners` are told how it goes,
    beside the trackers that the configuration names."""
    read_places(config)  # what makes no sense removes nothing
    choose(config.verifiers.isolation)
    directory = RunDirectory(Path(config.output) / config.name)
    with directory.locked(make=True) as lock:
        directory.begin(to_yaml(config), _info(config), replace=replace)
        with _tidy(directory):
            return _run(config, directory, lock, listeners)


def resume(
    path: Path,
    config: RunConfig | None = None,
    *,
    accept_changes: bool = False,
    listeners: Sequence[Tracker] = (),
) -> Result:
    """Go on from the last whole checkpoint, as if nothing had happened.

    A run whose configuration (its own, unless `config` is given) or versions are not those it began with is refused,
    and so is one whose exchange is missing. More rounds are no such change, where it can go on as if there had been so
    many from the start. `accept_changes`: it goes on all the same, and run.json says what changed.
    """
    directory = RunDirectory.open(path)
    with directory.locked() as lock:
        chosen = load_run(directory.config) if config is None else config
        changed = changes(directory.read_info(), chosen)
        if is_longer(changed):
            check_longer(directory, int(changed["rounds"][0]), chosen)  # type: ignore[arg-type]
            return _run(chosen, directory, lock, listeners, longer=changed)
        if changed and not accept_changes:
            raise ConfigError(
                f"{path} is not as it was when the run began, so going on would not give what it would have given:\n"
                f"{sentence(changed)}\nput that back, or go on all the same with --accept-changes"
            )
        return _run(chosen, directory, lock, listeners, accepted=changed if accept_changes else None)


def _info(config: RunConfig) -> dict[str, JSON]:
    return {"name": config.name, "seed": config.seed, "config": as_mapping(config)}


def _clocks() -> tuple[float, float]:
    """Seconds that passed, and those in which a processor worked for this very process: on a shared machine the second
    is what can be compared."""
    return time.monotonic(), time.process_time()


@contextmanager
def _tidy(directory: RunDirectory) -> Iterator[None]:
    """A run that cannot even start leaves nothing in the way of the corrected one."""
    try:
        yield
    except BaseException:
        if directory.read_info().get("status") == "starting":
            directory.clear()
        raise


def _run(
    config: RunConfig,
    directory: RunDirectory,
    lock: Lock,
    listeners: Sequence[Tracker],
    accepted: Mapping[str, list[JSON]] | None = None,
    longer: Mapping[str, list[JSON]] | None = None,
) -> Result:
    """`accepted`: what has changed since the run began, where that is no reason to refuse (None: it is). `longer`: the
    rounds, where they are all that has."""
    places = read_places(config)
    with ExitStack() as stack:
        files = Files.open(directory, stack)
        parts = build(config, places, directory.exchange, stack)
        told = Trackers([*listeners, *map(trackers.make, config.trackers)])
        run = _Run(config, places, directory, lock, files, parts, told)
        stack.callback(run.close)
        refused = run.restore(None if accepted is None else dict(accepted))
        if longer:
            run.forget_the_end(int(longer["rounds"][0]))  # type: ignore[arg-type]
        if run.changed or longer:
            directory.note_changes(run.done, {**run.changed, **(longer or {})}, to_yaml(config), _info(config))
        run.check_room()
        directory.set_status("running", isolation=isolation_report(config.verifiers.isolation))
        directory.note_process(run.done, in_force())
        try:
            told.started(_tracked(config, directory, run.done))
            run.go()
        except BaseException:
            with suppress(StorageError):  # a full disk, say: the error that ended the run is the one to see
                lock.check()
                directory.set_status(f"stopped after {run.done} rounds")
            told.finished(f"stopped after {run.done} rounds")
            raise
        lock.check()
        directory.set_status("finished")
        told.finished("finished")
        return Result(directory.path, run.done, tuple(refused))


def _tracked(config: RunConfig, directory: RunDirectory, done: int) -> TrackedRun:
    names = tuple(config.policies)
    return TrackedRun(config.name, directory.path, as_mapping(config), names, config.rounds, done)


class _Run:
    """How far a run has come, and what each further round leaves behind."""

    def __init__(
        self,
        config: RunConfig,
        places: Places,
        directory: RunDirectory,
        lock: Lock,
        files: Files,
        parts: Parts,
        told: Trackers,
    ) -> None:
        self.done = 0
        self.changed: dict[str, list[JSON]] = {}
        self._config, self._places, self._lock = config, places, lock
        self._checkpoints = directory.checkpoints(config.checkpoint.keep)
        self._saver = Saver(self._checkpoints, background=config.checkpoint.background, took=self._saved)
        self._files, self._order = files, InOrder()
        record, sizes = config.record, (config.rounds, len(config.policies), config.env.group_size)
        self._recorder = Recorder(Allowance.of(record.megabytes, *sizes))
        self._parts = parts.noticed_by(self._recorder.noticed, told.entered)
        self._told = told
        self._marked: Future[None] | None = None  # when the files are as the last checkpoint has them

    def restore(self, accepted: dict[str, list[JSON]] | None) -> list[str]:
        """Take up the last whole checkpoint, if there is one; what was written after it is written again. `accepted`:
        where changes are accepted, those that are known, to which that of the exchange is added."""
        self.changed = accepted or {}
        checkpoint, refused = self._checkpoints.latest()
        if checkpoint is None:
            self._files.cut({})
            if isinstance(exchange := self._parts.exchange, Resumable):
                exchange.load(None, self._config.policies, 0)
            return refused
        try:
            self._bring_back_exchange(checkpoint)
        except (StorageError, ConfigError) as error:
            if accepted is None:
                raise type(error)(f"{error}, or go on all the same with --accept-changes") from error
            self.changed["exchange"] = [str(error), "as it is"]
        self._go_on_without(checkpoint.state["parked"])
        for name, learner in self._parts.learners.items():
            learner.load(checkpoint.part(name))
        self._bring_back_sharing(checkpoint)
        self._files.cut(checkpoint.state["files"])
        self.done = checkpoint.round
        return refused

    def check_room(self) -> None:
        if self.done < self._config.rounds:
            check_room(self._config, self._parts, self.done)

    def forget_the_end(self, rounds: int) -> None:
        """What was done only because so many rounds were all: a last evaluation that nobody would have made there."""
        every = self._config.evaluation.every
        if self.done == rounds and every and rounds % every:
            for file in (self._files.metrics, self._files.evaluations):
                file.cut(before_the_last_evaluation(file.path, rounds))

    def _bring_back_sharing(self, checkpoint: Checkpoint) -> None:
        try:
            for loop, sharing in zip(self._parts.loops, checkpoint.state["sharing"], strict=True):
                loop.env.load_state_dict(sharing)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"{checkpoint.directory} keeps nothing that strategy {self._config.sharing.strategy!r} can go on from "
                f"({type(error).__name__}: {error}): was it written under another strategy or mode? Begin a new run"
            ) from error

    def _bring_back_exchange(self, checkpoint: Checkpoint) -> None:
        exchange = self._parts.exchange
        if not isinstance(exchange, Resumable):
            raise ConfigError(
                f"exchange {self._config.sharing.exchange!r} has no `save` and `load`, so it cannot go back to what it "
                "held at a checkpoint, and a resumed run would not equal an uninterrupted one: choose another exchange"
            )
        exchange.load(checkpoint.part(EXCHANGE), list(self._config.policies), checkpoint.round)

    def go(self) -> None:
        if self.done == 0:
            self._evaluate()
        while self.done < self._config.rounds:
            self._advance(self._next_stop())
            if self._due(self._config.evaluation.every):
                self._evaluate()
            if self._due(self._config.checkpoint.every):
                self._save()
        self._order.settle()
        if not self._saver.settled():  # a run ends with a checkpoint: its workers are there again
            self._save()
            self._saver.settled()

    def _advance(self, last: int) -> None:
        """Rounds until so many are done. In asynchronous mode all policies meet there: what was sampled is learnt."""
        self._go_on_without(self._parts.executor.parked)
        with closing(self._rounds(last)) as rounds:
            began = _clocks()
            for round in rounds:
                self._write(round, began)
                self.done += 1
                measured = {name: info["metrics"] for name, info in round.infos.items()}
                self._order.do(partial(self._told.measured, self.done, measured))
                began = _clocks()
        self._go_on_without(self._parts.executor.parked)  # who was lost in the last round has no state to save

    def _rounds(self, last: int) -> Generator[RoundResult]:
        if self._places.apart:
            rounds, limit = Rounds(last, self._places.staleness), self._places.stall_limit
            yield from rounds_at_own_pace(self._parts.loops, rounds, first=self.done, limit=limit)
        else:
            for number in range(self.done, last):
                yield RoundResult(self._of_all(partial(self._round, number)), {})

    def _round(self, number: int, parts: Parts) -> dict[str, AgentInfo]:
        """What comes next is begun by who is done, unless an evaluation or the end comes first."""
        done, every = number + 1, self._config.evaluation.every
        evaluated = parts.held_out is not None and done % every == 0
        return parts.loops[0].round(number, None if evaluated or done >= self._config.rounds else done)

    def _of_all(self, call: Callable[[Parts], T]) -> T:
        """With everybody who is left. A policy whose worker is lost for good is parked; the others go on."""
        while True:
            executor = self._parts.executor
            self._go_on_without(executor.parked)
            try:
                return call(self._parts)
            except WorkerLostError:
                if not set(executor.parked) & set(self._parts.learners):
                    raise

    def _go_on_without(self, parked: Collection[str]) -> None:
        lost = set(parked) & set(self._parts.learners)
        if lost == set(self._parts.learners):
            raise WorkerLostError(f"no policy is left: {', '.join(sorted(lost))} are parked")
        if lost:
            self._order.settle()  # an evaluation may be going on in the env that ends here
            self._parts = self._parts.without(lost)

    def close(self) -> None:
        if self._marked is not None:
            self._marked.cancel()  # a checkpoint behind an evaluation that came to nothing is none
        self._saver.close()
        self._parts.close()

    def _next_stop(self) -> int:
        """After how many rounds the next evaluation or checkpoint is due."""
        every = (self._config.evaluation.every, self._config.checkpoint.every)
        return min([self._config.rounds, *(n * (self.done // n + 1) for n in every if n > 0)])

    def _due(self, every: int) -> bool:
        """At every so many rounds, and at the end."""
        last = self.done == self._config.rounds
        return last or (every > 0 and self.done % every == 0)

    def _write(self, round: RoundResult, began: tuple[float, float]) -> None:
        files, say = self._files, self._order.do
        for name, info in round.infos.items():
            where = {"round": self.done, "policy": name}
            say(partial(files.metrics.append, {**where, "metrics": info["metrics"]}))
            recorded = self._recorder.take(name, info["round"])
            if recorded is not None:
                samples, lessons = recorded
                say(partial(files.samples.append_finite, {**where, **samples}))
                say(partial(files.lessons.append_finite, {**where, **lessons}))
                say(partial(self._told.wrote, self.done + 1, name, samples))
        seconds, worked = (now - then for now, then in zip(_clocks(), began, strict=True))
        timings: list[Mapping[str, Any]] = [
            {"type": "round", "round": self.done, "seconds": seconds, "processor": worked},
            *[{"type": "pace", "round": self.done, "policy": name, **pace} for name, pace in round.paces.items()],
            *(as_json(item) for item in self._parts.executor.record.take()),
        ]
        for timing in timings:
            say(partial(files.timings.append, timing))

    def _evaluate(self) -> None:
        if (env := self._parts.held_out) is None:
            return
        write = partial(self._write_evaluation, self.done)
        self._order.settle()  # one evaluation at a time
        self._told.entered("evaluating")
        if (twins := self._parts.twins) is None:
            write(self._of_all(self._evaluated))
        else:
            asked = self._config.seed, self._config.evaluation.samples
            self._order.after(twins.evaluate(env, self._parts.learners, *asked), write)

    def _write_evaluation(self, done: int, infos: Mapping[str, AgentInfo]) -> None:
        part = self._config.evaluation.part
        found = {name: accuracies(info, part) for name, info in infos.items()}
        for name, metrics in found.items():
            where = {"round": done, "policy": name}
            self._files.metrics.append({**where, "evaluation": metrics})
            self._files.evaluations.append_finite({**where, **evaluation_line(infos[name], part)})
        self._told.measured(done, {name: {f"{HELD_OUT}{k}": v for k, v in m.items()} for name, m in found.items()})

    def _evaluated(self, parts: Parts) -> dict[str, AgentInfo]:
        assert parts.held_out is not None
        samples = self._config.evaluation.samples
        return evaluate(parts.held_out, parts.learners, self._config.seed, samples, parts.executor)

    def _parked(self) -> list[str]:
        return sorted(set(self._config.policies) - set(self._parts.learners))

    def _save(self) -> None:
        self._lock.check()
        self._told.entered("saving")
        sharing = [loop.env.state_dict() for loop in self._parts.loops]
        state: dict[str, JSON] = {"sharing": sharing, "parked": self._parked()}
        if not self._config.checkpoint.background or (self._marked is not None and not self._marked.done()):
            self._order.settle()
        self._marked = marked = Future[None]()
        self._order.do(partial(self._mark, state, marked))
        others: dict[str, Callable[[Path], None]] = {}
        if isinstance(exchange := self._parts.exchange, Resumable):
            others[EXCHANGE] = partial(exchange.save, authors=list(self._config.policies), rounds=self.done)
        last = [marked.result, self._files.sync, self._lock.check]
        self._saver.save(self.done, state, self._parts.learners, others, last)

    def _mark(self, state: dict[str, JSON], marked: Future[None]) -> None:
        """What a checkpoint says of the files: how long they are when all that came before it is written."""
        state["files"] = self._files.positions()
        marked.set_result(None)

    def _saved(self, took: Took) -> None:
        self._order.do(partial(self._files.timings.append, {"type": "checkpoint", **asdict(took)}))
