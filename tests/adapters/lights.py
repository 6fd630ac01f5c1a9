"""An OpenEnv environment of our own: so many lamps are lit, one is switched off at a time, and the last one pays."""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar
from uuid import uuid4

from openenv.core.env_server import Action, Environment, Observation, State


class Switch(Action):
    message: str


class Lamps(Observation):
    said: str


class Lights(Environment[Switch, Lamps, State]):
    """`off` switches one of them off, `wait` says nothing for long, `break` breaks the server; anything else does
    nothing. `moods`: the server does not honour its seed."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    moods: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._state, self._lit = State(episode_id=str(uuid4()), step_count=0), 0

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Lamps:
        self._lit = random.Random(None if self.moods else seed).randint(1, 10**9 if self.moods else 3)
        return Lamps(said=f"{self._lit} lit\n", reward=0.0, done=False)

    def step(self, action: Switch, timeout_s: float | None = None, **kwargs: Any) -> Lamps:
        if action.message == "wait":
            time.sleep(2.0)
        if action.message == "break":
            raise RuntimeError("a lamp burst")
        if action.message == "off":
            self._lit -= 1
        return Lamps(said=f"{self._lit} lit\n", reward=1.0 if self._lit == 0 else 0.0, done=self._lit == 0)

    @property
    def state(self) -> State:
        return self._state


class MoodyLights(Lights):
    moods = True
