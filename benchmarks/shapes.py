"""Real model sizes, with random weights and few blocks: enough to time a block and what the cache adds to it.

All blocks of a model share one set of weights, which changes nothing for the time and lets 14B blocks fit a small
machine. On the CPU latents are scaled down (`scaled`); what the cache pays for its token sample is not, so that its
share comes out larger than at the real size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..zoo.wan import TinyWan, TinyWanConfig

WAN, HUNYUAN = "wan", "hunyuan"
TEXT_TOKENS, TEXT_WIDTH, POOLED = 256, 4096, 768


@dataclass(frozen=True)
class Shape:
    """One model at one resolution.

    latent: channels, frames, height, width of 81 (Wan 14B), 121 or 129 frames of video. patch: tokens take patch x
    patch latent pixels. blocks: of the full model. ffn: width of the feed-forward. scale: what frames and sides are
    divided by on the CPU, to some hundred tokens: more than are sampled, and enough that the text does not outweigh them.
    """

    name: str
    kind: str
    width: int
    heads: int
    ffn: int
    blocks: int
    latent: tuple[int, int, int, int]
    patch: int = 2
    scale: tuple[int, int] = (10, 3)

    @property
    def tokens(self) -> int:
        """Of the video in one condition."""
        _, frames, height, width = self.latent
        return frames * (height // self.patch) * (width // self.patch)

    def scaled(self) -> Shape:
        """The same model on fewer tokens."""
        channels, frames, height, width = self.latent
        sides = tuple(length // self.scale[1] // self.patch * self.patch for length in (height, width))
        return replace(self, latent=(channels, frames // self.scale[0], *sides))


WAN_14B = Shape("Wan 14B, 480p", WAN, 5120, 40, 13824, 40, (16, 21, 60, 104))
WAN_5B = Shape("Wan 5B, 480p", WAN, 3072, 24, 14336, 30, (48, 31, 30, 52), scale=(10, 2))
HUNYUAN_VIDEO = Shape("HunyuanVideo, 480p", HUNYUAN, 3072, 24, 12288, 60, (16, 33, 60, 106))
HUNYUAN_15 = Shape("HunyuanVideo 1.5, 480p", HUNYUAN, 2048, 16, 8192, 54, (32, 31, 30, 53), patch=1, scale=(5, 2))
SHAPES = (
    WAN_14B, WAN_5B, HUNYUAN_VIDEO, HUNYUAN_15,
    replace(WAN_14B, name="Wan 14B, 720p", latent=(16, 21, 90, 160)),
    replace(WAN_5B, name="Wan 5B, 720p", latent=(48, 31, 44, 80)),
    replace(HUNYUAN_VIDEO, name="HunyuanVideo, 720p", latent=(16, 33, 90, 160)),
    replace(HUNYUAN_15, name="HunyuanVideo 1.5, 720p", latent=(32, 31, 45, 80), scale=(5, 3)),
)  # fmt: skip


def build(shape: Shape, blocks: int, dtype: torch.dtype, device: torch.device, comfyui: bool) -> torch.nn.Module:
    """The model with random weights and `blocks` blocks: ComfyUI's own, or TinyWan at that size for Wan shapes."""
    with torch.device(device):
        module = (COMFYUI_MODELS[shape.kind] if comfyui else tiny_wan)(shape, dtype)
    module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    if shape.kind == WAN:
        module.patch_embedding.float()  # Wan embeds patches in float32, whatever its type
    generator = torch.Generator(device).manual_seed(0)
    for parameter in module.parameters():
        parameter.normal_(0.0, 0.02, generator=generator) if parameter.ndim > 1 else parameter.fill_(1.0)
    repeat_blocks(module, shape, blocks)
    return module


def repeat_blocks(module: torch.nn.Module, shape: Shape, count: int) -> None:
    """`count` times the first block of each kind, HunyuanVideo's two kinds in their real proportion."""
    if shape.kind == WAN:
        module.blocks = torch.nn.ModuleList([module.blocks[0]] * count)
        return
    single = 2 * count // 3 if len(module.single_blocks) else 0
    module.double_blocks = torch.nn.ModuleList([module.double_blocks[0]] * (count - single))
    module.single_blocks = torch.nn.ModuleList(list(module.single_blocks)[:1] * single)


def tiny_wan(shape: Shape, dtype: torch.dtype) -> torch.nn.Module:
    channels = shape.latent[0]
    return TinyWan(TinyWanConfig(shape.width, shape.heads, 1, shape.ffn, channels, channels))


def comfyui_wan(shape: Shape, dtype: torch.dtype) -> torch.nn.Module:
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    channels = shape.latent[0]
    return WanModel(
        dim=shape.width, ffn_dim=shape.ffn, num_heads=shape.heads, num_layers=1, in_dim=channels, out_dim=channels,
        text_dim=TEXT_WIDTH, dtype=dtype, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip


def comfyui_hunyuan(shape: Shape, dtype: torch.dtype) -> torch.nn.Module:
    import comfy.ops
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    newer = shape.patch == 1
    return HunyuanVideo(
        in_channels=shape.latent[0], out_channels=shape.latent[0], vec_in_dim=POOLED, context_in_dim=TEXT_WIDTH,
        hidden_size=shape.width, mlp_ratio=shape.ffn / shape.width, num_heads=shape.heads, depth=1,
        depth_single_blocks=0 if newer else 1, axes_dim=[16, 56, 56], theta=256, qkv_bias=True, guidance_embed=False,
        patch_size=[1, shape.patch, shape.patch], byt5=False, meanflow=False, use_cond_type_embedding=False,
        vision_in_dim=None, meanflow_sum=False, dtype=dtype, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip


COMFYUI_MODELS = {WAN: comfyui_wan, HUNYUAN: comfyui_hunyuan}


def inputs(shape: Shape, dtype: torch.dtype, device: torch.device, evaluation: int) -> tuple[torch.Tensor, ...]:
    """Latents (1, C, F, H, W), which move a little from one evaluation to the next, timestep and text."""
    generator = torch.Generator(device).manual_seed(1)
    start, drift = (torch.randn(1, *shape.latent, generator=generator, device=device) for _ in range(2))
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, generator=generator, device=device)
    timestep = torch.tensor([1000.0 - 5.0 * evaluation], device=device)
    return (start + 0.02 * evaluation * drift).to(dtype), timestep, text.to(dtype)
