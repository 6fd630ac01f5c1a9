"""What happened, or what a plan predicts: one type for both, so that they can be laid side by side."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

from learners.resources.device import Device
from mutual_env.types import JSON

Outcome: TypeAlias = Literal["done", "failed", "lost"]
Incident: TypeAlias = Literal["died", "hung", "restarted", "parked", "refused", "device lost", "device added", "placed"]

MOVE = "move"
"""The phase of a span in which a policy's state went to the machine's memory or came back: part of somebody's lease."""

KEPT = 20_000  # spans and events held for `take` at most; the totals are over everything


@dataclass(frozen=True, slots=True)
class Span:
    """One lease from request to release, in seconds since the record began."""

    policy: str
    phase: str
    devices: tuple[str, ...]
    requested: float
    began: float
    ended: float
    outcome: Outcome = "done"
    share: float = 1.0  # of each of the devices

    @property
    def waited(self) -> float:
        return self.began - self.requested

    @property
    def ran(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person wants to see that is no span: a restart, a parked policy, a lost device."""

    at: float
    kind: Incident
    policy: str
    detail: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of one policy or one device, in seconds. Idle is what is left of the elapsed time."""

    busy: float
    waiting: float
    idle: float
    longest_wait: float
    leases: int


@dataclass(slots=True)
class _Tally:
    busy: float = 0.0
    waiting: float = 0.0
    longest_wait: float = 0.0
    leases: int = 0

    def add(self, span: Span) -> None:
        self.busy += span.ran
        self.waiting += span.waited
        self.longest_wait = max(self.longest_wait, span.waited)
        self.leases += 1

    def usage(self, elapsed: float) -> Usage:
        idle = max(0.0, elapsed - self.busy - self.waiting)
        return Usage(self.busy, self.waiting, idle, self.longest_wait, self.leases)


@dataclass(slots=True)
class UsageRecord:
    """Wait, busy and idle of every policy and device, and the spans and events themselves.

    Safe to write from several threads. `take` hands over what is new since the last call, for a run that writes it out
    as it goes; the newest `KEPT` are held meanwhile.
    """

    devices: Mapping[str, float] = field(default_factory=dict)  # name -> how many leases of share 1 it can hold
    since: float = math.inf  # the first request; what was before it (workers being built) is nobody's idle time
    until: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    _policies: dict[str, _Tally] = field(default_factory=dict)
    _devices: dict[str, _Tally] = field(default_factory=dict)
    _phases: dict[tuple[str, str], _Tally] = field(default_factory=dict)
    _fresh: deque[Span | Event] = field(default_factory=lambda: deque(maxlen=KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for device in self.devices:
            self._devices[device] = _Tally()

    @property
    def elapsed(self) -> float:
        """Seconds from the first request to the last thing that happened."""
        return max(0.0, self.until - self.since)

    def add(self, item: Span | Event) -> None:
        with self._lock:
            self._fresh.append(item)
            if isinstance(item, Event):
                self.counts[item.kind] = self.counts.get(item.kind, 0) + 1
                self.until = max(self.until, item.at)
                return
            self.since = min(self.since, item.requested)
            self.until = max(self.until, item.ended)
            if item.phase == MOVE:
                self._phases.setdefault((item.policy, item.phase), _Tally()).add(item)
                return
            self._policies.setdefault(item.policy, _Tally()).add(item)
            self._phases.setdefault((item.policy, item.phase), _Tally()).add(item)
            for device in item.devices:
                tally = self._devices.setdefault(device, _Tally())
                tally.busy += item.ran * item.share / self.devices.get(device, 1.0)
                tally.leases += 1

    def take(self) -> list[Span | Event]:
        """The spans and events since the last call, oldest first."""
        with self._lock:
            items = list(self._fresh)
            self._fresh.clear()
        return items

    def policies(self) -> dict[str, Usage]:
        with self._lock:
            return {name: tally.usage(self.elapsed) for name, tally in self._policies.items()}

    def device_usage(self) -> dict[str, Usage]:
        with self._lock:
            return {name: tally.usage(self.elapsed) for name, tally in self._devices.items()}

    def phase_seconds(self) -> dict[tuple[str, str], float]:
        """Mean seconds of each (policy, phase): what a plan of the next run may use as its estimate."""
        with self._lock:
            return {key: tally.busy / tally.leases for key, tally in self._phases.items() if tally.leases}

    def utilisation(self) -> float:
        """Share of the devices' time that was leased: of the GPUs where there are any, else of the CPUs."""
        usage = self.device_usage()
        gpus = [item for name, item in usage.items() if Device.read(name).gpu is not None]
        busy = [item.busy for item in gpus or usage.values()]
        if not busy or self.elapsed <= 0:
            return 0.0
        return sum(busy) / (len(busy) * self.elapsed)

    def summary(self) -> dict[str, JSON]:
        """All totals as JSON."""
        return {
            "elapsed": self.elapsed,
            "utilisation": self.utilisation(),
            "policies": {name: asdict(usage) for name, usage in self.policies().items()},
            "devices": {name: asdict(usage) for name, usage in self.device_usage().items()},
            "phase_seconds": {f"{policy}/{phase}": value for (policy, phase), value in self.phase_seconds().items()},
            "events": dict(self.counts),
        }


def as_json(item: Span | Event) -> Mapping[str, JSON]:
    """One line of a run's record file."""
    return {"type": "span" if isinstance(item, Span) else "event", **asdict(item)}
