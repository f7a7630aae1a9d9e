"""The model variants: which checkpoint, and how a user conditions it, through ComfyUI's own conditioning nodes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bwcache_pack.tests.hosts import recipes

from . import toys, wires
from .desk import Desk, Variant, Wired
from .rarer_wires import RARER_VARIANTS

WAN_VAE, HUNYUAN15_VAE = toys.VAE(), toys.VAE(channels=32, patch=16)


def sizes(desk: Desk) -> dict[str, int]:
    return {"width": desk.width, "height": desk.width, "length": desk.length, "batch_size": 1}


def wan_node(desk: Desk, name: str, module: str = "nodes_wan", **inputs) -> Wired:
    """One of the nodes that take both prompts and a VAE and give prompts and a latent."""
    positive, negative = desk.prompts()
    named = {**sizes(desk), "positive": positive, "negative": negative, "vae": WAN_VAE, **inputs}
    return desk.node(f"{module}.{name}", **named)[:3]


def text_to_video(desk: Desk) -> Wired:
    return *desk.prompts(), desk.latent()


def image_to_video(desk: Desk) -> Wired:
    image, seen = desk.image("start image"), desk.seen("clip vision")
    return wan_node(desk, "WanImageToVideo", start_image=image, clip_vision_output=seen)


def start_image(desk: Desk) -> Wired:
    """An image in the first frame, without what CLIP sees in it."""
    return wan_node(desk, "WanImageToVideo", start_image=desk.image("start image"))


def first_last_frame(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanFirstLastFrameToVideo",
        start_image=desk.image("first"),
        end_image=desk.image("last"),
        clip_vision_start_image=desk.seen("first seen"),
        clip_vision_end_image=desk.seen("last seen"),
    )


def fun_control(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanFunControlToVideo",
        control_video=desk.video("control"),
        start_image=desk.image("start image"),
        clip_vision_output=desk.seen("clip vision"),
    )


def fun_inpaint(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanFunInpaintToVideo",
        start_image=desk.image("first"),
        end_image=desk.image("last"),
        clip_vision_output=desk.seen("clip vision"),
    )


def fun_control_22(desk: Desk) -> Wired:
    return wan_node(desk, "Wan22FunControlToVideo", control_video=desk.video("control"))


def fun_control_22_reference(desk: Desk) -> Wired:
    return wan_node(
        desk, "Wan22FunControlToVideo", control_video=desk.video("control"), ref_image=desk.image("reference")
    )


def vace(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanVaceToVideo",
        strength=1.0,
        control_video=desk.video("control"),
        reference_image=desk.image("reference"),
    )


def vace_twice(desk: Desk) -> Wired:
    """Two VACE nodes in a row, as users chain them: two controls and two references of different strength."""
    positive, negative, _ = vace(desk)
    return wan_node(
        desk,
        "WanVaceToVideo",
        positive=positive,
        negative=negative,
        strength=0.5,
        control_video=desk.video("second control"),
        reference_image=desk.image("second reference"),
    )


def camera(desk: Desk, **inputs) -> Wired:
    pose = desk.pick("camera", "Zoom In", "Pan Left")
    where = "nodes_camera_trajectory.WanCameraEmbedding"
    path = desk.node(where, camera_pose=pose, width=desk.width, height=desk.width, length=desk.length, speed=4.0)[0]
    return wan_node(
        desk, "WanCameraImageToVideo", camera_conditions=path, start_image=desk.image("start image"), **inputs
    )


def camera_21(desk: Desk) -> Wired:
    return camera(desk, clip_vision_output=desk.seen("clip vision"))


def phantom(desk: Desk) -> Wired:
    return (*wan_node(desk, "WanPhantomSubjectToVideo", images=desk.image("subject", frames=2))[:2], desk.latent())


def latents_22(desk: Desk) -> Wired:
    return *desk.prompts(), desk.latent(channels=48)


def start_image_22(desk: Desk) -> Wired:
    """The first frame is given: it has a timestep of its own, 0."""
    vae, size = toys.VAE(channels=48, patch=16), 16 * desk.size
    latent = desk.node(
        "nodes_wan.Wan22ImageToVideoLatent",
        vae=vae,
        width=size,
        height=size,
        length=desk.length,
        batch_size=1,
        start_image=desk.image("start image", size),
    )
    return *desk.prompts(), latent


def sound(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanSoundImageToVideo",
        ref_image=desk.image("reference"),
        audio_encoder_output=desk.heard("sound", layers=25, width=1024),
        control_video=desk.video("control"),
    )


def sound_extended(desk: Desk) -> Wired:
    """A second clip that goes on where a first one ended."""
    positive, negative = desk.prompts()
    past = {
        "samples": toys.noise("past", shape=(1, 16, desk.frames, 2 * desk.size, 2 * desk.size))
    }  # smaller ones it cannot pack
    where = "nodes_wan.WanSoundImageToVideoExtend"
    return desk.node(
        where,
        positive=positive,
        negative=negative,
        vae=WAN_VAE,
        length=desk.length,
        video_latent=past,
        audio_encoder_output=desk.heard("sound", layers=25, width=1024, seconds=4.0),
        ref_image=desk.image("reference"),
    )


def humo(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanHuMoImageToVideo",
        ref_image=desk.image("reference"),
        audio_encoder_output=desk.heard("sound", layers=33, width=1280),
    )


def animate(desk: Desk) -> Wired:
    return wan_node(
        desk,
        "WanAnimateToVideo",
        reference_image=desk.image("reference"),
        pose_video=desk.video("pose"),
        face_video=desk.image("face"),
        clip_vision_output=desk.seen("clip vision"),
        continue_motion_max_frames=5,
        video_frame_offset=0,
    )


def animate2(desk: Desk, **inputs) -> Wired:
    return wan_node(
        desk,
        "WanAnimate2ToVideo",
        reference_image=desk.image("reference"),
        pose_video=desk.video("pose"),
        clip_vision_output=desk.seen("clip vision"),
        video_frame_offset=0,
        **inputs,
    )


def animate2_ranged(desk: Desk) -> Wired:
    """The pose steers the first part of the run only: other conditions take over in mid-run."""
    return animate2(desk, pose_end_percent=0.5)


SCAIL = {"pose_strength": 1.0, "pose_start": 0.0, "pose_end": 1.0, "video_frame_offset": 0, "previous_frame_count": 5}


def scail(desk: Desk, **inputs) -> Wired:
    return wan_node(
        desk,
        "WanSCAILToVideo",
        "nodes_scail",
        **SCAIL,
        pose_video=desk.video("pose"),
        reference_image=desk.image("reference"),
        clip_vision_output=desk.seen("clip vision"),
        **inputs,
    )


def scail2(desk: Desk) -> Wired:
    return scail(desk, pose_video_mask=desk.video("mask").round(), reference_image_mask=desk.image("who").round())


def dancer(desk: Desk) -> Wired:
    desk.size = max(desk.size, 8)  # it needs eight tokens to a frame
    music = {"audio_feature": toys.noise(*desk.named("music"), shape=(1, 40, 35)), "fps": 30}
    inputs = {
        "start_image": desk.image("start image"),
        "clip_vision_output": desk.seen("clip vision"),
        "clip_vision_output_ref": desk.seen("reference"),
        "audio_encoder_output": music,
    }
    positive, negative = desk.prompts()
    size = {name: value for name, value in sizes(desk).items() if name != "batch_size"}
    where = "nodes_wandancer.WanDancerVideo"
    return desk.node(where, positive=positive, negative=negative, vae=WAN_VAE, **size, **inputs)


def hunyuan_image(kind: str) -> Callable[[Desk], Wired]:
    """HunyuanImageToVideo in one of its guidance types."""

    def wire(desk: Desk) -> Wired:
        where = "nodes_hunyuan.HunyuanImageToVideo"
        positive, latent = desk.node(
            where,
            positive=desk.prompt("positive"),
            vae=WAN_VAE,
            **sizes(desk),
            guidance_type=kind,
            start_image=desk.image("start image"),
        )
        return positive, desk.prompt("negative"), latent

    return wire


def hunyuan_control(desk: Desk) -> Wired:
    pattern = toys.noise(*desk.named("control"), shape=(1, desk.frames * (desk.size // 2) ** 2, recipes.DIM))
    control = constant_control(pattern)
    positive, negative = (
        [(text, {**extra, "control": control}) for text, extra in prompt] for prompt in desk.prompts()
    )
    return positive, negative, desk.latent()


def constant_control(pattern: torch.Tensor):
    """A ControlNet whose output is sigma * pattern, added after every block."""
    from comfy.controlnet import ControlBase

    class Control(ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, *transformer_options):
            add = pattern * float(t.flatten()[0])
            return {"input": [add] * 4, "output": [add] * 4}

        def get_models(self):
            return []

        def copy(self):
            return self

    return Control()


def hunyuan15(desk: Desk) -> Wired:
    return *desk.prompts(), desk.latent(channels=32)


def hunyuan15_image(desk: Desk) -> Wired:
    size = 16 * desk.size
    seen = desk.seen("clip vision", width=recipes.SIGLIP)
    return wan_node(
        desk,
        "HunyuanVideo15ImageToVideo",
        "nodes_hunyuan",
        vae=HUNYUAN15_VAE,
        width=size,
        height=size,
        start_image=desk.image("start image", size),
        clip_vision_output=seen,
    )


def hunyuan15_upscaled(desk: Desk) -> Wired:
    """The super resolution model, on latents that the first model would have made."""
    positive, negative = desk.prompts()
    low = {"samples": toys.noise(*desk.named("low resolution"), shape=(1, 32, desk.frames, desk.size, desk.size))}
    where = "nodes_hunyuan.HunyuanVideo15SuperResolution"
    seen = desk.seen("clip vision", width=recipes.SIGLIP)
    positive, negative, latent = desk.node(
        where,
        positive=positive,
        negative=negative,
        latent=low,
        noise_augmentation=0.7,
        vae=HUNYUAN15_VAE,
        clip_vision_output=seen,
        start_image=desk.image("start image", 16 * desk.size),
    )
    return positive, negative, latent if "samples" in latent else {"samples": latent}


SMALL_EAR = "with a small stand-in for its audio projection, which runs before the blocks"
VARIANTS = {
    "wan21_t2v": Variant("Wan 2.1 text to video", "wan21_t2v", text_to_video),
    "wan21_i2v": Variant("Wan 2.1 image to video", "wan21_i2v", image_to_video, ("start image", "clip vision")),
    "wan21_flf2v": Variant("Wan 2.1 first and last frame", "wan21_flf2v", first_last_frame, ("last", "last seen")),
    "wan21_fun_control": Variant("Wan 2.1 Fun control", "wan21_fun_control", fun_control, ("control", "clip vision")),
    "wan21_fun_inpaint": Variant("Wan 2.1 Fun inpaint", "wan21_i2v", fun_inpaint, ("last",)),
    "wan21_vace": Variant("Wan VACE, one reference", "wan21_vace", vace, ("control", "reference")),
    "wan21_vace_twice": Variant("Wan VACE, two references", "wan21_vace_last", vace_twice,
                                ("control", "second control", "second reference"), live=("second control",)),
    "wan21_camera": Variant("Wan 2.1 Camera", "wan21_camera", camera_21, ("camera",)),
    "wan22_camera": Variant("Wan 2.2 Camera", "wan22_camera", camera, ("camera",)),
    "phantom": Variant("Phantom: subjects joined in time", "wan21_t2v", phantom, ("subject",)),
    "wan22_i2v": Variant("Wan 2.2 14B image to video", "wan22_i2v", start_image, ("start image",)),
    "wan22_fun_control": Variant("Wan 2.2 Fun control", "wan22_fun_control", fun_control_22, ("control",)),
    "wan22_ref_conv": Variant("Wan 2.2 Fun control with ref_conv", "wan22_ref_conv", fun_control_22_reference,
                              ("control", "reference")),
    "wan22_5b": Variant("Wan 2.2 5B text to video", "wan22_5b", latents_22, channels=48),
    "wan22_5b_i2v": Variant("Wan 2.2 5B with a timestep per frame", "wan22_5b", start_image_22, ("start image",),
                            channels=48),
    "wan22_s2v": Variant("Wan S2V", "wan22_s2v", sound, ("sound", "control", "reference"), live=("sound",)),
    "wan22_s2v_extend": Variant("Wan S2V, extending a clip", "wan22_s2v", sound_extended, ("sound",), live=("sound",)),
    "wan21_humo": Variant("Wan HuMo 1.7B", "wan21_humo", humo, ("sound", "reference"), note=SMALL_EAR),
    "wan21_humo_17b": Variant("Wan HuMo 17B", "wan21_humo_17b", humo, ("sound", "reference"),
                              note=SMALL_EAR),
    "wan22_animate": Variant("Wan Animate", "wan22_animate", animate, ("pose", "face", "reference"),
                             note="with a small stand-in for its motion encoder, which runs before the blocks"),
    "wan_animate2": Variant("Wan Animate 2", "wan_animate2", animate2, ("pose", "reference")),
    "wan_animate2_ranged": Variant("Wan Animate 2, pose until half", "wan_animate2", animate2_ranged, ("pose",)),
    "wan21_scail": Variant("Wan SCAIL", "wan21_scail", scail, ("pose", "reference")),
    "wan21_scail2": Variant("Wan SCAIL 2", "wan21_scail2", scail2, ("pose", "mask")),
    "wan22_dancer": Variant("Wan Dancer", "wan22_dancer", dancer, ("music",), live=("music",)),
    "wan21_talking": Variant("Wan 2.1 image to video, five heads", "wan21_talking", image_to_video,
                             ("start image", "clip vision")),
    "wan21_causal": Variant("Wan causal, with an ordinary sampler", "wan21_causal", text_to_video),
    "hunyuan": Variant("HunyuanVideo text to video", "hunyuan", text_to_video),
    "hunyuan_i2v": Variant("HunyuanVideo image to video, v1 (concat)", "hunyuan_i2v", hunyuan_image("v1 (concat)"),
                           ("start image",)),
    "hunyuan_i2v_v2": Variant("HunyuanVideo image to video, v2 (replace)", "hunyuan", hunyuan_image("v2 (replace)"),
                              ("start image",)),
    "hunyuan_i2v_custom": Variant("HunyuanVideo image to video, custom (reference)", "hunyuan",
                                  hunyuan_image("custom"), ("start image",)),
    "hunyuan_skyreels": Variant("SkyReels image to video", "hunyuan_skyreels", start_image, ("start image",)),
    "hunyuan_control": Variant("HunyuanVideo with control", "hunyuan", hunyuan_control, ("control",),
                               live=("control",), note="with a made-up ControlNet: ComfyUI ships none for it"),
    "hunyuan15": Variant("HunyuanVideo 1.5 text to video", "hunyuan15", hunyuan15, channels=32),
    "hunyuan15_i2v": Variant("HunyuanVideo 1.5 image to video", "hunyuan15", hunyuan15_image,
                             ("start image", "clip vision"), channels=32),
    "hunyuan15_sr": Variant("HunyuanVideo 1.5 super resolution", "hunyuan15_sr", hunyuan15_upscaled,
                            ("low resolution",), channels=32),
}  # fmt: skip

SMALL = {
    "flux": "Flux", "flux2": "Flux 2", "chroma": "Chroma", "chroma_radiance": "Chroma Radiance, in pixels",
    "qwen_image": "Qwen Image", "sd3": "SD 3", "sd15": "SD 1.5", "sdxl": "SDXL", "auraflow": "AuraFlow", "ltxv": "LTX Video",
    "ltxav": "LTX-2, sound and picture", "minimax_h3": "MiniMax-H3, sound and picture", "mochi": "Mochi",
    "kandinsky5": "Kandinsky 5", "lens": "Lens", "mage_flow": "MageFlow", "joyimage": "JoyImage",
    "lumina2": "Lumina 2", "cosmos": "Cosmos 1", "cosmos_predict2": "Cosmos Predict 2",
    "hidream": "HiDream", "cogvideox": "CogVideoX", "krea2": "Krea 2", "flow_rvs": "Wan FlowRVS, which predicts the denoised",
    "z_image": "Z-Image", "ernie": "Ernie Image", "ideogram4": "Ideogram 4",
    "longcat_image": "LongCat Image", "flux_schnell": "Flux schnell", "kandinsky5_image": "Kandinsky 5 Image",
    "pixart_sigma": "PixArt Sigma", "hunyuan_dit": "Hunyuan DiT", "stable_cascade": "Stable Cascade", "sd20": "SD 2",
    "stable_audio": "Stable Audio", "stable_audio3": "Stable Audio 3",
}  # fmt: skip
"""Small models of ComfyUI's own classes, from tests/hosts/instances.py and models.py: name and title."""


CONDITIONED = {
    "anima": Variant("Anima", "anima", wires.two_tokenizers, ("words",)),
    "flux_kontext": Variant("Flux Kontext", "flux", wires.referenced, ("image",)),
    "flux_fill": Variant("Flux Fill", "flux_fill", wires.joined, ("image",)),
    "qwen_image_edit": Variant("Qwen Image Edit", "qwen_image", wires.referenced, ("image",)),
    "omnigen2": Variant("OmniGen 2", "omnigen2", wires.referenced, ("image",)),
    "boogu": Variant("Boogu", "boogu", wires.referenced, ("image",)),
    "kandinsky5_i2v": Variant("Kandinsky 5 image to video", "kandinsky5", wires.kandinsky5_image, ("image",)),
    "ltxv_i2v": Variant("LTX Video, image to video", "ltxv", wires.ltxv_image, ("image",)),
    "cosmos_i2v": Variant("Cosmos 1 image to video", "cosmos_i2v",
                          wires.start_frame("nodes_cosmos.CosmosImageToVideoLatent"), ("image",)),
    "cosmos_predict2_i2v": Variant("Cosmos Predict 2 image to video", "cosmos_predict2_i2v",
                                   wires.start_frame("nodes_cosmos.CosmosPredict2ImageToVideoLatent"), ("image",)),
    "cogvideox_i2v": Variant("CogVideoX image to video", "cogvideox_i2v", wires.joined, ("image",)),
    "svd": Variant("Stable Video Diffusion", "svd", wires.stable_video, ("image",)),
    "ace_step": Variant("ACE-Step", "ace_step", wires.sung, ("lyrics",)),
    "ace_step15": Variant("ACE-Step 1.5", "ace_step15", wires.sung_15, ("lyrics",)),
    "minimax_h3_keyframes": Variant("MiniMax-H3 with keyframes", "minimax_h3", wires.minimax_keyframes,
                                    ("first", "last", "sound")),
    "minimax_h3_references": Variant("MiniMax-H3 with references", "minimax_h3", wires.minimax_references,
                                     ("person", "motion", "voice")),
    "minimax_h3_sound": Variant("MiniMax-H3, the sound is given", "minimax_h3", wires.sound_given, ("sound",)),
    "ltxav_sound": Variant("LTX-2, the sound is given", "ltxav", wires.sound_given, ("sound",)),
    "hunyuan_image": Variant("HunyuanImage 2.1", "hunyuan_image", wires.hunyuan_picture),
    "hunyuan_image_refiner": Variant("HunyuanImage 2.1 refiner", "hunyuan_image_refiner", wires.hunyuan_refined,
                                     ("low resolution",)),
}  # fmt: skip

VARIANTS |= {name: Variant(title, name, wires.of_instance) for name, title in SMALL.items()}
VARIANTS |= CONDITIONED | RARER_VARIANTS
