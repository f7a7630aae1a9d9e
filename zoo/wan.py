"""The Wan 2.1 text-to-video transformer, small enough for a CPU; state-dict keys and results equal ComfyUI's WanModel.

Source: Wan, arXiv:2503.20314 (architecture); key names as in the published Wan 2.1 checkpoints.
Shapes: B = conds in the batch, L = F * H/2 * W/2 tokens, N = words, D = model width, d = width of one head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

ROPE_THETA = 10000.0
LARGEST = 8192  # of any size in a file: more than a TinyWan needs, less than fills a memory
MODULATIONS = 6  # shift, scale, gate for self-attention, then the same for the feed-forward


@dataclass(frozen=True)
class TinyWanConfig:
    """Sizes of the model. ComfyUI derives num_heads = dim // 128 and takes text_dim, freq_dim, patch_size as given."""

    dim: int = 128
    num_heads: int = 1
    num_layers: int = 10
    ffn_dim: int = 384
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, torch.Tensor]) -> "TinyWanConfig":
        """Sizes read from the tensors, as ComfyUI's detection does. Raises ValueError for what is no small model.

        A file can name sizes without holding the numbers: tensors of no elements have any shape.
        """
        dim = state_dict["head.modulation"].shape[-1]
        config = cls(
            dim=dim,
            num_heads=dim // 128,
            num_layers=len({key.split(".")[1] for key in state_dict if key.startswith("blocks.")}),
            ffn_dim=state_dict["blocks.0.ffn.0.weight"].shape[0],
            in_dim=state_dict["patch_embedding.weight"].shape[1],
            out_dim=state_dict["head.head.weight"].shape[0] // 4,
            text_dim=state_dict["text_embedding.0.weight"].shape[1],
            freq_dim=state_dict["time_embedding.0.weight"].shape[1],
        )
        wrong = {name: size for name, size in vars(config).items() if isinstance(size, int) and not 1 <= size <= LARGEST}
        if wrong:
            raise ValueError(f"This file is no TinyWan: {wrong}, expected 1 to {LARGEST} each.")
        return config


def sinusoidal_embedding(timestep: torch.Tensor, dim: int) -> torch.Tensor:
    """Cosines then sines of the timestep (0 to 1000) at dim / 2 frequencies: (B,) -> (B, dim), float32."""
    half = dim // 2
    exponents = torch.arange(half, device=timestep.device, dtype=torch.float32) / half
    angles = timestep.float()[:, None] * torch.pow(10000, -exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def rope_rotations(positions: torch.Tensor, dim: int, theta: float = ROPE_THETA) -> torch.Tensor:
    """2x2 rotation of every channel pair for every position: (L,) -> (L, dim / 2, 2, 2), float32, angles in float64."""
    exponents = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float64) / dim
    angles = positions.double()[:, None] / theta**exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2)).float()


def rope_grid(frames: int, rows: int, columns: int, head_dim: int, device: torch.device) -> torch.Tensor:
    """Rotary position table for a token grid: (1, L, 1, d / 2, 2, 2); the pairs are split over time, height, width."""
    spatial = 2 * (head_dim // 6)
    ranges = [torch.arange(size, device=device, dtype=torch.float32) for size in (frames, rows, columns)]
    positions = torch.cartesian_prod(*ranges)  # (L, 3)
    axes = (head_dim - 2 * spatial, spatial, spatial)
    rotations = [rope_rotations(positions[:, axis], dim) for axis, dim in enumerate(axes)]
    return torch.cat(rotations, dim=1)[None, :, None]


def apply_rope(heads: torch.Tensor, pe: torch.Tensor) -> torch.Tensor:
    """Rotates channel pairs (0, 1), (2, 3), ... of (B, L, heads, d) by the table (1, L, 1, d / 2, 2, 2)."""
    pairs = heads.to(pe.dtype).unflatten(-1, (-1, 1, 2))
    rotated = pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]
    return rotated.flatten(-2).type_as(heads)


class Attention(nn.Module):
    """Attention with RMS-normalised queries and keys; the norms span all heads, as in Wan."""

    def __init__(self, config: TinyWanConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(config.dim, eps=config.eps)

    def forward(self, hidden_states: torch.Tensor, source: torch.Tensor, pe: torch.Tensor | None = None):
        """Attends from (B, L, D) to source (B, M, D); with pe both sides are rotated (self-attention)."""
        split = "b l (h d) -> b l h d"
        q = rearrange(self.norm_q(self.q(hidden_states)), split, h=self.num_heads)
        k = rearrange(self.norm_k(self.k(source)), split, h=self.num_heads)
        v = rearrange(self.v(source), split, h=self.num_heads)
        if pe is not None:
            q, k = apply_rope(q, pe), apply_rope(k, pe)
        q, k, v = (heads.to(v.dtype).transpose(1, 2) for heads in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o(rearrange(mixed, "b h l d -> b l (h d)"))


def split_modulation(modulation: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Per-cond or per-frame modulation (B, T, M, D) to M tensors (B, T, D)."""
    return modulation.unbind(dim=2)


def per_token(modulation: torch.Tensor, tokens: int) -> torch.Tensor:
    """Repeats per-frame values (B, T, D) to (B, L, D); one value per cond (T = 1) broadcasts as it is."""
    steps = modulation.shape[1]
    return modulation if steps == 1 else modulation.repeat_interleave(tokens // steps, dim=1)


class Block(nn.Module):
    """One DiT block: modulated self-attention, cross-attention to the words, modulated feed-forward."""

    def __init__(self, config: TinyWanConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.cross_attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.zeros(1, MODULATIONS, config.dim))

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor, vec: torch.Tensor, pe: torch.Tensor):
        """(B, L, D) -> (B, L, D) for words (B, N, D), time modulation vec (B, T, 6, D) and the rotary table pe."""
        tokens = hidden_states.shape[1]
        rows = split_modulation(self.modulation[None] + vec)
        shift1, scale1, gate1, shift2, scale2, gate2 = (per_token(row, tokens) for row in rows)
        x = hidden_states
        attended = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.self_attn(attended, attended, pe)
        x = x + self.cross_attn(self.norm3(x), context)
        return x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)


class Head(nn.Module):
    """Final modulated projection from tokens to patches."""

    def __init__(self, config: TinyWanConfig):
        super().__init__()
        patch = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        self.norm = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, patch * config.out_dim)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))

    def forward(self, hidden_states: torch.Tensor, time_states: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, L, 4 * out_dim) for time states (B, T, D)."""
        rows = split_modulation(self.modulation[None] + time_states[:, :, None])
        shift, scale = (per_token(row, hidden_states.shape[1]) for row in rows)
        return self.head(self.norm(hidden_states) * (1 + scale) + shift)


def pad_to_patches(latents: torch.Tensor, patch_size: tuple[int, int, int]) -> torch.Tensor:
    """Pads frames, height and width at their ends to multiples of the patch by wrapping around."""
    missing = [-size % patch for size, patch in zip(latents.shape[2:], patch_size, strict=True)]
    return F.pad(latents, (0, missing[2], 0, missing[1], 0, missing[0]), mode="circular")


class TinyWan(nn.Module):
    """Predicts the rectified-flow velocity (noise - clean) of latents (B, 16, F, H, W)."""

    def __init__(self, config: TinyWanConfig | None = None):
        super().__init__()
        self.config = config = config or TinyWanConfig()
        self.dim, self.patch_size = config.dim, config.patch_size  # as WanModel calls them
        self.patch_embedding = nn.Conv3d(config.in_dim, config.dim, config.patch_size, stride=config.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, config.dim), nn.GELU(approximate="tanh"), nn.Linear(config.dim, config.dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, MODULATIONS * config.dim))
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.head = Head(config)

    def forward(
        self, x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options=None, **kwargs
    ) -> torch.Tensor:
        """Velocity (B, 16, F, H, W) of noisy latents x; the call of ComfyUI's WanModel.

        timestep: (B,) or per frame (B, F), 1000 * sigma. context: words (B, N, 4096). clip_fea and further keyword
        arguments belong to other Wan variants and are ignored. `transformer_options` is read and written as in
        ComfyUI: see `run_blocks`.
        """
        options = {} if transformer_options is None else transformer_options
        frames, height, width = x.shape[2:]
        x = pad_to_patches(x, self.config.patch_size)
        if time_dim_concat is not None:
            x = torch.cat([x, pad_to_patches(time_dim_concat, self.config.patch_size)], dim=2)
        hidden_states, grid = self.embed_patches(x)
        options["grid_sizes"] = grid
        time_states, vec = self.embed_time(timestep, hidden_states.dtype)
        pe = rope_grid(*grid, self.config.dim // self.config.num_heads, x.device)
        stream = {"img": hidden_states, "txt": self.text_embedding(context), "vec": vec, "pe": pe}
        hidden_states = self.run_blocks(stream, {"x": x, "vec": time_states}, options)
        velocity = self.unpatchify(self.head(hidden_states, time_states), grid)
        return velocity[:, :, :frames, :height, :width]

    def embed_patches(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Size]:
        """Latents (B, 16, F, H, W) to tokens (B, L, D) and the token grid (F, H / 2, W / 2)."""
        patches = self.patch_embedding(latents.float()).to(latents.dtype)
        return rearrange(patches, "b d f h w -> b (f h w) d"), patches.shape[2:]

    def embed_time(self, timestep: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Time states (B, T, D) for the head and modulation (B, T, 6, D) for the blocks; T = 1 or frames."""
        sinusoid = sinusoidal_embedding(timestep.flatten(), self.config.freq_dim).to(dtype)
        states = self.time_embedding(sinusoid).unflatten(0, (timestep.shape[0], -1))
        return states, self.time_projection(states).unflatten(2, (MODULATIONS, self.config.dim))

    def run_blocks(self, stream: dict, post_args: dict, options: dict) -> torch.Tensor:
        """Runs all blocks under ComfyUI's patch contract and returns the last hidden states (B, L, D).

        A patch at options["patches_replace"]["dit"][("double_block", i)] is called instead of block i with
        (stream + transformer_options, {"original_block": f}) and returns {"img": ...}. Patches in
        options["patches"]["double_block"] then see the result of every block, replaced or not.
        """
        replacements = options.get("patches_replace", {}).get("dit", {})
        post_patches = options.get("patches", {}).get("double_block", [])
        options["total_blocks"], options["block_type"] = len(self.blocks), "double"
        hidden_states = stream["img"]
        for index, block in enumerate(self.blocks):
            options["block_index"] = index
            args = {**stream, "img": hidden_states, "transformer_options": options}
            replacement = replacements.get(("double_block", index))
            if replacement is None:
                hidden_states = run_block(block, args)["img"]
            else:
                original = {"original_block": lambda block_args, block=block: run_block(block, block_args)}
                hidden_states = replacement(args, original)["img"]
            for patch in post_patches:
                seen = {"img": hidden_states, **post_args, "block_index": index, "img_offset": 0}
                hidden_states = patch({**seen, "transformer_options": options})["img"]
        return hidden_states

    def unpatchify(self, patches: torch.Tensor, grid: torch.Size) -> torch.Tensor:
        """Patches (B, L, 4 * out_dim) back to (B, out_dim, F, H, W)."""
        p, q, r = self.config.patch_size
        f, h, w = grid
        return rearrange(patches, "b (f h w) (p q r c) -> b c (f p) (h q) (w r)", f=f, h=h, w=w, p=p, q=q, r=r)


def run_block(block: Block, args: dict) -> dict:
    """Runs one block on a patch argument dict; this is the `original_block` that a patch receives."""
    return {"img": block(args["img"], args["txt"], args["vec"], args["pe"])}
