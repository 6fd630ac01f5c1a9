"""What can be evaluated: the policies of a run, as its last or another checkpoint left them, or a model directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learners import registry
from learners.protocol import Learner
from learners.run.build import make_learner
from learners.run.checkpoint import STATE, Checkpoint, Checkpoints, load
from learners.run.config import PolicyConfig, RunConfig, arm_config, changed, is_suite, load_run, load_suite
from learners.run.directory import RunDirectory, nearest
from mutual_env.errors import ConfigError, UnknownNameError, WrongPathError


@dataclass(frozen=True, slots=True)
class Subject:
    """Policies with the configuration that describes them, and where their weights are.

    `checkpoint` is None where the weights are those that the learner itself comes with: a model directory, or a run
    before its first checkpoint. `home` is where evaluations are kept unless another place is named.
    """

    title: str
    config: RunConfig
    checkpoint: Checkpoint | None
    home: Path

    @property
    def round(self) -> int:
        return self.checkpoint.round if self.checkpoint else 0

    def only(self, policies: Sequence[str]) -> Subject:
        """The same, of these policies alone."""
        for name in policies:
            if name not in self.config.policies:
                raise UnknownNameError.of("policy", name, self.config.policies)
        chosen = {name: self.config.policies[name] for name in policies or self.config.policies}
        return replace(self, config=replace(self.config, policies=chosen))

    def sampled_with(self, settings: Mapping[str, Any], *, greedy: bool = False) -> Subject:
        """The same, sampled with these options instead of the ones trained with. `greedy`: the most likely token."""
        policies = {}
        for name, policy in self.config.policies.items():
            changed = {**settings, **(_greedy(policy.learner) if greedy else {})}
            registry.check_options(policy.learner, changed)
            policies[name] = PolicyConfig(policy.learner, {**policy.options, **changed})
        return replace(self, config=replace(self.config, policies=policies))

    def learner(self, name: str) -> Learner:
        """The policy as it stands in the checkpoint."""
        learner = make_learner(name, self.config.policies[name], self.config.seed)
        if self.checkpoint is not None:
            try:
                learner.load(self.checkpoint.part(name))
            except BaseException:
                learner.close()
                raise
        return learner


def find(path: Path, overrides: Sequence[str] = (), *, round: int | None = None, like: Path | None = None) -> Subject:
    """What `path` is: a run, one of its checkpoints, or a directory with a model.

    `like` is a configuration, or a run, whose task a model directory is asked; `overrides` change either's.
    """
    of_run = (path / STATE).is_file() or RunDirectory(path).info.is_file()
    if like is not None and of_run:
        raise ConfigError(f"--like is for a directory with a model: {path} has its own tasks; leave it out")
    if (path / STATE).is_file() and path.parent.name == "checkpoints":
        return _of_run(path.parent.parent, overrides, load(path))
    if RunDirectory(path).info.is_file():
        return _of_run(path, overrides, _checkpoint(path, round))
    if (path / "config.json").is_file():
        return _of_model(path, overrides, like)
    there = "holds none of these" if path.is_dir() else "is a file" if path.is_file() else "does not exist"
    raise WrongPathError(
        f"{path} {there}: give a run's directory (run.json), a checkpoint of one, or a model's (config.json)"
        + nearest(path)
    )


def _of_run(path: Path, overrides: Sequence[str], checkpoint: Checkpoint | None) -> Subject:
    config = changed(load_run(RunDirectory.open(path).config), overrides)
    return Subject(str(path), config, checkpoint, path / "evaluations")


def _checkpoint(path: Path, round: int | None) -> Checkpoint | None:
    kept = Checkpoints(path / "checkpoints")
    if round is None:
        return kept.latest()[0]
    rounds = sorted(int(p.name.rpartition("_")[2]) for p in kept.directory.glob("round_*"))
    if round not in rounds:
        raise ConfigError(f"{path} keeps no checkpoint after {round} rounds: it has those after {rounds or 'none'}")
    return load(kept.directory / f"round_{round:08d}")


def _of_model(path: Path, overrides: Sequence[str], like: Path | None) -> Subject:
    name = path.resolve().name
    task = _task(path, overrides, like)
    described = RunConfig(
        name=name,
        seed=task.seed,
        env=task.env,
        policies={name: PolicyConfig("torch", {"path": str(path)})},
        evaluation=task.evaluation,
    )
    return Subject(str(path), changed(described, overrides), None, Path("evaluations") / name)


def _task(path: Path, overrides: Sequence[str], like: Path | None) -> RunConfig:
    if like is not None:
        if RunDirectory(like).info.is_file():
            like = RunDirectory(like).config
        if not is_suite(like):
            return load_run(like)
        suite = load_suite(like)
        return arm_config(suite, next(iter(suite.arms)), suite.seeds[0])
    if not any(override.startswith("env.id=") for override in overrides):
        raise ConfigError(
            f"{path} is a model, which says nothing of tasks: name one (env.id=math/jsonl-v0 env.options.path=FILE), "
            "or a configuration whose task it is asked (--like configs/x.yaml)"
        )
    return RunConfig()


def _greedy(learner: str) -> dict[str, Any]:
    options = registry.options(learner)
    if "top_k" in options:
        return {"top_k": 1, "top_p": 1.0}
    if "temperature" in options:
        return {"temperature": 1e-6}
    raise ConfigError(f"learner {learner!r} takes neither top_k nor temperature: it cannot be asked to be greedy")
