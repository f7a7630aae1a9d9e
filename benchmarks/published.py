"""Lists of steps to compute that others found by optimisation on real weights, for repeated outputs without a forecast.

Here they run as plans: with our forecast and corrector, mapped to the run by bwcache_core/plan.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..bwcache_core.plan import Plan, parse


@dataclass(frozen=True)
class PublishedList:
    """text: as a plan. shift: of the flow where its source says it is in the text, else left out."""

    name: str
    text: str
    source: str

    @property
    def plan(self) -> Plan:
        return parse(self.text)

    @property
    def label(self) -> str:
        """Computed steps of all: 25 of 50."""
        return f"{len(self.plan.computes)} of {self.plan.steps}"


LEMICA_WAN = "LeMiCa, LeMiCa4Wan2.1/inference_wan.py (Wan2.1 T2V 14B)"
LEMICA_HUNYUAN = "LeMiCa, LeMiCa4HunyuanVideo1.5/infer_state.py"
MEANCACHE = "MeanCache, MeanCache4Qwen-Image/Mc_qwenimage.py"
WAN = (
    PublishedList("LeMiCa", "0-11 13 15 18 21 25 29 34 38 42 45 47-49/50@5", LEMICA_WAN),
    PublishedList("LeMiCa", "0-7 9 12 16 22 29 36 43 47 49/50@5", LEMICA_WAN),
)
HUNYUAN = (
    PublishedList("LeMiCa", "0-13 15 17 19 21 24 28 33 39 45 48-49/50", LEMICA_HUNYUAN),
    PublishedList("LeMiCa", "0-6 8 10 13 17 25 33 41 49/50", LEMICA_HUNYUAN),
)
QWEN_IMAGE = (
    PublishedList("MeanCache", "0-16 24 32 40 43 45 47-49/50", MEANCACHE),
    PublishedList("MeanCache", "0-8 10 17 24 31 38 45 48-49/50", MEANCACHE),
)
BY_FAMILY = {"wan": (*WAN, *QWEN_IMAGE), "hunyuan": (*HUNYUAN, *QWEN_IMAGE)}
EVERY = (*WAN, *HUNYUAN, *QWEN_IMAGE)
