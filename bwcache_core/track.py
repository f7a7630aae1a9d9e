"""What is remembered of one model call between evaluations, and what the call gets from it.

Shapes: x and D (denoised) are latents (B, ...), whatever the model; sigma is (B, 1, ...). v = (x - D) / sigma stands for
the model's output, whatever it predicts: so one line serves flows, noise and velocity predictions, and packed latents.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .corrector import SamplerStep, Served, carried_tensors, correction
from .forecast import NODES, SHARE, best_share, forecast_weights, weighted

SAME_PLACE = 0.05  # steps: a sampler comes back to a sigma nearly, and that is the place as before
Latents = Sequence[torch.Tensor | None]


class Call(NamedTuple):
    """A guider's request for the denoised latents of some conditions.

    key: what tells it from other requests. labels: of its conditions in words, None for those that are not asked for.
    window: it shows a part of the latent.
    """

    key: Hashable
    labels: tuple[str | None, ...]
    window: bool = False


@dataclass(frozen=True)
class Place:
    """Where an evaluation stands. coordinate: a real-valued step, along which the line is drawn."""

    evaluation: int
    step: int
    coordinate: float
    sigma: float


@dataclass
class Track:
    """nodes: coordinate and v of each condition at the last computed evaluations, the last one last. served: what was
    reused since. carried: the corrector's tensors of each condition. evaluation: the last one that the call took part in.
    stale: the outputs lie on a path that was left; they are measured against once more and then dropped.
    proven: a forecast was measured on this path. first: the path began with the run.
    share: how far forecasts go to the line. slope: (2, 1, 1), what tells it from the newest output, to be read by `adopt`.
    """

    nodes: list[tuple[float, Latents]] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    carried: list[Latents] = field(default_factory=list)
    evaluation: int = -1
    stale: bool = False
    proven: bool = False
    first: bool = False
    share: float = SHARE
    slope: torch.Tensor | None = None

    @property
    def newest(self) -> float:
        return self.nodes[-1][0]

    @property
    def nbytes(self) -> int:
        kept = [outputs for _, outputs in self.nodes] + self.carried
        return sum(tensor.nbytes for outputs in kept for tensor in outputs if tensor is not None)

    def leave(self) -> None:
        """The path that the outputs lie on was left."""
        self.served, self.carried, self.stale = [], [], True
        self.proven = self.first = False

    def recall(self, place: Place, sigma: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
        """D of each condition as foretold: fresh tensors. Zeros where none was asked for, as ComfyUI has it."""
        foretold = self._forecast(place.coordinate)
        self.served.append(Served(place.evaluation, place.coordinate))
        return [torch.zeros_like(x) if v is None else x - sigma * v for v in foretold]

    def learn(
        self, place: Place, sigma: torch.Tensor, x: torch.Tensor, denoised: Latents, sampler: Sequence[SamplerStep],
        scale: Scale | None = None,
    ) -> tuple[list, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Keep computed D. Returns D for the sampler, with what served evaluations missed made up for, and of each
        condition v with what a forecast was off by. D of a condition is handed on untouched where nothing is added."""
        outputs = [None if d is None else (x - d) / sigma for d in denoised]
        missed = self._missed(place.coordinate, outputs) if self.nodes else []
        self.slope = self._slope(place.coordinate, outputs, scale or Scale())
        if self.served or self.carried:
            denoised = self._correct(place, sigma, denoised, outputs, sampler)
        self.proven |= bool(self.nodes) and not self.stale and abs(place.coordinate - self.newest) > SAME_PLACE
        self._keep(place.coordinate, outputs)
        self.served, self.stale = [], False
        return list(denoised), missed

    def _missed(self, coordinate: float, outputs: Latents) -> list[tuple[torch.Tensor, torch.Tensor]]:
        foretold = self._forecast(coordinate)
        pairs = zip(outputs, foretold, strict=True)
        return [(v, guess.sub_(v)) for v, guess in pairs if v is not None and guess is not None]

    def adopt(self, slope: Sequence[Sequence[float]]) -> None:
        """Go as far along the line as would have been best at the newest output. slope: the numbers of `slope`."""
        [along], [length] = slope
        self.share, self.slope = best_share(along, length, self.share), None

    def _slope(self, coordinate: float, outputs: Latents, scale: Scale) -> torch.Tensor | None:
        """Inner products (2, 1, 1) over all conditions: of v - newest with the line's way from there, and of that way."""
        if len(self.nodes) < NODES or self.stale or abs(coordinate - self.newest) < SAME_PLACE:
            return None
        (before, older), (here, newest) = self.nodes
        reach, sums = (coordinate - here) / (here - before), []
        for v, a, b in zip(outputs, newest, older, strict=True):
            if v is not None and a is not None and b is not None:
                way = scale.counted((a - b).float().mul_(reach))
                sums.append(torch.stack([torch.sum((v - a) * way), torch.sum(way * way)]))
        return torch.stack(sums).sum(0).reshape(2, 1, 1) if sums else None

    def _forecast(self, coordinate: float) -> Latents:
        """v of each condition at `coordinate`: fresh tensors."""
        weights = forecast_weights([node for node, _ in self.nodes], coordinate, self.share)
        conditions = zip(*(outputs for _, outputs in self.nodes), strict=True)
        return [None if tensors[-1] is None else weighted(tensors, weights) for tensors in conditions]

    def _correct(
        self, place: Place, sigma: torch.Tensor, denoised: Latents, outputs: Latents, sampler: Sequence[SamplerStep]
    ) -> Latents:
        if not sampler:
            self.carried = []
            return denoised
        nodes = [node for node, _ in self.nodes]
        weights = correction(sampler, place.evaluation, self.served, nodes, len(self.carried), self.share)
        corrected, carried = [], []
        for i, (d, v) in enumerate(zip(denoised, outputs, strict=True)):
            known = [tensors[i] for tensors in [*self.carried, *(kept for _, kept in self.nodes)]]
            tensors = None if v is None else [*known, v]
            corrected.append(d if v is None else d - sigma * weighted(tensors, weights.added))
            carried.append([None if v is None else weighted(tensors, each) for each in weights.carried])
        self.carried = [list(each) for each in zip(*carried, strict=True)][: carried_tensors(sampler)]
        return corrected

    def _keep(self, coordinate: float, outputs: Latents) -> None:
        """A second output at the same place replaces the first."""
        earlier = [] if self.stale else [node for node in self.nodes if abs(node[0] - coordinate) > SAME_PLACE]
        self.nodes = [*earlier, (coordinate, outputs)][-NODES:]


@dataclass(frozen=True)
class Scale:
    """Which numbers of a latent count in an error, and with which others they are added up.

    parts: how many numbers of a row belong to each part of a packed latent, picture and sound; empty for one part.
    names: of these parts, in words.
    mask: 0 where the latent is given, so that the sampler overwrites what the model says there; None for none.
    """

    parts: tuple[int, ...] = ()
    mask: torch.Tensor | None = None
    names: tuple[str, ...] = ()

    def sums(self, difference: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """L1 norms (2, P, B) of two latents, for each part and row. No host sync."""
        return torch.stack([self._norms(difference), self._norms(reference)])

    def counted(self, latent: torch.Tensor) -> torch.Tensor:
        """`latent` with 0 where it does not count."""
        if self.mask is None or not fits(self.mask, latent):
            return latent
        return latent * self.mask.to(latent)

    def _norms(self, latent: torch.Tensor) -> torch.Tensor:
        sizes = self.counted(latent.abs())
        split = self.parts if sum(self.parts) == latent.shape[-1] else (latent.shape[-1],)
        rows = [part.flatten(1).sum(1, dtype=torch.float32) for part in sizes.split(split, dim=-1)]
        return torch.stack(rows)


def fits(mask: torch.Tensor, latent: torch.Tensor) -> bool:
    """Whether the mask can be laid over the latent: a context window shows a part of it only."""
    if mask.ndim != latent.ndim:
        return False
    return all(m in (1, n) for m, n in zip(mask.shape, latent.shape, strict=True))
