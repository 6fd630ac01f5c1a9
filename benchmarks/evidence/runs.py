"""The runs of a family's suite, one after the other, each forked from a process that has loaded the libraries once.

They are the runs of `mutual-env suite`, in the same folders and of the same bytes, without reports; loading torch and
checking all arms of the suite again for each of three hundred short runs would take longer than the runs. What is
finished is not run again.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from learners.numerics import begin_again, environment
from learners.run.check import check
from learners.run.config import RunConfig, SuiteConfig, arm_config, load_suite
from learners.run.directory import WARM_STARTS, RunDirectory
from learners.run.results import run_path
from learners.run.suite import Chosen, keep_config
from learners.run.training import resume, train
from mutual_env.errors import StorageError

_OF_MODELS = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "learners.torch.tiny",
)
CONFIGS = Path(__file__).parents[2] / "configs" / "evidence"


def family_file(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"


def run(file: Path, overrides: Sequence[str] = (), chosen: Chosen | None = None) -> list[str]:
    """What failed, arm and seed. `chosen`: a part of it now."""
    config = load_suite(file, overrides)
    root = Path(config.output) / config.name
    own = {WARM_STARTS: str((root / "warm_starts").resolve()), "TOKENIZERS_PARALLELISM": "false"}
    begin_again({**environment(config.base.resources.instructions, config.base.resources.threads), **own})
    root.mkdir(parents=True, exist_ok=True)
    keep_config(root, config)
    _load_libraries(config)
    arms, seeds = (chosen or Chosen()).of(config)
    return list(_failures(config, [(arm, seed) for seed in seeds for arm in arms]))


def _failures(config: SuiteConfig, wanted: Iterable[tuple[str, int]]) -> Iterable[str]:
    for arm, seed in wanted:
        path = run_path(config, arm, seed)
        if _is_finished(path):
            continue
        began = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        code = _forked(arm_config(config, arm, seed), path.with_name(f"{path.name}.log"))
        print(f"{time.strftime('%T')} {arm} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
        if code != 0:
            yield f"{arm} seed {seed} ended with exit code {code}: see {path}.log"


def _is_finished(path: Path) -> bool:
    try:
        return RunDirectory(path).read_info().get("status") == "finished"
    except StorageError:
        return False


def _load_libraries(config: SuiteConfig) -> None:
    """What every run would load; nothing here starts a thread, which a fork would lose."""
    tables_alone = all(policy.learner == "tabular" for policy in config.base.policies.values())
    for name in ("learners.tabular", *(() if tables_alone else _OF_MODELS)):
        import_module(name)


def _forked(config: RunConfig, log: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            with log.open("ab") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            _one(config)
            code = 0
        except BaseException:  # a boundary: what ended the child is told in its log, and the others are run
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _one(config: RunConfig) -> None:
    """A run, from its start or from where it was stopped."""
    check(config)
    path = Path(config.output) / config.name
    if RunDirectory(path).info.exists():
        resume(path, config)
    else:
        train(config)
