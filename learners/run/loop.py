"""One round of mutual reinforcement learning, and held-out evaluation: the whole algorithm on one screen.

The command line runs this loop; a loop of one's own makes the same calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from learners.batch import Batch, Outcome, build_batch
from learners.protocol import Acts, HandsOn, Learner
from learners.resources.demand import EVALUATE
from learners.resources.executor import Executor, SerialExecutor
from learners.run.ahead import Ahead
from learners.run.rollout import Asked, Groups, Turn, play
from mutual_env.errors import WorkerLostError
from mutual_env.metrics import ACCURACY
from mutual_env.seeding import derive_seed
from mutual_env.types import JSON, AgentInfo, Context, Metrics
from sharing import Sampled
from tokenizers_bridge import TokenizerBridge

T = TypeVar("T")


class TaskEnv(Protocol):
    """What an evaluation stands on: a parallel env of tasks, as `mutual_env.make` gives it."""

    @property
    def joint(self) -> bool:
        """Whether what one agent writes is answered to another."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """Draw the round that `options` name; each agent's observation holds the prompts."""

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, dict[str, AgentInfo]]:
        """Verify what the agents wrote; the last item says of each agent what came of it."""

    def close(self) -> None: ...


class Maps(Protocol):
    """Of an executor, what an evaluation asks of it."""

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]: ...


class SharedEnv(TaskEnv, Protocol):
    """What a round stands on: a sharing strategy around such an env. `step` is `teach(sample(...))`."""

    def sample(self, actions: dict[str, Any]) -> Sampled:
        """Verify and publish."""

    def teach(self, sampled: Sampled) -> dict[str, AgentInfo]:
        """Read the peers, and what they teach."""

    def learnt(self, reader: str, metrics: Metrics) -> None:
        """What came of the reader's lessons."""

    def state_dict(self) -> dict[str, JSON]:
        """What the strategies keep from round to round."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


Noticed = Callable[[Learner, AgentInfo, Sequence[Outcome]], None]
"""Told, after an update, what became of each of the reader's lessons."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What a round needs."""

    env: SharedEnv
    learners: Mapping[str, Learner]
    seed: int
    group_size: int
    bridge: TokenizerBridge
    teachers: Mapping[str, Learner] = field(default_factory=dict)
    executor: Executor = field(default_factory=SerialExecutor)
    noticed: Noticed | None = None
    entered: Callable[[str], None] | None = None
    ahead: Ahead | None = None

    def round(self, round: int, following: int | None = None) -> dict[str, AgentInfo]:
        """Draw, sample, verify, share, learn. Returns what the env says of each policy, its update's metrics added.

        `following`: the round that comes next, which is begun by those who have learnt from this one (with `ahead`).
        """
        return self._learn(self._play(round, self.env.step)[-1], following)

    def sample(self, round: int) -> Sampled:
        """The first half of a round whose peers may be elsewhere and later: draw, sample, verify, publish."""
        sampled: Sampled = self._play(round, self.env.sample)
        return sampled

    def learn(self, sampled: Sampled, following: int | None = None) -> dict[str, AgentInfo]:
        """The second half: read what the peers have published meanwhile, and learn. `following` as in `round`."""
        return self._learn(self.env.teach(sampled), following)

    def _play(self, round: int, step: Callable[[dict[str, Any]], Any]) -> Any:
        """All turns of a round (one, as a rule); what the last step returned."""
        begun = None if self.ahead is None else self.ahead.take(round, self.learners)
        first, answers = (self._first(round), None) if begun is None else begun

        def act(asked: Mapping[str, Asked]) -> Mapping[str, Groups]:
            nonlocal answers
            there, answers = answers, None
            return self._act(round, asked) if there is None else there

        def verify(actions: dict[str, Any]) -> Any:
            self._enter("verifying")
            return step(actions)

        for result in play(self.env, verify, first, list(self.learners), act):
            last = result
        return last

    def _first(self, round: int) -> Turn:
        """What a round begins with."""
        observations, _ = self.env.reset(seed=self.seed, options={"round": round})
        return Turn(observations, 0, self.group_size, derive_seed(self.seed, "act", round))

    def _act(self, round: int, asked: Mapping[str, Asked]) -> Mapping[str, Groups]:
        self._enter("sampling")
        aside = None if self.ahead is None else self.ahead.samples(round)
        learners, mapped = (self.learners, self.executor.map) if aside is None else (aside.learners, aside.map)
        answers = mapped("act", {n: partial(_answer, self.env, n, learners[n], a) for n, a in asked.items()})
        if len(answers) < len(asked):
            lost = ", ".join(sorted(set(asked) - set(answers)))
            raise WorkerLostError(
                f"round {round}: {lost} could not act and is parked: go on without, or repair and resume"
            )
        return answers

    def _learn(self, infos: dict[str, AgentInfo], following: int | None = None) -> dict[str, AgentInfo]:
        # All batches before any update: a teacher may itself be a policy in training, and is read as it was this round.
        self._enter("scoring")
        with self.bridge.round():
            batches = self.executor.map("score", {name: partial(self._batch, name, infos[name]) for name in infos})
        self._enter("updating")
        metrics = self._update(batches, following)
        for name, values in metrics.items():
            infos[name]["metrics"] = {**infos[name]["metrics"], **batches[name].metrics, **values}
            self.env.learnt(name, infos[name]["metrics"])
            if self.noticed is not None:
                self.noticed(self.learners[name], infos[name], batches[name].outcomes)
        return infos

    def _update(self, batches: Mapping[str, Batch], following: int | None) -> Mapping[str, Metrics]:
        calls = {name: partial(self.learners[name].update, batch.examples) for name, batch in batches.items()}
        if self.ahead is None or following is None or len(calls) < max(self.ahead.least, len(self.learners)):
            return self.executor.map("update", calls)
        act = partial(self._act, following)
        return self.ahead.learn_and_go_on(self.executor, calls, following, self._first(following), act)

    def _enter(self, phase: str) -> None:
        if self.entered is not None:
            self.entered(phase)

    def _batch(self, name: str, info: AgentInfo) -> Batch:
        return build_batch(info.get("lessons", ()), self.learners[name], self.bridge, self.teachers)


def _answer(env: TaskEnv, name: str, learner: Acts, asked: Asked) -> Groups:
    """What a policy says in the first turn is verified from now on, while it or others still think."""
    what, n, seed = asked
    begin = getattr(getattr(env, "unwrapped", None), "begin_verifying", None)
    if begin is None or any(isinstance(one, Context) and one.turns for one in what):
        return learner.act(what, n, seed=seed)
    if isinstance(learner, HandsOn):
        return learner.act_and_tell(what, n, lambda place, group: begin(name, [group], place), seed=seed)
    groups = learner.act(what, n, seed=seed)
    begin(name, groups)
    return groups


def evaluate(
    env: TaskEnv, learners: Mapping[str, Acts], seed: int, samples: int, executor: Maps | None = None
) -> dict[str, AgentInfo]:
    """What each policy makes of the env's tasks, verified. With an executor they sample as in a round."""
    observations, _ = env.reset(seed=seed, options={"round": 0})
    first = Turn(observations, 0, samples, derive_seed(seed, "evaluate"))

    def act(asked: Mapping[str, Asked]) -> Mapping[str, Groups]:
        calls = {name: partial(_answer, env, name, learners[name], asking) for name, asking in asked.items()}
        answers = {n: call() for n, call in calls.items()} if executor is None else executor.map(EVALUATE, calls)
        if len(answers) < len(asked):
            raise WorkerLostError(f"{', '.join(sorted(set(asked) - set(answers)))} could not be evaluated")
        return answers

    infos: dict[str, AgentInfo] = {}
    for stepped in play(env, env.step, first, list(learners), act):
        infos.update((name, info) for name, info in stepped[-1].items() if info["groups"])
    return infos


def accuracies(info: AgentInfo, part: str = "") -> Metrics:
    """The share of right samples, overall and for each value of the tasks' metadata key `part`."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for group in info["groups"]:
        for experience in group:
            outcomes[ACCURACY].append(experience.verdict.correct)
            if part and part in experience.task.metadata:
                outcomes[f"{ACCURACY}/{experience.task.metadata[part]}"].append(experience.verdict.correct)
    return {key: sum(values) / len(values) for key, values in sorted(outcomes.items())}
