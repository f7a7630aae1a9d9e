"""How far the change of a sample of tokens is from the change of all: on blocks of TinyWan, and on random walks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..bwcache_core.similarity import l1_norms, sample_tokens, token_sample
from ..hosts.runs import EmbeddedHost, Job

TOKENS = 256  # the default of the node
WALK_GRID, WALK_WIDTH, WALK_STEPS = (21, 30, 52), 64, 30  # the tokens of Wan 14B at 480p, 81 frames
WALK_SEED = 7
# Standard deviation, over the video, of the logarithm of how far a token moves; and how many tokens are sampled.
WALKS = ((0.2, TOKENS), (0.5, TOKENS), (0.5, 2 * TOKENS), (0.5, 4 * TOKENS))


@dataclass(frozen=True)
class Accuracy:
    """Relative deviations of the sampled change from the full one, without sign."""

    source: str
    tokens: int
    sampled: int
    comparisons: int
    median: float
    p95: float
    largest: float


def changes(now_BLD: torch.Tensor, before_BLD: torch.Tensor) -> torch.Tensor:
    """Relative L1 change per row, (B,)."""
    difference, reference = l1_norms([now_BLD - before_BLD, before_BLD])
    return difference / reference


def deviations(now_BLD: torch.Tensor, before_BLD: torch.Tensor, count: int = TOKENS) -> torch.Tensor:
    """|sampled / full - 1| of the change of each row, (B,)."""
    index = torch.tensor(token_sample(now_BLD.shape[1], count))
    sampled = changes(sample_tokens(now_BLD, index), sample_tokens(before_BLD, index))
    return (sampled / changes(now_BLD, before_BLD) - 1.0).abs()


def accuracy(source: str, tokens: int, found: list[torch.Tensor], count: int = TOKENS) -> Accuracy:
    errors = torch.cat(found)
    quantiles = [float(errors.quantile(q)) for q in (0.5, 0.95, 1.0)]
    return Accuracy(source, tokens, min(tokens, count), len(errors), *quantiles)


def on_tinywan(side: int, steps: int, seed: int = 0) -> Accuracy:
    """Every block of both conditions, from each step to the next."""
    host, found, before = EmbeddedHost(), [], {}
    model, blocks = host.model.clone(), len(host.model.get_model_object("diffusion_model").blocks)

    def hook_of(block: int):
        def hook(args: dict, extra: dict) -> dict:
            out = extra["original_block"](args)
            if block in before:
                found.append(deviations(out["img"], before[block]))
            before[block] = out["img"].clone()
            return out

        return hook

    for block in range(blocks):
        model.set_model_patch_replace(hook_of(block), "dit", "double_block", block)
    host.sample(model, Job("red circle moving left", seed, steps=steps, side=side))
    return accuracy(f"TinyWan, {side}x{side} latents", before[0].shape[1], found)


def on_a_random_walk(unevenness: float, count: int) -> Accuracy:
    """Features that move by noise, in some places of the video more than in others."""
    walk = random_walk(unevenness)
    before = next(walk)
    found = []
    for now in walk:
        found.append(deviations(now, before, count))
        before = now
    return accuracy(f"random walk, unevenness {unevenness:g}", before.shape[1], found, count)


def random_walk(unevenness: float) -> Iterator[torch.Tensor]:
    """(1, L, D). How far a token moves varies smoothly over time and space, otherwise at every step."""
    generator = torch.Generator().manual_seed(WALK_SEED)
    tokens = WALK_GRID[0] * WALK_GRID[1] * WALK_GRID[2]
    features = torch.randn(1, tokens, WALK_WIDTH, generator=generator)
    for _ in range(WALK_STEPS):
        yield features
        coarse = torch.randn(1, 1, 4, 6, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, WALK_GRID, mode="trilinear", align_corners=True)
        stride = 0.1 * (unevenness * smooth / smooth.std()).exp().reshape(1, tokens, 1)
        features = features + stride * torch.randn(1, tokens, WALK_WIDTH, generator=generator)
