"""The trained models in ComfyUI: twice as fast is far closer to the uncached clip than fewer steps, and as fast as asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.report import RunStats
from bwcache_pack.nodes.attach import attach
from bwcache_pack.nodes.quality import measure
from bwcache_pack.zoo.models import open_model

pytestmark = pytest.mark.comfyui

STEPS = 30


class ZooRun:
    """A zoo model loaded by ComfyUI, and one prompt of it."""

    def __init__(self, comfyui, folder, name: str) -> None:
        self.comfyui, self.model = comfyui, open_model(name)
        file = f"quality_{name}.safetensors"
        (folder / file).write_bytes(self.model.checkpoint.read_bytes())
        self.patcher = comfyui.nodes.UNETLoader().load_unet(file, "default")[0]

    def clip(self, patcher, steps: int, sampler: str) -> torch.Tensor:
        conditioning = self.model.conditioning(self.model.prompts(1)[0])
        cfg = self.model.scale if self.model.guidance == "cfg" else 1.0
        guider = self.comfyui.guider(patcher, *conditioning, cfg)
        latents = self.comfyui.run(guider, self.model.noise([0]), self.comfyui.sigmas(patcher, steps, sampler), sampler)
        return self.model.pixels(patcher.model.process_latent_in(latents))[0]

    def compare(self, sampler: str) -> SimpleNamespace:
        """PSNR in dB at 2x and with half of the steps, and the report."""
        stats = RunStats()
        plain = self.clip(self.patcher, STEPS, sampler)
        cached = self.clip(attach(self.patcher, ForecastConfig(speedup=2.0), stats), STEPS, sampler)
        fewer = self.clip(self.patcher, STEPS // 2, sampler)
        psnr = [measure(clip, plain, 1.0).psnr for clip in (cached, fewer)]
        return SimpleNamespace(forecast=psnr[0], fewer=psnr[1], report=stats.runs[-1])


@pytest.mark.parametrize(("name", "sampler"), [("tinywan", "uni_pc"), ("market", "res_multistep")])
def test_twice_as_fast_is_worth_10_db_over_fewer_steps(comfyui, checkpoints, name, sampler):
    found = ZooRun(comfyui, checkpoints, name).compare(sampler)
    assert found.forecast >= found.fewer + 10.0
    computed = found.report.evaluations - found.report.evaluations_reused
    assert STEPS // 2 <= computed <= STEPS // 2 + 1  # one more where first forecasts err by more than the threshold
