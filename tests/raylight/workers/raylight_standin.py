"""A worker as Raylight's, on the CPU: TinyWan under the embedded host, its blocks on a slice of the tokens each.

Raylight itself needs CUDA. RayWorker here has the methods of Raylight's that BWCache calls, and the sampling one, with
their names and parameters: src/raylight/distributed_worker/ray_worker.py of Raylight 1.5.1, commit c0495710 of
github.com/komikndr/raylight, read on 2026-11-21. The model splits its tokens where Raylight's forward of Wan does: after
the embeddings, and gathers them before the head. Attention gathers the tokens, works on all and keeps its own rows,
which is what Ulysses and ring attention add up to. A process of Ray imports this file by its name.
"""

from __future__ import annotations

import torch
import torch.distributed
from pack import load_pack

load_pack()
from bwcache_pack.hosts import embedded as host  # noqa: E402
from bwcache_pack.tests.hosts import recipes  # noqa: E402 - the pack has no name before it is loaded
from bwcache_pack.zoo.sampling import schedule  # noqa: E402
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig  # noqa: E402

FRAMES, SIZE = 5, 6  # of the latents: 45 tokens, so two workers hold 23 and 22


def gathered(share: torch.Tensor, length: int) -> torch.Tensor:
    """The `length` tokens (dim 1) of all ranks. Gloo gathers equal shapes, so shares are padded and cut again."""
    ranks = torch.distributed.get_world_size()
    padded = torch.nn.functional.pad(share.movedim(1, -1), (0, -(-length // ranks) - share.shape[1])).contiguous()
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    torch.distributed.all_gather(parts, padded)
    sizes = [len(part) for part in torch.arange(length).tensor_split(ranks)]
    return torch.cat([part.movedim(-1, 1)[:, :size] for part, size in zip(parts, sizes, strict=True)], dim=1)


def own(whole: torch.Tensor) -> torch.Tensor:
    return whole.tensor_split(torch.distributed.get_world_size(), dim=1)[torch.distributed.get_rank()]


def share(attention: torch.nn.Module) -> None:
    """Another forward on the instance, as Raylight puts it there."""
    attend = attention.forward

    def forward(hidden_states, source, pe=None):
        if pe is None:  # to the words, which every worker has
            return attend(hidden_states, source)
        whole = gathered(hidden_states, pe.shape[1])
        return own(attend(whole, whole, pe))

    attention.forward = forward


class WanModel(TinyWan):
    """A class whose blocks Raylight splits and hooks."""

    def __init__(self, config: TinyWanConfig) -> None:
        super().__init__(config)
        for block in self.blocks:
            share(block.self_attn)

    def run_blocks(self, stream: dict, post_args: dict, options: dict) -> torch.Tensor:
        whole = stream["img"].shape[1]
        return gathered(super().run_blocks({**stream, "img": own(stream["img"])}, post_args, options), whole)


class LTXVModel(WanModel):
    """A class whose split forward asks for no block hooks."""

    @property
    def transformer_blocks(self) -> torch.nn.ModuleList:
        return self.blocks

    def run_blocks(self, stream: dict, post_args: dict, options: dict) -> torch.Tensor:
        return super().run_blocks(stream, post_args, {**options, "patches_replace": {}})


def made(model_class: type[torch.nn.Module]) -> host.TinyPatcher:
    """The model of tests/hosts/recipes.py, with the same random weights in every process."""
    weights = recipes.fill(recipes.RECIPES["wan21_t2v"].shapes())
    model = model_class(TinyWanConfig.from_state_dict(weights))
    model.load_state_dict(weights)
    return host.TinyPatcher(model.eval().requires_grad_(False))


def sample(patcher: host.TinyPatcher, seed: int, steps: int, cfg: float, positive, negative) -> torch.Tensor:
    noise = torch.randn(1, 16, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    guider = host.TinyGuider(patcher)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, torch.zeros_like(noise), host.SAMPLERS["euler"], schedule(steps))


class RayWorker:
    """self.model is a patcher; functions that are sent put another in its place."""

    def __init__(self, local_rank, device_id, parallel_dict):
        torch.set_num_threads(1)
        self.model = None
        self.local_rank = local_rank
        self.parallel_dict = parallel_dict
        torch.distributed.init_process_group(
            "gloo",
            rank=local_rank,
            world_size=parallel_dict["global_world_size"],
            init_method=parallel_dict["init_method"],
        )

    def model_function_runner(self, fn, *args, **kwargs):
        self.model = fn(self.model, *args, **kwargs)

    def model_function_runner_get_values(self, fn, *args, **kwargs):
        return fn(self.model, *args, **kwargs)

    def get_parallel_dict(self):
        return self.parallel_dict

    def set_parallel_dict(self, parallel_dict):
        self.parallel_dict = parallel_dict

    def get_exec_group_info(self):
        return {"global_rank": self.local_rank, "dp_rank": 0, "dp_degree": 1, "is_group_leader": self.local_rank == 0}

    def load_unet(self, unet_path, model_options):
        self.model = made({"wan": WanModel, "ltxv": LTXVModel}[unet_path])

    def common_ksampler(
        self,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent,
        denoise=1.0,
        disable_noise=False,
        start_step=None,
        last_step=None,
        force_full_denoise=False,
        grouped_output=False,
    ):
        return ({"samples": sample(self.model, seed, steps, cfg, positive, negative)},)
