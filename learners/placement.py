"""On which GPUs a policy computes: said by who places it, read by who computes.

A policy in a process of its own is shown its GPUs alone, by the environment that the process is born with. Several in
one process see all of them, and are told which are theirs while they are built: `placed` around the building,
`gpus_here` where a device is chosen, `shown` around the start of a process that belongs to one of them (an engine).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # the order in which the driver lists them, whichever is the fastest

_HERE: ContextVar[tuple[int, ...] | None] = ContextVar("the GPUs of the policy that is being built", default=None)
_ENVIRONMENT = threading.RLock()  # there is one of it for all threads


def gpus_here() -> tuple[int, ...] | None:
    """The GPUs of the policy that is being built, as this process numbers them; None: nobody said."""
    return _HERE.get()


@contextlib.contextmanager
def placed(gpus: tuple[int, ...] | None) -> Iterator[None]:
    """Inside, the policy that is built computes on these GPUs of this process (none: on the CPU)."""
    token = _HERE.set(gpus)
    try:
        yield
    finally:
        _HERE.reset(token)


def visible(environ: Mapping[str, str] | None = None) -> tuple[str, ...] | None:
    """What a process is shown, as CUDA reads it; None: all that there is."""
    said = (os.environ if environ is None else environ).get(VISIBLE)
    if said is None:
        return None
    names = [name.strip() for name in said.split(",")]
    return tuple(name for name in names if name and name != "-1")


def showing(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """The environment of a process that is to see only these of the GPUs that this one sees; None: as this one."""
    if gpus is None:
        return {}
    seen = visible()
    names = [str(index) if seen is None or index >= len(seen) else seen[index] for index in gpus]
    return {VISIBLE: ",".join(names), **ORDER}


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Inside, processes are born with these variables. One thread at a time."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def shown(gpus: tuple[int, ...] | None) -> Iterator[None]:
    """Inside, processes are born seeing only these of the GPUs that this process sees."""
    with environment(showing(gpus)):
        yield
