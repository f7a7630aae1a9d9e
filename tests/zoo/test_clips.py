"""TinyWan's data and judges: what a clip shows is known because it was drawn."""

import pytest
import torch

from bwcache_pack.zoo.tinywan.data import all_labels, pack, prompt_of, render, unpack
from bwcache_pack.zoo.tinywan.judge import read_colours, read_directions, read_shapes
from bwcache_pack.zoo.tinywan.words import encode, encode_batch


def drawn(side=24, seed=0):
    labels = all_labels()
    return labels, render(labels, torch.Generator().manual_seed(seed), side, side)


@pytest.mark.parametrize("side", [16, 24, 48])
def test_packing_is_undone_exactly(side):
    _, clips = drawn(side)
    latents = pack(clips)
    assert latents.shape == (72, 16, 5, side // 2, side // 2)
    assert torch.equal(unpack(latents), clips)


def test_the_judge_reads_every_drawn_clip_right():
    labels, clips = drawn()
    assert torch.equal(read_colours(clips), labels[:, 0])
    assert (read_shapes(clips) == labels[:, 1]).float().mean() > 0.95
    assert torch.equal(read_directions(clips), labels[:, 2])


def test_the_judge_sees_no_object_in_a_grey_clip():
    assert read_colours(torch.zeros(1, 5, 3, 24, 24)).tolist() == [-1]


def test_objects_move_as_the_words_say():
    labels, clips = drawn()
    saturated = (clips.amax(2) - clips.amin(2) > 0.8).float()
    rows = torch.arange(24.0).view(1, 1, -1, 1)
    columns = torch.arange(24.0).view(1, 1, 1, -1)
    area = saturated.sum((2, 3))
    x, y = (saturated * columns).sum((2, 3)) / area, (saturated * rows).sum((2, 3)) / area
    for label, dx, dy in zip(labels, x[:, -1] - x[:, 0], y[:, -1] - y[:, 0], strict=True):
        direction = prompt_of(label).split()[-1]
        moved = {"left": -dx, "right": dx, "up": -dy, "down": dy}[direction]
        assert moved > 4.0, prompt_of(label)


def test_words_are_apart_and_unknown_ones_are_named():
    assert encode("red circle moving left").shape == (1, 4, 4096)
    assert not torch.equal(encode("red circle moving left"), encode("blue circle moving left"))
    assert encode("").shape == (1, 1, 4096)
    assert encode_batch(["red circle moving left"] * 2).shape == (2, 4, 4096)
    with pytest.raises(ValueError, match="purple"):
        encode("purple circle moving left")
