"""What checks an answer, and the processes it runs in.

VerifierSpec   a verifier as data: name and options         make(spec) builds it, register(name, target) adds one
Verifier       what says whether a text answers a task      exact, numeric, math_verify, reasoning_gym
VerifierPool   runs verifiers over many items, in killable worker processes; calls functions there, with an `Outcome`
isolation_report  how far workers are kept from the machine: the level, and why a stronger one cannot be had
settle         what becomes of items without a verdict: drop, zero or raise
"""

from __future__ import annotations

from mutual_env.verifiers.pool.isolation import isolation_report
from mutual_env.verifiers.pool.verifier_pool import VerifierPool
from mutual_env.verifiers.spec import Outcome, ProgramVerifier, Verifier, VerifierSpec, make, names, register
from mutual_env.verifiers.unscored import UNSCORED_POLICIES, Settlement, UnscoredPolicy, settle

__all__ = [
    "UNSCORED_POLICIES",
    "Outcome",
    "ProgramVerifier",
    "Settlement",
    "UnscoredPolicy",
    "Verifier",
    "VerifierPool",
    "VerifierSpec",
    "isolation_report",
    "make",
    "names",
    "register",
    "settle",
]
