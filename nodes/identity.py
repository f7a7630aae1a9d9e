"""What a run samples: by this a measured plan is found again, and kept from runs that it was not made for.

Read from the objects that ComfyUI hands to a sampling, whatever its version. Words where a user should understand them, short
hashes where not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ..bwcache_core.schedule import Schedule

WEIGHTS, NUMBERS = 16, 32  # of a model: so many of its weights are read, so many numbers of each
PATCHED = 8  # patched weights whose numbers are read
DIGITS = 12  # of a hash
PLAIN_GUIDERS = ("CFGGuider", "Guider_Basic", "TinyGuider")  # they differ in their cfg only
HOOKS = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")  # in model_options


@dataclass(frozen=True)
class Setup:
    """model: class of the diffusion model. weights, loras: hashes, loras empty for none. sampler, guidance: in words.
    sigmas, flow: of the schedule."""

    model: str
    weights: str
    loras: str
    sampler: str
    guidance: str
    sigmas: tuple[float, ...]
    flow: bool

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.sigmas, self.flow)

    def differences(self, other: Setup) -> list[str]:
        """In words, what `other` has that is not as here."""
        found = [getattr(other, name) for name in ("model", "sampler", "guidance") if getattr(self, name) != getattr(other, name)]
        found += ["other weights"] if self.weights != other.weights else []
        found += ["other LoRAs" if other.loras else "no LoRA"] if self.loras != other.loras else []
        return found if alike(self, other) else [*found, schedule_in_words(other.schedule)]


def alike(one: Setup, other: Setup) -> bool:
    """Whether the schedules are the same, within what samplers write into them."""
    if one.flow != other.flow or len(one.sigmas) != len(other.sigmas):
        return False
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=2e-3) for a, b in zip(one.sigmas, other.sigmas, strict=True))


def schedule_in_words(schedule: Schedule) -> str:
    if schedule.shift is not None:
        return f"{schedule.steps} steps at shift {schedule.shift:g}"
    return f"{schedule.steps} steps from sigma {schedule.sigmas[0]:.4g} to {schedule.sigmas[-1]:.4g}"


def setup_of(guider, sampler, schedule: Schedule, module: torch.nn.Module) -> Setup:
    """What a run samples. module: its diffusion model. Reads a few weights from their device."""
    patcher = guider.model_patcher
    patches = getattr(patcher, "patches", {})
    weights = hash_of_weights(module, getattr(patcher, "backup", {}))
    guidance = guidance_of(guider)
    return Setup(
        type(module).__name__, weights, hash_of_patches(patches), sampler_of(sampler), guidance, schedule.sigmas, schedule.flow
    )


def hash_of_weights(module: torch.nn.Module, backup: Mapping) -> str:
    """Of some numbers of some weights. backup: weights as they were before ComfyUI wrote a LoRA into them."""
    named = sorted((name, weight) for name, weight in module.named_parameters() if not weight.is_meta)
    parts: list = []
    for name, weight in picked(named, WEIGHTS):
        kept = backup.get(f"diffusion_model.{name}")
        parts += [name, tuple(weight.shape), some(weight if kept is None else kept.weight)]
    return digest(parts)


def hash_of_patches(patches: Mapping) -> str:
    """Of which weights are patched how strongly, and of some numbers of the patches; empty for none."""
    if not patches:
        return ""
    parts: list = []
    for key in sorted(patches, key=str):
        parts += [str(key), *(repr(strength) for entry in patches[key] for strength in entry if isinstance(strength, (int, float)))]
    for key in picked(sorted(patches, key=str), PATCHED):
        parts += [some(tensor) for entry in patches[key] for tensor in tensors_in(entry)]
    return digest(parts)


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Those of a patch: a tuple, or an adapter that holds one."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "weights"):
        yield from tensors_in(value.weights)


def some(tensor: torch.Tensor) -> list[float]:
    """The first numbers of a tensor, on the host."""
    return tensor.detach().flatten()[:NUMBERS].to("cpu", torch.float32).tolist()


def picked(items: list, count: int) -> list:
    """`count` of the items, evenly spread."""
    return items if len(items) <= count else [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def digest(parts: list) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:DIGITS]


def sampler_of(sampler) -> str:
    """A sampler with its options: "euler", "dpmpp_2m (eta 0.5)"."""
    function = getattr(sampler, "sampler_function", sampler)
    name = getattr(function, "__name__", type(function).__name__).removeprefix("sample_")
    options = {key: value for key, value in getattr(sampler, "extra_options", {}).items() if isinstance(value, (str, int, float))}
    told = ", ".join(f"{key} {value}" for key, value in sorted(options.items()))
    return f"{name} ({told})" if told else name


def guidance_of(guider) -> str:
    """How conditions are combined: "cfg 5", with what else acts on it."""
    numbers = sorted((name, value) for name, value in vars(guider).items() if name.startswith("cfg") and is_number(value))
    parts = [f"{name} {value:g}" for name, value in numbers]
    kind = type(guider).__name__
    parts += [kind] if kind not in PLAIN_GUIDERS else []
    parts += [f"guidance {value:g}" for value in sorted(embedded(guider))]
    for hook in HOOKS:
        added = guider.model_options.get(hook, ())
        parts += [getattr(f, "__qualname__", type(f).__name__) for f in (added if isinstance(added, (list, tuple)) else (added,))]
    return ", ".join(parts)


def embedded(guider) -> set[float]:
    """Strengths of guidance that the conditions hand to the model."""
    conds = getattr(guider, "conds", None) or {}
    entries = (entry for its in conds.values() for entry in its or () if isinstance(entry, Mapping))
    return {float(entry["guidance"]) for entry in entries if is_number(entry.get("guidance"))}


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
