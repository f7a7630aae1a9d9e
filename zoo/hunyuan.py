"""The HunyuanVideo text-to-video transformer, small enough for a CPU; keys and results equal those of ComfyUI's class.

Source: HunyuanVideo, arXiv:2412.03603 (double and single blocks, embedded guidance); key names as ComfyUI reads them.
Shapes: B = clips, L = F * H/2 * W/2 image tokens, N = words, D = model width, d = width of one head (128).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .wan import apply_rope, rope_rotations, sinusoidal_embedding

HEAD = 128  # ComfyUI derives the number of heads from the width
AXES = (16, 56, 56)  # of a head's channels: turned by time, height, width
ROPE_THETA = 256.0
FREQUENCIES = 256
GUIDANCE_FACTOR = 1000.0  # guidance is embedded like a timestep, this much larger
PATCH = (1, 2, 2)
REFINERS = 2
EPS = 1e-6
LARGEST = 8192  # of any size in a file: more than a small model needs, less than fills a memory


@dataclass(frozen=True)
class SmallHunyuanConfig:
    """Sizes of the model, as ComfyUI's detection reads them from a file."""

    dim: int = 128
    double: int = 3
    single: int = 6
    channels: int = 16
    text_dim: int = 256
    pooled_dim: int = 768
    guidance: bool = True

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, torch.Tensor]) -> SmallHunyuanConfig:
        """Sizes read from the tensors. Raises ValueError for what is no small model."""
        config = cls(
            dim=state_dict["img_in.proj.weight"].shape[0],
            double=count(state_dict, "double_blocks"),
            single=count(state_dict, "single_blocks"),
            channels=state_dict["img_in.proj.weight"].shape[1],
            text_dim=state_dict["txt_in.input_embedder.weight"].shape[1],
            pooled_dim=state_dict["vector_in.in_layer.weight"].shape[1],
            guidance="guidance_in.in_layer.weight" in state_dict,
        )
        wrong = {name: size for name, size in vars(config).items() if not 0 <= int(size) <= LARGEST}
        if wrong or config.dim % HEAD:
            raise ValueError(f"This file is no small HunyuanVideo: {wrong or config.dim}.")
        return config


def count(state_dict: dict[str, torch.Tensor], name: str) -> int:
    """How many blocks of a name there are."""
    return len({key.split(".")[1] for key in state_dict if key.startswith(f"{name}.")})


class TwoLayers(nn.Module):
    """An embedding: linear, SiLU, linear."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.in_layer = nn.Linear(inputs, dim)
        self.out_layer = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs) -> (B, D)."""
        return self.out_layer(F.silu(self.in_layer(x)))


class Norm(nn.Module):
    """RMS norm over one head, with its weight under the key that every version of ComfyUI reads."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(HEAD))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)."""
        return F.rms_norm(x, (HEAD,), self.scale.to(x.dtype), EPS)


class QueryKeyNorm(nn.Module):
    """The norms of queries and keys."""

    def __init__(self):
        super().__init__()
        self.query_norm, self.key_norm = Norm(), Norm()


class Projections(nn.Module):
    """Weights of one stream's attention; the double block runs both streams' attention as one."""

    def __init__(self, dim: int, normed: bool = True):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        if normed:
            self.norm = QueryKeyNorm()


def split_heads(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(B, L, 3 * D) to queries, keys and values (B, L, heads, d)."""
    return qkv.unflatten(-1, (3, -1, HEAD)).unbind(2)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pe: torch.Tensor | None = None) -> torch.Tensor:
    """Attention over (B, L, heads, d), rotated by the table (1, L, 1, d / 2, 2, 2): (B, L, D)."""
    if pe is not None:
        q, k = apply_rope(q, pe), apply_rope(k, pe)
    q, k, v = (heads.to(v.dtype).transpose(1, 2) for heads in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    """Layer norm over channels, without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def mlp(dim: int, activation: nn.Module) -> nn.Sequential:
    """Feed-forward of four times the width."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), activation, nn.Linear(4 * dim, dim))


class Modulation(nn.Module):
    """Shift, scale and gate, `times` triples of them, from the conditioning vector."""

    def __init__(self, dim: int, times: int):
        super().__init__()
        self.lin = nn.Linear(dim, times * 3 * dim)
        self.parts = times * 3

    def forward(self, vec: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, D) -> parts of (B, 1, D)."""
        return self.lin(F.silu(vec))[:, None].chunk(self.parts, dim=-1)


class DoubleBlock(nn.Module):
    """Image and text tokens with weights of their own, and one attention over both."""

    def __init__(self, dim: int):
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(dim, 2), Modulation(dim, 2)
        self.img_attn, self.txt_attn = Projections(dim), Projections(dim)
        self.img_mlp = mlp(dim, nn.GELU(approximate="tanh"))
        self.txt_mlp = mlp(dim, nn.GELU(approximate="tanh"))

    def forward(self, img: torch.Tensor, txt: torch.Tensor, vec: torch.Tensor, pe: torch.Tensor):
        """Image tokens (B, L, D) and text tokens (B, N, D), both renewed; text comes first in the attention."""
        img_mod, txt_mod = self.img_mod(vec), self.txt_mod(vec)
        streams = ((txt, txt_mod, self.txt_attn), (img, img_mod, self.img_attn))
        heads = [self.heads(x, mod, attention) for x, mod, attention in streams]
        mixed = attend(*(torch.cat(parts, dim=1) for parts in zip(*heads, strict=True)), pe)
        words = txt.shape[1]
        img = self.finish(img, mixed[:, words:], img_mod, self.img_attn, self.img_mlp)
        return img, self.finish(txt, mixed[:, :words], txt_mod, self.txt_attn, self.txt_mlp)

    @staticmethod
    def heads(x: torch.Tensor, mod: tuple, attention: Projections) -> tuple[torch.Tensor, ...]:
        """Normed queries and keys, and values, of one stream."""
        q, k, v = split_heads(attention.qkv(layer_norm(x) * (1 + mod[1]) + mod[0]))
        return attention.norm.query_norm(q), attention.norm.key_norm(k), v

    @staticmethod
    def finish(x: torch.Tensor, mixed: torch.Tensor, mod: tuple, attention: Projections, feed: nn.Module):
        """Adds one stream's share of the attention, then its feed-forward."""
        x = x + attention.proj(mixed) * mod[2]
        return x + feed(layer_norm(x) * (1 + mod[4]) + mod[3]) * mod[5]


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side over text and image tokens together."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.modulation = Modulation(dim, 1)
        self.linear1 = nn.Linear(dim, 7 * dim)
        self.linear2 = nn.Linear(5 * dim, dim)
        self.norm = QueryKeyNorm()

    def forward(self, x: torch.Tensor, vec: torch.Tensor, pe: torch.Tensor) -> torch.Tensor:
        """(B, N + L, D) -> (B, N + L, D)."""
        shift, scale, gate = self.modulation(vec)
        wide = self.linear1(layer_norm(x) * (1 + scale) + shift)
        qkv, hidden = wide.split([3 * self.dim, 4 * self.dim], dim=-1)
        q, k, v = split_heads(qkv)
        mixed = attend(self.norm.query_norm(q), self.norm.key_norm(k), v, pe)
        return x + self.linear2(torch.cat([mixed, F.gelu(hidden, approximate="tanh")], dim=-1)) * gate


class Refiner(nn.Module):
    """One block over the words alone."""

    def __init__(self, dim: int):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.self_attn = Projections(dim, normed=False)
        self.mlp = mlp(dim, nn.SiLU())

    def forward(self, x: torch.Tensor, vec: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        gate1, gate2 = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        x = x + self.self_attn.proj(attend(*split_heads(self.self_attn.qkv(self.norm1(x))))) * gate1
        return x + self.mlp(self.norm2(x)) * gate2


class Refiners(nn.Module):
    """The refiner blocks, under the name that the key asks for."""

    def __init__(self, dim: int):
        super().__init__()
        self.blocks = nn.ModuleList([Refiner(dim) for _ in range(REFINERS)])


class TextInput(nn.Module):
    """Words to text tokens."""

    def __init__(self, text_dim: int, dim: int):
        super().__init__()
        self.input_embedder = nn.Linear(text_dim, dim)
        self.t_embedder, self.c_embedder = TwoLayers(FREQUENCIES, dim), TwoLayers(text_dim, dim)
        self.individual_token_refiner = Refiners(dim)

    def forward(self, context: torch.Tensor, sinusoid: torch.Tensor) -> torch.Tensor:
        """(B, N, text width) -> (B, N, D)."""
        vec = self.t_embedder(sinusoid) + self.c_embedder(context.mean(1))
        x = self.input_embedder(context)
        for block in self.individual_token_refiner.blocks:
            x = block(x, vec)
        return x


class PatchInput(nn.Module):
    """Latents to image tokens."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.proj = nn.Conv3d(channels, dim, PATCH, stride=PATCH)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, F, H, W) -> (B, L, D)."""
        return self.proj(latents).flatten(2).transpose(1, 2)


class FinalLayer(nn.Module):
    """Modulated projection from tokens to patches."""

    def __init__(self, dim: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(dim, PATCH[1] * PATCH[2] * channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: torch.Tensor, vec: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, L, 4 * C)."""
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(layer_norm(x) * (1 + scale) + shift)


class SmallHunyuan(nn.Module):
    """Predicts the rectified-flow velocity (noise - clean) of latents (B, 16, F, H, W); H and W are even."""

    def __init__(self, config: SmallHunyuanConfig | None = None):
        super().__init__()
        self.config = config = config or SmallHunyuanConfig()
        dim = config.dim
        self.img_in = PatchInput(config.channels, dim)
        self.time_in = TwoLayers(FREQUENCIES, dim)
        self.vector_in = TwoLayers(config.pooled_dim, dim)
        self.guidance_in = TwoLayers(FREQUENCIES, dim) if config.guidance else None
        self.txt_in = TextInput(config.text_dim, dim)
        self.double_blocks = nn.ModuleList([DoubleBlock(dim) for _ in range(config.double)])
        self.single_blocks = nn.ModuleList([SingleBlock(dim) for _ in range(config.single)])
        self.final_layer = FinalLayer(dim, config.channels)

    def forward(self, x, timestep, context, y, guidance=None, **kwargs) -> torch.Tensor:
        """Velocity of noisy latents x; the call of ComfyUI's class, without its patches.

        timestep: (B,), 1000 * sigma. context: words (B, N, text width). y: pooled vectors (B, 768). guidance: (B,).
        """
        frames, rows, columns = x.shape[2], x.shape[3] // PATCH[1], x.shape[4] // PATCH[2]
        sinusoid = sinusoidal_embedding(timestep, FREQUENCIES).to(x.dtype)
        vec = self.time_in(sinusoid) + self.vector_in(y)
        if self.guidance_in is not None and guidance is not None:
            strength = sinusoidal_embedding(guidance * GUIDANCE_FACTOR, FREQUENCIES).to(x.dtype)
            vec = vec + self.guidance_in(strength)
        img, txt = self.img_in(x), self.txt_in(context, sinusoid)
        pe = rope_table(txt.shape[1], frames, rows, columns, x.device)
        img = self.run_blocks(img, txt, vec, pe)
        patches = self.final_layer(img, vec)
        split = {"f": frames, "h": rows, "w": columns, "p": PATCH[1], "q": PATCH[2]}
        return rearrange(patches, "b (f h w) (c p q) -> b c f (h p) (w q)", **split)

    def run_blocks(self, img: torch.Tensor, txt: torch.Tensor, vec: torch.Tensor, pe: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, L, D) after all blocks."""
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, pe)
        joined = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            joined = block(joined, vec, pe)
        return joined[:, txt.shape[1] :]


def rope_table(words: int, frames: int, rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Rotary positions of words (all at zero), then of the token grid: (1, N + L, 1, d / 2, 2, 2)."""
    ranges = [torch.arange(size, device=device, dtype=torch.float32) for size in (frames, rows, columns)]
    positions = F.pad(torch.cartesian_prod(*ranges), (0, 0, words, 0))
    rotations = [rope_rotations(positions[:, axis], dim, ROPE_THETA) for axis, dim in enumerate(AXES)]
    return torch.cat(rotations, dim=1)[None, :, None]
