"""Processes of ours that make no env, such as a pool's fork server: what envs need, gymnasium and pettingzoo among it,
is a third of such a process's start. They are started with `LEAN` behind the interpreter and import it when something
asks `mutual_env` for it, as a verifier's own module may."""

from __future__ import annotations

import sys

_FLAG = "mutual-env-lean"
LEAN = ("-X", _FLAG)
"""Unlike a variable of the environment, processes that are started from there do not inherit it."""


def is_lean() -> bool:
    return _FLAG in sys._xoptions
