"""Parts that combinations are made of, where ComfyUI has no node for them or its node needs a model of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from safetensors.torch import save_file

from bwcache_pack.tests.hosts import recipes

from . import toys
from .checkpoints import LAYERS, TALKING, comfyui_class
from .desk import Desk


def repeated(latent: dict, count: int) -> dict:
    """A batch of `count`, with its mask."""
    return {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in latent.items()
            if torch.is_tensor(value)}  # fmt: skip


def filled(desk: Desk, latent: dict) -> dict:
    """`latent` with something in it."""
    samples = latent["samples"]
    return {**latent, "samples": toys.noise(*desk.named("latent"), shape=tuple(samples.shape))}


def half_masked(desk: Desk, latent: dict) -> dict:
    width = 16 * desk.size  # of an image: the node scales it down
    mask = torch.zeros(1, width, width)
    mask[:, :, : width // 2] = 1.0
    return desk.node("nodes.SetLatentNoiseMask", samples=latent, mask=mask)


def with_mask(run: Callable) -> Callable:
    """A workflow whose latents are masked in part, from 0 to 1."""

    def masked(desk: Desk, variant) -> dict:
        def wire(desk: Desk):
            positive, negative, latent = variant.wire(desk)
            samples = latent["samples"]
            ramp = torch.linspace(0.0, 1.0, samples.shape[-1]).expand(1, 1, *samples.shape[2:]).clone()
            return positive, negative, {**filled(desk, latent), "noise_mask": ramp}

        return run(desk, replace(variant, wire=wire))

    return masked


def counted(model, wrapper: Callable):
    """`model` with wrapper(executor, evaluation, ...) around each of its evaluations, counted anew in every run."""
    model, evaluations = model.clone(), []

    def outer_sample(executor, *args, **kwargs):
        evaluations.clear()
        return executor(*args, **kwargs)

    def predict_noise(executor, *args, **kwargs):
        evaluations.append(1)
        return wrapper(executor, len(evaluations) - 1, *args, **kwargs)

    model.add_wrapper_with_key("outer_sample", "counted", outer_sample)
    model.add_wrapper_with_key("predict_noise", "counted", predict_noise)
    return model


def extra_pass(model, scale: float, perturb: Callable):
    """Guidance away from a third prediction: perturb(args, options) gives the input and the options of its pass."""
    import comfy.samplers

    def post_cfg(args: dict):
        options = {**args["model_options"]}
        options["transformer_options"] = {**options.get("transformer_options", {})}
        x, options = perturb(args, options)
        (weak,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], x, args["sigma"], options)
        return args["denoised"] + (args["cond_denoised"] - weak) * scale

    model = model.clone()
    model.set_model_sampler_post_cfg_function(post_cfg)
    return model


def perturbed(desk: Desk, model):
    """Perturbed attention guidance. ComfyUI's node patches a U-Net's middle block; here all self-attention is cut."""

    def own_values(attention, q, k, v, *args, **kwargs):
        return attention(q, k, v, *args, **kwargs) * 0.5

    def perturb(args: dict, options: dict):
        options["transformer_options"]["optimized_attention_override"] = own_values
        return args["input"], options

    return extra_pass(model, desk.pick("scale", 1.0, 2.0), perturb)


def blurred(desk: Desk, model):
    """Self attention guidance, which asks the model about a blurred input. ComfyUI's node needs a U-Net."""

    def perturb(args: dict, options: dict):
        x = args["input"]
        return 0.5 * (x + torch.roll(x, 1, dims=-1)), options

    return extra_pass(model, desk.pick("scale", 1.0, 2.0), perturb)


def block_hook(desk: Desk, model):
    """Another pack's hook on one block, which adds to what the block makes."""
    strength = desk.pick("hook", 1.0, 2.0)

    def hook(args, extra):
        out = extra["original_block"](args)
        return {**out, "img": out["img"] + torch.linspace(-strength, strength, out["img"].shape[-1])}

    model = model.clone()
    model.set_model_patch_replace(hook, "dit", "double_block", 1)
    return model


def attention_override(desk: Desk, model):
    """Another attention for all blocks, as SageAttention's nodes install it."""

    def other(attention, q, k, v, *args, **kwargs):
        return attention(q, k, v, *args, **kwargs) * 0.9

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = other
    return model


def model_function(desk: Desk, model):
    """A wrapper around each model call, which many packs use."""

    def call_model(apply_model, call):
        return apply_model(call["input"], call["timestep"], **call["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(call_model)
    return model


def lora(desk: Desk, model):
    return desk.bench.lora(model, desk.pick("LoRA", 1.0, 0.3))


def uni3c(desk: Desk, model):
    """Uni3C, which adds after every block it has a layer for: here after the last one too."""
    patch = desk.bench.once("uni3c", lambda: load_uni3c(desk))
    where = "nodes_model_patch.WanUni3CControlnetApply"
    return desk.node(where, model=model, model_patch=patch, vae=toys.VAE(), render_video=desk.video("render"),
                     strength=1.0, start_percent=0.0, end_percent=1.0)  # fmt: skip


def load_uni3c(desk: Desk):
    network = comfyui_class("comfy.ldm.wan.uni3c", "WanUni3CControlnet")
    import comfy.ops

    sizes = {"in_channels": 36, "conv_out_dim": 128, "dim": 128, "ffn_dim": 256, "num_layers": LAYERS,
             "time_embed_dim": 128, "out_proj_dim": 128, "mid_channels": 16}  # fmt: skip
    built = network(**sizes, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    tensors = recipes.fill({name: tuple(value.shape) for name, value in built.state_dict().items()})
    return load_file(desk, tensors, "model_patches", "nodes_model_patch.ModelPatchLoader")


def infinite_talk(desk: Desk, model, **inputs) -> tuple:
    """InfiniteTalk, one speaker, from a start image: the model with its patches, both prompts, the latent."""
    patch = desk.bench.once("infinite talk", make_infinite_talk)
    node = "nodes_wan.WanInfiniteTalkToVideo"
    sizes = {"width": desk.width, "height": desk.width, "length": desk.length}
    return desk.node(node, mode={"mode": "single_speaker"}, model=model, model_patch=patch, vae=toys.VAE(), **sizes,
                     start_image=desk.image("start image"), motion_frame_count=5, audio_scale=1.0,
                     audio_encoder_output_1=desk.heard("sound", layers=13, width=768), **inputs)[:4]  # fmt: skip


def make_infinite_talk():
    """Its weights for two blocks; the loader takes 40 for granted."""
    network = comfyui_class("comfy_extras.nodes_model_patch", "MultiTalkModelPatch")
    import comfy.model_patcher
    import comfy.ops

    sizes = {"in_dim": TALKING, "intermediate_dim": 16, "out_dim": 32, "context_tokens": 4, "num_layers": LAYERS}
    built = network(**sizes, dtype=torch.float32, operations=comfy.ops.manual_cast)
    shapes = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    built.load_state_dict(recipes.fill(shapes))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(built, load_device=cpu, offload_device=cpu)


def load_file(desk: Desk, tensors: dict, kind: str, loader: str):
    """A file among ComfyUI's models, through the node that loads it."""
    import folder_paths

    folder = desk.bench.folder / kind
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "tiny.safetensors")
    folder_paths.add_model_folder_path(kind, str(folder))
    return desk.node(loader, name="tiny.safetensors")
