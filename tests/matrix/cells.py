"""The matrix: which variant is tested in which combination, in which modes, and what holds there."""

from __future__ import annotations

from dataclasses import dataclass

from .combinations import COMBINATIONS, SAMPLERS, SCHEDULERS
from .variants import VARIANTS

MODES = {
    "output": {"mode": "adaptive", "preset": "custom", "tolerance": 0.1, "cache_point": "output"},
    "features": {"mode": "adaptive", "preset": "custom", "tolerance": 0.1, "cache_point": "features"},
    "paper": {"mode": "paper", "threshold": 0.2, "reuse_interval": 1},
    "per block": {"mode": "per block", "threshold": 0.2, "reuse_interval": 1},
}
"""What each mode runs with: loose enough that these untrained models reuse, and all bounds are multiples of it."""

FORECASTS = ("output", "features")
REPLAYS = ("paper", "per block")
HOOKED = (*FORECASTS, "per block")  # features and paper run blocks alike
ALL = (*FORECASTS, *REPLAYS)


@dataclass(frozen=True)
class Cell:
    """variant, combination: names in their tables. modes: those that it runs in, the first one with all checks.

    uncached: why nothing is reused here; then the output is the plain one. looser: factor on tolerance and threshold.
    error, distance: factors on the bounds of checks.py. why: of those three, where they are over 1. judged: forecasts
    are measured against the model. slow: left out by dev.py test --quick.
    """

    variant: str
    combination: str
    modes: tuple[str, ...] = FORECASTS
    uncached: str = ""
    looser: float = 1.0
    error: float = 1.0
    distance: float = 1.0
    why: str = ""
    judged: bool = True
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.combination}"

    @property
    def changes(self) -> tuple[str, ...]:
        """The inputs that must change the output of a cached run: the combination's own, else the variant's."""
        own = VARIANTS[self.variant].changes if self.combination == "alone" else self.live
        return tuple(dict.fromkeys((*own, *COMBINATIONS[self.combination].changes))) or ("positive",)

    @property
    def live(self) -> tuple[str, ...]:
        """Those that must do so in reused steps."""
        return (*VARIANTS[self.variant].live, *COMBINATIONS[self.combination].live)

    def settings(self, mode: str) -> dict:
        """Widgets of BWCache Apply."""
        numbers = ("tolerance", "threshold")
        looser = {name: min(1.0, value * self.looser) for name, value in MODES[mode].items() if name in numbers}
        return {**MODES[mode], **looser}


def over(combination: str, *variants: str, **settings) -> list[Cell]:
    """One combination over several variants."""
    return [Cell(variant, combination, **settings) for variant in variants]


T2V, HUNYUAN = "wan21_t2v", "hunyuan"
BOTH = (T2V, HUNYUAN)
TIGHTER = {"wan21_vace_twice": 0.5}  # what VACE adds is as large as the features: lost or doubled, it would show
IN_ALL_MODES = {T2V, HUNYUAN, "wan21_vace_twice", "wan22_5b_i2v", "hunyuan15_i2v"}

FRESH_NOISE = "it adds noise in every step, so no step is like the one before"
COMES_LATE = "its noise sets in after the first steps, which tell nothing of it"
STEEP = "it extrapolates over several steps, which makes errors larger"
BEYOND = "its guidance extrapolates beyond the prediction"
WIDENED = "a low shift widens the first steps, before which little is measured"
UNEVEN = "its first steps are narrow and its last ones wide"
NOISY = (
    "euler_ancestral", "euler_ancestral_cfg_pp", "exp_heun_2_x0_sde", "dpm_2_ancestral", "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "res_multistep_ancestral_cfg_pp", "er_sde", "seeds_2",
    "seeds_3", "sa_solver", "ddpm", "res_multistep_ancestral",
)  # fmt: skip
SAMPLER_NOTES: dict[str, dict] = {
    **{name: {"looser": 10.0, "why": FRESH_NOISE} for name in NOISY},
    "dpm_2_ancestral": {"looser": 10.0, "error": 1.5, "why": FRESH_NOISE},
    "lcm": {"looser": 10.0, "modes": ("output",), "why": f"{FRESH_NOISE}; in the paper's mode nothing is ever similar"},
    "sa_solver_pece": {"looser": 10.0, "why": COMES_LATE},
    "dpmpp_2m_cfg_pp": {"looser": 10.0, "why": BEYOND},
    "lms": {"distance": 2.0, "why": STEEP},
    "ipndm_v": {"distance": 2.0, "why": STEEP},
}
SCHEDULER_NOTES: dict[str, dict] = {
    "karras": {"error": 1.3, "why": UNEVEN},
    "exponential": {"error": 1.3, "why": UNEVEN},
    "kl_optimal": {"looser": 10.0, "why": UNEVEN},
}


def variant_cell(name: str) -> Cell:
    return Cell(name, "alone", ALL if name in IN_ALL_MODES else HOOKED, error=TIGHTER.get(name, 1.0))


def sampler_cell(name: str) -> Cell:
    return Cell(T2V, f"sampler_{name}", **{"modes": ("output", "paper"), **SAMPLER_NOTES.get(name, {})})


CELLS = {
    cell.name: cell
    for cells in (
        [variant_cell(name) for name in VARIANTS],
        [sampler_cell(name) for name in SAMPLERS],
        [Cell(T2V, f"scheduler_{name}", ("output",), **SCHEDULER_NOTES.get(name, {})) for name in SCHEDULERS],
        over("slg", *BOTH, modes=HOOKED),
        over("slg_after", *BOTH),
        over("slg_simple", *BOTH),
        over("slg_simple_after", *BOTH),
        over("pag", *BOTH, "wan22_5b"),
        over("sag", *BOTH, "wan22_5b"),
        over("nag", *BOTH, "wan21_i2v"),
        *(over(name, T2V) for name in ("rescale_cfg", "cfg_zero_star", "cfg_norm", "tcfg", "apg", "mahiro")),
        over("windows_static", *BOTH, "wan21_vace", "wan21_i2v"),
        over("windows_uniform", *BOTH),
        over("windows_looped", T2V),
        over("windows_batched", *BOTH),
        over("windows_freenoise", T2V),
        over("two_positives", *BOTH, "wan21_vace"),
        over("two_lengths", T2V, HUNYUAN),
        over("area", *BOTH),
        over("area_in_time", T2V),
        over("masked", T2V),
        over("scheduled", *BOTH),
        over("cfg_1", *BOTH, "wan21_vace_twice", "wan22_s2v", "hunyuan_control", modes=HOOKED),
        over("cfg_by_step", *BOTH),
        over("cfg_to_1", *BOTH),
        over("cfg_override", T2V),
        over("batch", *BOTH, "wan21_vace", "wan22_5b_i2v", "hunyuan15", modes=HOOKED),
        over("flip", *BOTH, "wan22_5b", "wan21_vace", "wan22_s2v", modes=HOOKED),
        over("dual_cfg", T2V, "phantom"),
        over("dual_cfg_nested", T2V),
        over("dual_model", T2V),
        over("basic_guider", *BOTH),
        over("guider_again", *BOTH),
        over("split_sigmas", T2V),
        over("lora", *BOTH),
        over("lora_after", *BOTH),
        over("lora_hook", *BOTH),
        over("lora_keyframes", T2V),
        over("slices", *BOTH),
        over("two_experts", T2V, "wan22_i2v", modes=HOOKED),
        over("two_experts_lora", T2V, "wan22_i2v"),
        over("denoise", *BOTH),
        over("upscaled", *BOTH, "wan21_i2v", "wan21_vace", modes=HOOKED),
        over("inpainted", T2V),
        over("differential", T2V),
        over("applied_twice", *BOTH),
        over("branches", *BOTH),
        over("shift", T2V),
        over("shift", HUNYUAN, error=1.4, distance=1.4, why=WIDENED),
        over("shift_after", T2V),
        over("shift_after", HUNYUAN, error=1.4, distance=1.4, why=WIDENED),
        over("block_hook", *BOTH, modes=HOOKED),
        over("block_hook_after", *BOTH),
        over("attention", *BOTH),
        over("attention_after", *BOTH),
        over("model_function", T2V),
        over("cloned", *BOTH),
        over("merged", T2V),
        over("merge_before", T2V),
        over("compiled", T2V, judged=False, slow=True),
        over("compiled_after", T2V, judged=False, slow=True),
        over("compiled_blocks", T2V, judged=False, slow=True),
        over("fp8", *BOTH),
        over("fp8_e5m2", T2V),
        over("quantised", *BOTH),
        over("bf16", *BOTH),
        over("previews", *BOTH),
        over("uni3c", T2V, "wan22_i2v", modes=HOOKED),
        over("uni3c_after", T2V),
        over("autoregressive", "wan21_causal", uncached="it skips block hooks and the model's wrappers"),
    )
    for cell in cells
}
