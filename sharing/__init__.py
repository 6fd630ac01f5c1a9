"""What policies share, and how: the exchange, the strategies, the teachers.

A strategy's class is imported when it is first asked for, as `sharing.registry` does by its short name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mutual_env.catalogue import load
from sharing.admission import Limits
from sharing.edges import ring
from sharing.exchange import Exchange, InMemoryExchange, RayExchange, Reading, ReplayExchange, SQLiteExchange, export
from sharing.records import KINDS, Kind, Origin, Record, Rollout, Statistics, Stored, Success
from sharing.registry import OWN, make, names, register
from sharing.situation import Sampled, Shared, Situation
from sharing.wrapper import SharingWrapper

if TYPE_CHECKING:  # when it runs, `__getattr__` finds them where the registry says
    from sharing.strategies.auto import Auto
    from sharing.strategies.corl import CoRL
    from sharing.strategies.frozen import FrozenPeers
    from sharing.strategies.ftis import FilteredTruncatedSampling
    from sharing.strategies.graft import Graft
    from sharing.strategies.hacpo import Hacpo
    from sharing.strategies.independent import Independent
    from sharing.strategies.kdrl import KnowledgeDistillationRL
    from sharing.strategies.luffy import Luffy
    from sharing.strategies.memory import RescueMemory
    from sharing.strategies.offline import OfflineDistillation
    from sharing.strategies.placebo import PlaceboRescue
    from sharing.strategies.prp import PeerRolloutPooling
    from sharing.strategies.sapo import Sapo
    from sharing.strategies.sgt import SuccessGatedTransfer
    from sharing.strategies.topd import TrustRegionPolicyDistillation
    from sharing.strategies.trrd import TrustRegionRatioDistillation
    from sharing.strategies.xgrpo import CrossPolicyAdvantageSharing

__all__ = [
    "KINDS",
    "Auto",
    "CoRL",
    "CrossPolicyAdvantageSharing",
    "Exchange",
    "FilteredTruncatedSampling",
    "FrozenPeers",
    "Graft",
    "Hacpo",
    "InMemoryExchange",
    "Independent",
    "Kind",
    "KnowledgeDistillationRL",
    "Limits",
    "Luffy",
    "OfflineDistillation",
    "Origin",
    "PeerRolloutPooling",
    "PlaceboRescue",
    "RayExchange",
    "Reading",
    "Record",
    "ReplayExchange",
    "RescueMemory",
    "Rollout",
    "SQLiteExchange",
    "Sampled",
    "Sapo",
    "Shared",
    "SharingWrapper",
    "Situation",
    "Statistics",
    "Stored",
    "Success",
    "SuccessGatedTransfer",
    "TrustRegionPolicyDistillation",
    "TrustRegionRatioDistillation",
    "export",
    "make",
    "names",
    "register",
    "ring",
]

_TARGETS = {target.partition(":")[2]: target for target in OWN.values()}

if not TYPE_CHECKING:  # a checker would take every misspelt name for one that is found here

    def __getattr__(name: str) -> Any:
        if name not in _TARGETS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = load(f"strategy {name}", _TARGETS[name])
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_TARGETS})
