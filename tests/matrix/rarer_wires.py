"""How the models of rarer.py are conditioned."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from . import toys
from .desk import Desk, Variant, Wired
from .rarer import SEEN, SPLAT_REFERENCE
from .wires import WORDS, joined, of_instance, with_values

FRAMES = 4
SPARSE = 8  # resolution of the grid that Trellis's tokens lie on
TMS_TOKEN = 151673  # of HiDream-O1: where it puts the time


def seen_image(desk: Desk) -> Wired:
    """An image as CLIP saw it: the unCLIPConditioning node."""
    width = SEEN[desk.checkpoint]
    seen = SimpleNamespace(image_embeds=toys.noise(*desk.named("image"), shape=(1, width)))
    positive, negative = desk.prompts()
    where = "nodes.unCLIPConditioning"
    positive = desk.node(where, conditioning=positive, clip_vision_output=seen, strength=1.0, noise_augmentation=0.1)
    return positive, negative, desk.latent()


def enlarged(desk: Desk) -> Wired:
    """Stable Diffusion's upscaler: the image is joined to the latent, with some noise on it."""
    positive, negative = desk.prompts()
    image = desk.image("image", desk.small.latent[-1])
    where = "nodes_sdupscale.SD_4XUpscale_Conditioning"
    return desk.node(where, images=image, positive=positive, negative=negative, scale_ratio=4.0, noise_augmentation=0.1)


def orbit(desk: Desk) -> Wired:
    """SV3D: frames are rows of a batch, each with a camera of its own."""
    image = toys.noise(*desk.named("image"), shape=(1, *desk.small.latent))
    camera = {"elevation": [10.0] * FRAMES, "azimuth": [90.0 * frame for frame in range(FRAMES)]}
    text = toys.noise(*desk.named("image"), "seen", shape=(1, 1, desk.small.text))
    positive = [[text, {**camera, "concat_latent_image": image}]]
    negative = [[torch.zeros_like(text), {**camera, "concat_latent_image": torch.zeros_like(image)}]]
    return positive, negative, {"samples": torch.zeros(FRAMES, *desk.small.latent)}


def prior(desk: Desk) -> Wired:
    """Stable Cascade's second stage, on what the first made."""
    positive, negative, latent = of_instance(desk)
    made = toys.noise(*desk.named("first stage"), shape=(1, 16, 2, 2))
    return with_values(positive, stable_cascade_prior=made), with_values(negative, stable_cascade_prior=made), latent


def sized(desk: Desk) -> Wired:
    """PixArt Alpha is told the size of the image."""
    positive, negative, latent = of_instance(desk)
    size = {"width": desk.pick("size", 256, 1024), "height": 256}
    return with_values(positive, **size), with_values(negative, **size), latent


def decoded(desk: Desk) -> Wired:
    """PiD makes pixels of a latent: the PiDConditioning node."""
    latent = {"samples": toys.noise(*desk.named("latent"), shape=(1, 16, 2, 3))}
    settings = {"latent_format": "flux", "degrade_sigma": 0.1}
    positive, negative = (
        desk.node("nodes_pid.PiDConditioning", positive=prompt, latent=latent, **settings) for prompt in desk.prompts()
    )
    return positive, negative, desk.latent()


def splat(desk: Desk) -> Wired:
    """TripoSplat: points and a camera in one latent, and an image as a VAE has it."""
    image = toys.noise(*desk.named("image"), shape=(1, SPLAT_REFERENCE, 2, 3))
    positive, negative, latent = of_instance(desk)
    negative = with_values(negative, reference_latents=[torch.zeros_like(image)])
    return with_values(positive, reference_latents=[image]), negative, latent


def sparse(desk: Desk) -> Wired:
    """Trellis 2: the shape, as a few tokens on a grid."""
    tokens = desk.small.latent[1]
    cells = torch.randperm(SPARSE**3, generator=toys.generator("cells"))[:tokens]
    coords = torch.stack([torch.zeros_like(cells), cells // SPARSE**2, cells // SPARSE % SPARSE, cells % SPARSE], 1).int()
    shape = {"trellis2_generation_mode": "shape_generation", "trellis2_coords": coords,
             "trellis2_coord_counts": torch.tensor([tokens])}  # fmt: skip
    image = toys.noise(*desk.named("image"), shape=(1, WORDS, desk.small.text))
    positive, negative, latent = of_instance(desk)
    negative = with_values(negative, embeds=torch.zeros_like(image), **shape)
    return with_values(positive, embeds=image, **shape), negative, latent


def told_in_tokens(desk: Desk) -> Wired:
    """HiDream-O1 takes a prompt as tokens. It keeps what it made of the last ones: each run here starts without."""
    desk.model().model.diffusion_model.clear_kv_cache()
    words = {name: torch.randint(1_000, (1, WORDS), generator=toys.generator(*desk.named(name))) for name in ("words", "no words")}
    tokens = [torch.cat([ids, torch.tensor([[TMS_TOKEN]])], 1) for ids in words.values()]
    positive, negative = (
        with_values(prompt, text_input_ids=ids) for prompt, ids in zip(desk.prompts(), tokens, strict=True)
    )
    return positive, negative, desk.latent()


def told_with_image(desk: Desk) -> Wired:
    """The HiDreamO1ReferenceImages node."""
    positive, negative, latent = told_in_tokens(desk)
    images = {"image_1": desk.image("image", 64)}
    where = "nodes_hidream_o1.HiDreamO1ReferenceImages"
    return *desk.node(where, positive=positive, negative=negative, images=images), latent


def restored(desk: Desk) -> Wired:
    """SeedVR2 takes a video that it makes sharp, with a mask of one channel."""
    positive, negative, latent = of_instance(desk)
    video = toys.noise(*desk.named("video"), shape=(1, *desk.small.latent))
    given = torch.cat([video, torch.ones_like(video[:, :1])], dim=1)
    return with_values(positive, condition=given), with_values(negative, condition=given), latent


def composed(desk: Desk) -> Wired:
    """MiniMax Music 3: its language model has sung already, and this makes sound of it."""
    scale = torch.ones(1, 1, 1)
    positive, negative = (with_values(prompt, conditioning_scale=scale) for prompt in desk.prompts())
    return positive, negative, desk.latent()


ONE_STEP = "made for 1 step, where there is nothing to reuse: here with 8"
FOUR_STEPS = "made for 4 steps, where there is little to reuse: here with 8"
RARER_VARIANTS = {
    "sd15_edit": Variant("SD 1.5 InstructPix2Pix", "sd15_edit", joined, ("image",)),
    "sdxl_edit": Variant("SDXL InstructPix2Pix, CosXL Edit", "sdxl_edit", joined, ("image",)),
    "sdxl_refiner": Variant("SDXL refiner", "sdxl_refiner", of_instance),
    "ssd1b": Variant("SSD-1B", "ssd1b", of_instance),
    "vega": Variant("Segmind Vega", "vega", of_instance),
    "koala_700m": Variant("KOALA 700M", "koala_700m", of_instance),
    "koala_1b": Variant("KOALA 1B", "koala_1b", of_instance),
    "sd21_unclip_l": Variant("SD 2.1 unCLIP, L", "sd21_unclip_l", seen_image, ("image",)),
    "sd21_unclip_h": Variant("SD 2.1 unCLIP, H", "sd21_unclip_h", seen_image, ("image",)),
    "zero123": Variant("Stable Zero123", "zero123", joined, ("image",)),
    "sd_upscaler": Variant("Stable Diffusion x4 upscaler", "sd_upscaler", enlarged, ("image",)),
    "lotus": Variant("Lotus D", "lotus", of_instance, note=ONE_STEP),
    "stable_cascade_b": Variant("Stable Cascade, stage B", "stable_cascade_b", prior, ("first stage",)),
    "sv3d_u": Variant("SV3D u", "sv3d_u", orbit, ("image",)),
    "sv3d_p": Variant("SV3D p", "sv3d_p", orbit, ("image",)),
    "pixart_alpha": Variant("PixArt Alpha", "pixart_alpha", sized, ("size",)),
    "hunyuan_dit1": Variant("Hunyuan DiT 1.1", "hunyuan_dit1", of_instance),
    "cogvideox_inpaint": Variant("CogVideoX inpainting", "cogvideox_inpaint", joined, ("image",)),
    "z_image_pixels": Variant("Z-Image in pixels", "z_image_pixels", of_instance),
    "pixeldit": Variant("PixelDiT, in pixels", "pixeldit", of_instance),
    "pid": Variant("PiD, from a latent to pixels", "pid", decoded, ("latent",), note=FOUR_STEPS),
    "hunyuan3d": Variant("Hunyuan3D 2", "hunyuan3d", of_instance),
    "hunyuan3d_mini": Variant("Hunyuan3D 2 mini", "hunyuan3d_mini", of_instance),
    "hunyuan3d_21": Variant("Hunyuan3D 2.1", "hunyuan3d_21", of_instance),
    "triposplat": Variant("TripoSplat, points and camera", "triposplat", splat, ("image",)),
    "trellis": Variant("Trellis 2, the shape", "trellis", sparse, ("image",)),
    "hidream_o1": Variant("HiDream-O1, in pixels", "hidream_o1", told_in_tokens, ("words",)),
    "hidream_o1_edit": Variant("HiDream-O1 with a reference", "hidream_o1", told_with_image, ("image",)),
    "seedvr": Variant("SeedVR2", "seedvr", restored, ("video",), note=ONE_STEP),
    "minimax_music": Variant("MiniMax Music 3", "minimax_music", composed),
}  # fmt: skip
