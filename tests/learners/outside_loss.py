"""A distribution of somebody else's, as pip leaves it: a loss, its entry point, and a strategy that asks for it."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "tempered-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tempered\nVersion: 1.0\n",
    "tempered-1.0.dist-info/entry_points.txt": (
        "[mutual_env.losses]\ntempered = tempered.loss:Tempered\n"
        "[mutual_env.strategies]\ntempered = tempered.strategy:TemperedPolicyGradient\n"
    ),
    "tempered/__init__.py": "",
    "tempered/loss.py": '''
from dataclasses import dataclass
import numpy as np
from learners.losses import Loss, Needs

@dataclass(frozen=True, slots=True)
class Tempered(Loss):
    """-A ρ^power, the ratio bent and never clipped."""
    name = "tempered"
    power: float = 0.5
    needs = Needs(anchor=True)

    def _bent(self, at):
        return self.power * (at.log_pi - at.anchor)

    def term(self, at):
        return -at.advantages * self._bent(at).clamp(-20, 20).exp()

    def slope(self, at):
        bent = self._bent(at)
        ratio = np.exp(np.clip(bent, -20, 20))
        return -at.advantages * ratio, np.where(np.abs(bent) <= 20, -at.advantages * self.power * ratio, 0.0)
''',
    "tempered/strategy.py": """
from dataclasses import replace
from mutual_env.types import NamedLoss
from sharing import Independent

class TemperedPolicyGradient(Independent):
    def share(self, situation):
        bent = NamedLoss.of("tempered", power=0.7)
        shared = super().share(situation)
        return replace(shared, lessons=tuple(replace(lesson, loss=bent) for lesson in shared.lessons))
""",
}


def install(site: Path) -> Path:
    for name, content in FILES.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return site
