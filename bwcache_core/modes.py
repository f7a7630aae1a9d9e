"""The modes: one row per mode, from its name to its policy."""

from __future__ import annotations

from .adaptive import AdaptivePolicy
from .config import ADAPTIVE, PAPER, PER_BLOCK, BWCacheConfig
from .policy import PaperPolicy, PerBlockPolicy, Rules, RunShape

Policy = AdaptivePolicy | PaperPolicy | PerBlockPolicy


def make_policy(config: BWCacheConfig, run: RunShape) -> Policy:
    """The policy of the configured mode. A new mode is one class and one row here."""
    rules = Rules.of(config, run)
    makers = {
        ADAPTIVE: lambda: AdaptivePolicy(
            rules, config.limit, config.max_reuse, config.order, config.damping, config.target_speedup
        ),
        PAPER: lambda: PaperPolicy(rules),
        PER_BLOCK: lambda: PerBlockPolicy(rules),
    }
    return makers[config.mode]()
