"""The places of kept tensors: copies, written in place, on the device or on the host."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.paper import storage
from bwcache_pack.bwcache_core.paper.storage import Buffer, host_memory, pinned_bytes, stored
from bwcache_pack.bwcache_core.paper.stream import BlockSample, Stream


def noise(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_put_comes_back_bit_for_bit(dtype, on_host):
    tensor = noise(1, dtype)
    buffer = Buffer(tensor, on_host)
    buffer.put(tensor)
    assert buffer.get().dtype == dtype
    assert torch.equal(buffer.get(), tensor)
    assert buffer.nbytes == tensor.nbytes


def test_what_is_put_is_a_copy():
    tensor = noise(1)
    buffer = stored(None, tensor, on_host=False)
    tensor.zero_()
    assert torch.equal(buffer.get(), noise(1))


def test_a_place_is_used_again_if_it_fits():
    buffer = stored(None, noise(1), on_host=False)
    place = buffer.get().data_ptr()
    assert stored(buffer, noise(2), on_host=False) is buffer
    assert buffer.get().data_ptr() == place
    assert torch.equal(buffer.get(), noise(2))
    for other in (noise(3)[:1], noise(3).double()):
        fresh = stored(buffer, other, on_host=False)
        assert fresh is not buffer
        assert torch.equal(fresh.get(), other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_difference_is_written_where_it_is_kept(dtype):
    after, before = noise(1, dtype), noise(2, dtype)
    buffer = stored(None, after, on_host=False, minus=before)
    place = buffer.get().data_ptr()
    assert torch.equal(buffer.get(), after - before)
    buffer.put(before, minus=after)
    assert (buffer.get().data_ptr(), torch.equal(buffer.get(), before - after)) == (place, True)
    assert torch.equal(after, noise(1, dtype))


def test_a_place_lies_in_memory_as_what_it_is_for():
    """Else every copy would transpose, which takes ten times as long."""
    tensor = noise(1).movedim(1, 2)
    assert stored(None, tensor, on_host=False).get().stride() == tensor.stride()


def test_a_strided_tensor_is_kept_as_it_reads():
    tensor = noise(1).movedim(1, 2)
    assert torch.equal(stored(None, tensor, on_host=True).get(), tensor)


def test_on_the_processor_the_host_is_the_device():
    """No copy is made on the way back where both are one."""
    buffer = stored(None, noise(1), on_host=True)
    assert buffer.get().data_ptr() == buffer.get().data_ptr()


def test_what_inference_mode_made_can_be_written_outside():
    """ComfyUI's threads for several devices are not in inference mode, its main thread is."""
    with torch.inference_mode():
        buffer = stored(None, noise(1), on_host=False)
    with torch.no_grad():
        buffer.put(noise(2))
    with torch.inference_mode():
        buffer.put(noise(3))
    assert torch.equal(buffer.get(), noise(3))


class Accelerator:
    """Stands for a tensor on a device that this machine lacks; what is asked of it is noted."""

    device = SimpleNamespace(type="cuda")
    shape, dtype = torch.Size((2, 5, 3)), torch.float32

    def __sub__(self, other) -> Accelerator:
        return Accelerator()


class HostMemory:
    """Stands for pinned host memory."""

    nbytes, device = 120, SimpleNamespace(type="cpu")

    def __init__(self, pinned: bool) -> None:
        self.pinned, self.calls = pinned, []

    def is_pinned(self) -> bool:
        return self.pinned

    def copy_(self, tensor, non_blocking: bool) -> None:
        self.calls.append(("from", tensor.device.type, non_blocking))

    def to(self, device, non_blocking: bool) -> torch.Tensor:
        self.calls.append(("to", device.type, non_blocking))
        return noise(1)


@pytest.mark.parametrize("granted", [True, False])
def test_copies_of_an_accelerator_wait_only_where_memory_is_not_pinned(monkeypatch, granted):
    memory, asked = HostMemory(granted), []
    monkeypatch.setattr(storage, "host_memory", lambda *args, pinned: (asked.append((*args, pinned)), memory)[1])
    tensor = Accelerator()
    buffer = Buffer(tensor, on_host=True)
    buffer.put(tensor)
    buffer.get()
    buffer.put(tensor, minus=tensor)
    assert asked == [(tensor.shape, torch.float32, True)]
    assert memory.calls == [("from", "cuda", granted), ("to", "cuda", granted), ("from", "cuda", granted)]


def test_memory_that_cannot_be_pinned_is_taken_all_the_same(monkeypatch):
    def refuse(*args, pin_memory=False, **kwargs):
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return torch.zeros(*args, **kwargs)

    monkeypatch.setattr(storage.torch, "empty", refuse)
    assert host_memory(torch.Size((2, 3)), torch.bfloat16, pinned=True).dtype == torch.bfloat16


@pytest.mark.parametrize(("asked", "taken"), [(0, 0), (1, 1), (3, 4), (4096, 4096), (4097, 8192), (335_462_400, 2**29)])
def test_pinned_memory_comes_in_powers_of_two(asked, taken):
    assert pinned_bytes(asked) == taken


@pytest.mark.parametrize(("pinned", "taken"), [(True, 128), (False, 120)])
def test_a_place_tells_what_it_takes(monkeypatch, pinned, taken):
    monkeypatch.setattr(storage, "host_memory", lambda *args, **kwargs: HostMemory(pinned))
    assert Buffer(Accelerator(), on_host=True).nbytes == taken


class Account:
    """Grants pinned memory, or does not."""

    def __init__(self, granted: bool) -> None:
        self.granted, self.events = granted, []

    def pin(self, tensor) -> bool:
        self.events.append(("pin", tensor.nbytes))
        return self.granted

    def unpin(self, tensor) -> None:
        self.events.append(("unpin", tensor.nbytes))


@pytest.mark.parametrize("granted", [True, False])
def test_an_account_of_pinned_memory_grants_it_and_gets_it_back_when_no_copy_is_under_way(monkeypatch, granted):
    """Exact bytes, not powers of two. What was refused is not given back."""
    account = Account(granted)
    monkeypatch.setattr(storage.torch.cuda, "synchronize", lambda device: account.events.append(("waited", device.type)))
    asked = []
    monkeypatch.setattr(storage, "host_memory", lambda *args, pinned: (asked.append(pinned), HostMemory(granted))[1])
    buffer = Buffer(Accelerator(), on_host=True, pins=account)
    assert asked == [False], "torch pins nothing"
    assert buffer.nbytes == 120
    del buffer
    assert account.events == [("pin", 120), *([("waited", "cuda"), ("unpin", 120)] if granted else [])]


def test_memory_of_the_processor_needs_no_account():
    account = Account(True)
    assert torch.equal(stored(None, noise(1), on_host=True, pins=account).get(), noise(1))
    assert account.events == []


def test_a_condition_holds_features_residuals_and_samples():
    """Features and residuals of 120 bytes, samples of 24."""
    stream = Stream("cond")
    assert stream.nbytes == 0
    for i in range(3):
        stream.keep_features(noise(i))
        stream.keep_residual(0, "img", noise(i), noise(i + 1))
        stream.samples = {block: BlockSample(i, noise(block)[:, :1].clone()) for block in (0, 1)}
        assert stream.nbytes == 2 * 120 + 2 * 24
    assert torch.equal(stream.features.get(), noise(2))
    stream.forget()
    assert stream.nbytes == 0
