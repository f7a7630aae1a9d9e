"""What can only be seen on a GPU: python devtools/pack.py benchmarks.gpu [--parts abc] [--out FOLDER]

Each part is on its own, writes its own file, and is left out when that file is there: interrupted, the next call goes on.
A part that fails has no file; the others run, and the exit status is 1. All of them take under 8 minutes. With --device cpu
all runs on tiny shapes: what a GPU alone can say is null then. COMFYUI_PATH adds a real ComfyUI where a part can use one:
start it with that one's Python then.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from ..bwcache_core.config import BlockConfig, ForecastConfig
from ..bwcache_core.report import RunReport, RunStats
from ..bwcache_core.run import described
from ..hosts.embedded import SAMPLERS, TinyGuider, TinyPatcher
from ..hosts.runs import Job, noise_of
from ..nodes.attach import attach
from ..nodes.quality import measure
from ..zoo.checkpoints import load_checkpoint
from ..zoo.models import open_model
from ..zoo.sampling import schedule
from ..zoo.wan import TinyWan, TinyWanConfig
from .counts import HostReads
from .shapes import SHAPES, Shape, untrained

ROOT = Path(__file__).resolve().parents[1]
LOOSE, LOOSE_BLOCKS = 10.0, 1.0  # thresholds: outputs of untrained models jump
BLOCKS = 2  # of a large model's 40 to 60: times are by block
STEPS = 12
MARGIN = 2**30  # bytes that an allocator may waste
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
DYNAMIC = "dynamic VRAM"
OFFLOADING = ("lowvram", "novram", DYNAMIC)
SYNC = "called a synchronizing"  # how PyTorch's warning of a wait begins; that of the mode itself differs


@dataclass(frozen=True)
class Bench:
    """Where it runs, and how large: everything tiny on a CPU."""

    device: str

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def shape(self, name: str) -> Shape:
        return SHAPES[name] if self.on_gpu else SHAPES[name].tiny()

    def settle(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    @property
    def peak(self) -> int | None:
        """Most bytes of the device that were held since `fresh`."""
        return torch.cuda.max_memory_allocated() if self.on_gpu else None

    def fresh(self) -> int:
        """Forget the peak. Returns what is held now."""
        self.settle()
        if not self.on_gpu:
            return 0
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()


@dataclass
class Sampled:
    """One run. seconds: of each evaluation. report: None for a plain one."""

    latents: torch.Tensor
    seconds: list[float] = field(default_factory=list)
    report: RunReport | None = None


def sample(
    bench: Bench, model: torch.nn.Module, noise: torch.Tensor, contexts: tuple, config=None, steps: int = STEPS,
    watch: Callable | None = None,
) -> Sampled:
    """A run on the embedded host, plain or cached, euler at shift 5, guided where there are two contexts.

    watch: lies around each evaluation instead of a clock.
    """
    stats, patcher, clock = RunStats(), TinyPatcher(model), Clock(bench)
    cached = attach(patcher, config, stats) if config else patcher.clone()
    cached.wrappers["predict_noise"] = {"watch": [watch or clock.evaluation], **cached.wrappers.get("predict_noise", {})}
    guider = TinyGuider(cached, batched=False)
    guider.set_conds(contexts[0], contexts[-1])
    guider.set_cfg(3.0 if len(contexts) > 1 else 1.0)
    latents = guider.sample(noise, torch.zeros_like(noise), SAMPLERS["euler"], schedule(steps, 5.0))
    return Sampled(latents, clock.seconds(), stats.runs[-1] if stats.runs else None)


class Clock:
    """Seconds of each evaluation: events of the device, so that nobody waits, or the processor's clock."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.marks: list[tuple] = []

    def evaluation(self, executor, *args, **kwargs):
        before = self._mark()
        result = executor(*args, **kwargs)
        self.marks.append((before, self._mark()))
        return result

    def _mark(self):
        if not self.bench.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> list[float]:
        self.bench.settle()
        if self.bench.on_gpu:
            return [before.elapsed_time(after) / 1e3 for before, after in self.marks]
        return [after - before for before, after in self.marks]


def parts_of(bench: Bench, shape: Shape) -> tuple[torch.Tensor, tuple]:
    """Noise and prompts for a shape."""
    generator = torch.Generator(bench.device).manual_seed(1)
    noise = torch.randn(1, *shape.latent, generator=generator, device=bench.device)
    contexts = tuple(torch.randn(1, 1, shape.dim, generator=generator, device=bench.device) for _ in range(shape.conditions))
    return noise, contexts


def middle(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")


# --- a: who waits for the device ---


class Waits:
    """Counts how often the host waited for the device, in all and inside of each evaluation; on a CPU, what would wait."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.each: list[int] = []
        self._reads, self._caught = HostReads(), []

    @property
    def count(self) -> int:
        if not self.bench.on_gpu:
            return self._reads.count
        return sum(SYNC in str(warning.message) for warning in self._caught)

    @contextmanager
    def counting(self):
        if not self.bench.on_gpu:
            with self._reads:
                yield self
            return
        with warnings.catch_warnings(record=True) as self._caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield self
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def watch(self, executor, *args, **kwargs):
        """Wrapper of an evaluation."""
        before = self.count
        result = executor(*args, **kwargs)
        self.each.append(self.count - before)
        return result


def host_reads(bench: Bench) -> dict:
    """a. One host read an evaluation, and no other wait inside of it. The rest of a run's waits are at its ends."""
    shape = bench.shape("wan").tiny()
    model = untrained(shape, BLOCKS, torch.float32, bench.device)
    noise, contexts = parts_of(bench, shape)
    found = {}
    for name, config in {"plain": None, "forecast": ForecastConfig(threshold=LOOSE)}.items():
        sample(bench, model, noise, contexts, config)  # warms up
        waits = Waits(bench)
        with waits.counting():
            run = sample(bench, model, noise, contexts, config, watch=waits.watch)
        found[name] = {"each_evaluation": waits.each, "outside": waits.count - sum(waits.each)}
    return {**found, "reused": run.report.evaluations_reused, "evaluations": run.report.evaluations}


# --- b: step times ---


def step_times(bench: Bench) -> dict:
    """b. A plain, a computed and a reused step of large models' blocks, and whole runs: achieved over ideal."""
    return {name: times_of(bench, bench.shape(name)) for name in SHAPES}


def times_of(bench: Bench, shape: Shape) -> dict:
    model = untrained(shape, BLOCKS, torch.bfloat16, bench.device)
    noise, contexts = parts_of(bench, shape)
    sample(bench, model, noise, contexts, steps=2)  # warms up
    plain = sample(bench, model, noise, contexts)
    cached = sample(bench, model, noise, contexts, ForecastConfig(threshold=LOOSE))
    of = {action: [s for s, step in zip(cached.seconds, cached.report.steps, strict=True) if step.action == action]
          for action in ("compute", "reuse")}  # fmt: skip
    ideal = STEPS / len(of["compute"])
    achieved = sum(plain.seconds) / sum(cached.seconds)
    return {
        "shape": shape.name, "tokens": shape.tokens, "blocks": BLOCKS, "conditions": shape.conditions,
        "plain_ms": 1e3 * middle(plain.seconds), "computed_ms": 1e3 * middle(of["compute"]), "reused_ms": 1e3 * middle(of["reuse"]),
        "ideal": ideal, "achieved": achieved, "achieved_over_ideal": achieved / ideal,
    }  # fmt: skip


# --- c: switched off, bit for bit ---


def off_is_plain(bench: Bench) -> dict:
    """c. With speedup 1 the latents are those of the plain model, bit for bit, whatever the weights are and wherever.
    Of what could not be tried here: why."""
    ways = {name: partial(equal_when_off, bench, dtype) for name, dtype in DTYPES.items()}
    ways["fp8 weights"] = partial(equal_when_off, bench, torch.bfloat16, weights=torch.float8_e4m3fn)
    ways["weights on the host"] = partial(equal_when_off, bench, torch.bfloat16, offloaded=True)
    for name, options in compilers(bench).items():
        ways[f"compiled, {name}"] = partial(equal_when_off, bench, torch.float32, compiled=options)
    equal: dict[str, bool | str | None] = {name: tried(way) for name, way in ways.items()}
    root = os.environ.get("COMFYUI_PATH", "")
    for name in OFFLOADING:
        asked = root and (bench.on_gpu or name != DYNAMIC)
        equal[f"ComfyUI, {name}"] = tried(partial(in_a_process_of_its_own, bench, name)) if asked else None
    ignored = "" if bench.on_gpu else "on a CPU nothing is offloaded, and fp8 or offloaded weights are only cast"
    return {"equal": equal, "comfyui": root and Path(root).name, "note": ignored}


def tried(way: Callable[[], bool]) -> bool | str:
    """What `way` says, or its error: a compiler or a card that cannot do one of them keeps no other from being tried."""
    try:
        return way()
    except Exception as error:
        return described(error)


def compilers(bench: Bench) -> dict[str, dict]:
    """Options of torch.compile; on a CPU those that need no compiler of C++."""
    if bench.on_gpu:
        return {"inductor": {}, "reduce-overhead": {"mode": "reduce-overhead"}}
    return {"aot_eager": {"backend": "aot_eager"}}


def equal_when_off(bench: Bench, dtype: torch.dtype, weights=None, offloaded: bool = False, compiled: dict | None = None) -> bool:
    shape = bench.shape("wan").tiny()
    model = untrained(shape, BLOCKS, dtype, "cpu" if offloaded else bench.device, weights)
    if compiled is not None:
        model = torch.compile(model, **compiled)
    noise, contexts = parts_of(bench, shape)
    plain, off = (sample(bench, model, noise, contexts, config).latents for config in (None, ForecastConfig(speedup=1.0)))
    again = sample(bench, model, noise, contexts).latents
    if not torch.equal(again, plain):
        raise RuntimeError("the plain model itself gives other bits the second time: this part says nothing here")
    return torch.equal(off, plain)


def in_a_process_of_its_own(bench: Bench, offloading: str) -> bool:
    """The same in ComfyUI, which reads how to hold weights when it starts."""
    command = [sys.executable, ROOT / "devtools" / "pack.py", "benchmarks.gpu", "--device", bench.device, "--comfyui", offloading]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"ComfyUI with {offloading} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def comfyui_off(offloading: str) -> bool:
    """In that process."""
    from ..hosts.runs import enter_comfyui, open_host, run

    enter_comfyui(Path(os.environ["COMFYUI_PATH"]))
    from comfy.cli_args import args

    if offloading == DYNAMIC:
        stream_weights()
    else:
        setattr(args, offloading, True)
    host = open_host("tinywan")
    job = Job(("red circle moving left",), (0,), steps=STEPS)
    return torch.equal(run(host, job).clips, run(host, job, ForecastConfig(speedup=1.0)).clips)


def stream_weights() -> None:
    """Dynamic VRAM, which ComfyUI's main.py turns on before it loads anything."""
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher
    import comfy_aimdo.control

    comfy_aimdo.control.init()
    devices = [(device.index, 0) for device in comfy.model_management.get_all_torch_devices()]
    if not comfy_aimdo.control.init_devices(devices):
        raise RuntimeError("comfy-aimdo does not work here: dynamic VRAM cannot be tried")
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True


# --- d: memory ---


def memory(bench: Bench) -> dict:
    """d. The device's peak over that of the plain run, against what the report says is held."""
    shape = bench.shape("wan")
    model = untrained(shape, 1, torch.bfloat16, bench.device)
    noise, contexts = parts_of(bench, shape)
    sample(bench, model, noise, contexts, steps=2)  # libraries take their workspaces, and keep them
    found = {}
    for name, config in {"plain": None, "forecast": ForecastConfig(threshold=LOOSE)}.items():
        before = bench.fresh()
        run = sample(bench, model, noise, contexts, config, steps=6)
        peak = bench.peak
        found[name] = {"peak": None if peak is None else peak - before, "said": run.report.cache_bytes if run.report else 0}
        del run
    left = bench.fresh() - before
    return {"shape": shape.name, **found, "left_over": left if bench.on_gpu else None, **blocks_memory(bench)}


def blocks_memory(bench: Bench) -> dict:
    """The same of the block modes."""
    found, model, noise, contexts = {}, *wan_model(bench)
    before = bench.fresh()
    sample(bench, model, noise, contexts, steps=6)
    plain = bench.peak
    for mode in ("paper", "per block"):
        bench.fresh()
        run = sample(bench, model, noise, contexts, BlockConfig(mode=mode, threshold=LOOSE_BLOCKS), steps=6)
        more = None if plain is None else bench.peak - plain
        found[mode] = {"more_than_plain": more, "said": run.report.cache_bytes, "reserved": run.report.reserved_bytes}
    return {"blocks": found, "model_bytes": before if bench.on_gpu else None}


def wan_model(bench: Bench) -> tuple[torch.nn.Module, torch.Tensor, tuple]:
    """A Wan model in float32 with the width of 1.3B at 480p, noise and prompts; tiny on a CPU."""
    if not bench.on_gpu:
        return wan_of(bench, {"num_layers": 3}, (16, 2, 4, 6))
    return wan_of(bench, {"dim": 1536, "num_heads": 12, "num_layers": 6, "ffn_dim": 8960}, (16, 21, 60, 104))


def wan_of(bench: Bench, sizes: dict, latent: tuple[int, ...]) -> tuple[torch.nn.Module, torch.Tensor, tuple]:
    config = TinyWanConfig(**sizes)
    torch.manual_seed(0)
    model = TinyWan(config).to(bench.device).requires_grad_(False).eval()
    generator = torch.Generator(bench.device).manual_seed(1)
    noise = torch.randn(1, *latent, generator=generator, device=bench.device)
    contexts = tuple(torch.randn(1, 8, config.text_dim, generator=generator, device=bench.device) for _ in range(2))
    return model, noise, contexts


# --- e: buffers in host memory ---


def host_buffers(bench: Bench) -> dict:
    """e. Features kept in host memory give the same bits as on the device, pinned where there is memory for it."""
    model, noise, contexts = wan_model(bench)
    settings = {"mode": "paper", "threshold": LOOSE_BLOCKS, "reuse_interval": 2}
    found, latents, needed = {}, {}, 0
    for device in ("gpu", "cpu"):
        before = bench.fresh()
        run = sample(bench, model, noise, contexts, BlockConfig(**settings, cache_device=device))
        latents[device], needed = run.latents, max(needed, (bench.peak or 0) - before)
        reused = [s for s, step in zip(run.seconds, run.report.steps, strict=True) if step.action == "reuse"]
        found[device] = {"reused_ms": 1e3 * middle(reused), "held": run.report.cache_bytes, "reused": len(reused)}
    with pressed(bench, needed + MARGIN):
        squeezed = sample(bench, model, noise, contexts, BlockConfig(**settings))
    return {**found, "equal": torch.equal(latents["gpu"], latents["cpu"]),
            "under_pressure": {"finite": bool(torch.isfinite(squeezed.latents).all()), "placement": squeezed.report.placement,
                               "lies": squeezed.report.cache_device}}  # fmt: skip


@contextmanager
def pressed(bench: Bench, needed: int):
    """With all of the device taken but for `needed` bytes."""
    if not bench.on_gpu:
        yield
        return
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(max(free - needed, 0), dtype=torch.uint8, device=bench.device)
    try:
        yield
    finally:
        del ballast
        torch.cuda.empty_cache()


# --- f: a trained model ---


def zoo_model(bench: Bench) -> dict:
    """f. A trained model decides on this device as on the CPU, and its clip is as close to the uncached one."""
    found = {device: decided(Bench(device)) for device in dict.fromkeys(("cpu", bench.device))}
    here, there = found[bench.device], found["cpu"]
    return {"psnr": {device: each["psnr"] for device, each in found.items()}, "plan": here["plan"],
            "same_decisions": here["actions"] == there["actions"] and here["plan"] == there["plan"]}  # fmt: skip


def decided(bench: Bench) -> dict:
    zoo = open_model("postcards")
    model = load_checkpoint(zoo.checkpoint, zoo.family, bench.device)
    prompts, seeds = tuple(zoo.prompts(2)), (0, 1)
    noise = noise_of(zoo, Job(prompts, seeds)).to(bench.device)
    contexts = (torch.cat([zoo.language.encode(prompt) for prompt in prompts]), zoo.language.encode(""))
    contexts = tuple(context.to(bench.device) for context in contexts)
    runs = [sample(bench, model, noise, contexts, config, steps=20) for config in (None, ForecastConfig())]
    clips = [zoo.pixels(run.latents.cpu()).flatten(0, 1) for run in runs]
    report = runs[1].report
    return {"psnr": measure(clips[1], clips[0], 1.0).psnr, "plan": report.plan, "actions": [step.action for step in report.steps]}


# --- all of it ---

PARTS: dict[str, Callable[[Bench], dict]] = {
    "a": host_reads, "b": step_times, "c": off_is_plain, "d": memory, "e": host_buffers, "f": zoo_model,
}  # fmt: skip


def main() -> int:
    """Exit status: 1 if a part failed."""
    args = parse_arguments()
    if args.comfyui:
        sys.stdout.write(json.dumps(comfyui_off(args.comfyui)) + "\n")
        return 0
    bench, folder = Bench(args.device), args.out
    folder.mkdir(parents=True, exist_ok=True)
    failed = [name for name in args.parts if not done(bench, name, folder / f"{name}.json")]
    (folder / "README.md").write_text(page(bench, folder), encoding="utf-8")
    return int(bool(failed))


def done(bench: Bench, name: str, file: Path) -> bool:
    """Run a part whose file is not there yet, and show what it found. Whether it went well."""
    if not file.exists():
        began = time.monotonic()
        try:
            found = PARTS[name](bench)
        except Exception:
            sys.stdout.write(f"{name} failed: {traceback.format_exc()}\n")
            return False
        found["seconds"] = round(time.monotonic() - began, 1)
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    sys.stdout.write(f"{name}: {file.read_text(encoding='utf-8')}\n")
    return True


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", default="".join(PARTS), help="letters of the parts to run: " + "".join(PARTS))
    parser.add_argument("--out", type=Path, help="folder of the results; the same one again goes on there")
    parser.add_argument("--comfyui", choices=OFFLOADING, help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts {args.parts}: there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    args.out = args.out or ROOT / "out" / f"gpu-{datetime.date.today()}-{args.device.replace(':', '')}"
    return args


def page(bench: Bench, folder: Path) -> str:
    """README.md of the results: what ran where, and every part as it was found."""
    where = torch.cuda.get_device_name() if bench.on_gpu else f"the CPU ({platform.machine()}), tiny shapes: no number of a GPU"
    lines = [f"# On {where}, {datetime.date.today()}", "", f"torch {torch.__version__}, Python {platform.python_version()}.", ""]
    for name, part in PARTS.items():
        file = folder / f"{name}.json"
        told = file.read_text(encoding="utf-8") if file.exists() else "not run"
        lines += [part.__doc__.splitlines()[0], "", "```json", told, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
