"""How a user conditions the small models: through ComfyUI's own nodes, or with what a text encoder would have added."""

from __future__ import annotations

from collections.abc import Callable

import torch

from . import toys
from .desk import Desk, Wired

WORDS = 5  # tokens of lyrics or of a second tokenizer
KINDS = 32  # of tokens
MINIMAX_FRAMES = 5  # of two latent frames


def of_instance(desk: Desk) -> Wired:
    return *desk.prompts(), desk.latent()


def with_values(prompt: list, **values) -> list:
    """The same conditioning with more in it, as nodes for conditioning add it."""
    return [[text, {**extra, **values}] for text, extra in prompt]


def referenced(desk: Desk) -> Wired:
    """An image to edit: the ReferenceLatent node, for Flux Kontext, Qwen-Image Edit, OmniGen 2."""
    latent = desk.latent()
    image = {"samples": toys.noise(*desk.named("image"), shape=tuple(latent["samples"].shape))}
    where = "nodes_edit_model.ReferenceLatent"
    positive, negative = (desk.node(where, conditioning=prompt, latent=image) for prompt in desk.prompts())
    return positive, negative, latent


def joined(desk: Desk) -> Wired:
    """A start image or what is to be filled, joined to the latent by its channels."""
    latent = desk.latent()
    image = toys.noise(*desk.named("image"), shape=tuple(latent["samples"].shape))
    positive, negative = (with_values(prompt, concat_latent_image=image.clone()) for prompt in desk.prompts())
    return positive, negative, latent


def start_frame(where: str) -> Callable[[Desk], Wired]:
    """A node that puts an image into the first frame of a latent and masks it."""

    def wire(desk: Desk) -> Wired:
        height, width = (8 * size for size in desk.small.latent[-2:])
        step = 8 if where.endswith("CosmosImageToVideoLatent") else 4
        length = step * (desk.small.latent[1] - 1) + 1
        image = desk.image("image", width)[:, :height]
        latent = desk.node(where, vae=toys.VAE(), width=width, height=height, length=length, batch_size=1, start_image=image)
        return *desk.prompts(), latent

    return wire


def kandinsky5_image(desk: Desk) -> Wired:
    """The first frame is given: it replaces that of the latent in every call of the model."""
    where, (frames, height, width) = "nodes_kandinsky5.Kandinsky5ImageToVideo", desk.small.latent[1:]
    positive, negative = desk.prompts()
    image = desk.image("image", 8 * width)[:, : 8 * height]
    sizes = {"width": 8 * width, "height": 8 * height, "length": 4 * (frames - 1) + 1, "batch_size": 1}
    return desk.node(where, positive=positive, negative=negative, vae=toys.VAE(), start_image=image, **sizes)[:3]


def ltxv_image(desk: Desk) -> Wired:
    """The first frame is given: it has a timestep of its own."""
    where, (frames, height, width) = "nodes_lt.LTXVImgToVideo", desk.small.latent[1:]
    positive, negative = desk.prompts()
    image = desk.image("image", 32 * width)[:, : 32 * height]
    sizes = {"width": 32 * width, "height": 32 * height, "length": 8 * (frames - 1) + 1, "batch_size": 1}
    vae = toys.VAE(channels=128, patch=32)
    return desk.node(where, positive=positive, negative=negative, image=image, vae=vae, strength=0.8, **sizes)


def two_tokenizers(desk: Desk) -> Wired:
    """Anima: what a language model makes of the prompt, and the prompt in the tokens of T5."""
    words = torch.randint(KINDS, (WORDS,), generator=toys.generator(*desk.named("words")))
    positive, negative = desk.prompts()
    weights = torch.ones(WORDS)
    return (with_values(positive, t5xxl_ids=words, t5xxl_weights=weights),
            with_values(negative, t5xxl_ids=torch.zeros_like(words), t5xxl_weights=weights), desk.latent())  # fmt: skip


def sung(desk: Desk) -> Wired:
    """ACE-Step: tags, and lyrics as tokens."""
    positive, negative = desk.prompts()
    tokens = torch.randint(KINDS, (1, WORDS), generator=toys.generator(*desk.named("lyrics")))
    none = torch.zeros(1, WORDS, dtype=torch.long)
    return with_values(positive, conditioning_lyrics=tokens), with_values(negative, conditioning_lyrics=none), desk.latent()


def sung_15(desk: Desk) -> Wired:
    """ACE-Step 1.5: lyrics come encoded."""
    positive, negative = desk.prompts()
    lyrics = toys.noise(*desk.named("lyrics"), shape=(1, WORDS, desk.small.text))
    return (with_values(positive, conditioning_lyrics=lyrics),
            with_values(negative, conditioning_lyrics=torch.zeros_like(lyrics)), desk.latent())  # fmt: skip


def stable_video(desk: Desk) -> Wired:
    """Frames are rows of a batch; an image is joined to all of them, and CLIP saw it."""
    image = toys.noise(*desk.named("image"), shape=(1, *desk.small.latent))
    motion = {"motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0}
    text = toys.noise(*desk.named("image"), "seen", shape=(1, 1, desk.small.text))
    positive = [[text, {**motion, "concat_latent_image": image}]]
    negative = [[torch.zeros_like(text), {**motion, "concat_latent_image": torch.zeros_like(image)}]]
    return positive, negative, {"samples": torch.zeros(4, *desk.small.latent)}


def minimax_keyframes(desk: Desk) -> Wired:
    """First and last frame, and a sound in mid-clip: the MiniMaxH3AddGuide node, three times."""
    positive, negative, latent = of_instance(desk)
    where, vae = "nodes_minimax_h3.MiniMaxH3AddGuide", toys.VAE(channels=24, patch=16)
    for name, frame in (("first", 0), ("last", MINIMAX_FRAMES - 1)):
        picture = desk.image(name, 16 * desk.small.latent[-1])
        positive = desk.node(where, positive=positive, latent=latent, frame_idx=frame, vae=vae, image=picture)
    sound = toys.noise(*desk.named("sound"), shape=(1, 32, 2, 2))
    known = positive[0][1]["minimax_keyframes"]
    guide = {"resolved_frame_index": 1, "audio_latent": sound}
    return with_values(positive, minimax_keyframes=[*known, guide]), negative, latent


def minimax_references(desk: Desk) -> Wired:
    """An image, a video with its soundtrack and a sound to go by, as MiniMaxH3ReferenceToVideo adds them."""
    positive, negative, latent = of_instance(desk)
    blocks = [
        {"kind": "image", "latent_h": 4, "latent_w": 4, "latent": toys.noise(*desk.named("person"), shape=(1, 24, 1, 4, 4))},
        {"kind": "video_audio", "latent_t": 2, "latent_h": 4, "latent_w": 4, "ref_audio_t": 3,
         "latent": toys.noise(*desk.named("motion"), shape=(1, 24, 2, 4, 4)),
         "audio_latent": toys.noise(*desk.named("motion"), "sound", shape=(1, 32, 2, 3))},
        {"kind": "audio", "ref_audio_t": 2, "audio_latent": toys.noise(*desk.named("voice"), shape=(1, 32, 2, 2))},
    ]  # fmt: skip
    return with_values(positive, minimax_refs=blocks), negative, latent


def sound_given(desk: Desk) -> Wired:
    """The sound is there and stays: the picture is made to it."""
    from comfy.nested_tensor import NestedTensor

    positive, negative, latent = of_instance(desk)
    picture, sound = latent["samples"].unbind()
    samples = NestedTensor([picture, toys.noise(*desk.named("sound"), shape=tuple(sound.shape))])
    mask = NestedTensor([torch.ones_like(picture[:, :1]), torch.zeros_like(sound[:, :1])])
    return positive, negative, {"samples": samples, "noise_mask": mask}


def hunyuan_picture(desk: Desk) -> Wired:
    """HunyuanImage 2.1: a picture, in a latent of 64 channels."""
    return *desk.prompts(), {"samples": torch.zeros(1, 64, desk.size, desk.size)}


def hunyuan_refined(desk: Desk) -> Wired:
    """Its refiner, on what the first model would have made."""
    where = "nodes_hunyuan.HunyuanRefinerLatent"
    positive, negative = desk.prompts()
    low = {"samples": toys.noise(*desk.named("low resolution"), shape=(1, 32, 1, desk.size, desk.size))}
    return desk.node(where, positive=positive, negative=negative, latent=low, noise_augmentation=0.1)
