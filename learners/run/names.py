"""Names that become part of a path: none of them leads out of its directory."""

from __future__ import annotations

from learners.run.checkpoint import MANIFEST, STATE
from mutual_env.errors import ConfigError

MOST_BYTES = 100


def check_name(where: str, name: str) -> None:
    """Of a policy, say, or of an arm: one part of a path."""
    reason = _problem(name)
    if reason:
        raise ConfigError(f"{where} {name!r} {reason}: it becomes the name of a directory; choose e.g. policy_0")


def check_path(where: str, name: str) -> None:
    """Of a run, say: one or several parts of a path, below the directory it is put in."""
    for part in name.split("/"):
        reason = _problem(part)
        if reason:
            raise ConfigError(
                f"{where} {name!r} {reason}: it becomes a path below `output`; choose e.g. quickstart or mine/first"
            )


def _problem(name: str) -> str:
    """What is wrong with one part of a path; "" if nothing is."""
    if not name:
        return "has an empty part"
    if name.startswith("."):
        return "has a part that begins with a dot"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if not name.isprintable():
        return "holds a character that cannot be printed"
    if len(name.encode()) > MOST_BYTES:
        return f"is longer than {MOST_BYTES} bytes"
    return "is a name that a checkpoint keeps for itself" if name in (MANIFEST, STATE) else ""
