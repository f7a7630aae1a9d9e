"""Plain Euler sampling of TinyWan with classifier-free guidance: the reference without any caching.

The noise schedule equals ComfyUI's "simple" scheduler on ModelSamplingDiscreteFlow (shift 8 for Wan 2.1).
Rectified flow: x_sigma = (1 - sigma) clean + sigma noise, velocity = noise - clean, timestep = 1000 sigma.
"""

from itertools import pairwise

import torch

from .tinywan.words import encode_batch

SHIFT = 8.0  # ComfyUI's default for Wan 2.1
TIMESTEPS = 1000
LATENT_SHAPE = (16, 5, 12, 12)  # channels, frames, height, width seen in training


def shift_sigma(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Moves flow times in [0, 1] towards noise: s t / (1 + (s - 1) t). Source: Esser et al., arXiv:2403.03206."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def schedule(steps: int, shift: float = SHIFT) -> torch.Tensor:
    """Sigmas (steps + 1,) from 1.0 down to 0.0: every (1000 / steps)-th entry of the discrete table."""
    table = shift_sigma(torch.arange(1, TIMESTEPS + 1) / TIMESTEPS, shift)
    stride = TIMESTEPS / steps
    picked = [float(table[-(1 + int(step * stride))]) for step in range(steps)]
    return torch.tensor([*picked, 0.0])


def guided_velocity(model, x, sigma, cond, uncond, cfg, batched=True) -> torch.Tensor:
    """Velocity under classifier-free guidance: uncond + cfg * (cond - uncond). `batched` runs both in one call."""
    timestep = x.new_full((len(x),), TIMESTEPS * float(sigma))
    if cfg == 1.0:
        return model(x, timestep, cond)
    if batched:
        both = model(x.repeat(2, 1, 1, 1, 1), timestep.repeat(2), torch.cat([cond, uncond]))
        cond_velocity, uncond_velocity = both.chunk(2)
    else:
        cond_velocity, uncond_velocity = model(x, timestep, cond), model(x, timestep, uncond)
    return uncond_velocity + cfg * (cond_velocity - uncond_velocity)


def null_context(cond: torch.Tensor) -> torch.Tensor:
    """Text hidden states of the empty prompt, as long as cond (B, N, 4096); repeated tokens do not change attention."""
    null = encode_batch([""]).to(cond)
    return null.expand(cond.shape[0], cond.shape[1], -1)


@torch.no_grad()
def sample(model, noise, cond, cfg=3.0, steps=30, shift=SHIFT, batched=True, callback=None) -> torch.Tensor:
    """Clean latents from noise (B, 16, F, H, W) and words (B, N, 4096) by Euler steps.

    callback(step, sigma, x), if given, sees the latents before each step.
    """
    x, uncond = noise, null_context(cond)
    sigmas = schedule(steps, shift).tolist()
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        if callback is not None:
            callback(step, sigma, x)
        velocity = guided_velocity(model, x, sigma, cond, uncond, cfg, batched)
        x = x + (next_sigma - sigma) * velocity
    return x
