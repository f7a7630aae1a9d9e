"""PSNR, SSIM and heat maps: against hand arithmetic and torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from bwcache_pack.nodes.quality import decibels, heat_colours, heat_map, latent_psnr, measure, ssim, window


def clip(seed: int, frames: int = 3, channels: int = 3, height: int = 20, width: int = 28) -> torch.Tensor:
    return torch.rand(frames, channels, height, width, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_constant_difference_by_hand():
    reference = torch.full((2, 3, 12, 12), 0.5)
    other = reference.clone()
    other[1] += 0.1  # mean square 0.01 in the second frame, 0.005 over both
    quality = measure(other, reference, 1.0)
    assert quality.psnr == pytest.approx(10 * math.log10(1 / 0.005), abs=1e-4)
    assert (quality.worst_frame, quality.worst_psnr) == (1, pytest.approx(20.0, abs=1e-4))
    assert quality.largest == pytest.approx(0.1)


def test_equal_clips_have_finite_figures():
    quality = measure(clip(0), clip(0), 1.0)
    assert (quality.psnr, quality.worst_psnr, quality.largest) == (100.0, 100.0, 0.0)
    assert quality.ssim == pytest.approx(1.0, abs=1e-6)


def test_the_peak_scales_psnr():
    assert decibels(1.0, 10.0) == pytest.approx(20.0)
    assert decibels(0.0, 10.0) == 100.0


@pytest.mark.parametrize("peak", [1.0, 6.0])
@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_figures_agree_with_torchmetrics(peak, noise):
    reference = clip(1) * peak
    other = reference + noise * peak * (clip(2) - 0.5)
    quality = measure(other, reference, peak)
    expected_psnr = float(peak_signal_noise_ratio(other, reference, data_range=peak))
    assert quality.psnr == pytest.approx(expected_psnr, abs=1e-3)
    frames = [structural_similarity_index_measure(a[None], b[None], data_range=peak) for a, b in zip(other, reference, strict=True)]
    assert quality.ssim == pytest.approx(float(sum(frames) / len(frames)), abs=1e-4)


def test_ssim_of_an_image_smaller_than_the_window():
    assert ssim(clip(5, 1, height=4, width=6), clip(5, 1, height=4, width=6), 1.0) == pytest.approx(1.0, abs=1e-6)
    assert ssim(clip(5, 1, height=4, width=6), clip(6, 1, height=4, width=6), 1.0) < 0.9


@pytest.mark.parametrize("size", [1, 4, 11])
def test_the_window_sums_to_one(size):
    assert float(window(size).sum()) == pytest.approx(1.0)


def test_half_precision_clips_are_measured_in_float32():
    reference = clip(7).half()
    assert measure(reference, reference, 1.0).psnr == 100.0
    assert measure(reference + 0.1, reference, 1.0).psnr == pytest.approx(20.0, abs=0.1)


def test_clips_are_not_written():
    reference, other = clip(8), clip(9)
    before = reference.clone(), other.clone()
    measure(other, reference, 1.0)
    heat_map(other, reference, 0.1)
    assert torch.equal(reference, before[0])
    assert torch.equal(other, before[1])


def test_heat_shows_where_and_how_much():
    reference = torch.zeros(1, 3, 4, 4)
    other = reference.clone()
    other[0, :, 1, 2] = 0.05
    other[0, :, 3, 3] = 0.4
    heat = heat_map(other, reference, 0.1)
    assert heat.shape == (1, 4, 4, 3)
    cold, half, hot = heat_colours(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(heat[0, 0, 0], cold)
    torch.testing.assert_close(heat[0, 1, 2], half)
    torch.testing.assert_close(heat[0, 3, 3], hot)
    assert float(heat.min()) >= 0.0
    assert float(heat.max()) <= 1.0


def test_full_scale_zero_takes_the_largest_difference():
    reference = torch.zeros(2, 1, 4, 4)
    other = reference.clone()
    other[1, :, 0, 0] = 0.004
    heat = heat_map(other, reference, 0.0)
    torch.testing.assert_close(heat[1, 0, 0], heat_colours(torch.tensor(1.0)))
    torch.testing.assert_close(heat_map(reference, reference, 0.0)[0, 0, 0], heat_colours(torch.tensor(0.0)))


def test_brightness_of_the_colours_rises_with_the_share():
    colours = heat_colours(torch.linspace(0, 1, 50))
    luma = (colours * torch.tensor([0.299, 0.587, 0.114])).sum(-1)
    assert bool((luma.diff() > 0).all())


def test_psnr_of_latents_is_by_the_range_of_the_reference():
    reference = 4 * torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    span = reference.max() - reference.min()
    assert latent_psnr(reference + 0.01 * span, reference) == pytest.approx(40.0, abs=1e-3)
    assert latent_psnr(reference, reference) == 100.0
    for broken in (float("nan"), float("inf")):
        assert math.isnan(latent_psnr(reference * broken, reference))


def test_psnr_of_picture_and_sound_is_the_lower_one():
    class Nested:
        is_nested = True

        def __init__(self, *tensors):
            self.unbind = lambda: list(tensors)

    ones = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 10.0])]
    near = [ones[0] + 0.01, ones[1] + 1.0]
    assert latent_psnr(Nested(*near), Nested(*ones)) == pytest.approx(20.0, abs=1e-4)
    assert math.isnan(latent_psnr(Nested(near[0], near[1] * float("nan")), Nested(*ones)))
