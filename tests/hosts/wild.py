"""A simulated sampler that does any mixture of what samplers, guiders and other packs do, over a model known in closed form.

Each prompt leads to one of two clips: what the model should return is known for every latent and noise level, so the error
of each reused call is measured against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.report import RunReport, RunStats
from bwcache_pack.hosts.embedded import TinyGuider, TinyPatcher, TinySampler, wrapped
from bwcache_pack.nodes.attach import attach

SPREAD = 0.3  # of what the model may show around each clip
SURE = 16.0  # how fast it decides for one: as if a latent had so many numbers
FRAMES = 4
OFF = -1.0  # a range that no sigma lies in
SHAPE = (1, 4, FRAMES, 3, 3)
CFG = 3.0
NEGATIVE = 2  # the number of the negative prompt


def clips(prompt: int) -> torch.Tensor:
    """The two clips that a prompt may lead to, (2, 1, 4, F, 3, 3)."""
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1_000 + prompt))


def denoised(x: torch.Tensor, sigma: torch.Tensor, prompt: int, first: int = 0) -> torch.Tensor:
    """D of x (B, 4, F, 3, W) at `sigma` (B,): the clips at its frames, by how near x is to each. A flow."""
    sigma = sigma.reshape(-1, 1, 1, 1, 1).clamp(min=1e-6)
    signal = 1.0 - sigma
    variance = (signal * SPREAD) ** 2 + sigma**2
    near = clips(prompt)[:, :, :, first : first + x.shape[2], :, : x.shape[4]]
    off = x - signal * near
    far = (off**2).mean((2, 3, 4, 5), keepdim=True) * SURE
    weights = torch.softmax(-far / (2.0 * variance), dim=0)
    return (weights * (near + signal * SPREAD**2 / variance * off)).sum(0)


class Move(NamedTuple):
    """What the sampler does at one sigma, and the guider in its evaluations.

    kind: one of MOVES. size: how many steps it goes. noise: how much of the noise is fresh. guided: the negative prompt
    runs. windows: first frames of context windows, none for the whole latent. more: an extra guidance pass. prompt: which
    of two prompts is active. resized: the latent has another size from here on. bare: an evaluation that asks no model
    comes first. breaks: "", "nan" or "raise" in the model's first call.
    """

    kind: str = "step"
    size: int = 1
    noise: float = 0.0
    guided: bool = True
    windows: tuple[int, ...] = ()
    more: bool = False
    prompt: int = 0
    resized: bool = False
    bare: bool = False
    breaks: str = ""


MOVES = ("step", "heun", "middle", "again", "refine", "restart", "up", "other", "zero")


class Boom(Exception):
    """The model failed."""


@dataclass
class Answer:
    """One call that did not reach the model. error: L1 of what D is off by, as a share of the latent's, in the worst row."""

    evaluation: int
    sigma: float
    error: float


class WildGuider(TinyGuider):
    """Guidance over the model in closed form. `now` says what it does; answers: what was reused, against the truth. run: the
    cache's state."""

    def __init__(self, patcher: TinyPatcher) -> None:
        super().__init__(patcher)
        self.now = Move()
        self.evaluations = 0
        self.answers: list[Answer] = []
        self.ran = 0
        self.run = None

    def predict_noise(self, x, timestep, model_options, seed=None) -> torch.Tensor:
        options = model_options["transformer_options"]
        self.run = options.get("bwcache", self.run)
        conds = [prompts(self.now.prompt), [{"prompt": NEGATIVE}] if self.now.guided else None]
        if not self.now.windows or x.shape[2] != FRAMES:
            return self.guided(conds, x, timestep, options)
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for first in self.now.windows:
            frames = slice(first, first + 2)
            window = SimpleNamespace(index_list=[first, first + 1])
            total[:, :, frames] += self.guided(conds, x[:, :, frames], timestep, {**options, "context_window": window})
            count[:, :, frames] += 1
        return torch.where(count > 0, total / count.clamp(min=1), x)

    def guided(self, conds, x, timestep, options) -> torch.Tensor:
        cond, uncond = self.asked(conds, x, timestep, options)
        result = cond if conds[1] is None else uncond + CFG * (cond - uncond)
        if self.now.more:
            result = result + 0.5 * (cond - self.asked([conds[0]], x, timestep, options)[0])
        return result

    def asked(self, conds, x, timestep, options) -> list[torch.Tensor]:
        ran, model_options = self.ran, {"transformer_options": options}
        call = wrapped("calc_cond_batch", self.calc_cond_batch, None, options)
        given = call(self.model_patcher.diffusion_model, conds, x, timestep, model_options)
        if self.ran == ran:
            self.compare(given, conds, x, timestep, options)
        return given

    def calc_cond_batch(self, model, conds, x, timestep, model_options) -> list[torch.Tensor]:
        self.ran += 1
        breaks, self.now = self.now.breaks, self.now._replace(breaks="")
        if breaks == "raise":
            raise Boom
        made = truth(conds, x, timestep, model_options["transformer_options"])
        return [d.fill_(float("nan")) for d in made] if breaks == "nan" else made

    def compare(self, given, conds, x, timestep, options) -> None:
        """Of one reused call, what it returned with what it should have."""
        errors = [
            ((d - right).flatten(1).abs().sum(1) / x.flatten(1).abs().sum(1)).max()
            for d, right, entries in zip(given, truth(conds, x, timestep, options), conds, strict=True) if entries
        ]  # fmt: skip
        self.answers.append(Answer(self.evaluations - 1, float(timestep[0]), float(max(errors))))


def prompts(active: int) -> list[dict]:
    """Two prompts that take turns by their ranges: one of them is off."""
    return [{"prompt": number, **({} if number == active else {"timestep_start": OFF})} for number in (0, 1)]


def truth(conds, x: torch.Tensor, timestep: torch.Tensor, options) -> list[torch.Tensor]:
    window = options.get("context_window")
    first, answers = window.index_list[0] if window else 0, []
    for entries in conds:
        [number] = [entry["prompt"] for entry in entries or [{"prompt": None}] if "timestep_start" not in entry]
        answers.append(torch.zeros_like(x) if number is None else denoised(x, timestep, number, first))
    return answers


@dataclass
class Outcome:
    report: RunReport
    answers: list[Answer]
    latents: torch.Tensor
    guider: WildGuider


def sampled(moves, sigmas, config: ForecastConfig, handed=None, seed: int = 0) -> Outcome:
    """Run the moves, one after the other, along `sigmas`. handed: the schedule that the host is told of; the same if None."""
    stats = RunStats()
    guider = WildGuider(attach(TinyPatcher(torch.nn.Identity()), config, stats))
    sampler = WildSampler(guider, moves, [float(s) for s in sigmas], seed)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    handed = torch.tensor([float(s) for s in handed or sigmas])
    latents = guider.sample(x, torch.zeros_like(x), TinySampler(sampler), handed)
    return Outcome(stats.runs[-1], guider.answers, latents, guider)


class WildSampler:
    """Called as a sampling function. Walks the schedule by moves; where they end, it goes on by plain steps."""

    def __init__(self, guider: WildGuider, moves, sigmas: list[float], seed: int) -> None:
        self.guider, self.moves, self.sigmas = guider, moves, sigmas
        self.random = torch.Generator().manual_seed(seed + 1)

    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None) -> torch.Tensor:
        self.model, self.place = model, 0
        self.x = (1.0 - self.sigma) * clips(0)[1] + self.sigma * x.new_empty(SHAPE).normal_(generator=self.random)
        last = len(self.sigmas) - 1
        for move in [*self.moves, *[Move()] * (2 * last)]:
            if self.place >= last:
                break
            self.guider.now = move
            if move.resized:
                self.x = self.x[..., :2] if len(self.x) > 1 else torch.cat([self.x, self.x])
            if move.bare:
                self.without_model()
            getattr(self, move.kind)(move)
        return self.x

    @property
    def sigma(self) -> float:
        return self.sigmas[self.place]

    def evaluate(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.guider.evaluations += 1
        try:
            return self.model(x, x.new_full((len(x),), sigma))
        except Boom:
            self.guider.evaluations -= 1
            return self.evaluate(x, sigma)

    def noise(self) -> torch.Tensor:
        return torch.randn(self.x.shape, generator=self.random)

    def to(self, following: float, d: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
        """The latent at another sigma, with a share of its noise made anew."""
        kept = (self.x - d) / max(self.sigma, 1e-6) + d
        fresh = (1.0 - noise**2) ** 0.5 * kept + noise * self.noise() if noise else kept
        return (1.0 - following) * d + following * fresh

    def without_model(self) -> None:
        """An evaluation of something else whose options hold no wrapper of anybody."""
        now, self.guider.now = self.guider.now, Move()
        bare = {"transformer_options": {}}
        self.guider.outer_predict_noise(torch.ones_like(self.x), self.x.new_full((len(self.x),), self.sigma), bare)
        self.guider.now = now

    # What a sampler may do

    def step(self, move: Move) -> None:
        there = min(self.place + move.size, len(self.sigmas) - 1)
        self.x = self.to(self.sigmas[there], self.evaluate(self.x, self.sigma), move.noise)
        self.place = there

    def heun(self, move: Move) -> None:
        d, following = self.evaluate(self.x, self.sigma), self.sigmas[self.place + 1]
        if following > 0:
            ahead = self.to(following, d)
            second = self.evaluate(ahead, following)
            slope = ((self.x - d) / self.sigma + (ahead - second) / following) / 2
            self.x = self.x + slope * (following - self.sigma)
        else:
            self.x = self.to(following, d)
        self.place += 1

    def middle(self, move: Move) -> None:
        following = self.sigmas[self.place + 1]
        between = (self.sigma + following) / 2
        ahead = self.to(between, self.evaluate(self.x, self.sigma))
        slope = (ahead - self.evaluate(ahead, between)) / between
        self.x, self.place = self.x + slope * (following - self.sigma), self.place + 1

    def again(self, move: Move) -> None:
        self.evaluate(self.x, self.sigma)
        self.step(move)

    def refine(self, move: Move) -> None:
        self.x = self.to(self.sigma, self.evaluate(self.x, self.sigma), 1.0)

    def restart(self, move: Move) -> None:
        there = max(self.place - move.size, 0)
        self.x = self.to(self.sigmas[there], self.evaluate(self.x, self.sigma), 1.0)
        self.place = there

    def up(self, move: Move) -> None:
        there = max(self.place - move.size, 0)
        self.x = self.to(self.sigmas[there], self.evaluate(self.x, self.sigma))
        self.place = there

    def other(self, move: Move) -> None:
        """Another tile at the same noise level, in turn."""
        self.evaluate(self.x, self.sigma)
        near = clips(move.prompt)[1, :, :, :, :, : self.x.shape[4]]
        self.x = (1.0 - self.sigma) * near + self.sigma * self.noise()

    def zero(self, move: Move) -> None:
        self.evaluate(self.x, 0.0)
