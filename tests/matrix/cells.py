"""The matrix: which variant is tested in which combination, in which modes, and what holds there."""

from __future__ import annotations

from dataclasses import dataclass, field

from .combinations import COMBINATIONS, SAMPLERS, SCHEDULERS
from .rarer_wires import RARER_VARIANTS
from .variants import CONDITIONED, SMALL, VARIANTS

MODES = {
    "forecast": {"mode": "forecast", "speedup": 2.0, "threshold": 0.5},
    "paper": {"mode": "paper", "threshold": 0.2, "reuse_interval": 1},
    "per block": {"mode": "per block", "threshold": 0.2, "reuse_interval": 1},
}
"""What each mode runs with: loose enough that these untrained models reuse, and all bounds are multiples of it."""

FORECAST = ("forecast",)
HOOKED = ("forecast", "per block")  # paper runs the same blocks as per block
ALL = ("forecast", "paper", "per block")


@dataclass(frozen=True)
class Cell:
    """variant, combination: names in their tables. modes: those that it runs in, the first one with all checks.

    uncached: why nothing is reused here; then the output is the plain one. Where that is so in some modes only:
    uncached_modes. thresholds: by mode, where they are not those of MODES.
    error, distance: factors on the bounds of checks.py. why: of those three. judged: what is reused
    is measured against the model.
    """

    variant: str
    combination: str
    modes: tuple[str, ...] = FORECAST
    uncached: str = ""
    uncached_modes: tuple[str, ...] = ALL
    thresholds: dict[str, float] = field(default_factory=dict)
    error: float = 1.0
    distance: float = 1.0
    why: str = ""
    judged: bool = True

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.combination}"

    @property
    def changes(self) -> tuple[str, ...]:
        """The inputs that must change the output of a cached run: the combination's own, else the variant's."""
        own = VARIANTS[self.variant].changes if self.combination == "alone" else self.live
        return tuple(dict.fromkeys((*own, *COMBINATIONS[self.combination].changes))) or ("positive",)

    @property
    def unreused(self) -> tuple[str, ...]:
        """Modes in which nothing is reused."""
        return self.uncached_modes if self.uncached else ()

    @property
    def live(self) -> tuple[str, ...]:
        """Those that must do so in reused steps."""
        return (*VARIANTS[self.variant].live, *COMBINATIONS[self.combination].live)

    def settings(self, mode: str) -> dict:
        """Widgets of BWCache Apply."""
        return {**MODES[mode], "threshold": self.thresholds.get(mode, MODES[mode]["threshold"])}


def over(combination: str, *variants: str, **settings) -> list[Cell]:
    """One combination over several variants."""
    return [Cell(variant, combination, **settings) for variant in variants]


T2V, HUNYUAN = "wan21_t2v", "hunyuan"
BOTH = (T2V, HUNYUAN)
TIGHTER = {"wan21_vace_twice": 0.5}  # what VACE adds is as large as the features: lost or doubled, it would show
IN_ALL_MODES = {T2V, HUNYUAN, "wan21_vace_twice", "wan22_5b_i2v", "hunyuan15_i2v", "minimax_h3", "minimax_h3_keyframes",
                "minimax_h3_references", "minimax_h3_sound"}  # fmt: skip

FRESH_NOISE = "it adds noise in every step, so no step is like the one before"
NOISE_BETWEEN = "it adds noise between some evaluations"
BEYOND = "its guidance leads beyond the prediction"
UNEVEN = "its first steps are narrow and its last ones wide"
UNTRAINED = "its outputs, untrained, jump from step to step"
NOISY = (
    "euler_ancestral", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde", "res_multistep_ancestral_cfg_pp", "er_sde", "seeds_2",
    "seeds_3", "ddpm", "res_multistep_ancestral",
)  # fmt: skip
LOOSE = {"thresholds": {"paper": 1.0}}  # in the paper's mode something is to be reused there, too
SAMPLER_NOTES: dict[str, dict] = {
    **{name: {**LOOSE, "uncached": FRESH_NOISE, "uncached_modes": FORECAST} for name in NOISY},
    **{name: {**LOOSE, "why": NOISE_BETWEEN} for name in ("exp_heun_2_x0_sde", "sa_solver")},
    "dpm_2_ancestral": {**LOOSE, "error": 1.2, "why": NOISE_BETWEEN},
    "dpmpp_2s_ancestral_cfg_pp": {**LOOSE, "distance": 1.5, "why": NOISE_BETWEEN},
    "sa_solver_pece": {**LOOSE, "error": 2.5, "why": f"{NOISE_BETWEEN}, which the first steps tell nothing of"},
    "lcm": {"modes": FORECAST, "uncached": FRESH_NOISE},
    **{name: {**LOOSE, "why": BEYOND} for name in ("dpmpp_2m_cfg_pp", "res_multistep_cfg_pp", "gradient_estimation_cfg_pp")},
}
SCHEDULER_NOTES: dict[str, dict] = {name: {"error": 1.1, "why": UNEVEN} for name in ("karras", "exponential")}
SMALL_NOTES: dict[str, dict] = {
    name: {"thresholds": {"forecast": 10.0}, "why": UNTRAINED}
    for name in ("chroma", "chroma_radiance", "qwen_image", "sd3", "ltxv", "ltxav", "mochi", "lens", "mage_flow", "joyimage",
                 "cosmos", "hidream", "cogvideox", "krea2", "flow_rvs", "kandinsky5_image", "hunyuan_dit", "stable_cascade",
                 "stable_audio", "stable_audio3", "kandinsky5_i2v", "ltxv_i2v", "cosmos_i2v", "cogvideox_i2v", "svd", "ace_step",
                 "qwen_image_edit", "ltxav_sound", "pixart_sigma", "z_image", "sd_upscaler", "lotus", "stable_cascade_b",
                 "sv3d_u", "sv3d_p", "pixart_alpha", "hunyuan_dit1", "cogvideox_inpaint", "triposplat", "seedvr")
}  # fmt: skip


ON_ONE_MODEL = (
    "slg_after", "slg_simple", "slg_simple_after", "pag", "sag", "nag", "rescale_cfg", "cfg_zero_star", "cfg_norm", "tcfg",
    "apg", "mahiro", "windows_static", "windows_uniform", "windows_looped", "windows_batched", "windows_freenoise",
    "two_positives", "two_lengths", "area", "area_in_time", "masked", "scheduled", "cfg_by_step", "cfg_to_1", "cfg_override",
    "dual_cfg", "dual_cfg_nested", "dual_model", "basic_guider", "guider_again", "split_sigmas", "lora", "lora_after",
    "lora_hook", "lora_keyframes", "slices", "two_experts_lora", "denoise", "inpainted", "differential", "applied_twice",
    "branches", "shift", "shift_after", "block_hook_after", "attention", "attention_after", "model_function", "cloned",
    "merged", "merge_before", "fp8", "quantised", "bf16", "previews", "uni3c_after",
)  # fmt: skip
"""What happens above or below the forecast, whichever model it is."""


def variant_cell(name: str) -> Cell:
    small = name in {*SMALL, *CONDITIONED, *RARER_VARIANTS}
    modes = ALL if name in IN_ALL_MODES else FORECAST if small else HOOKED
    return Cell(name, "alone", modes, error=TIGHTER.get(name, 1.0), **SMALL_NOTES.get(name, {}))


def sampler_cell(name: str) -> Cell:
    return Cell(T2V, f"sampler_{name}", **{"modes": ("forecast", "paper"), **SAMPLER_NOTES.get(name, {})})


CELLS = {
    cell.name: cell
    for cells in (
        [variant_cell(name) for name in VARIANTS],
        [sampler_cell(name) for name in SAMPLERS],
        [Cell(T2V, f"scheduler_{name}", **SCHEDULER_NOTES.get(name, {})) for name in SCHEDULERS],
        over("slg", *BOTH, modes=HOOKED),
        over("cfg_1", *BOTH, "wan21_vace_twice", "wan22_s2v", "hunyuan_control", modes=HOOKED),
        over("batch", *BOTH, "wan21_vace", "wan22_5b_i2v", "hunyuan15", modes=HOOKED),
        over("flip", *BOTH, "wan22_5b", "wan21_vace", "wan22_s2v", modes=HOOKED),
        over("two_experts", T2V, "wan22_i2v", modes=HOOKED),
        over("upscaled", *BOTH, "wan21_i2v", "wan21_vace", modes=HOOKED),
        over("block_hook", *BOTH, modes=HOOKED),
        over("uni3c", T2V, "wan22_i2v", modes=HOOKED),
        *(over(name, T2V) for name in ON_ONE_MODEL),
        over("windows_static", HUNYUAN, "wan21_vace", "wan21_i2v"),
        over("nag", "wan21_i2v"),
        over("area", HUNYUAN),
        over("scheduled", HUNYUAN),
        over("two_lengths", HUNYUAN),
        over("pag", "wan22_5b"),
        over("dual_cfg", "phantom"),
        over("slices", HUNYUAN),
        over("shift", HUNYUAN),
        *(over(name, T2V, judged=False) for name in ("compiled", "compiled_after", "compiled_blocks")),
        over("perp_neg", T2V, "sdxl"),
        *(over(name, T2V) for name in ("fresca", "epsilon_scaling", "score_rescaling")),
        over("unet_pag", "sdxl"),
        over("unet_sag", "sd15"),
        over("area", "sdxl"),
        over("scheduled", "sdxl"),
        over("slices", "sdxl", "minimax_h3"),
        over("batch", "flux"),
        over("sampler_res_multistep", "minimax_h3"),
        over("sampler_dpmpp_2m", "sdxl"),
        over("sampler_uni_pc", "cogvideox", **SMALL_NOTES["cogvideox"]),
        *(over(name, "wan21_talking") for name in ("infinite_talk", "infinite_talk_after")),
        over("autoregressive", "wan21_causal", uncached=FRESH_NOISE),
    )
    for cell in cells
}

QUICK = {
    *(f"{name}-alone" for name in (T2V, HUNYUAN, "wan21_vace", "flux", "sdxl", "minimax_h3", "ltxav", "cogvideox", "krea2")),
    *(f"{T2V}-{name}" for name in ("slg", "windows_static", "scheduled", "cfg_to_1", "lora_keyframes", "two_experts",
                                   "inpainted", "dual_cfg", "applied_twice", "perp_neg")),
    *(f"{T2V}-sampler_{name}" for name in ("euler_ancestral", "heun", "res_multistep", "uni_pc")),
}  # fmt: skip
"""Cells that dev.py test --quick runs: one of each kind."""
