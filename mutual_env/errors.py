"""Every error this project raises on purpose, in one tree.

    MutualEnvError
    ├── UnknownNameError (LookupError)       a name that is not registered; says the nearest that are
    ├── InvalidInputError (ValueError)       a value that cannot be used; names the field, the value and the remedy
    │   ├── InvalidActionError               an action that does not fit the round: agents, prompts, groups, text
    │   ├── PlayersError                     another number of agents than the interaction is for
    │   ├── MisalignedError                  parallel arrays of different lengths
    │   ├── DatasetRowError                  a malformed row; names the file and the line
    │   └── ConfigError                      a run configuration that cannot work
    │       └── WrongPathError (StorageError) a path where something else is, or nothing, or that cannot be written
    ├── IdentityMismatchError (ValueError)   tokens or weights offered to a tokenizer or policy they do not belong to
    ├── VerificationError (RuntimeError)     too much of a round could not be scored, or a verifier broke its contract
    ├── StorageError (OSError)               a file that is torn, foreign, newer than this code, or cannot be written
    ├── TrainingError (RuntimeError)         an update that must not be applied: NaN loss, exploding gradient
    ├── WorkerLostError (RuntimeError)       a worker that died or hung more often than it may be restarted
    ├── DeadlineExceededError (TimeoutError) a bounded wait that ran out
    ├── ConformanceError (AssertionError)    a part that does not hold what every such part must; from a shipped check
    └── MissingExtraError (ImportError)      an optional dependency that is not installed; names the extra

Each inherits the standard type it refines, so `except ValueError` keeps working for people who do not know this file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MutualEnvError(Exception):
    """The root of the tree."""


class UnknownNameError(MutualEnvError, LookupError):
    """A name that is not registered."""

    @classmethod
    def of(cls, what: str, name: object, known: Iterable[str]) -> UnknownNameError:
        """`what` is the kind of thing ("strategy"), `known` the names that would have been right."""
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        if near:
            remedy = f"did you mean {' or '.join(repr(n) for n in near)}?"
        elif names:
            remedy = f"known: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        else:
            remedy = "none is registered"
        return cls(f"unknown {what} {name!r}: {remedy}")


class InvalidInputError(MutualEnvError, ValueError):
    """A value that cannot be used."""


class InvalidActionError(InvalidInputError):
    """An action that does not fit the round."""


class PlayersError(InvalidInputError):
    """Another number of agents than the interaction is for."""


class MisalignedError(InvalidInputError):
    """Parallel arrays of different lengths."""

    @classmethod
    def of(cls, name: str, to: str, expected: int, got: int) -> MisalignedError:
        return cls(f"{name} must align with {to}: got {got}, expected {expected}")


class DatasetRowError(InvalidInputError):
    """A malformed row of a data set."""


class ConfigError(InvalidInputError):
    """A run configuration that cannot work."""


class IdentityMismatchError(MutualEnvError, ValueError):
    """Tokens or weights that belong to somebody else."""


class VerificationError(MutualEnvError, RuntimeError):
    """Too much of a round could not be scored, or a verifier broke its contract."""


class StorageError(MutualEnvError, OSError):
    """A file that is torn, foreign, newer than this code, or cannot be written."""


class WrongPathError(ConfigError, StorageError):
    """A path at which there is something else, or nothing, or where nothing can be written."""


class TrainingError(MutualEnvError, RuntimeError):
    """An update that must not be applied."""


class WorkerLostError(MutualEnvError, RuntimeError):
    """A worker that died or hung more often than it may be restarted."""


class DeadlineExceededError(MutualEnvError, TimeoutError):
    """A bounded wait that ran out."""


class MissingExtraError(MutualEnvError, ImportError):
    """An optional dependency that is not installed."""

    @classmethod
    def of(cls, what: str, extra: str) -> MissingExtraError:
        return cls(f"{what} needs an optional dependency: pip install 'mutual-env[{extra}]'")


class ConformanceError(MutualEnvError, AssertionError):
    """A part does not hold what every part of its kind must. All shipped checks raise it, also under `python -O`."""

    @classmethod
    def unless(cls, holds: bool, sentence: str) -> None:
        """Raise with this sentence unless it holds."""
        if not holds:
            raise cls(sentence)
