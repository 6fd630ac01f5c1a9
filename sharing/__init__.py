"""What policies share, and how: the exchange, the strategies, the teachers."""

from sharing.admission import Limits
from sharing.exchange import Exchange, InMemoryExchange, RayExchange, Reading, ReplayExchange, SQLiteExchange, export
from sharing.records import KINDS, Kind, Origin, Record, Rollout, Statistics, Stored, Success
from sharing.registry import make, names, register
from sharing.situation import Sampled, Shared, Situation
from sharing.strategies.ftis import FilteredTruncatedSampling
from sharing.strategies.graft import Graft
from sharing.strategies.hacpo import Hacpo
from sharing.strategies.independent import Independent
from sharing.strategies.kdrl import KnowledgeDistillationRL
from sharing.strategies.luffy import Luffy
from sharing.strategies.offline import OfflineDistillation
from sharing.strategies.prp import PeerRolloutPooling
from sharing.strategies.sapo import Sapo
from sharing.strategies.sgt import SuccessGatedTransfer
from sharing.strategies.trrd import TrustRegionRatioDistillation
from sharing.strategies.xgrpo import CrossPolicyAdvantageSharing
from sharing.wrapper import SharingWrapper, ring

__all__ = [
    "KINDS",
    "CrossPolicyAdvantageSharing",
    "Exchange",
    "FilteredTruncatedSampling",
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
    "RayExchange",
    "Reading",
    "Record",
    "ReplayExchange",
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
    "TrustRegionRatioDistillation",
    "export",
    "make",
    "names",
    "register",
    "ring",
]
